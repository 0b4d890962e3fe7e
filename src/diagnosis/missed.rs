//! Workloads and pods that differ from what they ask for, because the webhook was not called for them (R2). The webhook's own
//! decision counts: a refusal is reported as such, and a restart is advised only if it helps.

use crate::annotations::{ENABLED, INJECT};
use crate::config::Config;
use crate::injection::resources::LimitRange;
use crate::injection::{self, Decision, workload};
use crate::monitoring::Owner;
use crate::reason::{Finding, Reason};

/// The pod template compared with the workload's annotation.
#[derive(Debug, PartialEq, Eq)]
pub enum Template {
    /// No action is needed.
    Agrees,
    /// It asks for injection, as the workload does. Pods of it may be older than the webhook.
    Asks,
    /// An action is needed.
    Differs(Finding),
}

/// Compares a workload's pod template with the workload's annotation. `asks` is false for a workload that no longer asks for
/// injection, and `has_pods` for one that is scaled to nothing.
#[must_use]
pub fn template(
    config: &Config,
    limits: &[LimitRange],
    text: &str,
    (namespace, owner): (&str, &Owner),
    asks: bool,
    has_pods: bool,
) -> Template {
    match workload::decide(config, limits, text) {
        Err(finding) if finding.is_warning() => Template::Differs(finding),
        Err(_) => Template::Agrees,
        Ok(_) if !has_pods => Template::Agrees,
        Ok(change) if change.patch.is_empty() => {
            if asks {
                Template::Asks
            } else {
                Template::Agrees
            }
        }
        Ok(_) => {
            let repair = repair(namespace, owner);
            let (reason, detail) = if asks {
                let what = "annotated while the webhook was unavailable, so its pods run without the exporter";
                (Reason::MissedInjection, format!("{what}; {repair}"))
            } else {
                let what = "was removed while the webhook was unavailable, so the pod template still has it and new pods get the exporter";
                (Reason::MissedRemoval, format!("{INJECT} {what}; {repair}"))
            };
            Template::Differs(Finding::new(reason, detail))
        }
    }
}

/// The finding about a pod that asks for injection and runs without it; `None` where nobody has to act. `is_bare` is true for a pod
/// that is its own owner, and `is_unasked` for one whose namespace asks for it.
#[must_use]
pub fn pod(
    config: &Config,
    limits: &[LimitRange],
    text: &str,
    (namespace, owner): (&str, &Owner),
    (is_bare, is_unasked): (bool, bool),
) -> Option<Finding> {
    let decide = if is_unasked { injection::decide_by_namespace } else { injection::decide };
    match decide(config, limits, text) {
        Decision::Inject(_) => {
            let detail = if is_unasked {
                format!(
                    "namespace {namespace} has the label {INJECT}={ENABLED}, and pods of this gateway were created before that, or while the webhook was unavailable or injection was suspended; {}",
                    repair(namespace, owner)
                )
            } else if is_bare {
                format!(
                    "the pod requests injection but was created before the annotation, or while the webhook was unavailable; kubectl -n {namespace} delete pod {}, and create it again",
                    owner.name
                )
            } else {
                format!(
                    "pods request injection but were created while the webhook was unavailable or injection was suspended; {}",
                    repair(namespace, owner)
                )
            };
            Some(Finding::new(Reason::MissedInjection, detail))
        }
        Decision::Skip(_) => None,
        Decision::Cannot(finding) => Some(finding),
    }
}

