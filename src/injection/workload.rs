//! gwmon's annotations from a workload down to its pod template, and off it again. The template change is
//! what starts the roll-out; nobody has to know that the annotation belongs on the pods (R13).

use std::cell::OnceCell;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use super::exporter::READ_FROM_ANNOTATIONS;
use super::gateway::contour;
use super::patch::{Patch, quoted};
use super::pod::{Metadata, Pod, PodSpec, or_null, parse};
use super::resources::LimitRange;
use super::{Injection, claims, decide_for, gateway};
use crate::annotations::{Annotations, COPIED, INJECT, STATUS, Settings, VOCABULARY, ours};
use crate::config::Config;
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
    pub pods: Result<Injection, Finding>,
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
    // A copy of what the workload no longer carries may have become the template's own in the same moment.
    let moved = if noted.keys().all(|key| is_own(key)) { BTreeSet::new() } else { claims::claimed(json, own) };
    let mut kept = Annotations::new();
    for (key, value) in noted {
        if after.get(&key) != Some(&value) {
            continue;
        }
        if moved.contains(key.as_str()) && !is_own(&key) {
            // The note too stays as it is, so that nothing is rolled out.
            kept.insert(key, value);
        } else {
            after.remove(&key);
        }
    }
    after.remove(COPIED);
    // Written on a pod, and pasted from there into a template: it would speak for pods that do not exist yet. Not so in
    // what `gwmon preview` prints, where the template has the sidecar and the volumes that read them.
    let spec = &workload.spec.template.spec;
    let (read, unread): (Vec<_>, Vec<_>) =
        READ_FROM_ANNOTATIONS.into_iter().partition(|(volume, _)| spec.has_volume(volume));
    for key in unread.into_iter().map(|(_, annotation)| annotation).chain(read.is_empty().then_some(STATUS)) {
        after.remove(key);
    }
    // The whole vocabulary as it would hold, mistyped keys included, which are not copied.
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
    let pods = decide_for(config, limits, &pod, Some(&workload.metadata.name));
    // A proxy that is to come is looked at when it is there: in the pod.
    if let Err(refusal) = &pods
        && refusal.is_warning()
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

/// Warns whoever removes gwmon's copies from the template of a workload that keeps its own annotation, since they are
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
        "the pod template keeps {INJECT}, since {kind} {name} has it; should injection end, kubectl annotate {kind}/{name} {INJECT}-"
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
mod tests {
    use super::super::claims::LAST_APPLIED;
    use super::*;
    use serde_json::Value;

