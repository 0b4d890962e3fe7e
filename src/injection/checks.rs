//! Checks of a sidecar against the pod that it is for.

use super::exporter::Exporter;
use crate::annotations::{METRICS_PORT, MODE, STATSD_PORT, Sidecar};
use crate::kubernetes::pod::{Container, Pod};
use crate::reason::{Finding, Reason};

/// The conventional statsd port.
const STATSD_AGENTS_PORT: u16 = 8125;
/// Ports of Envoy's administration, of meshes' proxies and of Ambassador's diagnostics, which few pods declare.
const GATEWAYS_OWN: [u16; 13] = [8001, 8002, 8877, 9901, 15000, 15001, 15006, 15010, 15020, 15021, 15090, 19000, 19001];

/// An agent that takes statsd, though it may declare no port.
fn is_statsd_agent(container: &Container) -> bool {
    let (path, _) = container.image_parts();
    matches!(path.as_slice(), [.., "datadog" | "datadoghq", "agent"])
        || matches!(
            container.image_name(),
            "dd-agent" | "docker-dd-agent" | "datadog-agent" | "dogstatsd" | "cloudwatch-agent" | "statsd" | "veneur"
        )
}

/// Checks for what forbids this sidecar.
pub(super) fn check_sidecar(pod: &Pod, exporter: &Exporter) -> Result<(), Finding> {
    if pod.spec.host_network {
        let detail = "spec.hostNetwork is true, so the exporter's ports would be the node's; gwmon needs a pod network";
        return Err(Finding::new(Reason::HostNetwork, detail));
    }
    for (port, protocol, key) in
        [(exporter.statsd_port, "UDP", STATSD_PORT), (exporter.metrics_port, "TCP", METRICS_PORT)]
    {
        let refuse = |holder: &str| {
            let detail = format!(
                "{holder} {protocol} port {port}; remove that, or choose another with {key} where the gateway takes one"
            );
            Err(Finding::new(Reason::PortInUse, detail))
        };
        if let Some(holder) = pod.holder(port, protocol) {
            return refuse(&format!("container {} declares", holder.name));
        }
        if port == STATSD_AGENTS_PORT
            && protocol == "UDP"
            && let Some(agent) = pod.all_containers().find(|container| is_statsd_agent(container))
        {
            return refuse(&format!("container {} is an agent that may take", agent.name));
        }
        if protocol == "TCP" && GATEWAYS_OWN.contains(&port) {
            let detail = format!(
                "{METRICS_PORT}: \"{port}\" is where gateways have a port of their own; choose another, or scrape that one with {MODE}: \"scrape\""
            );
            return Err(Finding::new(Reason::PortInUse, detail));
        }
    }
    let is_jobs = pod.metadata.controller().is_some_and(|owner| owner.kind == "Job");
    let completes = is_jobs || matches!(pod.spec.restart_policy.as_str(), "Never" | "OnFailure");
    if exporter.kind == Sidecar::Regular && completes {
        let detail = "this pod is meant to complete, and a regular sidecar never ends; use gwmon.io/sidecar: \"native\" (Kubernetes 1.29)";
        return Err(Finding::new(Reason::JobPod, detail));
    }
    Ok(())
}
