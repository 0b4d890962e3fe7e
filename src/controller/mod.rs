//! The controller: it watches injected pods and the cluster's Prometheus objects, and keeps each gateway's Service and
//! ServiceMonitor as [`crate::monitoring::plan`] says.

mod apply;
pub mod leader_election;
mod missed;
#[cfg(test)]
mod mock_api;
mod plan;
mod reconcile;
mod sidecars;
mod suspend;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use kube::runtime::scheduler::{ScheduleRequest, debounced_scheduler};
use tokio::time::Instant;

use crate::cluster::cache::{Change, ClusterCache};
use crate::cluster::object::GatewayKey;
use crate::config::{Config, Installation};
use crate::metrics::Metrics;
use crate::suspension::{Suspensions, Timing};
use crate::webhook::AdmissionState;
use reconcile::Context;

/// A pod's label, status and readiness come as events of their own.
const DEBOUNCE: Duration = Duration::from_millis(100);
const CONCURRENT: usize = 32;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_mins(5);
/// kube's client has no read timeout; a stuck connection must not block retries.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The resync interval, for changes that no watch reports: an annotation removed at zero replicas, granted rights. Unchanged
/// objects are not written.
const RESYNC_INTERVAL: Duration = Duration::from_mins(5);

/// Resets the gauges when the controller stops.
struct Gauges<'a>(&'a Metrics);

impl Drop for Gauges<'_> {
    fn drop(&mut self) {
        for gauge in [&self.0.gateways, &self.0.queue_depth, &self.0.missed_pods] {
            gauge.set(0);
        }
        self.0.suspended(&Suspensions::default());
    }
}

/// Reconciles until it is dropped. Errors are logged, counted and retried with back-off.
///
/// Why not kube's `Controller`: it is keyed by an object, and here a gateway is the key, to which any number of pods, a
/// Service and monitors in several namespaces map; and it has no way to keep one namespace from taking all places in the
/// queue.
pub async fn run(
    client: Client,
    installation: Installation,
    config: Arc<Config>,
    admission_state: Arc<AdmissionState>,
    timing: Timing,
    metrics: Metrics,
    identity: String,
) {
    let (cache, changes) = ClusterCache::watch(&client);
    let context = Context::new(client, installation, config, cache, metrics, identity);
    let _gauges = Gauges(&context.metrics);
    let mut missed = pin!(missed::scan(&context, &admission_state));
    let mut suspending = Box::pin(suspend::run(&context, &admission_state, timing));
    let (requests, queue) = futures::channel::mpsc::unbounded();
    let mut queue = pin!(debounced_scheduler(queue, DEBOUNCE));
    let mut changes = pin!(changes);
    let mut running = FuturesUnordered::new();
    let (mut waiting, mut busy) = (HashSet::new(), Busy::default());
    let mut failures: HashMap<GatewayKey, u32> = HashMap::new();
    let mut listed = false;
    let mut again = tokio::time::interval(RESYNC_INTERVAL);
    let request = |key: GatewayKey, after: Duration| {
        // Fails only when the queue is gone, and then this function has returned.
        let _ = requests.unbounded_send(ScheduleRequest { message: key, run_at: Instant::now() + after });
    };
    loop {
        let (cache, metrics) = (&context.cache, &context.metrics);
        metrics.queue_depth.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        tokio::select! {
            Some(change) = async {
                tokio::select! {
                    change = changes.next() => change,
                    _ = again.tick() => Some(Change::Everything),
                }
            } => {
                let keys = match change {
                    Change::Gateways(keys) => keys,
                    Change::Workloads => {
                        context.workloads_changed.notify_one();
                        vec![]
                    }
                    Change::Everything => cache.gateways().into_iter().chain([GatewayKey::from(&context.installation)]).collect(),
                };
                for key in keys {
                    waiting.insert(key.clone());
                    request(key, Duration::ZERO);
                }
            }
            Some(key) = async { queue.as_mut().hold_unless(|key| busy.has_room_for(key, cache.fairness_group(key))).next().await },
                if listed && busy.has_room() =>
            {
                waiting.remove(&key);
                busy.insert(key.clone(), cache.fairness_group(&key));
                let context = &context;
                running.push(async move {
                    let result = tokio::time::timeout(REQUEST_TIMEOUT, context.reconcile(&key)).await;
                    let late = || anyhow::anyhow!("no answer from the API server in {REQUEST_TIMEOUT:?}");
                    (key, result.unwrap_or_else(|_| Err(late())))
                });
            }
            Some((key, result)) = running.next() => {
                busy.remove(&key);
                metrics.reconciled(result.is_ok());
                metrics.gateways.set(i64::try_from(cache.count()).unwrap_or(i64::MAX));
                match result {
                    Ok(()) => { failures.remove(&key); }
                    Err(error) => {
                        let count = failures.entry(key.clone()).or_default();
                        let after = retry_after(*count);
                        *count = count.saturating_add(1);
                        tracing::warn!(namespace = key.namespace, monitor = key.monitor, ?after, "{error:#}");
                        waiting.insert(key.clone());
                        request(key, after);
                    }
                }
            }
            () = cache.listed(), if !listed => listed = true,
            () = &mut missed, if listed => {}
            () = &mut suspending => {}
        }
    }
}

/// The time until a gateway is tried again after so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures)).min(LAST_RETRY)
}

/// The gateways that are being reconciled. Each occurs once. One group uses at most half of the places that other groups leave,
/// or one: many or slow gateways of one namespace do not delay the others.
#[derive(Debug, Default)]
struct Busy {
    gateways: HashMap<GatewayKey, String>,
    shares: HashMap<String, usize>,
}

impl Busy {
    fn has_room(&self) -> bool {
        self.gateways.len() < CONCURRENT
    }

    fn has_room_for(&self, key: &GatewayKey, share: &str) -> bool {
        let own = self.shares.get(share).copied().unwrap_or_default();
        let left = CONCURRENT - (self.gateways.len() - own);
        !self.gateways.contains_key(key) && own < (left / 2).max(1)
    }

    fn insert(&mut self, key: GatewayKey, share: &str) {
        *self.shares.entry(share.to_owned()).or_default() += 1;
        self.gateways.insert(key, share.to_owned());
    }

    fn remove(&mut self, key: &GatewayKey) {
        let Some(share) = self.gateways.remove(key) else { return };
        if let Some(own) = self.shares.get_mut(&share) {
            *own -= 1;
            if *own == 0 {
                self.shares.remove(&share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_limit() {
        let seconds = [0, 1, 5, 8, 9, u32::MAX].map(|failures| retry_after(failures).as_secs());
        assert_eq!(seconds, [1, 2, 32, 256, 300, 300]);
    }

    #[test]
    fn no_namespace_takes_all_places() {
        let mut busy = Busy::default();
        let key = |namespace: &str, number: usize| GatewayKey {
            namespace: namespace.to_owned(),
            monitor: number.to_string(),
        };
        let mut fill = |namespace: &str| {
            let has_room = |number: &usize| {
                let key = key(namespace, *number);
                let has_room = busy.has_room() && busy.has_room_for(&key, namespace);
                if has_room {
                    busy.insert(key, namespace);
                }
                has_room
            };
            (0..100).filter(has_room).count()
        };
        assert_eq!(["a", "b", "c", "d", "e", "f", "g"].map(&mut fill), [16, 8, 4, 2, 1, 1, 0]);
        busy.remove(&key("a", 0));
        assert!(!busy.has_room_for(&key("a", 1), "a") && busy.has_room_for(&key("g", 0), "g"));
    }
}
