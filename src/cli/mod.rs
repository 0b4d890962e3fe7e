//! Command-line arguments.

mod certs;
mod cluster;
mod completion;
mod config;
mod dashboards;
mod diagnose;
mod inject;
mod install;
mod repair;
mod uninstall;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::annotations::{Target, duration};
use crate::config::{Config, ConfigFile};
use crate::kubernetes::Version;
use crate::kubernetes::labels;
pub use certs::{Certs, CertsCommand, CertsCreate, CertsStatus, InstallationArgs, Structured};
pub use cluster::ClusterArgs;
pub use completion::{Completion, Man, Shell};
pub use config::{ConfigArgs, ConfigCommand, ConfigFileArgs};
pub use dashboards::{Dashboards, DashboardsOutput, Rules};
pub use diagnose::{Doctor, Explain, Status, StatusOutput};
pub use inject::{Inject, Uninject};
pub use install::Install;
pub use repair::Repair;
pub use uninstall::Uninstall;

/// Annotate an API gateway's Deployment with gwmon.io/inject=true and its metrics are in the cluster's Prometheus.
#[derive(Debug, Parser)]
#[command(name = "gwmon", version, propagate_version = true)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the webhook and, in a cluster, run the controller.
    Serve(Serve),
    /// Show what gwmon would change and create for manifests, without touching anything.
    Preview(Preview),
    /// Show the way of a gateway's metrics, step by step, and where it ends.
    Explain(Explain),
    /// Look for everything that keeps gateways' metrics from Prometheus. Nothing is changed.
    Doctor(Doctor),
    /// Show the gateways that are monitored, a line each.
    Status(Status),
    /// Write manifests with the sidecar in them, for clusters and repositories that want no webhook.
    ///
    /// Comments and order stay. What is added stands between two comments. Where gwmon runs, it leaves such pods as they are.
    Inject(Inject),
    /// Take out of manifests what gwmon inject has added, to the byte.
    Uninject(Uninject),
    /// Restart gateways whose pods lack what gwmon would inject now, one at a time.
    ///
    /// A workload is restarted only after the API server has shown, as a dry run, that a new pod of it would be injected. It is an
    /// ordinary roll-out: PodDisruptionBudgets, surge and probes hold. The first that does not come up ends the command.
    Repair(Repair),
    /// Print Grafana dashboards for gateways, or write them to a folder.
    Dashboards(Dashboards),
    /// Print recording rules and alerts for gateways, as a PrometheusRule.
    Rules(Rules),
    /// Print what a shell needs to complete gwmon's commands, flags, namespaces and workloads.
    Completion(Completion),
    /// Print gwmon's manual pages, or write them to a folder.
    #[command(hide = true)]
    Man(Man),
    /// Check the configuration file, or show its fields and defaults.
    Config(ConfigFileArgs),
    /// Show or make the webhook's certificates.
    Certs(Certs),
    /// Check that the API server calls gwmon: create an annotated pod as a server-side dry run.
    ///
    /// Exits with 0 if the pod would get the sidecar, with 1 if not.
    Selftest(Selftest),
    /// Print the manifests that install gwmon, for kubectl apply.
    Install(Install),
    /// Show what gwmon consists of and what it has made in the cluster, and remove that with --yes.
    ///
    /// The webhook goes first, so that no pod waits for it. Then the workloads whose pod templates hold gwmon's annotations are
    /// rolled out without them, one at a time. Your own annotations stay.
    Uninstall(Uninstall),
}

/// `gwmon selftest`.
#[derive(Debug, Args)]
pub struct Selftest {
    /// Namespace of the pod. You need the right to create pods there.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// The cluster [default: the one in which gwmon runs, or the kubeconfig's].
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// `gwmon serve`.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Serve the webhook without a cluster, with a self-signed certificate for localhost and 127.0.0.1.
    #[arg(long)]
    pub standalone: bool,

    /// Address of the webhook [default: 0.0.0.0:8443, or 127.0.0.1:8443 with --standalone].
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<SocketAddr>,

