//! One gateway, as far as the API server's objects show it. The caller reads them; nothing here makes a request.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::workload::{Metadata, Workload};
use crate::annotations::{BOOTSTRAP, EXPORTER, MAPPING, MONITORED_BY, STATUS};
use crate::injection::exporter::CONTAINER;
use crate::injection::{Status, workload_named};
use crate::kubernetes::Annotations;
use crate::kubernetes::labels::Labels;
use crate::reason::Finding;
use crate::suspension::PodStatus;

/// An injected pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// True if it is being deleted, or has ended.
    pub is_over: bool,
    /// The version of gwmon that injected it, and the hash of what that injected.
    pub injected: Option<(String, String)>,
    /// The state of its containers; absent if only its metadata was read.
    pub status: Option<PodStatus>,
    /// What does not agree in it: the status annotation with the pod.
    pub mismatch: Option<Finding>,
}

/// What all pods of one roll-out have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revision {
    /// The status annotation.
    pub status: Option<Status>,
    /// The labels.
    pub labels: Labels,
    /// The annotations, without those that hold files.
    pub annotations: Annotations,
    /// The kind and the name of the workload, by the pods' controller.
    pub workload: (String, String),
    /// The exporter's container, if the whole pod was read.
    pub exporter: Option<Value>,
    /// True if the pod is on its node's network.
    pub is_on_host_network: bool,
    /// The name of the port that is scraped, if it has one.
    pub port_name: Option<String>,
}

/// A pod with gwmon's label: of its gateway, itself, and what it shares with the gateway's others.
#[derive(Debug)]
pub struct InjectedPod {
    /// The gateway's namespace and the name of its objects.
    pub key: (String, String),
    /// The pod.
    pub pod: Pod,
    /// What it shares.
    pub revision: Revision,
}

#[derive(Deserialize)]
struct PodObject<'a> {
    metadata: Metadata,
    spec: Option<PodSpec>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    init_containers: Vec<Value>,
    #[serde(default)]
    containers: Vec<Value>,
    #[serde(default)]
    host_network: bool,
}

impl InjectedPod {
    /// Reads a pod, or its metadata. `None` if gwmon has set no label on it.
    ///
    /// # Errors
    /// A field of another type than a pod's.
    pub fn parse(json: &str) -> Result<Option<Self>, serde_json::Error> {
        let PodObject { mut metadata, spec, status } = serde_json::from_str(json)?;
        let labelled = [MONITORED_BY, EXPORTER].into_iter().find_map(|key| metadata.labels.get(key));
        let Some(monitor) = labelled.cloned() else { return Ok(None) };
        let pod_status: Option<PodStatus> = status.map(|status| serde_json::from_str(status.get())).transpose()?;
        let injection: Option<Status> =
            metadata.annotations.get(STATUS).and_then(|status| serde_json::from_str(status).ok());
        let workload = match metadata.controller() {
            Some(owner) => {
                let label = |key: &'static str| metadata.labels.get(key).map(String::as_str);
                let name = workload_named(&owner.kind, &owner.name, label);
                let is_deployments = owner.kind == "ReplicaSet" && name != owner.name;
                (if is_deployments { "Deployment".to_owned() } else { owner.kind.clone() }, name)
            }
            None => ("Pod".to_owned(), metadata.name.clone()),
        };
        for file in [MAPPING, BOOTSTRAP] {
            metadata.annotations.remove(file);
        }
        let is_over = metadata.deletion_timestamp.is_some() || pod_status.as_ref().is_some_and(PodStatus::is_over);
        let pod = Pod {
            name: metadata.name,
            is_over,
            injected: injection.as_ref().map(|status| (status.version.clone(), status.hash.clone())),
            status: pod_status,
            mismatch: None,
        };
        let Metadata { namespace, labels, annotations, .. } = metadata;
        let is_on_host_network = spec.as_ref().is_some_and(|spec| spec.host_network);
        let containers = spec.into_iter().flat_map(|spec| spec.init_containers.into_iter().chain(spec.containers));
        let containers: Vec<_> = containers.collect();
        let scraped = injection.as_ref().map(|status| status.metrics_port);
        let ports = containers.iter().flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let is_scraped = |port: &&Value| scraped.is_some_and(|scraped| port["containerPort"] == scraped);
        let port_name = ports.into_iter().find(is_scraped).and_then(|port| port["name"].as_str()).map(str::to_owned);
        let exporter = containers.into_iter().find(|container| container["name"] == CONTAINER);
        let revision =
            Revision { status: injection, labels, annotations, workload, exporter, is_on_host_network, port_name };
        Ok(Some(Self { key: (namespace, monitor), pod, revision }))
    }
}

