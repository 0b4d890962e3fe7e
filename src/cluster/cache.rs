//! The controller's cache of the cluster: injected pods, its own objects, labels of namespaces, and the objects that configure
//! a Prometheus. Memory follows gateways, not the cluster's pods (R23): only the fields that are used are kept, and what the
//! pods of one roll-out have in common is kept once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ApiResource;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::object::{
    GatewayKey, Meta, NamespacedName, controller_of, is_reference, owner_of_pod, place, requests_injection,
};
use super::request::api_resource;
use super::revisions::{Revision, RevisionRef, Revisions};
use super::watch::{Parsed, UNFINISHED, Watches, labelled};
use super::{FIELD_MANAGER, Need, scraper_kinds};
use crate::annotations::{
    COPIED, LONGEST, METRICS_FOR, MONITORED_BY, PROMETHEUS, STATUS, VOCABULARY, WORKLOAD_NAMESPACE, ours,
};
use crate::kubernetes::Annotations;
use crate::lock::lock;
use crate::monitoring::objects::{MONITOR, SERVICE};
use crate::monitoring::operator::OPERATOR_LABELS;
use crate::monitoring::{Cluster, Operator, Scraper};

/// A change that a watch reports.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// To these gateways' pods or objects.
    Gateways(Vec<GatewayKey>),
    /// To the workloads that ask for injection.
    Workloads,
    /// To the monitoring configuration or a whole list: every gateway may be affected.
    Everything,
}

/// The cached fields of a pod.
#[derive(Debug)]
struct Pod {
    created: Option<Time>,
    /// It has a deletionTimestamp.
    terminating: bool,
    part: RevisionRef,
}

/// The workloads of one kind that ask for injection, by place: their UIDs. Others are not kept.
#[derive(Debug, Default)]
struct OptedInWorkloads {
    live: BTreeMap<NamespacedName, String>,
    /// A list that has begun and is not complete.
    fresh: BTreeMap<NamespacedName, String>,
}

impl OptedInWorkloads {
    /// Applies a watch event. Returns true if the opted-in workloads changed.
    fn take(&mut self, event: &Event<Meta>) -> bool {
        let asks = |object: &Meta| {
            // A workload with a controller is annotated by that controller.
            (requests_injection(object) && controller_of(object).is_none())
                .then(|| object.metadata.uid.clone().unwrap_or_default())
        };
        match event {
            Event::Init => self.fresh.clear(),
            Event::InitApply(object) => self.fresh.extend(asks(object).map(|uid| (place(object), uid))),
            Event::InitDone => {
                let before = std::mem::replace(&mut self.live, std::mem::take(&mut self.fresh));
                return before != self.live;
            }
            Event::Apply(object) => {
                let (at, uid) = (place(object), asks(object));
                let before = self.live.remove(&at);
                self.live.extend(uid.clone().map(|uid| (at, uid)));
                return before != uid;
            }
            Event::Delete(object) => return self.live.remove(&place(object)).is_some(),
        }
        false
    }
}

/// The kinds that gwmon's webhook copies annotations on.
const WORKLOADS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// The most owner references kept of an object; gwmon writes one.
const MOST_OWNERS: usize = 4;

/// Objects of gwmon's own.
type Objects = Arc<Mutex<Index<Arc<Meta>>>>;

/// The live state, kept by watches.
pub(crate) struct ClusterCache {
    pods: Arc<Mutex<Index<Pod>>>,
    services: Objects,
    monitors: Objects,
    asking: [Arc<Mutex<OptedInWorkloads>>; 3],
    cluster: Arc<ArcSwap<Cluster>>,
    /// Cancelled when every watch has delivered its first list.
    listed: CancellationToken,
}

