//! What would become of a workload's pods, from the workload alone.

use serde_json::{Value, json};

use super::resources::LimitRange;
use super::{Injection, decide_in, workload};
use crate::annotations::INJECT;
use crate::config::Config;
use crate::injection::patch::Patch;
use crate::kubernetes::labels::Labels;
use crate::reason::{Finding, Reason};

/// A workload and its pods as they would be.
#[derive(Debug)]
pub struct Predicted {
    /// The workload after its admission.
    pub workload: Value,
    /// A pod of its template as the API server would send it to the webhook.
    pub pod: Value,
    /// What the webhook would answer.
    pub injection: Injection,
}

/// The JSON pointer to an object's pod template, or to the object itself if it is a Pod; `None` for others.
#[must_use]
pub fn template_path(object: &Value) -> Option<&'static str> {
    let path = match object["kind"].as_str()? {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    };
    object.pointer(path)?.get("spec").map(|_| path)
}

/// Returns true if the webhook is called for the object and copies its annotations to the template.
#[must_use]
pub fn is_copied(object: &Value) -> bool {
    object["apiVersion"] == "apps/v1"
        && matches!(object["kind"].as_str(), Some("Deployment" | "StatefulSet" | "DaemonSet"))
}

/// The value of an annotation on the object's template or, if the webhook copies it, on the object.
#[must_use]
pub fn annotation<'o>(object: &'o Value, path: &str, key: &str) -> Option<&'o str> {
    let at = |path: &str| object.pointer(path)?.get("metadata")?.get("annotations")?.get(key)?.as_str();
    at(path).or_else(|| at("").filter(|_| is_copied(object)))
}

/// The object that controls this one, for a person.
#[must_use]
pub fn controller(object: &Value) -> Option<String> {
    let mut owners = object["metadata"]["ownerReferences"].as_array()?.iter();
    let owner = owners.find(|owner| owner["controller"] == true)?;
    Some(format!("{} {}", owner["kind"].as_str()?, owner["name"].as_str()?))
}

/// The place of an annotation, in words.
#[must_use]
pub fn place(path: &str) -> String {
    match path {
        "" => "in metadata.annotations".to_owned(),
        path => format!("in {}.metadata.annotations", path.trim_start_matches('/').replace('/', ".")),
    }
}

/// Predicts the pods of an object with a pod template at this path, in this namespace with these `LimitRange`s and labels.
///
/// # Errors
/// The reason why its pods would stay as they are.
pub fn predict(
    config: &Config,
    limits: &[LimitRange],
    (namespace, labels): (&str, &Labels),
    object: &Value,
    path: &str,
) -> Result<Predicted, Finding> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut after = object.clone();
    if is_copied(object) {
        apply(&mut after, &workload::decide(config, limits, &object.to_string())?.patch)?;
    } else if !path.is_empty()
        && annotation(object, path, INJECT).is_none()
        && object["metadata"]["annotations"][INJECT] == "true"
    {
        // A ReplicaSet has the annotations of its Deployment.
        if let Some(controller) = controller(object) {
            return Err(Finding::new(
                Reason::NotRequested,
                format!("{controller} controls it; preview that object instead"),
            ));
        }
        let detail = format!(
            "gwmon reads this annotation on apps/v1 Deployments, StatefulSets and DaemonSets, not on {} {}; set {INJECT} {}",
            text("/apiVersion"),
            text("/kind"),
            place(path)
        );
        return Err(Finding::new(Reason::AnnotationMisplaced, detail));
    }
    // The pod that the API server would see.
    let mut pod = after.pointer(path).cloned().unwrap_or_default();
    if !path.is_empty() {
        let owner = if object["kind"] == "CronJob" { "Job" } else { text("/kind") };
        pod["metadata"]["ownerReferences"] =
            json!([{"kind": owner, "name": text("/metadata/name"), "controller": true}]);
    }
    let injection = decide_in(config, limits, labels, &pod.to_string()).injection()?;
    config.check_namespace(namespace)?;
    Ok(Predicted { workload: after, pod, injection })
}

/// Applies a patch of gwmon's.
///
/// # Errors
/// An object that is not of the shape that it was decided on.
pub fn apply(object: &mut Value, patch: &Patch) -> Result<(), Finding> {
    let malformed = |error: &dyn std::fmt::Display| Finding::new(Reason::MalformedObject, error.to_string());
    let operations = patch.to_operations().map_err(|error| malformed(&error))?;
    json_patch::patch(object, &operations).map_err(|error| malformed(&error))
}
