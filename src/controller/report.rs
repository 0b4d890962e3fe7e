//! Telling people: Events on the workload, each once, and the same in the log.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::plain;
use crate::monitoring::Owner;
use crate::reason::{Finding, Reason};

/// Publishes findings about workloads.
pub(super) struct Report(Recorder);

/// What has been told about one workload and still holds.
pub(super) type Told = HashSet<(Reason, String)>;

impl Report {
    pub(super) fn new(client: Client, instance: String) -> Self {
        Self(Recorder::new(client, Reporter { controller: "gwmon".to_owned(), instance: Some(instance) }))
    }

    /// Tells what has not been told, and forgets what no longer holds, so that it is told should it come back.
    pub(super) async fn findings(&self, namespace: &str, owner: &Owner, findings: Vec<Finding>, told: &mut Told) {
        let now: Told = findings.into_iter().map(|finding| (finding.reason, finding.detail)).collect();
        for (reason, detail) in now.difference(told) {
            tracing::warn!(namespace, kind = owner.kind, name = owner.name, reason = reason.as_str(), "{detail}");
            self.publish(namespace, owner, EventType::Warning, *reason, detail).await;
        }
        *told = now;
    }

    /// Tells that a workload's objects are as they should be.
    pub(super) async fn monitored(&self, namespace: &str, owner: &Owner, why: &str) {
        tracing::info!(namespace, kind = owner.kind, name = owner.name, why, "monitored");
        self.publish(namespace, owner, EventType::Normal, Reason::Monitored, why).await;
    }

    async fn publish(&self, namespace: &str, owner: &Owner, type_: EventType, reason: Reason, note: &str) {
        // The API server refuses a longer one.
        let note = note.char_indices().nth(1000).map_or(note, |(cut, _)| &note[..cut]);
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(note.to_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(owner.uid.clone()),
            ..ObjectReference::default()
        };
        if let Err(error) = self.0.publish(&event, &regarding).await {
            tracing::warn!(namespace, name = owner.name, "cannot publish an Event: {:#}", plain(error));
        }
    }
}
