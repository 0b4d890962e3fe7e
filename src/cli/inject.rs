//! The arguments of `gwmon inject` and `gwmon uninject`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, Manifests};

/// `gwmon inject`.
#[derive(Debug, Args)]
#[command(after_help = INJECT_EXAMPLES)]
pub struct Inject {
    /// The manifests.
    #[command(flatten)]
    pub manifests: Manifests,

    /// Namespace of objects that name none [default: default; with --prometheus none].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Inject gateways without the annotation, too.
    #[arg(long)]
    pub all: bool,

    /// File with the cluster's Prometheus objects, as of gwmon preview. The Service and the ServiceMonitor that gwmon's controller
    /// would make follow each manifest, for a cluster in which gwmon does not run.
    #[arg(long, value_name = "FILE")]
    pub prometheus: Option<PathBuf>,

    /// The shared flags.
    #[command(flatten)]
    pub config: ConfigArgs,
}

const INJECT_EXAMPLES: &str = "\
Examples:
  gwmon inject -f edge.yaml > injected.yaml        # the same text, with the sidecar in it
  kubectl kustomize . | gwmon inject -f - --all | kubectl apply -f -
  kubectl get prometheuses,namespaces -A -o yaml > cluster.yaml
  gwmon inject -f edge.yaml --prometheus cluster.yaml -n edge    # with Service and ServiceMonitor

Exit code: 0 if everything that asks for injection gets it, 1 if something cannot be done, 2 for arguments that are wrong.";

/// `gwmon uninject`.
#[derive(Debug, Args)]
#[command(after_help = UNINJECT_EXAMPLES)]
pub struct Uninject {
    /// The manifests.
    #[command(flatten)]
    pub manifests: Manifests,
}

const UNINJECT_EXAMPLES: &str = "\
Examples:
  gwmon uninject -f injected.yaml > edge.yaml      # byte for byte what it was before gwmon inject

Exit code: 0, 1 if a manifest cannot be restored, 2 for arguments that are wrong.";
