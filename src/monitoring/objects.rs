//! The shapes of the generated objects.

use serde_json::{Value, json};

use super::selection::Selection;
use crate::annotations::{METRICS_FOR, MONITORED_BY, WORKLOAD_NAMESPACE};
use crate::injection::exporter::PORT_NAME;

/// The label that marks every object of gwmon's.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "gwmon");

/// A workload's owner reference: where it goes, its objects follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `apps/v1` and the like.
    pub api_version: String,
    /// The workload's kind: never a ReplicaSet's or a pod's where a Deployment stands above it.
    pub kind: String,
    /// The workload's name.
    pub name: String,
    /// The workload's UID.
    pub uid: String,
}

/// One gateway, as its injected pods tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The workload's namespace.
    pub namespace: String,
    /// The name of its objects, and the value of its pods' label.
    pub monitor: String,
    /// The port of its pods' `/metrics`.
    pub metrics_port: u16,
    /// How often to scrape, where the user says so.
    pub interval: Option<String>,
    /// Its workload; absent in a preview, where no UID is known.
    pub owner: Option<Owner>,
}

impl Gateway {
    fn metadata(&self, namespace: &str) -> Value {
        let at_home = namespace == self.namespace;
        // Elsewhere, workloads of one name from several namespaces meet. A namespace's name has no dot.
        let name = if at_home { self.monitor.clone() } else { format!("{}.{}", self.namespace, self.monitor) };
        let mut metadata = json!({
            "name": name,
            "namespace": namespace,
            "labels": {MANAGED_BY.0: MANAGED_BY.1, METRICS_FOR: self.monitor, WORKLOAD_NAMESPACE: self.namespace},
        });
        // An owner in another namespace would make the garbage collector delete the object.
        if let Some(owner) = self.owner.as_ref().filter(|_| at_home) {
            metadata["ownerReferences"] = json!([{
                "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
            }]);
        }
        metadata
    }
}

/// The metrics Service. Headless, since only discovery reads it. It selects injected pods only, so that a pod
/// without the exporter is not a target that is always down. The target port is a number: a named port of a
/// native sidecar is not resolved before Kubernetes 1.32 (R29).
#[must_use]
pub fn service(gateway: &Gateway) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": gateway.metadata(&gateway.namespace),
        "spec": {
            "clusterIP": "None",
            "selector": {MONITORED_BY: gateway.monitor},
            "ports": [{
                "name": PORT_NAME,
                "port": gateway.metrics_port,
                "protocol": "TCP",
                "targetPort": gateway.metrics_port,
            }],
        },
    })
}

/// The ServiceMonitor. It selects the Service by a label that only gwmon sets, never by the gateway's own.
#[must_use]
pub fn service_monitor(gateway: &Gateway, selection: &Selection) -> Value {
    let mut metadata = gateway.metadata(&selection.namespace);
    for (key, value) in &selection.labels {
        metadata["labels"][key] = json!(value);
    }
    let mut endpoint = json!({"port": PORT_NAME, "path": "/metrics"});
    if let Some(interval) = &gateway.interval {
        endpoint["interval"] = json!(interval);
    }
    let mut spec = json!({"selector": {"matchLabels": {METRICS_FOR: gateway.monitor}}, "endpoints": [endpoint]});
    if selection.namespace != gateway.namespace {
        spec["namespaceSelector"] = json!({"matchNames": [gateway.namespace]});
    }
    json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": metadata, "spec": spec})
}
