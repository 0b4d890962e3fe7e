//! The third phase: whether the pod can have what is planned.

use super::changes::ContainerChanges;
use super::exporter::Exporter;
use super::naming::HASH_LENGTH;
use super::patch::quoted;
use super::plan::InjectionPlan;
use crate::annotations::{BOOTSTRAP, MAPPING, METRICS_PORT, MODE, STATSD_PORT, STATUS, Sidecar};
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

/// Checks for what forbids these additions, and returns what is worth a warning.
pub(super) fn check(pod: &Pod, plan: &InjectionPlan) -> Result<Option<Finding>, Finding> {
    if let Some(exporter) = &plan.exporter {
        check_sidecar(pod, exporter)?;
    }
    check_annotations(pod, plan)?;
    Ok(plan
        .container
        .as_ref()
        .filter(|_| plan.is_bare)
        .and_then(|(index, changes)| unappliable(pod, (*index, changes))))
}

/// Checks for what forbids this sidecar.
fn check_sidecar(pod: &Pod, exporter: &Exporter) -> Result<(), Finding> {
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
    if exporter.kind == Sidecar::Regular && pod.completes() {
        let detail = "this pod is meant to complete, and a regular sidecar never ends; use gwmon.io/sidecar: \"native\" (Kubernetes 1.29)";
        return Err(Finding::new(Reason::JobPod, detail));
    }
    Ok(())
}

/// Kubernetes takes 256 KiB of annotations, keys and values together, and refuses a pod that has more.
fn check_annotations(pod: &Pod, plan: &InjectionPlan) -> Result<(), Finding> {
    const MOST: usize = 256 << 10;
    let own: usize = pod.metadata.annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    // JSON escapes make it slightly too large.
    let mapping = plan.exporter.as_ref().map_or(0, |exporter| MAPPING.len() + exporter.mapping.text().len());
    let file = plan.file.as_ref().map_or(0, |file| BOOTSTRAP.len() + quoted(file).len());
    let status = STATUS.len() + quoted(&plan.status.to_json()).len() + HASH_LENGTH;
    let others: usize = plan.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    let ours = mapping + file + status + others;
    if own + ours > MOST {
        let detail =
            format!("the pod's annotations have {own} bytes and gwmon's {ours}; Kubernetes takes {MOST} in all");
        return Err(Finding::new(Reason::AnnotationsTooLarge, detail));
    }
    Ok(())
}

/// The warning about a Pod whose manifest cannot be applied again: `kubectl apply` resets lists without merge keys (`args`), and
/// values, to what the manifest says, and those of a Pod are immutable. Lists with merge keys, such as `env`, it merges.
fn unappliable(pod: &Pod, (index, changes): (usize, &ContainerChanges)) -> Option<Finding> {
    let container = pod.spec.containers.iter().flatten().nth(index)?;
    let appended = (container.args.is_some() && !changes.args.is_empty()).then_some("args");
    let changed = changes.merged.as_ref().and_then(|merged| merged.path.split('/').next()).or(appended)?;
    let detail = format!(
        "nobody owns this pod, and {changed} of container {} are changed, so another kubectl apply of its manifest will be refused: delete the pod before, or use a Deployment",
        container.name
    );
    Some(Finding::new(Reason::PodNotReappliable, detail))
}
