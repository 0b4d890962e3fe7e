//! The edge that writes: it watches injected pods and the cluster's Prometheus objects, and keeps each
//! gateway's Service and ServiceMonitor as [`crate::monitoring::plan`] says. The other task here keeps the
//! webhook's certificate.

pub mod certificates;
mod reconcile;
mod world;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use kube::runtime::scheduler::{ScheduleRequest, debounced_scheduler};
use kube::{Client, ResourceExt};
use tokio::time::Instant;

use crate::annotations::{METRICS_FOR, MONITORED_BY, WORKLOAD_NAMESPACE};
use crate::metrics::Metrics;
pub(crate) use world::api_resource;
use world::{Change, Meta, World};

/// One gateway: the workload's namespace and the name of its monitor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GatewayKey {
    pub(crate) namespace: String,
    pub(crate) monitor: String,
}

/// An error of the API server's in its own words; kube would print the whole `Status` besides.
pub(crate) fn plain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}

impl GatewayKey {
    /// The gateway that a pod or a generated object belongs to.
    pub(crate) fn of(object: &Meta) -> Option<Self> {
        let label = |key| object.labels().get(key).cloned();
        let monitor = label(MONITORED_BY).or_else(|| label(METRICS_FOR))?;
        Some(Self { namespace: label(WORKLOAD_NAMESPACE).or_else(|| object.namespace())?, monitor })
    }
}

/// The name under which gwmon's fields are applied.
pub(crate) const FIELD_MANAGER: &str = "gwmon";

/// A pod's label, status and readiness come as events of their own.
const DEBOUNCE: Duration = Duration::from_millis(100);
const CONCURRENT: usize = 16;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_mins(5);

/// Reconciles until `stop` is done. Errors are logged, counted and tried again, ever more slowly.
pub async fn run(client: Client, metrics: Metrics, stop: impl Future<Output = ()>) {
    let (world, changes) = World::watch(&client);
    let world = Arc::new(world);
    let (requests, queue) = futures::channel::mpsc::unbounded();
    let mut queue = pin!(debounced_scheduler(queue, DEBOUNCE));
    let mut changes = pin!(changes);
    let mut stop = pin!(stop);
    let mut running = FuturesUnordered::new();
    let mut busy = HashSet::new();
    let mut failures: HashMap<GatewayKey, u32> = HashMap::new();
    let request = |key: GatewayKey, after: Duration| {
        // Fails only when the queue is gone, and then this function has returned.
        let _ = requests.unbounded_send(ScheduleRequest { message: key, run_at: Instant::now() + after });
    };
    loop {
        tokio::select! {
            () = &mut stop => return,
            Some(change) = changes.next() => {
                let keys = match change {
                    Change::Gateway(key) => vec![key],
                    Change::Everything => world.gateways(),
                };
                for key in keys { request(key, Duration::ZERO); }
            }
            Some(key) = async { queue.as_mut().hold_unless(|key| !busy.contains(key)).next().await },
                if world.is_ready() && busy.len() < CONCURRENT =>
            {
                busy.insert(key.clone());
                let (client, world) = (client.clone(), Arc::clone(&world));
                running.push(async move {
                    let result = reconcile::reconcile(&client, &world, &key).await;
                    (key, result)
                }.boxed());
            }
            Some((key, result)) = running.next() => {
                busy.remove(&key);
                metrics.reconciled(result.is_ok());
                metrics.gateways.set(i64::try_from(world.gateways().len()).unwrap_or(i64::MAX));
                match result {
                    Ok(()) => { failures.remove(&key); }
                    Err(error) => {
                        let count = failures.entry(key.clone()).or_default();
                        let after = (FIRST_RETRY * 2_u32.saturating_pow(*count)).min(LAST_RETRY);
                        *count = count.saturating_add(1).min(16);
                        tracing::warn!(namespace = key.namespace, monitor = key.monitor, ?after, "{error:#}");
                        request(key, after);
                    }
                }
            }
        }
    }
}
