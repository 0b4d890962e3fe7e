//! The last phase: a plan as the JSON Patch that a webhook answers with.

use serde_json::json;

use super::changes::{ContainerChanges, ReplacedValue};
use super::exporter;
use super::naming::short_hash;
use super::patch::{Json, Patch, quoted};
use super::plan::InjectionPlan;
use super::{Injection, Status};
use crate::annotations::{BOOTSTRAP, MAPPING, STATUS, Sidecar};
use crate::config::Config;
use crate::kubernetes::pod::{Container, Pod};

/// The operations that bring a plan about on just this pod, in an order that never varies. The pod tells which parents are
/// missing, so that no list is created twice and none is assumed to exist (R20). The cost is that of what is added, not of what
/// the pod holds (R22).
pub(super) fn render(config: &Config, pod: &Pod, plan: InjectionPlan) -> Injection {
    let sidecar = plan.exporter.as_ref().map(|exporter| (exporter.kind, exporter.container(config)));
    let hash = hash(&plan, sidecar.as_ref().map(|(_, container)| container.as_str()));
    let status = Status { hash, ..plan.status };
    let container = plan.container.as_ref().and_then(|(index, _)| pod.spec.containers.as_ref()?.get(*index));
    let mut patch = Patch::default();
    let labels = plan.labels.iter().map(|(key, value)| (*key, quoted(value))).collect();
    patch.entries(&["metadata", "labels"], pod.metadata.labels.is_some(), labels);

    let (mut annotations, mut volumes): (Vec<(&str, Json)>, Vec<Json>) = (vec![], vec![]);
    if let Some(exporter) = &plan.exporter {
        annotations.push((MAPPING, exporter.mapping.text().into()));
        volumes.push(exporter::MAPPING_VOLUME_OBJECT.as_str().into());
    }
    annotations.extend(plan.annotations.iter().map(|(key, value)| (*key, quoted(value))));
    let mut mounts = Vec::new();
    if let Some(file) = &plan.file {
        let (volume, mount) = exporter::bootstrap_file();
        annotations.push((BOOTSTRAP, quoted(file)));
        volumes.push(volume);
        mounts.push(mount);
    }
    annotations.push((STATUS, quoted(&status.to_json())));
    patch.entries(&["metadata", "annotations"], pod.metadata.annotations.is_some(), annotations);
    patch.items(&["spec", "volumes"], pod.spec.volumes.is_some(), volumes);
    let pull_secrets = plan.pull_secrets.iter().map(|name| json!({"name": name}).to_string().into()).collect();
    patch.items(&["spec", "imagePullSecrets"], pod.spec.image_pull_secrets.is_some(), pull_secrets);
    match sidecar {
        // Before all others, so that it runs before any of them needs it.
        Some((Sidecar::Native, sidecar)) if pod.spec.init_containers.is_some() => {
            patch.add(&["spec", "initContainers", "0"], sidecar);
        }
        Some((Sidecar::Native, sidecar)) => patch.add(&["spec", "initContainers"], format!("[{sidecar}]")),
        // Last, since the first container is the one that `kubectl logs` and `exec` mean.
        Some((Sidecar::Regular, sidecar)) => {
            patch.items(&["spec", "containers"], pod.spec.containers.is_some(), vec![sidecar.into()]);
        }
        None => {}
    }
    if let Some((index, changes)) = plan.container {
        change_container(&mut patch, index, container, changes, mounts);
    }
    Injection { patch, status, warnings: plan.warnings, monitor: plan.monitor }
}

fn change_container(
    patch: &mut Patch,
    index: usize,
    container: Option<&Container>,
    changes: ContainerChanges,
    mounts: Vec<Json>,
) {
    let index = index.to_string();
    let at = |list| ["spec", "containers", index.as_str(), list];
    let ContainerChanges { args, env, merged } = changes;
    let args = args.iter().map(|argument| quoted(argument)).collect();
    patch.items(&at("args"), container.is_some_and(|c| c.args.is_some()), args);
    let env = env.iter().map(|(name, value)| json!({"name": name, "value": value}).to_string().into());
    patch.items(&at("env"), container.is_some_and(|c| c.env.is_some()), env.collect());
    patch.items(&at("volumeMounts"), container.is_some_and(|c| c.volume_mounts.is_some()), mounts);
    if let Some(ReplacedValue { path, to }) = &merged {
        let path: Vec<_> = ["spec", "containers", &index].into_iter().chain(path.split('/')).collect();
        patch.replace(&path, to);
    }
}

/// Tells two injections apart: a hash of everything that is rendered, and of its place.
fn hash(plan: &InjectionPlan, sidecar: Option<&str>) -> String {
    let scraped = format!("{}{}", plan.status.metrics_port, plan.status.metrics_path);
    let mut parts: Vec<&str> = sidecar.into_iter().collect();
    parts.extend(plan.exporter.as_ref().map(|exporter| exporter.mapping.hash()));
    parts.extend(plan.annotations.iter().map(|(_, value)| value.as_str()));
    parts.extend(plan.file.as_deref());
    if let Some((_, changes)) = &plan.container {
        parts.extend(changes.args.iter().map(String::as_str));
        parts.extend(changes.env.iter().map(|(_, value)| value.as_str()));
        parts.extend(changes.merged.iter().map(|merged| merged.to.as_str()));
    }
    parts.extend(plan.status.added.iter().map(String::as_str));
    parts.push(&scraped);
    short_hash(&parts)
}
