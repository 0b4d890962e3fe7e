//! Suspended workloads: their new pods are admitted without the exporter, because it kept a
//! gateway from being ready or from being created. One ConfigMap in gwmon's namespace holds them all, an entry each, so
//! that every replica knows them, a restart forgets none, and `kubectl get configmap` shows them.
//!
//! ```text
//!  Suspended ── back-off ──▶ Trial ── a pod with the exporter ──▶ Watched ── it runs ──▶ Resumed ── an hour ──▶ forgotten
//!      ▲                                                             │                       │
//!      └────────────────── longer back-off ──── it does not ─────────┴───────────────────────┘
//! ```

mod pod;

use std::collections::BTreeMap;

pub use pod::PodStatus;
use serde::{Deserialize, Serialize};

use crate::reason::{Finding, Reason, cut};

/// The reasons for which gwmon suspends injection.
pub const CAUSES: [Reason; 6] = [
    Reason::ImageNotPulled,
    Reason::ImagePullSlow,
    Reason::ExporterNotRunning,
    Reason::GatewayNotStarting,
    Reason::PodRefused,
    Reason::PodUnschedulable,
];

/// The phase of a suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// New pods get no exporter.
    Suspended,
    /// The next pod gets one.
    Trial,
    /// One pod has got one, and no other does until it is known how that goes.
    Watched,
    /// New pods get exporters again. The entry stays for a while: should it fail again, the back-off goes on.
    Resumed,
}

/// One suspended workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// The workload.
    #[serde(flatten)]
    pub workload: Workload,
    /// The reason.
    pub reason: String,
    /// The reason's detail.
    pub detail: String,
    /// The time of the suspension or of its end, in seconds since 1970.
    pub since: i64,
    /// The phase.
    pub phase: Phase,
    /// The end of the phase, in seconds since 1970.
    pub until: i64,
    /// The number of failures, on which the back-off depends.
    pub failures: u32,
    /// The pod that is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// The workload that is suspended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The API version of its kind.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID, which differs if it is deleted and created again.
    pub uid: String,
}

/// Durations in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The time for which an exporter may keep a gateway from being ready.
    pub suspend_after: i64,
    /// After the first failure, until the exporter is tried again; twice as long after each further one.
    pub first_retry: i64,
}

impl Timing {
    /// The longest back-off, and the time after which failures are forgotten, as a multiple of `first_retry`.
    const LONGEST: i64 = 12;

    fn back_off(self, failures: u32) -> i64 {
        let doublings = failures.saturating_sub(1).min(Self::LONGEST.ilog2() + 1);
        self.first_retry.saturating_mul((1 << doublings).min(Self::LONGEST))
    }

    /// The time after which a resumed entry, or a trial without a pod, is dropped.
    #[must_use]
    pub const fn retention(self) -> i64 {
        self.first_retry.saturating_mul(Self::LONGEST)
    }

    /// The time in which a trial pod may start, for causes other than the exporter.
    const fn trial(self) -> i64 {
        self.suspend_after.saturating_mul(20)
    }
}

impl Suspension {
    /// The entry after a failure.
    #[must_use]
    pub fn failed(before: Option<&Self>, workload: Workload, why: &Finding, now: i64, timing: Timing) -> Self {
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        Self {
            workload,
            reason: why.reason.as_str().to_owned(),
            // An entry is one of many in an object of 1 MiB.
            detail: cut(&why.detail, 300).into_owned(),
            since: now,
            phase: Phase::Suspended,
            until: now + timing.back_off(failures),
            failures,
            pod: None,
        }
    }

    /// The entry at this time: unchanged, in its next phase, or `None` once it has ended.
    #[must_use]
    pub fn at(&self, now: i64, timing: Timing) -> Option<Self> {
        if now < self.until {
            return Some(self.clone());
        }
        match self.phase {
            Phase::Suspended => Some(self.on_trial(now, timing)),
            // The trial has no result; it is repeated after another back-off.
            Phase::Watched => {
                let until = now + timing.back_off(self.failures);
                Some(Self { phase: Phase::Suspended, until, pod: None, ..self.clone() })
            }
            // A trial ends if no pod is created; later pods get the exporter as usual.
            Phase::Trial | Phase::Resumed => None,
        }
    }

    /// The entry when its next pod is to be tried.
    #[must_use]
    pub fn on_trial(&self, now: i64, timing: Timing) -> Self {
        Self { phase: Phase::Trial, until: now + timing.retention(), pod: None, ..self.clone() }
    }

    /// The entry when a pod has got an exporter to try.
    #[must_use]
    pub fn watched(&self, pod: &str, now: i64, timing: Timing) -> Self {
        Self { phase: Phase::Watched, until: now + timing.trial(), pod: Some(pod.to_owned()), ..self.clone() }
    }

    /// The entry when that pod runs.
    #[must_use]
    pub fn resumed(&self, now: i64, timing: Timing) -> Self {
        Self { phase: Phase::Resumed, since: now, until: now + timing.retention(), pod: None, ..self.clone() }
    }

    /// The reason, if it is known.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.iter().find(|reason| reason.as_str() == self.reason).copied()
    }

    /// Returns true if new pods of this workload get no exporter, the one pod of a trial excepted.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.phase != Phase::Resumed
    }
}

