//! The arguments of `gwmon certs`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ClusterArgs, name};
use crate::config::Installation;

/// `gwmon certs`.
#[derive(Debug, Args)]
pub struct Certs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: CertsCommand,
}

/// The commands of `gwmon certs`.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Show the certificates that gwmon serves, and whether the API server trusts them.
    ///
    /// Exits with 0 if every webhook's caBundle verifies every certificate, with 1 if not or if that cannot be told.
    Status(CertsStatus),
    /// Make a CA and a certificate for `gwmon serve --certificates=files`.
    ///
    /// Prints a Secret, or writes files with --dir. The CA's key is written to files only: whoever renews the certificate needs
    /// it, gwmon does not.
    Create(CertsCreate),
}

/// The installation that a command is about.
#[derive(Debug, Args)]
pub struct InstallationArgs {
    /// The namespace in which gwmon runs.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "gwmon")]
    pub namespace: String,

    /// The name of gwmon's Deployment.
    #[arg(long, value_name = "NAME", value_parser = name, default_value = "gwmon")]
    pub name: String,
}

impl InstallationArgs {
    /// The installation.
    #[must_use]
    pub fn installation(&self) -> Installation {
        Installation { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// `gwmon certs status`.
#[derive(Debug, Args)]
pub struct CertsStatus {
    /// The installation.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// Format of the output [default: text].
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,
}

/// A format for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Structured {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// `gwmon certs create`.
#[derive(Debug, Args)]
pub struct CertsCreate {
    /// The installation whose webhook the certificate is for.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// Write ca.crt, ca.key, tls.crt and tls.key to this folder. Files that exist are not overwritten.
    #[arg(long, value_name = "FOLDER", required_unless_present = "output")]
    pub dir: Option<PathBuf>,

    /// Print a Secret of type kubernetes.io/tls with ca.crt, tls.crt and tls.key.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Structured>,

    /// The CA that signs the certificate [default: a new one].
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,

    /// The private key of --ca-cert.
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,

    /// Days for which the certificate is valid; a new CA is valid ten times as long.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
}
