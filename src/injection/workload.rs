//! Copies gwmon's annotations from a workload to its pod template, and removes them. The template's change starts the roll-out;
//! users need not annotate the pods (R13).

use std::cell::OnceCell;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use super::exporter::READ_FROM_ANNOTATIONS;
use super::gateway::contour;
use super::patch::{Patch, quoted};
use super::resources::LimitRange;
use super::{Asker, Decision, claims, decide_for, gateway};
use crate::annotations::{COPIED, INJECT, STATUS, Settings, VOCABULARY, ours};
use crate::config::Config;
use crate::kubernetes::Annotations;
use crate::kubernetes::pod::{Metadata, Pod, PodSpec, or_null, parse};
use crate::reason::{Finding, Reason};

const TEMPLATE: [&str; 4] = ["spec", "template", "metadata", "annotations"];

/// A workload with a pod template.
#[derive(Debug, Deserialize)]
struct Workload<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default, deserialize_with = "or_null")]
    metadata: Metadata,
    #[serde(borrow)]
    spec: WorkloadSpec<'a>,
}

#[derive(Debug, Deserialize)]
struct WorkloadSpec<'a> {
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Debug, Deserialize)]
struct Template<'a> {
    metadata: Option<Metadata>,
    #[serde(borrow)]
    spec: PodSpec<'a>,
}

/// The decision on a workload.
#[derive(Debug)]
pub struct WorkloadChange {
    /// The operations; none where the template is as it should be.
    pub patch: Patch,
    /// The decision on its pods.
    pub pods: Decision,
}