impl ClusterCache {
    /// Starts to watch; the stream must be polled for anything to be known.
    pub(crate) fn watch(client: &Client) -> (Self, impl Stream<Item = Change> + use<>) {
        let watches = Watches::new(client);
        let listed = watches.listed();
        let pods = Arc::new(Mutex::new(Index::default()));
        let (known, revisions) = (Arc::clone(&pods), Revisions::default());
        let which = labelled(MONITORED_BY).fields(UNFINISHED);
        let pod_events = of_gateways(&watches, api_resource("v1", "Pod"), which, move |event| {
            lock(&known).take(event, |object| pod(object, &revisions))
        });
        let (services, service_events) = own_objects(&watches, SERVICE);
        let (monitors, monitor_events) = own_objects(&watches, MONITOR);

        let (namespaces, namespace_events) = watches.all(api_resource("v1", "Namespace"), Need::Required);
        let (scrapers, mut events): (Vec<_>, Vec<_>) = scraper_kinds()
            .map(|(kind, version, need)| watches.parsed(api_resource(version, kind.as_str()), "", need, Scraper::parse))
            .unzip();
        let (operators, operator_events): (Vec<_>, Vec<_>) = OPERATOR_LABELS
            .into_iter()
            .map(|label| watches.parsed(api_resource("apps/v1", "Deployment"), label, Need::Optional, Operator::parse))
            .unzip();
        events.extend(operator_events);
        events.push(namespace_events);

        let asking = WORKLOADS.map(|_| Arc::<Mutex<OptedInWorkloads>>::default());
        let workload_events = WORKLOADS.iter().zip(&asking).map(|(kind, asking)| {
            let known = Arc::clone(asking);
            watches.metadata(api_resource("apps/v1", kind), labelled(""), Need::Optional, move |event| {
                lock(&known).take(event).then_some(Change::Workloads)
            })
        });
        let workload_events = stream::select_all(workload_events.collect::<Vec<_>>()).boxed();

        let cluster = Arc::new(ArcSwap::from_pointee(Cluster::default()));
        let known = Arc::clone(&cluster);
        let monitoring = stream::select_all(events).filter_map(move |()| {
            let now = monitoring_of(&namespaces, &scrapers, &operators);
            // A namespace is touched far more often than its labels.
            let changed = **known.load() != now;
            if changed {
                known.store(Arc::new(now));
            }
            std::future::ready(changed.then_some(Change::Everything))
        });
        let changes = [pod_events, service_events, monitor_events, workload_events, monitoring.boxed()];
        (Self { pods, services, monitors, asking, cluster, listed }, stream::select_all(changes))
    }

    /// Done when every watch has delivered its first list: from then on an object that is not cached does not exist.
    pub(crate) fn listed(&self) -> impl Future<Output = ()> {
        self.listed.cancelled()
    }

    /// Every gateway that has pods or objects.
    pub(crate) fn gateways(&self) -> BTreeSet<GatewayKey> {
        let mut keys: BTreeSet<_> = lock(&self.pods).keys().cloned().collect();
        keys.extend(lock(&self.services).keys().cloned());
        keys.extend(lock(&self.monitors).keys().cloned());
        keys
    }

    /// The number of gateways with injected pods.
    pub(crate) fn count(&self) -> usize {
        lock(&self.pods).keys().count()
    }

    /// The newest revision of a gateway's injected pods, and the name of one of its pods.
    pub(crate) fn newest(&self, key: &GatewayKey) -> Option<(String, Arc<Revision>)> {
        let pods = lock(&self.pods);
        let living = pods.of(key).filter(|(_, pod)| !pod.terminating);
        // A pod that nobody owns may have the name of a workload: then the workload's own pods count.
        let newest = living.max_by_key(|((_, name), pod)| (pod.part.revision.is_owned(name), &pod.created));
        newest.map(|((_, name), pod)| (name.clone(), Arc::clone(&pod.part.revision)))
    }

    /// Returns true if a gateway has injected pods that another object owns.
    pub(crate) fn has_owned_pods(&self, key: &GatewayKey) -> bool {
        self.newest(key).is_some_and(|(name, revision)| revision.is_owned(&name))
    }

