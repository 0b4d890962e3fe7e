//! The arguments of `gwmon install`.

use clap::Args;

use super::{ClusterArgs, InstallationArgs, Structured};
use crate::config::Image;

/// `gwmon install`.
#[derive(Debug, Args)]
pub struct Install {
    /// The installation.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// Image of gwmon [default: gwmon, with this version as its tag].
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<Image>,

    /// Secret in the namespace with a registry's password, for gwmon's own pods. May be repeated.
    #[arg(long, value_name = "SECRET")]
    pub image_pull_secret: Vec<String>,

    /// Number of replicas.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub replicas: u16,

    /// Check whether the cluster will do, and print nothing else: version, webhooks, your rights, the Prometheus Operator's kinds.
    ///
    /// Exits with 0 if gwmon can be installed, with 1 if not.
    #[arg(long)]
    pub check: bool,

    /// The cluster, for --check.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Format of the output.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Structured::Yaml)]
    pub output: Structured,

    /// Flags of gwmon serve, after --.
    #[arg(last = true, value_name = "FLAGS")]
    pub serve: Vec<String>,
}
