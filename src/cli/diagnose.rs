//! The arguments of the commands that look at gateways: `explain`, `doctor` and `status`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ClusterArgs, Structured};

/// `gwmon explain`.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct Explain {
    /// The workload: a name for a Deployment, or KIND/NAME, such as statefulset/edge.
    #[arg(value_name = "WORKLOAD")]
    pub workload: String,

    /// Namespace of the workload [default: the context's].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Format of the output [default: for a person].
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  gwmon explain deploy/edge             # every step of the metrics of the Deployment edge
  gwmon explain sts/proxy -n shop -o json

Exit code: 0 if no step fails, 1 if one does, 2 if the cluster cannot be asked.";

/// `gwmon doctor`.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct Doctor {
    /// Namespace of the gateways [default: all].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Label selector of the workloads, such as app=edge.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Show what is as it must be as well.
    #[arg(long)]
    pub all: bool,

    /// Write what was read to a .tar.gz file, for a bug report: no Secret, and no value of an environment variable, a flag or a header.
    #[arg(long, value_name = "FILE")]
    pub collect: Option<PathBuf>,

    /// Format of the output [default: for a person].
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  gwmon doctor                          # the whole cluster
  gwmon doctor -n shop --all            # one namespace, with what is as it must be
  gwmon doctor -o json | jq '.checks[] | select(.verdict == \"FAIL\")'

Nothing is changed. A check for which you lack a right is skipped, and the right is named.
Exit code: 0 if nothing fails, 1 if something does, 2 if the cluster cannot be asked.";

/// `gwmon status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct Status {
    /// Namespace of the gateways [default: the context's].
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,

    /// The gateways of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Label selector of the workloads, such as app=edge.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// List gateways that nobody has annotated, too, with the command that would have them monitored.
    #[arg(long)]
    pub all: bool,

    /// Show it again every two seconds, until it is interrupted.
    #[arg(short, long, conflicts_with = "output")]
    pub watch: bool,

    /// Format of the output.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<StatusOutput>,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  gwmon status -A                       # every gateway of the cluster
  gwmon status -A --all                 # with the gateways that nobody has annotated
  gwmon status -l tier=edge -o wide

Exit code: 0, or 2 if the cluster cannot be asked. For a verdict, use gwmon doctor.";

/// The format of `gwmon status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// A table with more columns.
    Wide,
    /// One JSON object.
    Json,
    /// YAML.
    Yaml,
    /// The workloads, as kubectl takes them.
    Name,
}
