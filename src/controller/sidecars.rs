//! The state of injected sidecars: pods whose exporter does not run, and controllers whose pods the API server refuses, from
//! the pods' statuses and `FailedCreate` Events. Of healthy pods only trial pods are kept.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{DynamicObject, NotUsed, Object};
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use serde_json::Value;
use time::OffsetDateTime;

use crate::annotations::{EXPORTER, STATUS, TRIAL};
use crate::cluster::Need;
use crate::cluster::object::{NamespacedName, is_reference, owner_of_pod};
use crate::cluster::request::api_resource;
use crate::cluster::watch::{Watches, labelled};
use crate::injection::{Status, monitor_name, workload_named};
use crate::reason::Finding;
use crate::suspension::{Key, PodStatus};

/// After an exporter has run this long, its failures are dropped, as the kubelet drops its back-off.
const RECOVERED: Duration = Duration::from_mins(10);
/// Controllers whose pods are refused, in the typed cluster; limited since users may create Events.
const MOST_REFUSALS: usize = 5_000;
/// In seconds: a listed Event older than this is ignored.
const OLD: i64 = 60;
/// A controller tries at least every 17 minutes: one that has not for this long is dropped.
const GIVEN_UP: Duration = Duration::from_mins(30);

type PodView = Object<NotUsed, PodStatus>;

/// A change that a watch reports.
#[derive(Debug)]
pub(super) enum Observed {
    /// A list of all pods begins.
    ListBegins,
    /// It is complete.
    ListEnds,
    /// A pod that has an exporter.
    Pod(NamespacedName, Box<ObservedPod>),
    /// One that has ended, is about to, or is deleted.
    Gone(NamespacedName),
    /// A controller could not make a pod.
    CreateFailed(FailedCreate),
}

/// A pod that has an exporter.
#[derive(Debug)]
pub(super) struct ObservedPod {
    owner: OwnerReference,
    key: Key,
    created: i64,
    failure: Option<Finding>,
    runs: bool,
    /// The start of the suspension that it may end, in seconds since 1970.
    trial: Option<i64>,
}

/// A controller reports that the API server refused its pod.
#[derive(Debug)]
pub(super) struct FailedCreate {
    pub(super) namespace: String,
    pub(super) owner: OwnerReference,
    pub(super) message: String,
    /// In seconds since 1970.
    at: i64,
    /// True if it comes from an initial list, not from a change.
    is_listed: bool,
}

/// A pod whose exporter does not run, or did not lately.
#[derive(Debug)]
pub(super) struct FailingPod {
    pub(super) key: Key,
    pub(super) owner: OwnerReference,
    pub(super) created: i64,
    /// The time of the first failure, in seconds since 1970; `None` if it failed before the initial list.
    pub(super) began: Option<i64>,
    pub(super) finding: Finding,
    /// Since when the exporter is down; `None` while it runs.
    pub(super) down: Option<Instant>,
    /// The total time it was down before that.
    before: Duration,
    /// Since when it runs; meaningless while it is down.
    up: Instant,
    /// True once its workload was suspended for it.
    pub(super) is_reported: bool,
}

impl FailingPod {
    /// Returns true if the exporter has run again for this many seconds.
    pub(super) fn has_recovered(&self, seconds: i64) -> bool {
        self.down.is_none() && whole_seconds(self.up.elapsed()) >= seconds
    }

    /// The total time the exporter was down.
    pub(super) fn lasts(&self) -> Duration {
        self.before + self.down.map_or(Duration::ZERO, |down| down.elapsed())
    }
}

/// One controller's pods are refused.
#[derive(Debug)]
pub(super) struct RefusedPods {
    pub(super) latest: FailedCreate,
    pub(super) first: Instant,
    pub(super) last: Instant,
    /// The suspension that this led to.
    pub(super) suspended: Option<SuspendedFor>,
}

/// A suspension because of refused pods.
#[derive(Debug)]
pub(super) struct SuspendedFor {
    pub(super) key: Key,
    pub(super) since: Instant,
    /// The number of pods of the controller at that time.
    pub(super) pods: u64,
}

