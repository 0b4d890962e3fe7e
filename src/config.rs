//! The configuration that holds for the whole cluster, checked.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::annotations::{Sidecar, duration};
use crate::kubernetes::Version;
use crate::kubernetes::labels::Labels;

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
    /// The kind of the sidecar if the pod does not choose one.
    pub sidecar: Sidecar,
    /// Labels of every ServiceMonitor, where no object in the cluster tells which are asked for (Grafana Alloy, GKE).
    pub monitor_labels: Labels,
    /// The limits on what annotations may ask for.
    pub bounds: Bounds,
}

/// The limits on what annotations in one namespace may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest interval at which a gateway is scraped.
    pub min_interval: Interval,
    /// The keys of labels that `gwmon.io/monitor-labels` may set; `None` for any.
    pub monitor_labels: Option<BTreeSet<String>>,
    /// Allows ServiceMonitors in the namespace of a Prometheus that reads no other.
    pub cross_namespace: bool,
    /// The only ones that gateways are read by, unless they name another; by namespace and name. None for any.
    pub readers: Vec<(String, String)>,
    /// Gateways in one namespace that get a Service and a monitor.
    pub gateways: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            min_interval: Interval { text: "5s".to_owned(), milliseconds: 5000 },
            monitor_labels: None,
            cross_namespace: true,
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
            sidecar: Sidecar::Native,
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
        let manifest = include_str!("../deploy/base/deployment.yaml");
        assert!(manifest.contains(&format!("image: {EXPORTER_IMAGE}\n")), "one version, in two places");
    }
}