    /// The fairness group of a gateway: its namespace, or a common group if only its ServiceMonitors are known, since those can
    /// name any namespace.
    pub(crate) fn fairness_group<'k>(&self, key: &'k GatewayKey) -> &'k str {
        let is_known = lock(&self.pods).of(key).next().is_some() || lock(&self.services).of(key).next().is_some();
        if is_known { &key.namespace } else { "" }
    }

    /// The number of gateways in a namespace that have a Service.
    pub(crate) fn served(&self, namespace: &str) -> usize {
        lock(&self.services).keys().filter(|key| key.namespace == namespace).count()
    }

    /// An object of gwmon's, where it carries gwmon's labels.
    pub(crate) fn object(&self, kind: &str, key: &GatewayKey, place: &NamespacedName) -> Option<Arc<Meta>> {
        let index = lock(if kind == SERVICE.1 { &self.services } else { &self.monitors });
        index.of(key).find(|(at, _)| *at == place).map(|(_, object)| Arc::clone(object))
    }

    /// A gateway's Services.
    pub(crate) fn services(&self, key: &GatewayKey) -> Vec<Arc<Meta>> {
        lock(&self.services).of(key).map(|(_, service)| Arc::clone(service)).collect()
    }

    /// A gateway's ServiceMonitors, in whatever namespace.
    pub(crate) fn monitors(&self, key: &GatewayKey) -> Vec<Arc<Meta>> {
        lock(&self.monitors).of(key).map(|(_, monitor)| Arc::clone(monitor)).collect()
    }

    /// The workloads that ask for injection: kind, place and UID.
    pub(crate) fn asking(&self) -> Vec<(&'static str, NamespacedName, String)> {
        let all = WORKLOADS.into_iter().zip(&self.asking);
        all.flat_map(|(kind, asking)| {
            lock(asking).live.iter().map(|(place, uid)| (kind, place.clone(), uid.clone())).collect::<Vec<_>>()
        })
        .collect()
    }

    /// The gateways whose pods have annotations that gwmon copied from the workload, with the pods' controller.
    pub(crate) fn copied(&self) -> Vec<(GatewayKey, OwnerReference)> {
        let pods = lock(&self.pods);
        let copied = |key: &GatewayKey| {
            let revision = pods.of(key).find_map(|((_, name), pod)| {
                let annotations = pod.part.revision.annotations.as_ref()?;
                let is_copied = annotations.contains_key(COPIED) && pod.part.revision.is_owned(name);
                (!pod.terminating && is_copied).then_some(&pod.part.revision)
            })?;
            Some((key.clone(), revision.owner.clone()?))
        };
        pods.keys().filter_map(copied).collect()
    }

    /// The objects that configure monitoring in the cluster.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        self.cluster.load_full()
    }
}

fn pod(pod: &Meta, revisions: &Revisions) -> Pod {
    // Keeps the annotations that gwmon reads, up to a length: a tenant may write 256 KiB of annotations on each pod.
    let is_kept = |key: &str, value: &str| match key {
        STATUS => value.len() <= 4 * LONGEST,
        key => value.len() <= LONGEST && VOCABULARY.iter().any(|known| known.name == key),
    };
    let kept = |(key, value): (&String, &String)| is_kept(key, value).then(|| (key.clone(), value.clone()));
    let mut annotations: Annotations = ours(pod.annotations()).filter_map(kept).collect();
    if pod.annotations().contains_key(COPIED) {
        // Only its presence is kept.
        annotations.insert(COPIED.to_owned(), String::new());
    }
    let namespace = pod.namespace().unwrap_or_default();
    Pod {
        created: pod.creation_timestamp(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        part: revisions.take(&namespace, annotations, owner_of_pod(pod)),
    }
}

/// An object of gwmon's own, without what is not read. Of managedFields only gwmon's entry is kept. Users may write gwmon's
/// labels, and any others, on Services.
fn own(object: &Meta) -> Arc<Meta> {
    let mut object = object.clone();
    let labels = object.metadata.labels.get_or_insert_default();
    if labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > 4 * LONGEST {
        labels.retain(|key, _| [METRICS_FOR, WORKLOAD_NAMESPACE].contains(&key.as_str()));
    }
    let owners = object.metadata.owner_references.get_or_insert_default();
    owners.retain(is_reference);
    owners.truncate(MOST_OWNERS);
    object.metadata.finalizers = None;
    let managers = object.metadata.managed_fields.iter_mut().flatten();
    let mut managers = managers.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER)).map(|entry| {
        entry.fields_v1 = None;
        entry.clone()
    });
    object.metadata.managed_fields = Some(managers.next().into_iter().collect());
    object
        .metadata
        .annotations
        .get_or_insert_default()
        .retain(|key, value| key == PROMETHEUS && value.len() <= LONGEST);
    Arc::new(object)
}

