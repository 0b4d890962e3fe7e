//! `gwmon dashboards` and `gwmon rules`: what Grafana and Prometheus load.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::connection::Connection;
use super::output::{self, structured};
use super::preview::report::{note, warn};
use super::preview::snapshot_of;
use crate::cli::{ClusterArgs, Dashboards, DashboardsOutput, Rules, Structured};
use crate::dashboards::{self, Dashboard, rules};

/// Prints dashboards, or writes them to a folder.
///
/// # Errors
/// A name that there is not, several JSON documents for one output, a folder that cannot be written.
pub fn run(args: &Dashboards) -> Result<ExitCode> {
    let is_of_maps = args.namespace.is_some() || args.label.is_some() || args.folder.is_some();
    if args.output != DashboardsOutput::Yaml && is_of_maps {
        bail!("--namespace, --label and --folder are of ConfigMaps; leave out -o");
    }
    if args.output == DashboardsOutput::Names && args.dir.is_some() {
        bail!("names are no files: with --dir, the output is yaml or json");
    }
    let mut all = dashboards::all();
    let names: Vec<_> = all.iter().map(|dashboard| dashboard.name).collect();
    if let Some(unknown) = args.names.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no dashboard {unknown}; there are {}", names.join(", "));
    }
    all.retain(|dashboard| args.names.is_empty() || args.names.iter().any(|name| name == dashboard.name));
    let text = |dashboard: &Dashboard| -> Result<String> {
        Ok(match args.output {
            DashboardsOutput::Names => format!("{}\n", dashboard.name),
            DashboardsOutput::Json => format!("{:#}\n", dashboard.to_json()),
            DashboardsOutput::Yaml => {
                let label = args.label.as_ref().map_or(("grafana_dashboard", "1"), |(key, value)| (key, value));
                let folder = args.folder.as_deref().unwrap_or("gwmon");
                let map = dashboard.to_config_map(args.namespace.as_deref(), label, folder);
                structured(Structured::Yaml, &map)?
            }
        })
    };
    if let Some(folder) = &args.dir {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        for dashboard in &all {
            let name = match args.output {
                DashboardsOutput::Json => dashboard.file(),
                _ => format!("gwmon-{}.yaml", dashboard.name),
            };
            let file = folder.join(name);
            fs::write(&file, text(dashboard)?).with_context(|| format!("cannot write {}", file.display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.output == DashboardsOutput::Json && all.len() > 1 {
        bail!("several dashboards are no one JSON document; name one, or a folder with --dir");
    }
    let separator = if args.output == DashboardsOutput::Yaml { "---\n" } else { "" };
    output::print(&all.iter().map(text).collect::<Result<Vec<_>>>()?.join(separator))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the PrometheusRule.
///
/// # Errors
/// A file that is not there, a cluster that cannot be asked.
pub fn print_rules(args: &Rules) -> Result<ExitCode> {
    if !args.cluster && args.connection != ClusterArgs::default() {
        bail!("the flags of a cluster take effect with --cluster only");
    }
    let snapshot = match &args.prometheus {
        Some(file) => Some(snapshot_of(file)?),
        None if args.cluster => Some(Connection::open(&args.connection)?.snapshot()?),
        None => None,
    };
    let (mut namespace, mut labels) = (args.namespace.clone(), rules::default_labels());
    labels.extend(args.labels.clone());
    let object = format!("prometheusrule/{}", args.name);
    if let Some(snapshot) = &snapshot {
        let wanted = namespace.as_deref().unwrap_or("gwmon");
        match snapshot.monitoring.place_rule(wanted, &args.labels, &rules::default_labels()) {
            Ok(placement) => {
                note(&format!("{object} -n {}", placement.namespace), &placement.why)?;
                (namespace, labels) = (Some(placement.namespace), placement.labels);
            }
            Err(finding) => {
                warn(&object, &finding.to_string())?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let options = rules::Options { latency: args.latency, runbooks: args.runbooks.clone() };
    let rule = rules::prometheus_rule(&args.name, namespace.as_deref(), &labels, &options);
    output::print(&structured(args.output, &rule)?)?;
    Ok(ExitCode::SUCCESS)
}
