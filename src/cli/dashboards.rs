//! The arguments of `gwmon dashboards` and `gwmon rules`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ClusterArgs, Structured, name};
use crate::dashboards::rules::BUCKETS;
use crate::kubernetes::labels::{self, Labels};

/// `gwmon dashboards`.
#[derive(Debug, Args)]
#[command(after_help = DASHBOARDS_EXAMPLES)]
pub struct Dashboards {
    /// The dashboards, as -o names lists them [default: all].
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Format of the output.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = DashboardsOutput::Yaml)]
    pub output: DashboardsOutput,

    /// Write a file for each dashboard to this folder, instead of standard output.
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,

    /// Namespace of the `ConfigMaps`: one that Grafana's sidecar watches [default: the one of whoever applies them].
    #[arg(short, long, value_name = "NAMESPACE", value_parser = name)]
    pub namespace: Option<String>,

    /// Label by which Grafana's sidecar finds them, as key=value [default: `grafana_dashboard=1`].
    #[arg(long, value_name = "LABEL", value_parser = one_label)]
    pub label: Option<(String, String)>,

    /// Grafana's folder, if its sidecar is set to read it from the annotation `grafana_folder` [default: gwmon].
    #[arg(long, value_name = "NAME")]
    pub folder: Option<String>,
}

const DASHBOARDS_EXAMPLES: &str = "\
Examples:
  gwmon dashboards -n monitoring | kubectl apply -f -    # for Grafana's sidecar
  gwmon dashboards gateways -o json > gateways.json      # to import in Grafana
  gwmon dashboards -o json --dir dashboards/     # for Grafana's file provisioning

Exit code: 0, or 2 for arguments that are wrong or a folder that cannot be written.";

/// The format of `gwmon dashboards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DashboardsOutput {
    /// `ConfigMaps` for Grafana's sidecar.
    Yaml,
    /// What Grafana imports: one dashboard, or with --dir a file for each.
    Json,
    /// The names, one on a line.
    Names,
}

fn one_label(text: &str) -> Result<(String, String), String> {
    let mut labels = labels::parse(text).map_err(|error| error.to_string())?.into_iter();
    match (labels.next(), labels.next()) {
        (Some(label), None) => Ok(label),
        _ => Err("it must be one label, as key=value".to_owned()),
    }
}

/// `gwmon rules`.
#[derive(Debug, Args)]
#[command(after_help = RULES_EXAMPLES)]
pub struct Rules {
    /// Name of the PrometheusRule.
    #[arg(long, value_name = "NAME", default_value = "gwmon", value_parser = name)]
    pub name: String,

    /// Its namespace; where the Prometheus reads no rules there, that of the Prometheus [default: the one of whoever applies it; with
    /// --cluster or --prometheus gwmon].
    #[arg(short, long, value_name = "NAMESPACE", value_parser = name)]
    pub namespace: Option<String>,

    /// More labels, as key=value,key=value; with --cluster or --prometheus those that the Prometheus asks for are added.
    #[arg(long, value_name = "LABELS", value_parser = labels::parse, default_value = "")]
    pub labels: Labels,

    /// File with the cluster's Prometheus and Namespace objects: gives the rule the labels and the namespace that the Prometheus
    /// selects.
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    pub prometheus: Option<PathBuf>,

    /// Read these objects from the cluster of the current context.
    #[arg(long)]
    pub cluster: bool,

    /// Also alert if more than 1 % of a gateway's requests take longer, in milliseconds: one of the bounds of Envoy's buckets.
    #[arg(long, value_name = "MS", value_parser = bound)]
    pub latency: Option<u32>,

    /// Address at which docs/runbooks of gwmon's repository is published, for the annotation `runbook_url` of the alerts.
    #[arg(long, value_name = "URL", value_parser = address)]
    pub runbooks: Option<String>,

    /// Format of the output.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Structured::Yaml)]
    pub output: Structured,

    /// The cluster, for --cluster.
    #[command(flatten)]
    pub connection: ClusterArgs,
}

const RULES_EXAMPLES: &str = "\
Examples:
  gwmon rules --cluster | kubectl apply -f -       # with the labels that your Prometheus selects
  gwmon rules --latency 5 --labels release=kps     # with an alert on requests of more than 5 ms

Exit code: 0, 1 if no Prometheus would load the rules, 2 for arguments that are wrong or a cluster that cannot be asked.";

fn address(text: &str) -> Result<String, String> {
    let is_address = ["http://", "https://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    if is_address { Ok(text.to_owned()) } else { Err("it must begin with https:// or http://".to_owned()) }
}

fn bound(text: &str) -> Result<u32, String> {
    let known = BUCKETS.map(|bound| bound.to_string());
    text.parse()
        .ok()
        .filter(|bound| BUCKETS.contains(bound))
        .ok_or_else(|| format!("it must be one of {}", known.join(", ")))
}