    /// Address of /livez, /readyz and /metrics [default: 0.0.0.0:8080, or 127.0.0.1:8080 with --standalone].
    #[arg(long, value_name = "ADDRESS")]
    pub admin_bind: Option<SocketAddr>,

    /// Write the CA certificate that clients must trust to FILE.
    #[arg(long, value_name = "FILE", requires = "standalone")]
    pub ca_out: Option<PathBuf>,

    /// Source of the webhook's certificate.
    #[arg(
        long,
        value_enum,
        value_name = "SOURCE",
        env = "GWMON_CERTIFICATES",
        default_value_t = CertificateSource::SelfSigned,
        conflicts_with = "standalone"
    )]
    pub certificates: CertificateSource,

    /// Folder with tls.crt, tls.key and ca.crt, for --certificates=files.
    #[arg(long, value_name = "FOLDER", env = "GWMON_CERTIFICATE_DIR", default_value = "/etc/gwmon/tls")]
    pub certificate_dir: PathBuf,

    /// Accept only clients with a certificate from a CA in FILE. The API server must be configured to present one
    /// (see SECURITY.md). Read at start.
    #[arg(long, value_name = "FILE", env = "GWMON_CLIENT_CA")]
    pub client_ca: Option<PathBuf>,

    /// The namespace in which gwmon runs.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "gwmon")]
    pub namespace: String,

    /// The name of gwmon's Deployment, Service (and its label app.kubernetes.io/name), Lease and
    /// MutatingWebhookConfiguration; the names of its Secret and its ConfigMap begin with it. The RBAC rules must name
    /// the same objects.
    #[arg(long, value_name = "NAME", env = "GWMON_NAME", value_parser = name, default_value = "gwmon")]
    pub name: String,

    /// How long an exporter may keep a gateway's pod from being ready or created, before gwmon suspends injection for
    /// that workload.
    #[arg(long, value_name = "DURATION", env = "GWMON_SUSPEND_AFTER", value_parser = seconds, default_value = "30s")]
    pub suspend_after: i64,

    /// How long a suspension lasts until gwmon tries one pod again; it doubles with each further failure, up to twelve
    /// times this duration.
    #[arg(long, value_name = "DURATION", env = "GWMON_SUSPEND_FOR", value_parser = seconds, default_value = "5m")]
    pub suspend_for: i64,

    /// The Prometheus, PrometheusAgent or other scraper to use unless an annotation names another, as namespace/name.
    /// May be repeated [default: the best match].
    #[arg(long, value_name = "NAMESPACE/NAME", env = "GWMON_PROMETHEUS", value_delimiter = ',', value_parser = prometheus)]
    pub prometheus: Vec<(String, String)>,

    /// The maximum number of gateways in one namespace that get a Service and a ServiceMonitor [default: 200].
    #[arg(long, value_name = "NUMBER", env = "GWMON_MAX_GATEWAYS_PER_NAMESPACE")]
    pub max_gateways_per_namespace: Option<usize>,

    /// Format of the log.
    #[arg(long, value_enum, value_name = "FORMAT", env = "GWMON_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Level of the log, or tracing directives such as gwmon=debug,kube=warn.
    // kube's client logs the whole of an answer that it cannot read.
    #[arg(long, value_name = "FILTER", env = "GWMON_LOG", default_value = "info,kube_client::client=error")]
    pub log: String,

    /// The shared flags.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl Serve {
    /// The configuration from the flags and the file, for a cluster of this version.
    #[must_use]
    pub fn config(&self, file: &ConfigFile, kubernetes: Option<Version>) -> Config {
        let mut config = self.config.config(file, kubernetes);
        if !self.prometheus.is_empty() {
            config.bounds.readers.clone_from(&self.prometheus);
        }
        config.bounds.gateways = self.max_gateways_per_namespace.unwrap_or(config.bounds.gateways);
        config
    }
}

