//! The decision: which pod gets the exporter, and how its gateway is told to send to it. Pure.

pub mod exporter;
pub mod gateway;
pub mod mapping;
pub mod patch;
pub mod pod;
pub mod workload;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::annotations::{Annotations, MAPPING, METRICS_PORT, MONITORED_BY, Resources, STATSD_PORT, STATUS, Settings};
use crate::policy::Policy;
use crate::reason::{Finding, Reason};
use patch::{Patch, PodPatch, quoted};
use pod::{Metadata, Pod};

/// What gwmon has done to a pod: the value of the annotation `gwmon.io/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// gwmon's version.
    pub version: String,
    /// The gateway's kind.
    pub gateway: String,
    /// The gateway's container.
    pub container: String,
    /// `statsd`: by a sidecar.
    pub mode: String,
    /// Where the exporter listens, UDP on loopback.
    pub statsd_port: u16,
    /// Where the exporter serves `/metrics`.
    pub metrics_port: u16,
    /// What was added, by its path in the pod.
    pub added: Vec<String>,
    /// Changes when gwmon would inject something else: first half of a SHA-256, in hex.
    pub hash: String,
}

impl Status {
    /// The annotation's value.
    fn to_json(&self) -> String {
        // Strings and numbers into memory: nothing to fail with.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A pod that is to be changed.
#[derive(Debug)]
pub struct Injection {
    /// The operations, for just this pod.
    pub patch: Patch,
    /// What they amount to.
    pub status: Status,
}

/// What becomes of a pod. There is no "deny": gwmon cannot refuse a pod.
pub type Decision = Result<Injection, Finding>;

/// Decides on a pod as the API server sends it.
///
/// # Errors
/// The reason why the pod stays as it is.
pub fn decide(policy: &Policy, pod: &str) -> Decision {
    let pod = Pod::parse(pod)?;
    decide_for(policy, &pod, None)
}

/// Decides on a pod, or on a template whose workload is known.
fn decide_for(policy: &Policy, pod: &Pod, workload: Option<&str>) -> Decision {
    static NONE: Annotations = Annotations::new();
    let settings = Settings::parse(pod.metadata.annotations.as_ref().unwrap_or(&NONE))?;
    check_surroundings(pod)?;
    let workload = match workload {
        Some(name) => name.to_owned(),
        None => workload_of(&pod.metadata).ok_or_else(|| {
            Finding::new(
                Reason::NoWorkload,
                "no Deployment, StatefulSet or other controller owns this pod; annotate one of those",
            )
        })?,
    };
    let (index, gateway) = gateway::find(pod, &settings)?;
    let container = &pod.spec.containers.as_deref().unwrap_or_default()[index];
    let telling = (gateway.tell)(container, &settings)?;
    let metrics_port = settings.metrics_port.unwrap_or(exporter::METRICS_PORT);
    for (port, protocol, key) in [(telling.statsd_port, "UDP", STATSD_PORT), (metrics_port, "TCP", METRICS_PORT)] {
        if let Some(holder) = pod.all_containers().find(|c| c.declares(port, protocol)) {
            let detail =
                format!("container {} declares {protocol} port {port}; choose another with {key}", holder.name);
            return Err(Finding::new(Reason::PortInUse, detail));
        }
    }

    let sidecar = exporter::container(policy, telling.statsd_port, metrics_port, &settings.resources);
    let added = [format!("initContainers/{}", exporter::CONTAINER)]
        .into_iter()
        .chain(exporter::VOLUMES.map(|name| format!("volumes/{name}")))
        .chain((!telling.patch.args.is_empty()).then(|| format!("containers/{}/args", container.name)))
        .chain(telling.patch.env.iter().map(|(name, _)| format!("containers/{}/env/{name}", container.name)))
        .collect();
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        gateway: gateway.name.to_owned(),
        container: container.name.clone(),
        mode: "statsd".to_owned(),
        statsd_port: telling.statsd_port,
        metrics_port,
        added,
        hash: hash_of(policy, &settings, metrics_port, &telling),
    };
    let patch = PodPatch {
        labels: vec![(MONITORED_BY, quoted(&monitor_name(&workload)))],
        annotations: vec![(MAPPING, mapping::DOG_STATSD.as_str().into()), (STATUS, quoted(&status.to_json()))],
        volumes: exporter::VOLUME_OBJECTS.iter().map(|volume| volume.as_str().into()).collect(),
        first_init_container: sidecar.into(),
        container: index,
        additions: telling.patch,
    };
    Ok(Injection { patch: patch.build(pod), status })
}

/// What forbids a sidecar whatever the gateway is.
fn check_surroundings(pod: &Pod) -> Result<(), Finding> {
    if pod.all_containers().any(|c| c.name == exporter::CONTAINER) {
        return Err(Finding::new(Reason::AlreadyInjected, format!("container {} is there", exporter::CONTAINER)));
    }
    if let Some(other) = pod.all_containers().find(|c| {
        matches!(c.image_parts().0.last(), Some(&("statsd-exporter" | "statsd_exporter" | "prom-statsd-exporter")))
    }) {
        let detail =
            format!("container {} is a statsd exporter already; remove it and gwmon brings its own", other.name);
        return Err(Finding::new(Reason::ExistingExporter, detail));
    }
    if pod.spec.host_network {
        let detail = "spec.hostNetwork is true, so the exporter's ports would be the node's; gwmon needs a pod network";
        return Err(Finding::new(Reason::HostNetwork, detail));
    }
    let selected = pod.spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    let asked = pod.spec.os.as_ref().map(|os| &os.name);
    if [selected, asked].into_iter().flatten().any(|os| os == "windows") {
        return Err(Finding::new(Reason::WindowsPod, "the pod asks for Windows, for which there is no exporter image"));
    }
    Ok(())
}

/// The name of the workload that a pod belongs to, from the pod alone: admission asks nobody. A Deployment's
/// pod is owned by a ReplicaSet named after the Deployment and the template hash that the pod is labelled with.
#[must_use]
pub fn workload_of(pod: &Metadata) -> Option<String> {
    let owner = pod.controller().filter(|owner| owner.kind != "Node")?;
    if owner.kind != "ReplicaSet" {
        return Some(owner.name.clone());
    }
    let stem = ["pod-template-hash", "rollouts-pod-template-hash"]
        .into_iter()
        .filter_map(|label| pod.label(label))
        .find_map(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    Some(stem.unwrap_or(&owner.name).to_owned())
}

/// The name of a workload's Service and ServiceMonitor, which is also the value of the pods' label:
/// `<workload>-gwmon`. Both a DNS-1035 label and a label value, 63 characters at the most; a workload name
/// that does not fit is cut and told from its like by a hash.
#[must_use]
pub fn monitor_name(workload: &str) -> String {
    const SUFFIX: &str = "-gwmon";
    const HASH: usize = 8;
    let fits = workload.len() + SUFFIX.len() <= 63
        && workload.starts_with(|c: char| c.is_ascii_lowercase())
        && workload.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        return format!("{workload}{SUFFIX}");
    }
    let mut name: String = workload
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(63 - SUFFIX.len() - HASH - 1 - 1)
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert(0, 'w');
    }
    let hash = short_hash(&[workload]);
    format!("{}-{}{SUFFIX}", name.trim_end_matches('-'), &hash[..HASH])
}