/// One gateway: a workload that asks for injection, or pods that were injected.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    /// Its workload, where that is of one of the three kinds.
    pub workload: Option<Workload>,
    /// Its injected pods.
    pub pods: Vec<Pod>,
    /// What they have in common; that of one of them during a roll-out.
    pub revision: Option<Revision>,
    /// Its metrics Service.
    pub service: Option<Value>,
    /// The EndpointSlices of that.
    pub slices: Vec<Value>,
    /// The ServiceMonitors that gwmon made for it.
    pub monitors: Vec<Value>,
    /// gwmon's last Event on the workload.
    pub event: Option<Event>,
    /// The reason why new pods get no exporter.
    pub suspended: Option<Finding>,
}

/// gwmon's last Event on a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The time, as RFC 3339.
    pub time: String,
    /// The reason.
    pub reason: String,
    /// The message.
    pub message: String,
}

impl Gateway {
    /// The kind and the name of its workload.
    #[must_use]
    pub fn workload_name(&self) -> (&str, &str) {
        match (&self.workload, &self.revision) {
            (Some(workload), _) => (&workload.kind, &workload.name),
            (None, Some(revision)) => (&revision.workload.0, &revision.workload.1),
            (None, None) => ("", ""),
        }
    }

    /// Its workload as kubectl takes it, without the namespace.
    #[must_use]
    pub fn resource(&self) -> String {
        let (kind, name) = self.workload_name();
        let group = if ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"].contains(&kind) { ".apps" } else { "" };
        format!("{}{group}/{name}", kind.to_lowercase())
    }

    /// Its injected pods that are not about to end.
    pub fn live(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| !pod.is_over)
    }

    /// The number of its pods, injected or not.
    #[must_use]
    pub fn total(&self) -> usize {
        let live = self.live().count();
        live + self.missed()
    }

    /// The number of its pods that were not injected. A DaemonSet counts pods that are being deleted.
    #[must_use]
    pub fn missed(&self) -> usize {
        let labelled = self.workload.as_ref().filter(|workload| workload.is_labelled);
        labelled.map_or(0, |workload| workload.pods.saturating_sub(self.pods.len()))
    }
}

/// Every gateway, by its namespace and the name of its objects.
pub type Gateways = BTreeMap<(String, String), Gateway>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_pod_only_what_is_shown_is_kept() {
        let status = json!({"version": "0.1.0", "gateway": "envoy", "container": "envoy", "mode": "statsd", "metricsPort": 9102, "added": [], "hash": "h"});
        let pod = json!({
            "metadata": {
                "name": "edge-6d4b-x", "namespace": "gw", "labels": {"gwmon.io/monitored-by": "edge-gwmon", "pod-template-hash": "6d4b"},
                "annotations": {"gwmon.io/status": status.to_string(), "gwmon.io/mapping": "long"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "edge-6d4b", "uid": "u", "controller": true}],
            },
        });
        let InjectedPod { key, pod, revision } = InjectedPod::parse(&pod.to_string()).unwrap().unwrap();
        assert_eq!((key.0.as_str(), key.1.as_str()), ("gw", "edge-gwmon"));
        assert_eq!((pod.injected.unwrap().1.as_str(), pod.status), ("h", None));
        assert_eq!(revision.workload, ("Deployment".to_owned(), "edge".to_owned()));
        assert!(!revision.annotations.contains_key("gwmon.io/mapping"));
        assert!(InjectedPod::parse(r#"{"metadata": {"name": "x", "labels": null}}"#).unwrap().is_none());
    }
}
