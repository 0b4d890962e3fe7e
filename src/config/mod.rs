//! The configuration that holds for the whole cluster, checked.

mod file;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::annotations::{Mode, Resources, Sidecar, duration};
use crate::kubernetes::Version;
use crate::kubernetes::labels::Labels;
use crate::reason::{Finding, Reason};
pub use file::{ConfigFile, DEFAULT, InvalidFile, SidecarKind, schema};

/// The namespace and the name of gwmon's own Deployment, Service, Lease and webhook configuration; its Secret and ConfigMap add
/// a suffix to the name.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Installation {
    /// The name by which the API server calls the Service.
    #[must_use]
    pub fn service_name(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// The names of the certificate that gwmon issues: that one, and the one that pods may use.
    #[must_use]
    pub fn service_names(&self) -> Vec<String> {
        let short = self.service_name();
        vec![format!("{short}.cluster.local"), short]
    }

    /// The name of the Secret in which gwmon keeps the certificates that it issues.
    #[must_use]
    pub fn secret(&self) -> String {
        format!("{}-tls", self.name)
    }

    /// The name of the ConfigMap with the configuration file.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!("{}-config", self.name)
    }

    /// The name of the Secret with a certificate that somebody else issues. Another one, since replicas that issue their own may
    /// still run during a roll-out, and would renew a Secret that lacks the CA's key.
    #[must_use]
    pub fn provided_secret(&self) -> String {
        format!("{}-webhook-tls", self.name)
    }
}

/// A container image reference: not empty, no white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(String);

impl Image {
    /// The reference as it stands in a pod.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Image {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() || s.contains(char::is_whitespace) {
            return Err("an image reference such as quay.io/prometheus/statsd-exporter:v0.30.0");
        }
        Ok(Self(s.to_owned()))
    }
}

/// The official image of the statsd_exporter version whose flags and mapping format gwmon writes.
pub const EXPORTER_IMAGE: &str = "quay.io/prometheus/statsd-exporter:v0.30.0";

/// The first Kubernetes whose API server and kubelets run native sidecars by default. An older one drops the init container's
/// `restartPolicy`, so that the pod never starts.
pub const NATIVE_SIDECARS_SINCE: Version = Version(1, 29);

/// The settings that hold for every injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The sidecar's image; another one where the cluster pulls through a mirror.
    pub exporter_image: Image,
    /// When the kubelet pulls that image; `None` for Kubernetes' default, which depends on the image's tag.
    pub image_pull_policy: Option<PullPolicy>,
    /// Names of Secrets in the gateway's namespace with a registry's password, which are added to the pod's. The kubelet goes on
    /// without one that does not exist.
    pub image_pull_secrets: Vec<String>,
    /// The sidecar's requests and limits, of which a pod may set others.
    pub resources: Resources,
    /// The kind of the sidecar if the pod does not choose one.
    pub sidecar: Sidecar,
    /// The mode if the pod does not choose one; `None` for the gateway's own. A gateway that does not have this mode keeps its own.
    pub mode: Option<Mode>,
    /// The namespaces in which pods may be injected.
    pub namespaces: Names,
    /// Labels of every ServiceMonitor, where no object in the cluster tells which are asked for (Grafana Alloy, GKE).
    pub monitor_labels: Labels,
    /// The limits on what annotations may ask for.
    pub bounds: Bounds,
}

impl Config {
    /// Returns true if another configuration differs at most in what the exporter's container is like: it decides alike who is
    /// injected and monitored.
    #[must_use]
    pub fn has_same_rules(&self, other: &Self) -> bool {
        (self.mode, self.sidecar, &self.namespaces, &self.monitor_labels, &self.bounds)
            == (other.mode, other.sidecar, &other.namespaces, &other.monitor_labels, &other.bounds)
    }

    /// Checks that pods in this namespace may be injected.
    ///
    /// # Errors
    /// The finding for whoever asks for it.
    pub fn check_namespace(&self, namespace: &str) -> Result<(), Finding> {
        if self.namespaces.contains(namespace) {
            return Ok(());
        }
        let detail = format!(
            "in namespace {namespace} nothing is injected; ask gwmon's operator to add it to gateways.namespaces, which has {}",
            self.namespaces
        );
        Err(Finding::new(Reason::NamespaceExcluded, detail))
    }
}

/// The field `imagePullPolicy` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
pub enum PullPolicy {
    /// At each start of the container.
    Always,
    /// If the node lacks it.
    IfNotPresent,
    /// Never; it must be on the node.
    Never,
}

impl PullPolicy {
    /// The word in a container.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The names that something is allowed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// Any: `*`.
    Any,
    /// These.
    Only(BTreeSet<String>),
}

impl Names {
    /// Returns true if it is allowed for this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Only(names) if names.is_empty() => f.write_str("none"),
            Self::Only(names) => f.write_str(&names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// The limits on what annotations in one namespace may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest interval at which a gateway is scraped.
    pub min_interval: Interval,
    /// The longest, if there is a limit.
    pub max_interval: Option<Interval>,
    /// The keys of labels that `gwmon.io/monitor-labels` may set.
    pub monitor_labels: Names,
    /// The namespaces whose gateways may have their ServiceMonitor in the namespace of a Prometheus that reads no other.
    pub cross_namespace: Names,
    /// The only ones that gateways are read by, unless they name another; by namespace and name. None for any.
    pub readers: Vec<(String, String)>,
    /// Gateways in one namespace that get a Service and a monitor.
    pub gateways: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            min_interval: Interval { text: "5s".to_owned(), milliseconds: 5000 },
            max_interval: None,
            monitor_labels: Names::Any,
            cross_namespace: Names::Any,
            readers: vec![],
            gateways: 200,
        }
    }
}

/// A duration as Prometheus writes it, such as `15s` or `1m30s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    text: String,
    milliseconds: u64,
}

impl Interval {
    /// The duration as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if the other duration is shorter. An invalid one is not.
    #[must_use]
    pub fn is_above(&self, other: &str) -> bool {
        duration(other).is_ok_and(|milliseconds| milliseconds < self.milliseconds)
    }

    /// Returns true if the other duration is longer. An invalid one is not.
    #[must_use]
    pub fn is_below(&self, other: &str) -> bool {
        duration(other).is_ok_and(|milliseconds| milliseconds > self.milliseconds)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let milliseconds = duration(s).map_err(|error| format!("{error}"))?;
        Ok(Self { text: s.to_owned(), milliseconds })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            exporter_image: Image(EXPORTER_IMAGE.to_owned()),
            image_pull_policy: None,
            image_pull_secrets: vec![],
            resources: Resources::default(),
            sidecar: Sidecar::Native,
            mode: None,
            namespaces: Names::Any,
            monitor_labels: Labels::new(),
            bounds: Bounds::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_manifests_start_the_exporters_image_first() {
        let manifest = include_str!("../../deploy/base/deployment.yaml");
        assert!(manifest.contains(&format!("image: {EXPORTER_IMAGE}\n")), "one version, in two places");
    }
}
