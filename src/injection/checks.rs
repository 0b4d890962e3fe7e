//! Checks of a pod whose gateway is known, and warnings about its annotations.

use super::bootstrap::Dialect;
use super::exporter::{self, Exporter};
use super::gateway::{self, StatsdConfig};
use super::patch::PodPatch;
use super::pod::{Container, Pod};
use super::source::Way;
use super::status::{Status, StatusMode};
use crate::annotations::{
    DISCOVERY, METRICS_PORT, MODE, PROFILE, Profile, RELAY, RESOURCES, SIDECAR, STATSD_PORT, STATUS, Settings, Sidecar,
};
use crate::reason::{Finding, Reason, shown};

/// Checks for what forbids any change, whatever the gateway is.
pub(super) fn check_pod(pod: &Pod) -> Result<(), Finding> {
    // A manifest that `gwmon preview` has printed, with the annotations taken off: the kubelet would make empty files of
    // them, and with an empty configuration the gateway itself does not start.
    for (volume, annotation) in exporter::READ_FROM_ANNOTATIONS {
        if pod.spec.has_volume(volume) && pod.metadata.annotation(annotation).is_none() {
            let detail = format!(
                "volume {volume} reads the annotation {annotation}, which is missing; apply the whole output of gwmon preview, or remove all that it added"
            );
            return Err(Finding::new(Reason::IncompleteInjection, detail));
        }
    }
    if pod.all_containers().any(|c| c.name == exporter::CONTAINER) {
        return Err(Finding::new(Reason::AlreadyInjected, format!("container {} is there", exporter::CONTAINER)));
    }
    // Where no container was added, the note of it is all that there is to see. That of a pod with one, copied into a
    // template, says nothing.
    let status = pod.metadata.annotation(STATUS).and_then(|status| serde_json::from_str::<Status>(status).ok());
    if status.is_some_and(|status| status.statsd_port.is_none()) {
        return Err(Finding::new(Reason::AlreadyInjected, format!("annotation {STATUS} is there")));
    }
    let selected = pod.spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    let asked = pod.spec.os.as_ref().map(|os| &os.name);
    if [selected, asked].into_iter().flatten().any(|os| os == "windows") {
        return Err(Finding::new(Reason::WindowsPod, "the pod asks for Windows, for which there is no exporter image"));
    }
    Ok(())
}

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
    if exporter.kind == Sidecar::Regular && pod.metadata.controller().is_some_and(|owner| owner.kind == "Job") {
        let detail = "a Job's pod would never complete beside the exporter, which a cluster before Kubernetes 1.29 cannot run as a native sidecar";
        return Err(Finding::new(Reason::JobPod, detail));
    }
    Ok(())
}

/// Annotations that a user has set and that change nothing here.
pub(super) fn ignored_annotations(pod: &Pod, settings: &Settings, mode: StatusMode, way: &Way) -> Vec<Finding> {
    let idle: Vec<_> = match way {
        Way::Statsd(StatsdConfig { relay, dialect, .. }) => {
            let relays = Some(RELAY).filter(|_| settings.relay && relay.is_none());
            let renames =
                Some(PROFILE).filter(|_| settings.profile == Profile::Bakins && *dialect == Dialect::DogStatsd);
            relays.into_iter().chain(renames).collect()
        }
        Way::Scrape(_) => {
            // Of an exporter that was there, the monitor still needs to know.
            let renames = Some(PROFILE).filter(|_| mode == StatusMode::Scrape);
            [STATSD_PORT, RELAY, SIDECAR, RESOURCES].into_iter().chain(renames).collect()
        }
    };
    let set = |key: &&str| pod.metadata.annotation(key).is_some_and(|value| value != "false");
    let finding = |key| Finding::new(Reason::AnnotationIgnored, format!("{key} has no effect here; remove it"));
    idle.into_iter().filter(set).map(finding).collect()
}

/// Kubernetes takes 256 KiB of annotations, keys and values together, and refuses a pod that has more.
pub(super) fn check_annotations(pod: &Pod, patch: &PodPatch) -> Result<(), Finding> {
    const MOST: usize = 256 << 10;
    let own: usize = pod.metadata.annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    // JSON escapes make this a slight overestimate.
    let ours: usize = patch.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if own + ours > MOST {
        let detail =
            format!("the pod's annotations have {own} bytes and gwmon's {ours}; Kubernetes takes {MOST} in all");
        return Err(Finding::new(Reason::AnnotationsTooLarge, detail));
    }
    Ok(())
}

/// The annotations by which Prometheuses without an operator, Grafana's agents among them, find what to scrape.
pub(super) fn scrape_annotations(
    pod: &Pod,
    gateway: &str,
    port: u16,
    path: &str,
) -> Result<Vec<(&'static str, String)>, Finding> {
    let wanted = [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", port.to_string()),
        ("prometheus.io/path", path.to_owned()),
    ];
    for (key, value) in &wanted {
        if let Some(other) = pod.metadata.annotation(key).filter(|set| set != value) {
            let own =
                gateway::ALL.iter().find(|known| known.name == gateway).and_then(|known| known.scrape_annotations_off);
            let way =
                own.map_or_else(|| "remove one".to_owned(), |field| format!("its controller writes none with {field}"));
            let detail = format!("{key} is {} already, and {DISCOVERY} needs {}; {way}", shown(other), shown(value));
            return Err(Finding::new(Reason::ScrapeAnnotationConflict, detail));
        }
    }
    Ok(wanted.into_iter().filter(|(key, _)| pod.metadata.annotation(key).is_none()).collect())
}
