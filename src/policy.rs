//! What the operator of gwmon decides for the whole cluster, checked.

use std::str::FromStr;

use crate::annotations::{Sidecar, Version};
use crate::labels::Labels;

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

/// The first Kubernetes whose API server and kubelets run native sidecars without being asked. One before would keep
/// the container and drop what makes it run on, so that the pod never starts.
pub const NATIVE_SIDECARS_SINCE: Version = Version(1, 29);

/// The settings that hold for every injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The sidecar's image; another one where the cluster pulls through a mirror.
    pub exporter_image: Image,
    /// What kind of container the sidecar is where the pod does not say.
    pub sidecar: Sidecar,
    /// Labels of every ServiceMonitor, where no object in the cluster tells which are asked for (Grafana Alloy, GKE).
    pub monitor_labels: Labels,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            exporter_image: Image(EXPORTER_IMAGE.to_owned()),
            sidecar: Sidecar::Native,
            monitor_labels: Labels::new(),
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