/// Changes when gwmon would inject something else: with what never varies within one gwmon, hashed once, and with
/// what does.
fn hash_of(policy: &Policy, settings: &Settings, metrics_port: u16, telling: &gateway::Telling) -> String {
    static CONSTANT: LazyLock<String> = LazyLock::new(|| {
        let sidecar = exporter::container(&Policy::default(), 0, 0, &Resources::default());
        short_hash(&[&sidecar, &mapping::DOG_STATSD, &exporter::VOLUME_OBJECTS.concat()])
    });
    let Resources { cpu, memory } = &settings.resources;
    let mut parts = vec![CONSTANT.as_str(), policy.exporter_image.as_str(), &cpu.0, &cpu.1, &memory.0, &memory.1];
    let ports = format!("{} {metrics_port}", telling.statsd_port);
    parts.push(&ports);
    parts.extend(telling.patch.args.iter().map(String::as_str));
    parts.extend(telling.patch.env.iter().flat_map(|(name, value)| [*name, *value]));
    short_hash(&parts)
}

/// The first half of a SHA-256 over the parts, in hex.
fn short_hash(parts: &[&str]) -> String {
    use std::fmt::Write;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref()[..16].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(extra: &Value) -> Value {
        let mut pod = json!({
            "metadata": {
                "annotations": {"gwmon.io/inject": "true"},
                "labels": {"pod-template-hash": "6d4b"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "edge-6d4b", "controller": true}],
            },
            "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/e.yaml"]}]},
        });
        json_patch::merge(&mut pod, extra);
        pod
    }

    fn reason(extra: &Value) -> Reason {
        decide(&Policy::default(), &pod(extra).to_string()).unwrap_err().reason
    }

    #[test]
    fn surroundings_that_forbid_a_sidecar_have_their_reason() {
        for (extra, expected) in [
            (json!({"metadata": {"annotations": null}}), Reason::NotRequested),
            (json!({"metadata": {"ownerReferences": null}}), Reason::NoWorkload),
            (json!({"spec": {"hostNetwork": true}}), Reason::HostNetwork),
            (json!({"spec": {"os": {"name": "windows"}}}), Reason::WindowsPod),
            (json!({"spec": {"nodeSelector": {"kubernetes.io/os": "windows"}}}), Reason::WindowsPod),
            (json!({"spec": {"initContainers": [{"name": "gwmon-statsd-exporter"}]}}), Reason::AlreadyInjected),
            (
                json!({"spec": {"initContainers": [{"name": "x", "image": "prom/statsd-exporter:v0.28"}]}}),
                Reason::ExistingExporter,
            ),
            (
                json!({"spec": {"initContainers": [{"name": "x", "ports": [{"containerPort": 9102}]}]}}),
                Reason::PortInUse,
            ),
            (
                json!({"spec": {"initContainers": [{"name": "x", "ports": [{"containerPort": 9125, "protocol": "UDP"}]}]}}),
                Reason::PortInUse,
            ),
            (json!({"spec": {"containers": []}}), Reason::NoGateway),
            (json!({"spec": null}), Reason::MalformedObject),
        ] {
            assert_eq!(reason(&extra), expected, "{extra}");
        }
    }

    #[test]
    fn the_workload_is_read_off_the_pod() {
        let of = |extra| workload_of(&Pod::parse(&pod(&extra).to_string()).unwrap().metadata);
        let owner = |kind: &str, name: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "name": name, "controller": true}]}});
        assert_eq!(of(json!({})).as_deref(), Some("edge"));
        assert_eq!(of(owner("StatefulSet", "edge")).as_deref(), Some("edge"));
        assert_eq!(of(owner("ReplicaSet", "alone")).as_deref(), Some("alone"));
        assert_eq!(of(owner("Node", "worker")), None);
    }

    #[test]
    fn a_monitor_name_is_a_legal_service_name_and_label_value() {
        assert_eq!(monitor_name("edge"), "edge-gwmon");
        let long = "a".repeat(63);
        let longer = format!("{long}b");
        let names = [&long, &longer, "a.b", "a-b", "1st", "-", "a.b-", &"x.".repeat(126)].map(monitor_name);
        for name in &names {
            assert!(name.len() <= 63 && name.ends_with("-gwmon"), "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        }
        assert_eq!(std::collections::BTreeSet::from(names.clone()).len(), names.len(), "{names:?}");
    }
}