/// A Prometheus, as `namespace/name`.
fn prometheus(value: &str) -> Result<(String, String), &'static str> {
    match value.parse() {
        Ok(Target::Named { namespace, name }) => Ok((namespace, name)),
        _ => Err("use namespace/name"),
    }
}

/// A Service name (DNS-1035) that no gateway's Service can have.
fn name(value: &str) -> Result<String, &'static str> {
    let begins_well = value.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins_well || value.len() > 50 || !labels::is_dns_part(value) {
        return Err("use lower case letters, digits and -, beginning with a letter, at most 50 characters");
    }
    if value.ends_with("-gwmon") {
        return Err("names that end in -gwmon are reserved for gateways' objects");
    }
    Ok(value.to_owned())
}

/// Whole seconds of a duration such as `30s` or `1m30s`.
fn seconds(value: &str) -> Result<i64, String> {
    let seconds = duration(value).map_err(|error| error.to_string())? / 1000;
    i64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(|| "is shorter than a second".to_owned())
}

/// The source of the webhook's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertificateSource {
    /// gwmon makes a CA and a certificate, keeps them in the Secret <name>-tls, renews them and writes the caBundle.
    SelfSigned,
    /// Read tls.crt and tls.key from --certificate-dir, every five seconds, and add the CAs of ca.crt, if there is one, to the
    /// caBundle.
    Files,
    /// Read the Secret <name>-webhook-tls, which cert-manager writes; its CA injector writes the caBundle.
    CertManager,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// `gwmon preview`.
#[derive(Debug, Args)]
#[command(after_help = PREVIEW_EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Preview {
    /// The manifests to preview.
    #[command(flatten)]
    pub manifests: Manifests,

    /// Preview gateways without the annotation as if they had it.
    #[arg(long)]
    pub inject: bool,

    /// Format of the output.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Output::Diff)]
    pub output: Output,

    /// Exit with 3 if something would change, as kubectl diff does with 1.
    #[arg(long)]
    pub exit_code: bool,

    /// Namespace of objects that name none [default: the context's with --cluster, else default].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// File with the cluster's Prometheus, PrometheusAgent, ServiceMonitor, Namespace and operator Deployment objects, as
    /// `kubectl get prometheuses,prometheusagents,servicemonitors,namespaces,deployments -A -o yaml` prints them.
    #[arg(long, value_name = "FILE", conflicts_with = "cluster")]
    pub prometheus: Option<PathBuf>,

    /// Read these objects from the cluster of the current context.
    #[arg(long)]
    pub cluster: bool,

    /// Send each injected pod to the API server as a server-side dry run, with your own rights: other webhooks, policies,
    /// Pod Security and quotas apply.
    #[arg(long)]
    pub server: bool,

    /// The shared flags.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// The cluster, for --cluster and --server.
    #[command(flatten)]
    pub connection: ClusterArgs,
}

const PREVIEW_EXAMPLES: &str = "\
Examples:
  gwmon preview -f edge.yaml --inject                # as if it were annotated, offline
  gwmon preview -R -f manifests/ --cluster -o names  # names of what would be changed or created
  kubectl get deployments -o yaml | gwmon preview -f - --server

Exit code: 0 if everything that asks for injection gets it, 1 if something cannot be done, 2 for arguments that are wrong or a
cluster that cannot be asked; with --exit-code 3 if something would change.";

/// The manifests that a command reads.
#[derive(Clone, Debug, Args)]
pub struct Manifests {
    /// Files or folders with manifests, or - for standard input. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE", required = true, value_delimiter = ',')]
    pub filename: Vec<PathBuf>,

    /// Read folders recursively.
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// The output format of `gwmon preview`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A diff of the workload, and the objects that would be created.
    #[default]
    Diff,
    /// The workload as its pods would run, the Service and the ServiceMonitor.
    Yaml,
    /// The same as one JSON List.
    Json,
    /// The JSON Patch of each pod.
    Patch,
    /// The names of the objects that would be changed or created, one on a line.
    #[value(alias = "name")]
    Names,
}