    fn deployment(own: &Value, template: &Value) -> Value {
        json!({
            "metadata": {"name": "edge", "annotations": own},
            "spec": {"template": {
                "metadata": template,
                "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0"}]},
            }},
        })
    }

    fn change(workload: &Value) -> WorkloadChange {
        decide(&Config::default(), &[], &workload.to_string()).unwrap()
    }

    /// The workload after its admission, and the template's annotations.
    fn admitted(mut workload: Value) -> (Value, Value) {
        let patch = change(&workload).patch.to_operations().unwrap();
        json_patch::patch(&mut workload, &patch).unwrap();
        assert!(change(&workload).patch.is_empty(), "a second admission changes nothing");
        let annotations = workload.pointer("/spec/template/metadata/annotations").cloned().unwrap_or_default();
        (workload, annotations)
    }

    #[test]
    fn the_annotation_goes_down_and_comes_off_again() {
        let asked = json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "9200", "other": "x"});
        for template in [Value::Null, json!({}), json!({"annotations": null}), json!({"annotations": {"mine": "1"}})] {
            let (mut workload, annotations) = admitted(deployment(&asked, &template));
            assert_eq!(annotations["gwmon.io/inject"], "true");
            assert_eq!(annotations["gwmon.io/metrics-port"], "9200");
            assert_eq!(annotations.get("other"), None);

            workload["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
            let (mut workload, annotations) = admitted(workload);
            assert_eq!(annotations.get("gwmon.io/metrics-port"), None);

            workload["metadata"]["annotations"] = Value::Null;
            let (_, annotations) = admitted(workload);
            let left = template.get("annotations").filter(|a| a.is_object()).cloned().unwrap_or_else(|| json!({}));
            assert_eq!(annotations, left, "nothing of gwmon's is left, and all of the user's");
        }
    }

    #[test]
    fn the_templates_own_annotation_wins_and_stays() {
        let own = json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "9200"});
        let template = json!({"annotations": {"gwmon.io/metrics-port": "9300"}});
        let (mut workload, annotations) = admitted(deployment(&own, &template));
        assert_eq!(annotations["gwmon.io/metrics-port"], "9300");
        workload["metadata"]["annotations"] = json!({});
        let (_, annotations) = admitted(workload);
        assert_eq!(annotations, template["annotations"]);
    }

    #[test]
    fn a_copy_that_somebody_changed_is_theirs() {
        let own = json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "9200"});
        let (mut workload, _) = admitted(deployment(&own, &json!({})));
        workload["spec"]["template"]["metadata"]["annotations"]["gwmon.io/metrics-port"] = json!("9400");
        let (mut workload, annotations) = admitted(workload);
        assert_eq!(annotations["gwmon.io/metrics-port"], "9400");
        workload["metadata"]["annotations"] = Value::Null;
        assert_eq!(admitted(workload).1, json!({"gwmon.io/metrics-port": "9400"}));
    }

    #[test]
    fn an_annotation_that_moves_to_the_template_rolls_nothing_out() {
        let asked = json!({"gwmon.io/inject": "true"});
        let (copied, annotations) = admitted(deployment(&asked, &json!({})));
        let template = json!({"spec": {"template": {"metadata": {"annotations": {"gwmon.io/inject": "true"}}}}});
        let fields = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:gwmon.io/inject": {}}}}}});
        for claim in [
            json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": template.to_string()}}),
            json!({"annotations": null, "managedFields": [{"manager": "argocd", "fieldsV1": fields}]}),
        ] {
            let mut moved = copied.clone();
            moved["metadata"]["annotations"] = Value::Null;
            json_patch::merge(&mut moved["metadata"], &claim);
            let (mut moved, now) = admitted(moved);
            assert_eq!(now, annotations, "{claim}");
            // Taken off there, nothing is left.
            moved["metadata"]["managedFields"] = Value::Null;
            moved["metadata"]["annotations"] = Value::Null;
            moved["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove(INJECT);
            assert_eq!(admitted(moved).1, json!({}), "{claim}");
        }
        // What was got from the cluster and applied again is no claim.
        let got = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        let mut taken_off = copied;
        taken_off["metadata"]["annotations"] = json!({LAST_APPLIED: got.to_string()});
        assert_eq!(admitted(taken_off).1, json!({}));
    }

    #[test]
    fn who_undoes_a_roll_out_of_the_copies_is_told() {
        let asked = json!({"gwmon.io/inject": "true"});
        let undone = deployment(&asked, &json!({}));
        let (before, _) = admitted(undone.clone());
        let told = |before: &Value, after: &Value| puts_back("DaemonSet", &before.to_string(), &after.to_string());
        let finding = told(&before, &undone).unwrap();
        assert!(finding.detail.ends_with("kubectl annotate daemonset/edge gwmon.io/inject-"), "{finding}");
        assert_eq!(told(&before, &before), None);
        assert_eq!(told(&undone, &undone), None);
        assert_eq!(told(&before, &deployment(&json!({}), &json!({}))), None);
    }

    #[test]
    fn a_changed_value_reaches_the_template() {
        let (mut workload, _) =
            admitted(deployment(&json!({"gwmon.io/inject": "true", "gwmon.io/interval": "15s"}), &json!({})));
        workload["metadata"]["annotations"]["gwmon.io/interval"] = json!("30s");
        assert_eq!(admitted(workload).1["gwmon.io/interval"], "30s");
    }

    #[test]
    fn what_was_pasted_from_a_pod_goes() {
        let pasted = json!({"annotations": {"gwmon.io/status": "{}", "gwmon.io/mapping": "x", "mine": "1"}});
        let (_, annotations) = admitted(deployment(&json!({"gwmon.io/inject": "true"}), &pasted));
        assert!(annotations["gwmon.io/status"].is_null() && annotations["gwmon.io/mapping"].is_null());
        assert_eq!(annotations["mine"], "1");
    }

    #[test]
    fn what_a_preview_printed_is_left_whole() {
        let mut previewed = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
        let container = &mut previewed["spec"]["template"]["spec"]["containers"][0];
        *container = json!({"name": "gloo", "image": "quay.io/solo-io/gloo-envoy-wrapper:1.18.0"});
        let (mut previewed, _) = admitted(previewed);
        let mut pod = previewed["spec"]["template"].clone();
        let injection =
            decide_for(&Config::default(), &[], &Pod::parse(&pod.to_string()).unwrap(), Some("edge")).unwrap();
        json_patch::patch(&mut pod, &injection.patch.to_operations().unwrap()).unwrap();
        previewed["spec"]["template"] = pod.clone();

        let change = change(&previewed);
        assert_eq!((change.patch.to_json().as_str(), change.pods.unwrap_err().reason), ("[]", Reason::AlreadyInjected));

        for annotation in ["gwmon.io/mapping", "gwmon.io/envoy-bootstrap"] {
            let mut half = previewed.clone();
            half["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove(annotation).unwrap();
            let refused = decide(&Config::default(), &[], &half.to_string()).unwrap_err();
            assert_eq!(refused.reason, Reason::IncompleteInjection);
            assert!(refused.detail.contains(annotation), "{refused}");
        }
    }

    #[test]
    fn a_proxy_that_is_to_come_is_left_to_the_pods() {
        let mut workload = deployment(&json!({"gwmon.io/inject": "true", "gwmon.io/gateway": "osm"}), &json!({}));
        workload["spec"]["template"]["spec"]["containers"][0] = json!({"name": "bookstore", "image": "shop:1"});
        let (workload, annotations) = admitted(workload);
        assert_eq!(annotations["gwmon.io/gateway"], "osm");
        assert_eq!(change(&workload).pods.unwrap_err().reason, Reason::ProxyNotInjected);
    }

    #[test]
    fn settings_without_inject_do_not_roll_anything_out() {
        assert!(change(&deployment(&json!({"gwmon.io/interval": "15s"}), &json!({}))).patch.is_empty());
    }

    #[test]
    fn what_the_pods_would_be_refused_for_is_said_at_once() {
        let refused = |workload: Value| decide(&Config::default(), &[], &workload.to_string()).unwrap_err().reason;
        assert_eq!(refused(deployment(&json!({"gwmon.io/inject": "yes"}), &json!({}))), Reason::InvalidAnnotation);
        let mut other = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
        other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:1");
        assert_eq!(refused(other), Reason::NoGateway);
        let mut managed = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
        managed["metadata"]["ownerReferences"] = json!([{"kind": "EnvoyProxy", "name": "eg", "controller": true}]);
        assert_eq!(refused(managed.clone()), Reason::ManagedWorkload);
        managed["spec"]["template"]["metadata"] = json!({"labels": {"app.kubernetes.io/managed-by": "envoy-gateway"}});
        let finding = decide(&Config::default(), &[], &managed.to_string()).unwrap_err();
        assert!(finding.detail.contains("EnvoyProxy, spec.provider.kubernetes"), "{finding}");

        let mut provisioned = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
        provisioned["kind"] = json!("Deployment");
        provisioned["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "contour-gateway-provisioner"});
        provisioned["spec"]["template"]["spec"]["initContainers"] = json!([{"name": "envoy-initconfig"}]);
        let finding = decide(&Config::default(), &[], &provisioned.to_string()).unwrap_err();
        assert!(finding.detail.contains("ContourDeployment, spec.envoy.podAnnotations"), "{finding}");
        provisioned["kind"] = json!("DaemonSet");
        assert!(!change(&provisioned).patch.is_empty());
    }
}
