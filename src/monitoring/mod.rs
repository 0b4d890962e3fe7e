//! What makes Prometheus scrape a gateway: the metrics Service and the ServiceMonitor. Pure.

pub mod objects;
pub mod selection;

use serde_json::Value;

use crate::reason::{Reason, Refusal};
pub use objects::{Gateway, Owner};
pub use selection::{Cluster, Consumer, Selection};

/// The objects of one gateway.
#[derive(Debug)]
pub struct Plan {
    /// The metrics Service, in the workload's namespace.
    pub service: Value,
    /// The ServiceMonitor, or why none would be selected.
    pub monitor: Result<Value, Refusal>,
    /// Why the monitor looks as it does, in one sentence for a person.
    pub why: String,
}

/// Plans the objects of one gateway for what is known of the cluster's monitoring.
///
/// Where there is no Prometheus object the monitor is planned without extra labels: other readers of
/// ServiceMonitors (Grafana Alloy, the OpenTelemetry target allocator) take every one by default.
#[must_use]
pub fn plan(gateway: &Gateway, cluster: &Cluster) -> Plan {
    let service = objects::service(gateway);
    match cluster.select(&gateway.namespace) {
        Ok(selection) => {
            let monitor = objects::service_monitor(gateway, &selection);
            Plan { service, monitor: Ok(monitor), why: selection.why }
        }
        Err(refusal) if refusal.reason == Reason::NoPrometheus => {
            let selection = Selection::unknown(&gateway.namespace);
            Plan { service, monitor: Ok(objects::service_monitor(gateway, &selection)), why: refusal.to_string() }
        }
        Err(refusal) => Plan { service, why: refusal.to_string(), monitor: Err(refusal) },
    }
}
