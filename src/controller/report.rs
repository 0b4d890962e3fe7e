//! Telling people: Events on the workload, each once, and the same in the log.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Instant;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::lock;
use crate::allowance::{Allowance, Rate};
use crate::monitoring::Owner;
use crate::reason::{Finding, Reason};

/// Publishes findings about workloads.
pub(super) struct Report {
    client: Client,
    reporter: Reporter,
    /// By namespace: Events that may still be published there.
    allowances: Mutex<HashMap<String, Allowance>>,
}

/// Events in one namespace: at once, a roll-out of all its gateways tells each of several things.
const EVENTS: Rate = Rate { at_once: 500., per_second: 1. };

/// What has been told about one workload and still holds.
pub(super) type Told = HashSet<(Reason, String)>;

impl Report {
    pub(super) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: "gwmon".to_owned(), instance: Some(instance) };
        Self { client, reporter, allowances: Mutex::default() }
    }

    /// Tells what has not been told, and forgets what no longer holds, so that it is told should it come back.
    pub(super) async fn findings(&self, namespace: &str, owner: &Owner, findings: Vec<Finding>, told: &mut Told) {
        let now: Told = findings.into_iter().map(|finding| (finding.reason, finding.detail)).collect();
        told.retain(|finding| now.contains(finding));
        for (reason, detail) in now {
            if told.contains(&(reason, detail.clone())) {
                continue;
            }
            tracing::warn!(namespace, kind = owner.kind, name = owner.name, reason = reason.as_str(), "{detail}");
            if self.publish(namespace, owner, EventType::Warning, reason, &detail).await {
                told.insert((reason, detail));
            }
        }
    }

    /// Tells that a workload's objects are as they should be.
    pub(super) async fn monitored(&self, namespace: &str, owner: &Owner, why: &str) {
        tracing::info!(namespace, kind = owner.kind, name = owner.name, why, "monitored");
        self.publish(namespace, owner, EventType::Normal, Reason::Monitored, why).await;
    }

    /// Tells one thing, whether it has been told or not.
    pub(super) async fn tell(&self, namespace: &str, owner: &Owner, type_: EventType, finding: &Finding) {
        let Finding { reason, detail } = finding;
        if type_ == EventType::Normal {
            tracing::info!(namespace, kind = owner.kind, name = owner.name, reason = reason.as_str(), "{detail}");
        } else {
            tracing::warn!(namespace, kind = owner.kind, name = owner.name, reason = reason.as_str(), "{detail}");
        }
        self.publish(namespace, owner, type_, *reason, detail).await;
    }

    /// Whether one more Event may be published in this namespace: whoever makes many odd workloads there has many told.
    fn may_publish(&self, namespace: &str) -> bool {
        let (mut allowances, now) = (lock(&self.allowances), Instant::now());
        allowances.retain(|_, allowance| !EVENTS.is_full(*allowance, now));
        EVENTS.take(allowances.entry(namespace.to_owned()).or_insert_with(|| EVENTS.full(now)), now)
    }

    /// Whether the Event is published.
    async fn publish(&self, namespace: &str, owner: &Owner, type_: EventType, reason: Reason, note: &str) -> bool {
        if !self.may_publish(namespace) {
            return false;
        }
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
        // A recorder remembers all that it has published, to count repetitions. There are none.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let published = recorder.publish(&event, &regarding).await;
        published
            .inspect_err(|error| tracing::warn!(namespace, name = owner.name, "cannot publish an Event: {error}"))
            .is_ok()
    }
}