/// The one pod of a suspended workload that got the exporter, to see whether it can run.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) pod: String,
    /// The start of the suspension that it may end, in seconds since 1970.
    pub(super) since: i64,
    /// Since when the typed pod is ready.
    runs: Option<Instant>,
}

impl Trial {
    pub(super) fn has_run(&self, seconds: i64) -> bool {
        self.runs.is_some_and(|since| whole_seconds(since.elapsed()) >= seconds)
    }
}

/// Failing pods by namespace and name, and refused pods by the UID of their controller.
#[derive(Default)]
pub(super) struct SidecarState {
    pub(super) pods: HashMap<NamespacedName, FailingPod>,
    /// The pods of a list that has begun.
    listed: Option<HashSet<NamespacedName>>,
    /// True once an initial list was complete.
    pub(super) is_known: bool,
    pub(super) refusals: HashMap<String, RefusedPods>,
    /// Controllers whose pods are refused without the exporter as well, and since when that is known.
    pub(super) unrelated: HashMap<String, Instant>,
    /// Trial pods, by workload.
    pub(super) trials: HashMap<Key, Trial>,
}

impl SidecarState {
    pub(super) fn is_idle(&self) -> bool {
        self.pods.is_empty() && self.refusals.is_empty() && self.trials.is_empty()
    }

    pub(super) fn take(&mut self, observed: Observed) {
        match observed {
            Observed::ListBegins => self.listed = Some(HashSet::new()),
            Observed::ListEnds => {
                self.is_known = true;
                if let Some(listed) = self.listed.take() {
                    self.pods.retain(|place, _| listed.contains(place));
                    self.trials.retain(|key, trial| listed.contains(&(key.0.clone(), trial.pod.clone())));
                }
            }
            Observed::Pod(place, pod) => self.take_pod(place, *pod),
            Observed::Gone(place) => {
                self.pods.remove(&place);
                self.trials.retain(|key, trial| key.0 != place.0 || trial.pod != place.1);
            }
            Observed::CreateFailed(refused) => self.take_failed_create(refused),
        }
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, is_suspended: impl Fn(&Key) -> bool) {
        self.pods.retain(|_, failing| {
            failing.down.is_some() || failing.up.elapsed() < RECOVERED || is_suspended(&failing.key)
        });
        self.refusals.retain(|_, refusal| refusal.last.elapsed() < GIVEN_UP);
    }

    fn take_pod(&mut self, place: NamespacedName, pod: ObservedPod) {
        let now = Instant::now();
        let is_listed = self.listed.as_mut().map(|listed| listed.insert(place.clone())).is_some();
        // A pod that was made after a refusal shows that it is over.
        if self.refusals.get(&pod.owner.uid).is_some_and(|refusal| pod.created > refusal.latest.at) {
            self.refusals.remove(&pod.owner.uid);
            self.unrelated.remove(&pod.owner.uid);
        }
        // The annotation stays on a pod when its trial is long over.
        let known = self.trials.get(&pod.key);
        if let Some(since) = pod.trial.filter(|since| known.is_none_or(|known| known.since <= *since)) {
            let before = known.filter(|known| known.pod == place.1).and_then(|known| known.runs);
            let runs = (pod.runs && pod.failure.is_none()).then(|| before.unwrap_or(now));
            self.trials.insert(pod.key.clone(), Trial { pod: place.1.clone(), since, runs });
        }
        match (pod.failure, self.pods.get_mut(&place)) {
            (Some(finding), Some(failing)) => {
                failing.finding = finding;
                if failing.down.is_none() {
                    (failing.down, failing.began) = (Some(now), Some(seconds_now()));
                }
            }
            (Some(finding), None) => {
                let ObservedPod { key, owner, created, .. } = pod;
                let began = (!is_listed).then(seconds_now);
                let failing = FailingPod {
                    key,
                    owner,
                    created,
                    began,
                    finding,
                    down: Some(now),
                    before: Duration::ZERO,
                    up: now,
                    is_reported: false,
                };
                self.pods.insert(place, failing);
            }
            (None, Some(failing)) if failing.down.is_some() => {
                (failing.before, failing.down, failing.up) = (failing.lasts(), None, now);
                failing.is_reported = false;
            }
            (None, _) => {}
        }
    }

