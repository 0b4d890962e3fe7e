//! A Deployment, StatefulSet or DaemonSet, as far as its pods concern gwmon.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::annotations::{DISCOVERY, Discovery, INJECT};
use crate::injection::{describe_gateway, gateway, monitor_name};
use crate::kubernetes::Annotations;
use crate::kubernetes::labels::Labels;
use crate::kubernetes::pod::{self, or_null};

/// A Deployment, StatefulSet or DaemonSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The value of `gwmon.io/inject` on it.
    pub inject: Option<String>,
    /// The value of `gwmon.io/inject` on its pod template.
    pub template_inject: Option<String>,
    /// The object that makes it, as `Kind name`.
    pub controller: Option<String>,
    /// The pods that it has.
    pub pods: usize,
    /// The pods that it is to have.
    pub wanted: usize,
    /// True while pods of an older template are being replaced.
    pub is_rolling: bool,
    /// False if its injected pods may have no label of gwmon's: they are discovered by annotations.
    pub is_labelled: bool,
    /// Why it has no more, in the words of its condition `ReplicaFailure`.
    pub failure: Option<String>,
    /// The kind of gateway, the version if the image shows it, and the container; absent if it is none.
    pub gateway: Option<String>,
    /// True if that is the pods' own purpose, and not an application's proxy.
    pub is_gateway: bool,
    /// The whole object as JSON; empty if it neither asks for injection nor is a gateway, as most are.
    pub json: String,
}

impl Workload {
    /// Reads an object of one of the three kinds, which lists leave out of their items.
    ///
    /// # Errors
    /// A field of another type than its kind's.
    pub fn parse(kind: &str, json: &str) -> Result<Self, serde_json::Error> {
        let object: WorkloadObject = serde_json::from_str(json)?;
        let WorkloadObject { metadata, spec, status } = object;
        let controller = metadata.controller().map(|owner| format!("{} {}", owner.kind, owner.name));
        let template = spec.template.metadata.annotations;
        let wanted = spec.replicas.or(status.desired_number_scheduled).unwrap_or(1);
        let pods = status.replicas.or(status.current_number_scheduled).unwrap_or_default();
        // Left out where it is 0.
        let updated = status.updated_replicas.or(status.updated_number_scheduled).unwrap_or_default();
        let UpdateStrategy { kind: strategy, rolling_update } = spec.update_strategy;
        let waits = spec.paused || strategy == "OnDelete" || rolling_update.partition > 0;
        let is_rolling = !waits && (status.observed_generation < metadata.generation || updated < pods);
        let template_json = spec_template(json);
        let gateway = describe_gateway(template_json);
        let is_gateway = gateway.is_some() && pod::Pod::parse(template_json).is_ok_and(|pod| gateway::is_gateway(&pod));
        let asks =
            [metadata.annotations.get(INJECT), template.get(INJECT)].into_iter().flatten().any(|value| value == "true");
        let failed = status.conditions.into_iter().find(|condition| condition.kind == "ReplicaFailure");
        Ok(Self {
            kind: kind.to_owned(),
            inject: metadata.annotations.get(INJECT).cloned(),
            template_inject: template.get(INJECT).cloned(),
            controller,
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            pods,
            wanted,
            is_rolling,
            is_labelled: ![metadata.annotations.get(DISCOVERY), template.get(DISCOVERY)]
                .into_iter()
                .flatten()
                .any(|discovery| discovery == Discovery::Annotations.as_str()),
            failure: failed.map(|condition| condition.message),
            json: if asks || gateway.is_some() { json.to_owned() } else { String::new() },
            gateway,
            is_gateway,
        })
    }

    /// Returns true if it or its pod template asks for injection.
    #[must_use]
    pub fn asks(&self) -> bool {
        [&self.inject, &self.template_inject].into_iter().any(|inject| inject.as_deref() == Some("true"))
    }

    /// The name of its Service and its ServiceMonitor.
    #[must_use]
    pub fn monitor(&self) -> String {
        monitor_name(&self.name)
    }

    /// `deployment.apps/edge`, as kubectl takes it.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("{}.apps/{}", self.kind.to_lowercase(), self.name)
    }
}

/// The pod template of a workload as JSON.
fn spec_template(json: &str) -> &str {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        spec: Spec<'a>,
    }
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow)]
        template: &'a RawValue,
    }
    serde_json::from_str::<Object>(json).map_or("{}", |object| object.spec.template.get())
}

#[derive(Deserialize)]
struct WorkloadObject {
    metadata: Metadata,
    spec: WorkloadSpec,
    #[serde(default, deserialize_with = "or_null")]
    status: WorkloadStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    #[serde(deserialize_with = "or_null")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) namespace: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) uid: String,
    #[serde(deserialize_with = "or_null")]
    pub(super) labels: Labels,
    #[serde(deserialize_with = "or_null")]
    pub(super) annotations: Annotations,
    #[serde(deserialize_with = "or_null")]
    pub(super) owner_references: Vec<OwnerReference>,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) generation: i64,
}

impl Metadata {
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSpec {
    replicas: Option<usize>,
    #[serde(default)]
    paused: bool,
    #[serde(default, deserialize_with = "or_null")]
    update_strategy: UpdateStrategy,
    template: Template,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UpdateStrategy {
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "or_null")]
    rolling_update: RollingUpdate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RollingUpdate {
    partition: i64,
}

#[derive(Deserialize)]
struct Template {
    #[serde(default, deserialize_with = "or_null")]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WorkloadStatus {
    replicas: Option<usize>,
    current_number_scheduled: Option<usize>,
    desired_number_scheduled: Option<usize>,
    updated_replicas: Option<usize>,
    updated_number_scheduled: Option<usize>,
    observed_generation: i64,
    #[serde(deserialize_with = "or_null")]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_workload_tells_how_many_pods_it_has() {
        let workload = |kind: &str, extra: Value| {
            let mut object = json!({"metadata": {"name": "edge", "namespace": "gw"}, "spec": {"template": {"metadata": {"annotations": {"gwmon.io/inject": "true"}}}}});
            json_patch::merge(&mut object, &extra);
            Workload::parse(kind, &object.to_string()).unwrap()
        };
        let failed = json!([{"type": "ReplicaFailure", "message": "exceeded quota"}]);
        let deployment =
            workload("Deployment", json!({"spec": {"replicas": 3}, "status": {"replicas": 2, "conditions": failed}}));
        assert_eq!((deployment.pods, deployment.wanted, deployment.asks()), (2, 3, true));
        assert_eq!(deployment.failure.as_deref(), Some("exceeded quota"));
        let daemon_set =
            workload("DaemonSet", json!({"status": {"currentNumberScheduled": 4, "desiredNumberScheduled": 5}}));
        assert_eq!((daemon_set.pods, daemon_set.wanted), (4, 5));
        assert_eq!(daemon_set.resource(), "daemonset.apps/edge");
    }
}
