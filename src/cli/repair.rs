//! The arguments of `gwmon repair`.

use clap::Args;

use super::{ClusterArgs, seconds};

/// `gwmon repair`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Repair {
    /// The workloads, as KIND/NAME or NAME [default: every one of the namespace that needs it].
    #[arg(value_name = "WORKLOAD", conflicts_with_all = ["all_namespaces", "selector"])]
    pub workloads: Vec<String>,

    /// Namespace of the workloads [default: the context's].
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,

    /// The workloads of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Label selector of the workloads, such as app=edge.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Only say what would be restarted, and whether its new pods would be injected.
    #[arg(long)]
    pub dry_run: bool,

    /// How long one workload may take to roll out.
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "5m")]
    pub timeout: i64,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const EXAMPLES: &str = "\
Examples:
  gwmon repair deploy/edge              # one workload of the context's namespace
  gwmon repair -A --dry-run             # what would be restarted in the whole cluster

Exit code: 0 if all are repaired or none needs it, 1 if one cannot be, 2 if the cluster cannot be asked.";