/// Decides on a Deployment, StatefulSet or DaemonSet as the API server sends it, in a namespace with these `LimitRange`s.
///
/// The template's own annotations win over the workload's and are never touched: what gwmon copied it has
/// noted in [`COPIED`], with the value, so that a value that somebody changed since is theirs again.
/// Where the pods would be refused, nothing is copied: a roll-out that changes nothing helps nobody.
///
/// # Errors
/// The reason why the workload stays as it is.
pub fn decide(config: &Config, limits: &[LimitRange], json: &str) -> Result<WorkloadChange, Finding> {
    let workload: Workload = parse(json)?;
    let own = workload.metadata.annotations.as_ref();
    let template = workload.spec.template.metadata;
    let parents = Parents {
        metadata: template.is_some(),
        annotations: template.as_ref().is_some_and(|metadata| metadata.annotations.is_some()),
    };
    let mut template = template.unwrap_or_default();
    let before = template.annotations.take().unwrap_or_default();

    let noted: Annotations = before.get(COPIED).and_then(|note| serde_json::from_str(note).ok()).unwrap_or_default();
    let mut after = before.clone();
    let is_own = |key: &str| own.is_some_and(|own| own.contains_key(key));
    // One request may remove an annotation from the workload and set it on the template.
    let claimed = if noted.keys().all(|key| is_own(key)) { BTreeSet::new() } else { claims::claimed(json, own) };
    let mut kept = Annotations::new();
    for (key, value) in noted {
        if after.get(&key) != Some(&value) {
            continue;
        }
        if claimed.contains(key.as_str()) && !is_own(&key) {
            // The note too stays as it is, so that nothing is rolled out.
            kept.insert(key, value);
        } else {
            after.remove(&key);
        }
    }
    after.remove(COPIED);
    // If pasted from a pod into a template, these would describe other pods. The output of `gwmon preview` keeps them: its
    // template has the sidecar and the volumes that read them.
    let spec = &workload.spec.template.spec;
    let (read, unread): (Vec<_>, Vec<_>) =
        READ_FROM_ANNOTATIONS.into_iter().partition(|(volume, _)| spec.has_volume(volume));
    for key in unread.into_iter().map(|(_, annotation)| annotation).chain(read.is_empty().then_some(STATUS)) {
        after.remove(key);
    }
    // All settings that would apply; mistyped keys are refused, not copied.
    let mut effective: Annotations = own.into_iter().flat_map(ours).map(|(k, v)| (k.clone(), v.clone())).collect();
    effective.extend(ours(&after).map(|(k, v)| (k.clone(), v.clone())));
    if let Err(refusal) = Settings::parse(&effective)
        && refusal.is_warning()
    {
        return Err(refusal);
    }
    let asked = after.contains_key(INJECT) || own.is_some_and(|own| own.contains_key(INJECT));
    let copied: Annotations = VOCABULARY
        .iter()
        .filter_map(|key| own?.get_key_value(key.name))
        .filter(|(key, _)| asked && !after.contains_key(*key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let noted: Annotations = kept.into_iter().chain(copied.clone()).collect();
    if !noted.is_empty() {
        after.insert(COPIED.to_owned(), json!(noted).to_string());
    }
    after.extend(copied);

    let changes = after != before;
    template.annotations = Some(after);
    let is_reverted = contour::is_reverted(&workload.metadata, &workload.kind);
    let pod = Pod { metadata: template, spec: workload.spec.template.spec, has_contour: OnceCell::new() };
    let maker = match workload.metadata.controller() {
        Some(owner) => Some(format!("{} {}", owner.kind, owner.name)),
        None => is_reverted.then(|| "Contour's gateway-provisioner".to_owned()),
    };
    if let (true, Some(maker)) = (changes, maker) {
        let settings = Settings::parse(&effective).unwrap_or_default();
        let gateway = gateway::find(&pod, &settings).ok().and_then(|(_, gateway)| gateway.pod_annotations);
        let there = gateway.map_or_else(|| "as a pod annotation there".to_owned(), |place| format!("in {place}"));
        let detail = format!("{maker} makes this object and may take the annotation off again; put {INJECT} {there}");
        return Err(Finding::new(Reason::ManagedWorkload, detail));
    }
    let pods = Decision::from(decide_for(config, limits, &pod, Asker::Workload(&workload.metadata.name)));
    // A proxy that another webhook adds is checked at the pod's admission.
    if let Decision::Cannot(refusal) = &pods
        && refusal.reason != Reason::ProxyNotInjected
    {
        return Err(refusal.clone());
    }
    let after = pod.metadata.annotations.unwrap_or_default();
    Ok(WorkloadChange { patch: difference(&parents, &before, &after), pods })
}

/// A workload of which only the annotations are read.
#[derive(Deserialize)]
struct Annotated {
    metadata: Metadata,
    spec: AnnotatedSpec,
}

#[derive(Deserialize)]
struct AnnotatedSpec {
    template: AnnotatedTemplate,
}

#[derive(Deserialize)]
struct AnnotatedTemplate {
    metadata: Option<Metadata>,
}

impl Annotated {
    fn template(&self, key: &str) -> Option<&str> {
        self.spec.template.metadata.as_ref()?.annotation(key)
    }
}

/// Warns of an update that removes gwmon's copies from the template of a workload that keeps its own annotation, since they are
/// restored. `kubectl rollout undo` of a StatefulSet or DaemonSet does that: their revisions hold only the template.
#[must_use]
pub fn puts_back(kind: &str, before: &str, after: &str) -> Option<Finding> {
    let before: Annotated = serde_json::from_str(before).ok()?;
    let after: Annotated = serde_json::from_str(after).ok()?;
    let was_copied = before.template(COPIED).is_some() && before.template(INJECT).is_some();
    let is_taken_off = after.template(COPIED).is_none() && after.template(INJECT).is_none();
    if !was_copied || !is_taken_off || after.metadata.annotation(INJECT) != Some("true") {
        return None;
    }
    let (kind, name) = (kind.to_lowercase(), &after.metadata.name);
    let detail = format!(
        "the pod template keeps {INJECT}, since {kind} {name} has it; to end injection, run kubectl annotate {kind}/{name} {INJECT}-"
    );
    Some(Finding::new(Reason::InjectionKept, detail))
}

/// The parents of the template's annotations that exist.
struct Parents {
    metadata: bool,
    annotations: bool,
}

/// The operations that make the template's annotations out of what they were.
fn difference(parents: &Parents, before: &Annotations, after: &Annotations) -> Patch {
    let mut patch = Patch::default();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.remove(&[&TEMPLATE[..], &[key]].concat());
    }
    let added: Vec<_> =
        after.iter().filter(|(k, v)| before.get(*k) != Some(v)).map(|(k, v)| (k.as_str(), quoted(v))).collect();
    if !parents.metadata && !added.is_empty() {
        patch.add(&TEMPLATE[..3], json!({"annotations": after}).to_string());
    } else {
        patch.entries(&TEMPLATE, parents.annotations, added);
    }
    patch
}

#[cfg(test)]
mod tests;
