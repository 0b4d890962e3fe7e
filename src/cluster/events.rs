//! Events on workloads, each published once, and the same text in the log.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Instant;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::allowance::{Allowance, Rate};
use crate::lock::lock;
use crate::monitoring::Owner;
use crate::reason::{Finding, Reason};

/// Publishes findings about workloads.
pub(crate) struct EventRecorder {
    client: Client,
    reporter: Reporter,
    /// By namespace: how many Events may still be published there.
    allowances: Mutex<HashMap<String, Allowance>>,
}

/// The limit of Events in one namespace. The burst is enough for a roll-out of all its gateways, with several Events each.
const EVENTS: Rate = Rate { at_once: 500., per_second: 1. };

/// The findings about one workload that were published and still hold.
pub(crate) type Published = HashSet<(Reason, String)>;

impl EventRecorder {
    pub(crate) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: "gwmon".to_owned(), instance: Some(instance) };
        Self { client, reporter, allowances: Mutex::default() }
    }

    /// Publishes the findings that are new, and forgets those that no longer hold, so that they are published again if
    /// they come back.
    pub(crate) async fn publish_new(
        &self,
        namespace: &str,
        owner: &Owner,
        findings: Vec<Finding>,
        published: &mut Published,
    ) {
        let current: HashSet<_> = findings.iter().map(|finding| (finding.reason, finding.detail.clone())).collect();
        published.retain(|finding| current.contains(finding));
        for finding in findings {
            let key = (finding.reason, finding.detail.clone());
            if !published.contains(&key) && self.publish(namespace, owner, &finding).await {
                published.insert(key);
            }
        }
    }

    /// Logs a finding and publishes it as an Event. False if the Event was not published.
    pub(crate) async fn publish(&self, namespace: &str, owner: &Owner, finding: &Finding) -> bool {
        let Finding { reason, detail } = finding;
        let (kind, name) = (&owner.kind, &owner.name);
        let type_ = if finding.is_warning() {
            tracing::warn!(namespace, kind, name, reason = reason.as_str(), "{detail}");
            EventType::Warning
        } else {
            tracing::info!(namespace, kind, name, reason = reason.as_str(), "{detail}");
            EventType::Normal
        };
        if !self.may_publish(namespace) {
            return false;
        }
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(detail.clone()),
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
        // A Recorder keeps all that it published, to count repetitions; with a new one for each Event nothing piles up.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let result = recorder.publish(&event, &regarding).await;
        result.inspect_err(|error| tracing::warn!(namespace, name, "cannot publish an Event: {error}")).is_ok()
    }

    /// Takes one Event off the namespace's allowance: whoever makes many broken workloads there must not fill etcd.
    fn may_publish(&self, namespace: &str) -> bool {
        let (mut allowances, now) = (lock(&self.allowances), Instant::now());
        allowances.retain(|_, allowance| !EVENTS.is_full(*allowance, now));
        EVENTS.take(allowances.entry(namespace.to_owned()).or_insert_with(|| EVENTS.full(now)), now)
    }
}