/// The command that repairs it: any change of the template makes new pods, and an update passes the webhook.
fn repair(namespace: &str, owner: &Owner) -> String {
    match owner.kind.as_str() {
        "Deployment" | "StatefulSet" | "DaemonSet" => {
            format!("kubectl -n {namespace} rollout restart {}/{}", owner.kind.to_lowercase(), owner.name)
        }
        _ => format!("restart the pods of {} {namespace}/{}", owner.kind, owner.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn owner(kind: &str) -> Owner {
        Owner { api_version: "apps/v1".to_owned(), kind: kind.to_owned(), name: "edge".to_owned(), uid: "u".to_owned() }
    }

    fn compare(workload: &Value, template: &Value, has_pods: bool) -> Template {
        let asks = workload["gwmon.io/inject"] == "true";
        let spec = json!({"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.31.0", "args": ["--config-yaml", "static_resources: {}"]}]});
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "edge", "namespace": "gw", "annotations": workload},
            "spec": {"template": {"metadata": {"annotations": template}, "spec": spec}},
        });
        super::template(&Config::default(), &[], &object.to_string(), ("gw", &owner("Deployment")), asks, has_pods)
    }

    #[test]
    fn the_template_and_the_workload_are_compared() {
        let (asks, copied) = (json!({"gwmon.io/inject": "true"}), json!({"gwmon.io/inject": "true"}));
        let reason = |template| if let Template::Differs(finding) = template { Some(finding.reason) } else { None };
        assert_eq!(reason(compare(&asks, &json!({}), true)), Some(Reason::MissedInjection));
        assert_eq!(compare(&asks, &json!({}), false), Template::Agrees, "there is no pod to restart");
        assert_eq!(compare(&json!({}), &json!({}), true), Template::Agrees);
        assert_eq!(compare(&json!({}), &copied, true), Template::Agrees, "the template's own annotation");
        let refused = json!({"gwmon.io/inject": "true", "gwmon.io/mode": "push"});
        assert_eq!(reason(compare(&refused, &json!({}), false)), Some(Reason::InvalidAnnotation));
    }

    #[test]
    fn a_pod_is_told_with_the_command_that_repairs_it() {
        let metadata = json!({
            "name": "edge-1", "annotations": {"gwmon.io/inject": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "edge", "uid": "u", "controller": true}],
        });
        let spec = json!({"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.31.0", "args": ["--config-yaml", "static_resources: {}"]}]});
        let found = json!({"metadata": metadata, "spec": spec}).to_string();
        let finding = pod(&Config::default(), &[], &found, ("gw", &owner("StatefulSet")), (false, false)).unwrap();
        assert!(finding.detail.ends_with("kubectl -n gw rollout restart statefulset/edge"), "{finding}");
        let finding = pod(&Config::default(), &[], &found, ("gw", &owner("Rollout")), (false, false)).unwrap();
        assert!(finding.detail.ends_with("restart the pods of Rollout gw/edge"), "{finding}");
        let web =
            json!({"metadata": metadata, "spec": {"containers": [{"name": "web", "image": "httpd"}]}}).to_string();
        assert_eq!(
            pod(&Config::default(), &[], &web, ("gw", &owner("StatefulSet")), (false, false)).unwrap().reason,
            Reason::NoGateway
        );
        let quiet = json!({"metadata": {"name": "edge-1"}, "spec": spec}).to_string();
        assert_eq!(pod(&Config::default(), &[], &quiet, ("gw", &owner("StatefulSet")), (false, false)), None);
    }

    #[test]
    fn a_pod_that_nobody_owns_is_created_again_unless_its_name_was_generated() {
        let told = |metadata: Value| {
            let spec = json!({"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.31.0"}]});
            let mut found = json!({"metadata": {"annotations": {"gwmon.io/inject": "true"}}, "spec": spec});
            json_patch::merge(&mut found["metadata"], &metadata);
            pod(&Config::default(), &[], &found.to_string(), ("gw", &owner("Pod")), (true, false)).unwrap()
        };
        let finding = told(json!({"name": "edge"}));
        assert_eq!(finding.reason, Reason::MissedInjection);
        assert!(finding.detail.ends_with("kubectl -n gw delete pod edge, and create it again"), "{finding}");
        assert_eq!(told(json!({"name": "edge-x1", "generateName": "edge-"})).reason, Reason::NoWorkload);
    }
}
