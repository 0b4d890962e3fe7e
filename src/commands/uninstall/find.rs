//! What an installation consists of, and what it has made.

use std::fmt;

use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::annotations::WORKLOAD_NAMESPACE;
use crate::cluster::object::is_managed;
use crate::cluster::request::{api_resource, callers_error, next_page};
use crate::config::{Config, Installation};
use crate::injection::workload;
use crate::monitoring::objects::{MANAGED_BY, MONITOR, SERVICE};

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
    /// What is in gwmon's namespace and is not gwmon's, for which the namespace stays.
    pub(super) shared: Vec<Object>,
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
const NAMESPACE: (&str, &str) = ("v1", "Namespace");
const SECRET: (&str, &str) = ("v1", "Secret");
const CONFIG_MAP: (&str, &str) = ("v1", "ConfigMap");
/// A label of the Secrets that cert-manager writes.
const ISSUED: &str = "controller.cert-manager.io/fao=true";
/// Kinds for which somebody would miss a namespace.
const CONTENTS: [(&str, &str); 9] = [
    ("v1", "Pod"),
    SECRET,
    CONFIG_MAP,
    SERVICE,
    ("v1", "PersistentVolumeClaim"),
    DEPLOYMENT,
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
];
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
    let any = |_: &DynamicObject| true;
    let is_named = |object: &DynamicObject| object.name_any() == *name;
    check_namespace(client, installation).await?;
    // Every object of the manifests has these labels, and of the chart.
    let part = "app.kubernetes.io/part-of=gwmon";
    let own = format!("{part},app.kubernetes.io/name={name}");
    let is_here = |object: &DynamicObject| object.namespace().is_none_or(|place| place == *namespace);
    let mut found = Found {
        webhooks: list(client, None, WEBHOOK, &own, is_named).await?,
        deployments: list(client, Some(namespace), DEPLOYMENT, &own, any).await?,
        other: list(client, None, WEBHOOK, part, |object| !is_named(object)).await?.pop(),
        ..Found::default()
    };
    if found.other.is_none() {
        for kind in WORKLOADS {
            let is_annotated = |object: &DynamicObject| without_copies(object).is_some();
            found.workloads.extend(list(client, None, kind, "", is_annotated).await?);
        }
        for kind in [MONITOR, SERVICE] {
            found.made.extend(list(client, None, kind, WORKLOAD_NAMESPACE, is_managed).await?);
        }
    }
    for kind in MANIFESTS {
        found.rest.extend(list(client, None, kind, &own, is_here).await?);
    }
    let managed = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
    let at_run_time = [
        (SECRET, installation.secret(), &*managed),
        // cert-manager leaves them when their Certificates go.
        (SECRET, installation.provided_secret(), ISSUED),
        (SECRET, format!("{name}-ca"), ISSUED),
        (CONFIG_MAP, installation.suspensions(), &managed),
        // People make it, and it is of no use without gwmon.
        (CONFIG_MAP, installation.configuration(), ""),
        (("coordination.k8s.io/v1", "Lease"), name.clone(), ""),
    ];
    for (kind, name, labels) in at_run_time {
        let is_named = |object: &DynamicObject| object.name_any() == name;
        found.rest.extend(list(client, Some(namespace), kind, labels, is_named).await?);
    }
    let own_namespace = list(client, None, NAMESPACE, part, |object| object.name_any() == *namespace).await?;
    if !own_namespace.is_empty() {
        found.shared = others_in(client, namespace, &found).await?;
        found.rest.extend(own_namespace.into_iter().filter(|_| found.shared.is_empty()));
    }
    Ok(found)
}

/// The objects that would go with the namespace and are not gwmon's.
async fn others_in(client: &Client, namespace: &str, found: &Found) -> Result<Vec<Object>> {
    let mut others = Vec::new();
    for kind in CONTENTS {
        // What a controller made goes with its owner, and the API server makes one ConfigMap in each namespace.
        let is_root = |object: &DynamicObject| {
            object.owner_references().is_empty() && (kind != CONFIG_MAP || object.name_any() != "kube-root-ca.crt")
        };
        others.extend(list(client, Some(namespace), kind, "", is_root).await?);
    }
    others.retain(|other| {
        let mut known = found.deployments.iter().chain(&found.made).chain(&found.rest);
        !known.any(|object| object == other)
    });
    Ok(others)
}

/// Checks that the webhook of this name is that of an installation in this namespace.
async fn check_namespace(client: &Client, installation: &Installation) -> Result<()> {
    let api = Api::<DynamicObject>::all_with(client.clone(), &api_resource(WEBHOOK.0, WEBHOOK.1));
    let webhook = api.get_opt(&installation.name).await.map_err(callers_error).context("cannot read the webhook")?;
    let called =
        webhook.as_ref().and_then(|webhook| webhook.data.pointer("/webhooks/0/clientConfig/service/namespace"));
    match called.and_then(Value::as_str) {
        Some(other) if other != installation.namespace => bail!(
            "the webhook {} calls a Service in namespace {other}, not in {}: choose that with --namespace",
            installation.name,
            installation.namespace
        ),
        _ => Ok(()),
    }
}

/// The objects of a kind with these labels that are to be kept, in one namespace or in all; none where the cluster does not serve the
/// kind.
async fn list(
    client: &Client,
    namespace: Option<&str>,
    (api_version, kind): (&'static str, &'static str),
    labels: &str,
    is_kept: impl Fn(&DynamicObject) -> bool,
) -> Result<Vec<Object>> {
    let resource = api_resource(api_version, kind);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let (mut page, mut objects) = (ListParams::default().labels(labels).limit(500), Vec::new());
    loop {
        let list = match api.list(&page).await {
            Ok(list) => list,
            // An unknown group is answered with a plain text.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(objects),
            Err(error) => return Err(callers_error(error)).with_context(|| format!("cannot list {kind} objects")),
        };
        objects.extend(list.items.iter().filter(|object| is_kept(object)).map(|object| Object {
            api_version,
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }));
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
