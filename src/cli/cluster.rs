//! The flags by which a command finds its cluster, named as kubectl names them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use crate::annotations::duration;

/// The cluster that a command asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// The kubeconfig file [default: as kubectl's].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of the kubeconfig context to use.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// The user to act as.
    #[arg(long = "as", value_name = "USER")]
    pub user: Option<String>,

    /// A group to act as a member of. May be repeated.
    #[arg(long = "as-group", value_name = "GROUP", requires = "user")]
    pub groups: Vec<String>,

    /// How long to wait for each answer of the API server, such as 5s; 0 waits for ever [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    pub request_timeout: Option<Duration>,

    /// Print each request that is made on standard error.
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub verbose: bool,
}

/// A duration as Go writes it, or a whole number of seconds, as kubectl takes it.
fn timeout(value: &str) -> Result<Duration, String> {
    if let Ok(seconds) = value.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    duration(value).map(Duration::from_millis).map_err(|error| error.to_string())
}
