//! Finds an object's gateway and workload from its metadata.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};

use super::FIELD_MANAGER;
use crate::annotations::{EXPORTER, INJECT, METRICS_FOR, MONITORED_BY, WORKLOAD_NAMESPACE};
use crate::config::Installation;
use crate::injection::monitor_name;
use crate::kubernetes::labels::is_dns_subdomain;
use crate::monitoring::objects::name_in;

/// Metadata of an object of any kind.
pub(crate) type Meta = PartialObjectMeta<DynamicObject>;

/// An object's namespace and name.
pub(crate) type NamespacedName = (String, String);

/// The namespace and name of an object.
pub(crate) fn place(object: &Meta) -> NamespacedName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// One gateway: the workload's namespace and the name of its monitor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GatewayKey {
    pub(crate) namespace: String,
    pub(crate) monitor: String,
}

/// gwmon's own metrics, which are scraped as a gateway's are. No gateway's monitor has this name.
impl From<&Installation> for GatewayKey {
    fn from(installation: &Installation) -> Self {
        Self { namespace: installation.namespace.clone(), monitor: installation.name.clone() }
    }
}

impl GatewayKey {
    /// The gateway that a pod or a generated object belongs to. Only a monitor may live elsewhere than its gateway: pods and
    /// Services count only for their own namespace.
    pub(crate) fn of(object: &Meta) -> Option<Self> {
        let label = |key| object.labels().get(key).cloned();
        let own = object.namespace();
        if let Some(monitor) = label(MONITORED_BY) {
            return Some(Self { namespace: own?, monitor });
        }
        let key = Self { namespace: label(WORKLOAD_NAMESPACE)?, monitor: label(METRICS_FOR)? };
        // The name must agree: a label alone is easily changed.
        object.name_any().starts_with(&name_in(&own?, &key.namespace, &key.monitor)).then_some(key)
    }
}

/// Returns true if gwmon has applied fields of an object.
pub(crate) fn is_managed(object: &impl ResourceExt) -> bool {
    object.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// Returns true if an object has `gwmon.io/inject: "true"`.
pub(crate) fn requests_injection(object: &Meta) -> bool {
    object.annotations().get(INJECT).is_some_and(|inject| inject == "true")
}

/// The controller of an object, if its owner reference is valid: the API server checks of an owner reference only that nothing
/// is empty, and kind, version and name become parts of a request's path.
pub(crate) fn controller_of(object: &impl ResourceExt) -> Option<&OwnerReference> {
    let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    owner.filter(|owner| is_reference(owner))
}

/// The owner of a pod: its controller or, where nobody owns it and its name is its own, the pod itself. A pod that was orphaned
/// carries the label of the workload that it had, and is not its own workload.
pub(crate) fn owner_of_pod(pod: &impl ResourceExt) -> Option<OwnerReference> {
    if !pod.owner_references().is_empty() {
        return controller_of(pod).cloned();
    }
    let name = pod.name_any();
    let own = monitor_name(&name);
    let is_orphan =
        [MONITORED_BY, EXPORTER].iter().any(|key| pod.labels().get(*key).is_some_and(|label| *label != own));
    let uid = pod.uid().filter(|_| !is_orphan && pod.meta().generate_name.is_none())?;
    let own =
        OwnerReference { api_version: "v1".to_owned(), kind: POD.to_owned(), name, uid, ..OwnerReference::default() };
    Some(own).filter(is_reference)
}

/// Returns true if this owner of a pod is the pod itself. (A Pod may be the controller of others: Spark's driver is.)
pub(crate) fn is_itself(kind: &str, name: &str, pod: &str) -> bool {
    kind == POD && name == pod
}

/// The kind of a workload that is a pod nobody owns.
pub(crate) const POD: &str = "Pod";

/// Returns true if every part of an owner reference is a valid Kubernetes name: a kind of letters and digits, a DNS
/// subdomain, `version` or `group/version`. A ReplicaSet, which gwmon looks up, must be of apps/v1.
pub(crate) fn is_reference(owner: &OwnerReference) -> bool {
    let is_kind = (1..=63).contains(&owner.kind.len()) && owner.kind.bytes().all(|b| b.is_ascii_alphanumeric());
    let parts: Vec<_> = owner.api_version.split('/').collect();
    let is_version = parts.len() <= 2 && parts.iter().all(|part| is_dns_subdomain(part));
    is_kind
        && is_version
        && is_dns_subdomain(&owner.name)
        && owner.uid.len() <= 63
        && (owner.kind != "ReplicaSet" || owner.api_version == "apps/v1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_owner_that_would_change_a_request_is_none() {
        let owner = |api_version: &str, kind: &str, name: &str| {
            is_reference(&OwnerReference {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
                uid: "d9607e19-f88f-11e6-a518-42010a800195".to_owned(),
                ..OwnerReference::default()
            })
        };
        for (api_version, kind, name) in [
            ("apps/v1", "ReplicaSet", "edge-6d4b"),
            ("v1", "ReplicationController", "edge"),
            ("argoproj.io/v1alpha1", "Rollout", "edge.v2"),
        ] {
            assert!(owner(api_version, kind, name), "{api_version} {kind} {name}");
        }
        for (api_version, kind, name) in [
            ("v1", "Pods?watch=true&x=", "a"),
            ("v1", "Pod", "a b"),
            ("v1", "Pod", "../secrets/x"),
            ("v1", "Pod", ""),
            ("a/b/c", "Pod", "a"),
            ("evil.example/v1", "ReplicaSet", "a"),
            ("v1", "Pod", &"a".repeat(254)),
        ] {
            assert!(!owner(api_version, kind, name), "{api_version} {kind} {name}");
        }
    }

    #[test]
    fn pods_and_services_speak_for_their_own_namespace_only() {
        let key = |name: &str, labels: serde_json::Value| {
            let metadata = json!({"name": name, "namespace": "west", "labels": labels});
            let object: Meta = serde_json::from_value(json!({"metadata": metadata})).unwrap();
            GatewayKey::of(&object).map(|key| format!("{}/{}", key.namespace, key.monitor))
        };
        let pod = json!({"gwmon.io/monitored-by": "edge-gwmon", "gwmon.io/workload-namespace": "edge"});
        assert_eq!(key("pod", pod).as_deref(), Some("west/edge-gwmon"));
        let made =
            |namespace: &str| json!({"gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": namespace});
        assert_eq!(key("edge-gwmon", made("west")).as_deref(), Some("west/edge-gwmon"));
        assert_eq!(key("edge-gwmon", made("edge")), None);
        assert_eq!(key("edge.edge-gwmon", made("edge")).as_deref(), Some("edge/edge-gwmon"));
    }
}
