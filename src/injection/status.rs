//! The status annotation of an injected pod.

use serde::{Deserialize, Serialize};

/// The value of the annotation `gwmon.io/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// gwmon's version.
    pub version: String,
    /// The gateway's kind.
    pub gateway: String,
    /// The container that serves the metrics or sends them.
    pub container: String,
    /// The version that its image's tag tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_version: Option<String>,
    /// The mode.
    pub mode: StatusMode,
    /// The UDP port of the sidecar on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statsd_port: Option<u16>,
    /// The port that Prometheus scrapes.
    pub metrics_port: u16,
    /// The path that it scrapes there.
    #[serde(default = "default_path")]
    pub metrics_path: String,
    /// The additions, by their path in the pod.
    pub added: Vec<String>,
    /// Changes when gwmon would inject something else: first half of a SHA-256, in hex.
    pub hash: String,
}

/// The mode of an injected pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusMode {
    /// The gateway sends statsd to the sidecar.
    Statsd,
    /// Prometheus scrapes the gateway's own endpoint.
    Scrape,
    /// Prometheus scrapes an exporter that the pod had already.
    Existing,
    /// A mode of another version of gwmon.
    #[serde(other)]
    Unknown,
}

/// The path for pods that were injected before the field existed.
fn default_path() -> String {
    METRICS_PATH.to_owned()
}

/// The path of a statsd_exporter's metrics.
pub(super) const METRICS_PATH: &str = "/metrics";

impl Status {
    /// The way of the metrics out of the pod, for a person.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { gateway, container, metrics_port, metrics_path, .. } = self;
        let what = match (self.statsd_port, self.mode) {
            (Some(port), _) => format!("gateway {gateway} in container {container} sends statsd to 127.0.0.1:{port}"),
            (None, StatusMode::Existing) => {
                format!("container {container} already runs a statsd_exporter for {gateway}")
            }
            (None, _) => format!("gateway {gateway} in container {container} serves metrics itself"),
        };
        format!("{what}; Prometheus scrapes :{metrics_port}{metrics_path}")
    }

    /// The annotation's value.
    pub(super) fn to_json(&self) -> String {
        // Strings and numbers into memory: nothing to fail with.
        serde_json::to_string(self).unwrap_or_default()
    }
}
