//! The arguments of `gwmon uninstall`.

use clap::Args;

use super::{ClusterArgs, InstallationArgs, seconds};

/// `gwmon uninstall`.
#[derive(Debug, Args)]
pub struct Uninstall {
    /// The installation.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Remove what is listed. Without it, nothing is changed.
    #[arg(long)]
    pub yes: bool,

    /// Leave the annotations in pod templates, and so the sidecars in running pods, until their workloads are rolled out next.
    #[arg(long)]
    pub keep_workloads: bool,

    /// How long one workload may take to roll out.
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "5m")]
    pub timeout: i64,
}