    fn take_failed_create(&mut self, refused: FailedCreate) {
        let now = Instant::now();
        // A list has the Events of an hour, and a relist repeats old ones.
        let is_old = refused.is_listed && seconds_now() - refused.at > OLD;
        let known = self.refusals.get(&refused.owner.uid).is_some_and(|known| known.latest.at >= refused.at);
        if is_old || known || self.unrelated.contains_key(&refused.owner.uid) {
            return;
        }
        let before = self.refusals.remove(&refused.owner.uid);
        if before.is_none() && self.refusals.len() >= MOST_REFUSALS {
            return;
        }
        let (first, suspended) = before.map_or((now, None), |before| (before.first, before.suspended));
        self.refusals.insert(refused.owner.uid.clone(), RefusedPods { latest: refused, first, last: now, suspended });
    }
}

/// Watches the pods that have an exporter, and the `FailedCreate` Events of pods' controllers.
pub(super) fn watch(client: &Client) -> BoxStream<'static, Observed> {
    let watches = Watches::new(client);
    let pods =
        watches.typed(api_resource("v1", "Pod"), labelled(EXPORTER), Need::Required, |event| Some(observed_pod(event)));
    let failed = labelled("").fields("reason=FailedCreate");
    let refusals = watches.typed(api_resource("v1", "Event"), failed, Need::Optional, observed_failure);
    stream::select(pods, refusals).boxed()
}

fn observed_pod(event: &Event<PodView>) -> Observed {
    let (Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) = event else {
        return if matches!(event, Event::Init) { Observed::ListBegins } else { Observed::ListEnds };
    };
    let place = (pod.namespace().unwrap_or_default(), pod.name_any());
    let status = pod.status.clone().unwrap_or_default();
    let owner = owner_of_pod(pod);
    let is_gone = matches!(event, Event::Delete(_)) || pod.metadata.deletion_timestamp.is_some() || status.is_over();
    let Some(owner) = owner.filter(|_| !is_gone) else { return Observed::Gone(place) };
    let noted = pod.annotations().get(STATUS).and_then(|noted| serde_json::from_str::<Status>(noted).ok());
    let gateway = noted.map(|status| status.container).unwrap_or_default();
    let name = workload_named(&owner.kind, &owner.name, |label| pod.labels().get(label).map(String::as_str));
    Observed::Pod(
        place.clone(),
        Box::new(ObservedPod {
            owner,
            key: (place.0, monitor_name(&name)),
            created: pod.creation_timestamp().as_ref().map(seconds).unwrap_or_default(),
            failure: status.failure(&gateway),
            runs: status.is_ready(),
            trial: pod.annotations().get(TRIAL).and_then(|since| since.parse().ok()),
        }),
    )
}

pub(super) fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn seconds_now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn seconds(time: &Time) -> i64 {
    time.0.as_second()
}

/// Reads a `FailedCreate` Event of kube-controller-manager.
fn observed_failure(event: &Event<DynamicObject>) -> Option<Observed> {
    let is_listed = matches!(event, Event::InitApply(_));
    let (Event::Apply(event) | Event::InitApply(event)) = event else { return None };
    let text = |pointer: &str| event.data.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = text("/involvedObject/kind");
    let owner = OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind,
        name: text("/involvedObject/name"),
        uid: text("/involvedObject/uid"),
        ..OwnerReference::default()
    };
    if !matches!(owner.kind.as_str(), "ReplicaSet" | "StatefulSet" | "DaemonSet") || !is_reference(&owner) {
        return None;
    }
    let last: Option<Time> = event.data.get("lastTimestamp").and_then(|at| serde_json::from_value(at.clone()).ok());
    Some(Observed::CreateFailed(FailedCreate {
        namespace: text("/involvedObject/namespace"),
        owner,
        message: text("/message"),
        is_listed,
        at: last.or_else(|| event.creation_timestamp()).as_ref().map(seconds).unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests;