/// A workload's namespace and monitor name; the latter is the value of its pods' label.
pub type Key = (String, String);

/// Every suspended workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspensions {
    entries: BTreeMap<Key, Suspension>,
    /// Worked out once: every review asks.
    stops: Vec<Stop>,
}

/// The number of workloads, suspended for one reason within [`BURST`], that stops injection.
const MANY: usize = 3;
/// In seconds.
const BURST: i64 = 300;

impl Suspensions {
    /// More are not kept: an object holds 1 MiB.
    pub const MOST: usize = 1000;
    /// Nor more of one namespace, so that none takes the others' places.
    pub const MOST_IN_NAMESPACE: usize = 50;

    /// Reads the data of the ConfigMap. Entries that cannot be parsed are ignored.
    #[must_use]
    pub fn parse(data: &BTreeMap<String, String>) -> Self {
        let entry = |(key, json): (&String, &String)| {
            let (namespace, monitor) = key.split_once('.')?;
            Some(((namespace.to_owned(), monitor.to_owned()), serde_json::from_str(json).ok()?))
        };
        let entries = data.iter().filter_map(entry).collect();
        let stops = stops(&entries);
        Self { entries, stops }
    }

    /// The key of an entry in the ConfigMap. A namespace has no dots.
    #[must_use]
    pub fn data_key((namespace, monitor): &Key) -> String {
        format!("{namespace}.{monitor}")
    }

    /// One entry.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Suspension> {
        self.entries.get(key)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Suspension)> {
        self.entries.iter()
    }

    /// Returns true if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns true if this namespace may have another entry.
    #[must_use]
    pub fn has_room(&self, namespace: &str) -> bool {
        let in_namespace = self.entries.keys().filter(|key| key.0 == namespace).count();
        self.entries.len() < Self::MOST && in_namespace < Self::MOST_IN_NAMESPACE
    }

    /// The reason why a new pod of this workload gets no exporter. In [`Phase::Trial`] only one pod gets it; the
    /// caller chooses which.
    #[must_use]
    pub fn obstacle(&self, key: &Key) -> Option<Finding> {
        if let Some(entry) = self.entries.get(key).filter(|entry| entry.is_active()) {
            let Suspension { workload: Workload { kind, name, .. }, reason, detail, .. } = entry;
            let detail = format!("new pods of {kind} {name} are admitted without the exporter: {reason}: {detail}");
            return Some(Finding::new(Reason::InjectionSuspended, detail));
        }
        let stopped =
            self.stops.iter().find(|stop| stop.namespace.as_ref().is_none_or(|namespace| *namespace == key.0))?;
        Some(Finding::new(Reason::InjectionStopped, stopped.to_string()))
    }

    /// The scopes in which injection is stopped until the first trial: three suspensions for one reason within [`BURST`] stop a
    /// namespace; three in as many namespaces, the cluster. A tenant of one or two namespaces stops no other's.
    #[must_use]
    pub fn stopped(&self) -> &[Stop] {
        &self.stops
    }
}

fn stops(entries: &BTreeMap<Key, Suspension>) -> Vec<Stop> {
    let is_counted =
        |entry: &&Suspension| entry.phase == Phase::Suspended && entry.reason().is_some_and(Reason::is_of_the_exporter);
    let mut counted: Vec<(&str, &Suspension)> =
        entries.iter().map(|(key, entry)| (key.0.as_str(), entry)).filter(|(_, entry)| is_counted(entry)).collect();
    counted.sort_by_key(|(_, entry)| entry.since);
    let mut stops: Vec<Stop> = Vec::new();
    for (index, (_, first)) in counted.iter().enumerate() {
        let burst = counted[index..].iter().take_while(|(_, entry)| entry.since - first.since <= BURST);
        let mut workloads: BTreeMap<&str, usize> = BTreeMap::new();
        for (namespace, _) in burst.filter(|(_, entry)| entry.reason == first.reason) {
            *workloads.entry(namespace).or_default() += 1;
        }
        let stop = |namespace: Option<&str>, workloads| Stop {
            namespace: namespace.map(str::to_owned),
            reason: first.reason.clone(),
            workloads,
        };
        if workloads.len() >= MANY {
            return vec![stop(None, workloads.values().sum())];
        }
        for (namespace, workloads) in workloads.into_iter().filter(|(_, workloads)| *workloads >= MANY) {
            if stops.iter().all(|stop| stop.namespace.as_deref() != Some(namespace)) {
                stops.push(stop(Some(namespace), workloads));
            }
        }
    }
    stops
}

/// A namespace, or the whole cluster, in which injection is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// One namespace, or all of them.
    pub namespace: Option<String>,
    /// The reason.
    pub reason: String,
    /// The number of workloads suspended for that reason.
    pub workloads: usize,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self
            .namespace
            .as_ref()
            .map_or_else(|| "in the whole cluster".to_owned(), |one| format!("in namespace {one}"));
        write!(
            f,
            "no new pod {place} gets an exporter: {} workloads were suspended within minutes: {}",
            self.workloads, self.reason
        )
    }
}

#[cfg(test)]
mod tests;
