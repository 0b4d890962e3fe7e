//! Changes that configure a gateway: to its container, and to the pod around it.

use crate::reason::Finding;

/// Changes to a pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the gateway's container.
    pub container: ContainerChanges,
    /// Annotations of the pod, by which other webhooks are configured.
    pub annotations: Vec<(&'static str, String)>,
    /// Envoy configuration that the container reads from a file: [`super::exporter::BOOTSTRAP_FILE`].
    pub file: Option<String>,
    /// Warnings; the change is made all the same.
    pub warnings: Vec<Finding>,
}

/// Changes of one container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ContainerChanges {
    /// Arguments, appended.
    pub args: Vec<String>,
    /// Environment variables, appended.
    pub env: Vec<(&'static str, String)>,
    /// A value of the container that gets an extended one.
    pub merged: Option<ReplacedValue>,
}

/// A string in a container that gets another value.
#[derive(Debug, PartialEq, Eq)]
pub struct ReplacedValue {
    /// Its path in the container: `args/3`, `env/2/value`.
    pub path: String,
    /// The new value.
    pub to: String,
}
