//! What an installation consists of, and what it has made.

use std::fmt;

use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::annotations::WORKLOAD_NAMESPACE;
use crate::cluster::object::is_managed;
use crate::cluster::request::{api_resource, callers_error, next_page};
use crate::config::{Config, Installation};
use crate::injection::workload;
use crate::monitoring::objects::{MONITOR, SERVICE};

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    /// Empty where the kind has none.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.to_lowercase(), self.name)?;
        if self.namespace.is_empty() { Ok(()) } else { write!(f, " -n {}", self.namespace) }
    }
}

/// Everything that was found, by the step in which it goes.
#[derive(Default)]
pub(super) struct Found {
    pub(super) webhooks: Vec<Object>,
    pub(super) deployments: Vec<Object>,
    /// Those whose pod template holds annotations that gwmon copied there.
    pub(super) workloads: Vec<Object>,
    pub(super) made: Vec<Object>,
    pub(super) rest: Vec<Object>,
    /// The webhook of another installation, which may be responsible for the gateways: they are left alone.
    pub(super) other: Option<Object>,
}

impl Found {
    pub(super) const fn is_empty(&self) -> bool {
        self.webhooks.is_empty()
            && self.deployments.is_empty()
            && self.workloads.is_empty()
            && self.made.is_empty()
            && self.rest.is_empty()
    }
}

const WEBHOOK: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");
/// Kinds whose template gwmon annotates.
const WORKLOADS: [(&str, &str); 3] = [DEPLOYMENT, ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet")];
/// The other kinds of the manifests, in the order in which they go: what gives rights and names comes last.
const MANIFESTS: [(&str, &str); 12] = [
    ("cert-manager.io/v1", "Certificate"),
    ("cert-manager.io/v1", "Issuer"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    SERVICE,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
];

/// Finds all of it. Nothing is changed.
pub(super) async fn find(client: &Client, installation: &Installation) -> Result<Found> {
    let Installation { namespace, name } = installation;
    // By the labels that every object of the manifests has, and of the chart.
    let of = |kind| async move {
        let objects =
            list(client, kind, &format!("app.kubernetes.io/part-of=gwmon,app.kubernetes.io/name={name}")).await?;
        anyhow::Ok(objects.iter().map(|object| reference(kind, object)).collect::<Vec<_>>())
    };
    let mut found = Found { webhooks: of(WEBHOOK).await?, deployments: of(DEPLOYMENT).await?, ..Found::default() };
    let all = list(client, WEBHOOK, "app.kubernetes.io/part-of=gwmon").await?;
    found.other = all.iter().map(|object| reference(WEBHOOK, object)).find(|object| !found.webhooks.contains(object));
    if found.other.is_none() {
        for kind in WORKLOADS {
            let workloads = list(client, kind, "").await?;
            let annotated = workloads.iter().filter(|object| without_copies(object).is_some());
            found.workloads.extend(annotated.map(|object| reference(kind, object)));
        }
        for kind in [MONITOR, SERVICE] {
            let made = list(client, kind, WORKLOAD_NAMESPACE).await?;
            found.made.extend(made.iter().filter(|object| is_managed(*object)).map(|object| reference(kind, object)));
        }
    }
    for kind in MANIFESTS {
        found.rest.extend(of(kind).await?);
    }
    let at_run_time = [
        (("v1", "Secret"), installation.secret()),
        (("v1", "ConfigMap"), installation.suspensions()),
        (("coordination.k8s.io/v1", "Lease"), name.clone()),
    ];
    for (kind, name) in at_run_time {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &api_resource(kind.0, kind.1));
        let there = api.get_metadata_opt(&name).await.map_err(callers_error);
        if there.with_context(|| format!("cannot read {} {namespace}/{name}", kind.1))?.is_some() {
            found.rest.push(Object { api_version: kind.0, kind: kind.1, namespace: namespace.clone(), name });
        }
    }
    let namespaces = list(client, ("v1", "Namespace"), "app.kubernetes.io/part-of=gwmon").await?;
    let namespaces = namespaces.iter().filter(|object| object.name_any() == *namespace);
    found.rest.extend(namespaces.map(|object| reference(("v1", "Namespace"), object)));
    Ok(found)
}

fn reference((api_version, kind): (&'static str, &'static str), object: &DynamicObject) -> Object {
    Object { api_version, kind, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// The objects of a kind with these labels, in all namespaces; none where the cluster does not serve the kind.
async fn list(client: &Client, (version, kind): (&str, &str), labels: &str) -> Result<Vec<DynamicObject>> {
    let api = Api::<DynamicObject>::all_with(client.clone(), &api_resource(version, kind));
    let (mut page, mut objects) = (ListParams::default().labels(labels).limit(500), Vec::new());
    loop {
        let list = match api.list(&page).await {
            Ok(list) => list,
            // An unknown group is answered with a plain text.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(objects),
            Err(error) => return Err(callers_error(error)).with_context(|| format!("cannot list {kind} objects")),
        };
        objects.extend(list.items);
        match next_page(page, list.metadata) {
            Some(next) => page = next,
            None => return Ok(objects),
        }
    }
}

/// The operations that take what gwmon copied off a workload's pod template, on just this version of it: what the webhook would do
/// if the workload's own annotations were gone. `None` where nothing was copied.
pub(super) fn without_copies(workload: &DynamicObject) -> Option<Value> {
    let mut json = serde_json::to_value(workload).ok()?;
    if let Some(annotations) = json.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !key.starts_with("gwmon.io/"));
    }
    let change = workload::decide(&Config::default(), &[], &json.to_string()).ok()?;
    let mut operations: Vec<Value> = serde_json::from_str(&change.patch.to_json()).ok()?;
    if operations.is_empty() {
        return None;
    }
    let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": workload.resource_version()});
    operations.insert(0, version);
    Some(operations.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_gives_back_what_was_copied_and_keeps_its_own() {
        let deployment = |template: &Value| {
            let object = json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "edge", "namespace": "edge", "resourceVersion": "7", "annotations": {"gwmon.io/inject": "true"}},
                "spec": {"template": {
                    "metadata": {"annotations": template},
                    "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0"}]},
                }},
            });
            without_copies(&serde_json::from_value(object).unwrap()).map(|patch| patch.to_string())
        };
        let copied =
            json!({"team": "edge", "gwmon.io/inject": "true", "gwmon.io/copied": r#"{"gwmon.io/inject":"true"}"#});
        let operations = deployment(&copied).unwrap();
        assert!(operations.contains("gwmon.io~1inject") && operations.contains("gwmon.io~1copied"), "{operations}");
        assert!(!operations.contains("team"), "{operations}");
        assert!(deployment(&json!({"gwmon.io/inject": "true"})).is_none(), "somebody's own");
        assert!(deployment(&json!({})).is_none());
    }
}