fn monitoring_of(
    namespaces: &Store<Meta>,
    scrapers: &[Arc<Mutex<Parsed<Scraper>>>],
    operators: &[Arc<Mutex<Parsed<Operator>>>],
) -> Cluster {
    let mut found = Cluster {
        namespaces: namespaces.state().iter().map(|ns| (ns.name_any(), ns.labels().clone())).collect(),
        ..Cluster::default()
    };
    for known in scrapers {
        found.scrapers.extend(lock(known).live.values().cloned());
    }
    for known in operators {
        found.operators.extend(lock(known).live.values().cloned());
    }
    found.normalize();
    found
}

/// Watches objects that belong to gateways.
fn of_gateways(
    watches: &Watches,
    resource: ApiResource,
    which: watcher::Config,
    mut take: impl FnMut(&Event<Meta>) -> Vec<GatewayKey> + Send + 'static,
) -> BoxStream<'static, Change> {
    watches.metadata(resource, which, Need::Required, move |event| {
        let keys = take(event);
        match event {
            // Objects may have come or gone unseen, or the kind itself.
            Event::InitDone => Some(Change::Everything),
            _ => Some(keys).filter(|keys| !keys.is_empty()).map(Change::Gateways),
        }
    })
}

/// Watches objects of gwmon's own.
fn own_objects(watches: &Watches, (version, kind): (&str, &str)) -> (Objects, BoxStream<'static, Change>) {
    let index = Objects::default();
    let known = Arc::clone(&index);
    let events = of_gateways(watches, api_resource(version, kind), labelled(WORKLOAD_NAMESPACE), move |event| {
        lock(&known).take(event, own)
    });
    (index, events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(name: &str, inject: &str, extra: &Value) -> Meta {
        let mut object = json!({"metadata": {"name": name, "namespace": "edge", "uid": name, "annotations": {"gwmon.io/inject": inject}}});
        json_patch::merge(&mut object, extra);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_workload_counts_while_it_asks_and_nobody_makes_it() {
        let mut asking = OptedInWorkloads::default();
        let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "a/v1", "kind": "Gateway", "name": "g", "uid": "u", "controller": true}]}});
        assert!(asking.take(&Event::Apply(object("edge", "true", &json!({})))));
        assert!(!asking.take(&Event::Apply(object("edge", "true", &json!({})))), "nothing new");
        assert!(!asking.take(&Event::Apply(object("made", "true", &owner))));
        assert!(!asking.take(&Event::Apply(object("quiet", "false", &json!({})))));
        assert!(asking.take(&Event::Apply(object("edge", "false", &json!({})))));
        assert!(!asking.take(&Event::Delete(object("edge", "false", &json!({})))));
        asking.take(&Event::Init);
        asking.take(&Event::InitApply(object("edge", "true", &json!({}))));
        assert!(asking.live.is_empty(), "the list is not complete");
        assert!(asking.take(&Event::InitDone));
        assert!(asking.take(&Event::Delete(object("edge", "true", &json!({})))));
    }

    #[test]
    fn of_a_pod_only_what_is_read_is_kept() {
        let annotations = json!({
            "gwmon.io/status": "s", "gwmon.io/mode": "x".repeat(LONGEST + 1), "gwmon.io/copied": "{}", "other": "y",
        });
        let found = object("edge", "true", &json!({"metadata": {"annotations": annotations}}));
        let kept = pod(&found, &Revisions::default()).part.revision.annotations.clone().unwrap();
        let expected = [("gwmon.io/inject", "true"), ("gwmon.io/status", "s"), (COPIED, "")];
        assert_eq!(kept, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }
}
