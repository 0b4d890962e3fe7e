//! The state of the cluster that admission reads: LimitRanges and suspended workloads. Watched by every replica, so
//! that no review makes a request.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::future::{Either, select};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange as KubernetesLimitRange};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::{Store, Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::admin::Readiness;
use crate::cluster::watch::log_watch_error;
use crate::injection::resources::LimitRange;
use crate::lock::lock;
use crate::reason::Finding;
use crate::suspension::{Key, Phase, Suspensions};

/// The pause between two trial pods: the controller has noticed the first by then.
const TRIAL: Duration = Duration::from_secs(10);

/// The state of the cluster that admission reads.
#[derive(Debug, Default)]
pub struct AdmissionState {
    limits: ArcSwap<HashMap<String, Arc<[LimitRange]>>>,
    suspensions: ArcSwap<Suspensions>,
    /// The time at which this replica last admitted a trial pod.
    trials: Mutex<HashMap<Key, Instant>>,
}

/// The admission of a pod of a workload that may be suspended.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    /// With the exporter.
    With,
    /// With the exporter, as a trial of the suspension that began then, in seconds since 1970.
    Trial(i64),
    /// Without the exporter, with the reason.
    Without(Finding),
}

impl AdmissionState {
    /// The `LimitRange`s of a namespace.
    #[must_use]
    pub fn limits(&self, namespace: &str) -> Arc<[LimitRange]> {
        self.limits.load().get(namespace).cloned().unwrap_or_default()
    }

    /// Every suspended workload.
    #[must_use]
    pub fn suspensions(&self) -> Arc<Suspensions> {
        self.suspensions.load_full()
    }

    /// Takes in the ConfigMap's data.
    pub fn suspend(&self, data: &BTreeMap<String, String>) {
        self.suspensions.store(Arc::new(Suspensions::parse(data)));
    }

    /// Decides on a new pod of this workload. Of a workload on trial one pod gets the exporter; a dry run creates no
    /// pod, and is not one.
    #[must_use]
    pub fn admit(&self, key: &Key, is_dry_run: bool) -> Admitted {
        let suspensions = self.suspensions.load();
        if let Some(entry) = suspensions.get(key).filter(|entry| entry.phase == Phase::Trial && !is_dry_run) {
            let mut trials = lock(&self.trials);
            trials.retain(|_, tried| tried.elapsed() < TRIAL);
            if !trials.contains_key(key) {
                trials.insert(key.clone(), Instant::now());
                return Admitted::Trial(entry.since);
            }
        }
        suspensions.obstacle(key).map_or(Admitted::With, Admitted::Without)
    }
}

/// Keeps all of it up to date until `stop` is done. A change is known within moments; what could not be read is empty, and
/// is said.
pub async fn run(
    client: Client,
    namespace: String,
    config_map: String,
    admission_state: Arc<AdmissionState>,
    readiness: Readiness,
    stop: impl Future<Output = ()>,
) {
    let named = watcher::Config::default().fields(&format!("metadata.name={config_map}"));
    let config_maps = watcher(Api::<ConfigMap>::namespaced(client.clone(), &namespace), named).default_backoff();
    let limit_ranges = watcher(Api::<KubernetesLimitRange>::all(client), watcher::Config::default()).default_backoff();
    let mut writer = Writer::<KubernetesLimitRange>::default();
    let store = writer.as_reader();
    let mut events = pin!(stream::select(config_maps.map(Either::Left), limit_ranges.map(Either::Right)));
    let mut found = BTreeMap::new();
    let (mut has_suspensions, mut has_limits) = (false, false);
    let mut stop = pin!(stop);
    while let Either::Right((Some(event), _)) = select(&mut stop, events.next()).await {
        match event {
            Either::Left(Ok(event)) => match event {
                Event::Init => found.clear(),
                Event::InitApply(object) => found = object.data.unwrap_or_default(),
                Event::InitDone => {
                    admission_state.suspend(&found);
                    has_suspensions = true;
                }
                Event::Apply(object) => admission_state.suspend(&object.data.unwrap_or_default()),
                Event::Delete(_) => admission_state.suspend(&BTreeMap::new()),
            },
            Either::Right(Ok(event)) => {
                writer.apply_watcher_event(&event);
                // A list counts when it is complete.
                if !matches!(event, Event::Init | Event::InitApply(_)) {
                    admission_state.limits.store(Arc::new(by_namespace(&store)));
                    has_limits = true;
                }
            }
            Either::Left(Err(error)) => has_suspensions |= log_watch_error("ConfigMap", &error),
            Either::Right(Err(error)) => has_limits |= log_watch_error("LimitRange", &error),
        }
        if has_suspensions && has_limits {
            readiness.admission_state_known();
        }
    }
}

fn by_namespace(store: &Store<KubernetesLimitRange>) -> HashMap<String, Arc<[LimitRange]>> {
    let mut found: HashMap<String, Vec<LimitRange>> = HashMap::new();
    for object in store.state() {
        match LimitRange::parse(&json!(*object).to_string()) {
            Ok(range) => found.entry(object.namespace().unwrap_or_default()).or_default().push(range),
            Err(finding) => tracing::warn!("a LimitRange cannot be read and is left out: {finding}"),
        }
    }
    found.into_iter().map(|(namespace, ranges)| (namespace, ranges.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pod_is_tried_and_no_dry_run() {
        let admission_state = AdmissionState::default();
        let key = ("edge".to_owned(), "edge-gwmon".to_owned());
        assert_eq!(admission_state.admit(&key, false), Admitted::With);
        let entry = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "edge", "uid": "u", "reason": "ImageNotPulled",
            "detail": "d", "since": 7, "phase": "trial", "until": i64::MAX, "failures": 1,
        });
        admission_state.suspend(&BTreeMap::from([("edge.edge-gwmon".to_owned(), entry.to_string())]));
        assert!(matches!(admission_state.admit(&key, true), Admitted::Without(_)));
        assert_eq!(admission_state.admit(&key, false), Admitted::Trial(7));
        assert!(matches!(admission_state.admit(&key, false), Admitted::Without(_)), "one at a time");
    }
}
