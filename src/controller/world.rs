//! What the controller knows of the cluster: injected pods, its own objects, labels of namespaces, and the objects that
//! configure a Prometheus. Memory follows gateways, not the cluster's pods (R23): of pods and objects only what is read
//! is kept, and what the pods of one roll-out have in common is kept once.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::index::{Index, Meta, Place};
use super::{FIELD_MANAGER, GatewayKey};
use crate::annotations::{Annotations, MAPPING, MONITORED_BY, WORKLOAD_NAMESPACE, ours};
use crate::monitoring::consumer::Kind;
use crate::monitoring::objects::{MONITOR, SERVICE};
use crate::monitoring::operator::OPERATOR_LABELS;
use crate::monitoring::{Cluster, Consumer, Operator};

/// Something happened.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// To these gateways' pods or objects.
    Gateways(Vec<GatewayKey>),
    /// To what is known of the cluster's monitoring, or to a whole list, so that every gateway may be concerned.
    Everything,
}

/// A kind of which only the name is known.
pub(crate) fn api_resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// What the pods of one roll-out have in common.
#[derive(Debug, PartialEq)]
pub(crate) struct Revision {
    /// gwmon's, but for the mapping, which is the largest and not read.
    pub(crate) annotations: Annotations,
    /// The pod's controller.
    pub(crate) owner: Option<OwnerReference>,
}

/// What is kept of a pod.
#[derive(Debug)]
struct Pod {
    created: Option<Time>,
    /// It is on its way out, perhaps for minutes, perhaps with its workload.
    terminating: bool,
    revision: Arc<Revision>,
}

/// Objects of gwmon's own.
type Objects = Arc<Mutex<Index<Arc<Meta>>>>;

/// The live state, kept by watches.
pub(crate) struct World {
    pods: Arc<Mutex<Index<Pod>>>,
    services: Objects,
    monitors: Objects,
    cluster: Arc<ArcSwap<Cluster>>,
    /// Cancelled when every watch has delivered its first list.
    listed: CancellationToken,
}

/// No code that holds one of these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Starts to watch; the stream must be polled for anything to be known.
    pub(crate) fn watch(client: &Client) -> (Self, impl Stream<Item = Change> + use<>) {
        let listed = CancellationToken::new();
        let watches = Watches { client, pending: Arc::default(), listed: listed.clone() };
        let pods = Arc::new(Mutex::new(Index::default()));
        let known = Arc::clone(&pods);
        let pod_events =
            watches.gateways(api_resource("v1", "Pod"), MONITORED_BY, move |event| lock(&known).take(event, pod));
        let (services, service_events) = watches.own(SERVICE);
        let (monitors, monitor_events) = watches.own(MONITOR);

        let (namespaces, namespace_events) = watches.all::<Meta>(api_resource("v1", "Namespace"), "", Need::Must);
        let (consumers, mut events): (Vec<_>, Vec<_>) = Kind::ALL
            .into_iter()
            .map(|(kind, version)| {
                // Not being allowed to see a Prometheus is not the same as there being none.
                let need = if kind == Kind::Prometheus { Need::Must } else { Need::Can };
                watches.all::<DynamicObject>(api_resource(version, kind.as_str()), "", need)
            })
            .unzip();
        let (operators, operator_events): (Vec<_>, Vec<_>) = OPERATOR_LABELS
            .into_iter()
            .map(|label| watches.all::<DynamicObject>(api_resource("apps/v1", "Deployment"), label, Need::Can))
            .unzip();
        events.extend(operator_events);
        events.push(namespace_events);

        let cluster = Arc::new(ArcSwap::from_pointee(Cluster::default()));
        let known = Arc::clone(&cluster);
        let monitoring = stream::select_all(events).filter_map(move |()| {
            let now = monitoring_of(&namespaces, &consumers, &operators);
            // A namespace is touched far more often than its labels.
            let changed = **known.load() != now;
            if changed {
                known.store(Arc::new(now));
            }
            std::future::ready(changed.then_some(Change::Everything))
        });
        let changes = [pod_events, service_events, monitor_events, monitoring.boxed()];
        (Self { pods, services, monitors, cluster, listed }, stream::select_all(changes))
    }

    /// Done when every watch has delivered its first list: from then on what is not known is not there.
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

    /// How many gateways have injected pods.
    pub(crate) fn count(&self) -> usize {
        lock(&self.pods).keys().count()
    }

    /// The newest roll-out of a gateway that has injected pods: it tells what is to come.
    pub(crate) fn newest(&self, key: &GatewayKey) -> Option<Arc<Revision>> {
        let pods = lock(&self.pods);
        let pods = pods.of(key).map(|(_, pod)| pod).filter(|pod| !pod.terminating);
        pods.max_by_key(|pod| &pod.created).map(|pod| Arc::clone(&pod.revision))
    }

    /// An object of gwmon's, where it carries gwmon's labels.
    pub(crate) fn object(&self, kind: &str, key: &GatewayKey, place: &Place) -> Option<Arc<Meta>> {
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

    /// What is known of the cluster's monitoring.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        self.cluster.load_full()
    }
}

fn pod(pod: &Meta, other: Option<&Pod>) -> Pod {
    let kept = |(key, value): (&String, &String)| (key != MAPPING).then(|| (key.clone(), value.clone()));
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let revision = Revision { annotations: ours(pod.annotations()).filter_map(kept).collect(), owner: owner.cloned() };
    let same = other.map(|other| &other.revision).filter(|known| ***known == revision);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Pod {
        created: pod.creation_timestamp(),
        terminating,
        revision: same.map_or_else(|| Arc::new(revision), Arc::clone),
    }
}

/// An object of gwmon's own, without what is not read. Of the managers of its fields only that gwmon is one.
fn own(object: &Meta, _: Option<&Arc<Meta>>) -> Arc<Meta> {
    let mut object = object.clone();
    let managers = object.metadata.managed_fields.iter_mut().flatten();
    let managers = managers.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER)).map(|entry| {
        entry.fields_v1 = None;
        entry.clone()
    });
    object.metadata.managed_fields = Some(managers.collect());
    object.metadata.annotations = None;
    Arc::new(object)
}

fn monitoring_of(
    namespaces: &Store<Meta>,
    consumers: &[Store<DynamicObject>],
    operators: &[Store<DynamicObject>],
) -> Cluster {
    let json = |(store, kind): (&Store<DynamicObject>, &str)| {
        let objects = store.state();
        objects
            .into_iter()
            .map(|object| {
                let mut json = json!(*object);
                // Objects in a list do not name their kind.
                json["kind"] = json!(kind);
                json.to_string()
            })
            .collect::<Vec<_>>()
    };
    let unreadable = |finding| tracing::warn!("an object cannot be read and is left out: {finding}");
    let mut found = Cluster {
        namespaces: namespaces.state().iter().map(|ns| (ns.name_any(), ns.labels().clone())).collect(),
        ..Cluster::default()
    };
    for (store, (kind, _)) in consumers.iter().zip(Kind::ALL) {
        let parsed = json((store, kind.as_str())).into_iter();
        found.consumers.extend(parsed.filter_map(|json| Consumer::parse(&json).map_err(unreadable).ok().flatten()));
    }
    for store in operators {
        let parsed = json((store, "Deployment")).into_iter();
        found.operators.extend(parsed.filter_map(|json| Operator::parse(&json).map_err(unreadable).ok().flatten()));
    }
    // A store is in no order, and what is compared must be.
    found.consumers.sort_by(|a, b| a.key().cmp(&b.key()).then_with(|| a.to_string().cmp(&b.to_string())));
    found.operators.sort_by(|a, b| a.name.cmp(&b.name));
    found.operators.dedup();
    found
}

/// After a watch has failed. Also how late an operator that is installed later is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Whether the cluster does not serve the kind, as opposed to serving none of it. The API server's answer to an
/// unknown path is no `Status`, so only its code tells.
fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403)
}

/// Whether the controller can do without a kind that it has no right to see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    Can,
}

struct Watches<'a> {
    client: &'a Client,
    /// How many watches have not delivered their first list yet.
    pending: Arc<AtomicUsize>,
    listed: CancellationToken,
}

impl Watches<'_> {
    /// Watches objects that belong to gateways.
    fn gateways(
        &self,
        resource: ApiResource,
        label: &str,
        mut take: impl FnMut(&Event<Meta>) -> Vec<GatewayKey> + Send + 'static,
    ) -> BoxStream<'static, Change> {
        self.observe(resource, label, Need::Must, move |event| {
            let keys = take(event);
            match event {
                // Objects may have come or gone unseen, or the kind itself.
                Event::InitDone => Some(Change::Everything),
                _ => Some(keys).filter(|keys| !keys.is_empty()).map(Change::Gateways),
            }
        })
    }

    /// Watches objects of gwmon's own.
    fn own(&self, (version, kind): (&str, &str)) -> (Objects, BoxStream<'static, Change>) {
        let index = Objects::default();
        let known = Arc::clone(&index);
        let events =
            self.gateways(api_resource(version, kind), WORKLOAD_NAMESPACE, move |event| lock(&known).take(event, own));
        (index, events)
    }

    /// Watches all of a kind and keeps it whole.
    fn all<K>(&self, resource: ApiResource, label: &str, need: Need) -> (Store<K>, BoxStream<'static, ()>)
    where
        K: Resource<DynamicType = ApiResource>
            + Lookup<DynamicType = ApiResource>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
        ApiResource: Eq + Hash,
    {
        let mut writer = Writer::<K>::new(resource.clone());
        let store = writer.as_reader();
        let events = self.observe(resource, label, need, move |event: &Event<K>| {
            let mut event = event.clone();
            if let Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) = &mut event {
                // The largest part of most objects, and nothing that is read.
                object.meta_mut().managed_fields = None;
            }
            writer.apply_watcher_event(&event);
            // A list counts when it is complete.
            (!matches!(event, Event::Init | Event::InitApply(_))).then_some(())
        });
        (store, events)
    }

    /// Watches a kind for as long as the stream is polled. One that the cluster does not serve is an empty list,
    /// looked for again.
    fn observe<K, C: Send + 'static>(
        &self,
        resource: ApiResource,
        label: &str,
        need: Need,
        mut take: impl FnMut(&Event<K>) -> Option<C> + Send + 'static,
    ) -> BoxStream<'static, C>
    where
        K: Resource<DynamicType = ApiResource> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        self.pending.fetch_add(1, Ordering::AcqRel);
        let api = Api::<K>::all_with(self.client.clone(), &resource);
        let (mut first, mut absent) = (Some((Arc::clone(&self.pending), self.listed.clone())), false);
        let mut listed = move || {
            if let Some((pending, all)) = first.take()
                && pending.fetch_sub(1, Ordering::AcqRel) == 1
            {
                all.cancel();
            }
        };
        let mut seen = move |event: watcher::Result<Event<K>>| match event {
            Ok(event) => {
                let change = take(&event);
                if matches!(event, Event::InitDone) {
                    absent = false;
                    listed();
                }
                (change, Duration::ZERO)
            }
            Err(error) if is_absent(&error) => {
                listed();
                if std::mem::replace(&mut absent, true) {
                    return (None, LOOK_AGAIN);
                }
                tracing::info!(
                    kind = resource.kind,
                    "the cluster does not serve this kind; looking for it from time to time"
                );
                take(&Event::Init);
                (take(&Event::InitDone), LOOK_AGAIN)
            }
            Err(error) => {
                if need == Need::Can && is_forbidden(&error) {
                    listed();
                }
                let kind = &resource.kind;
                tracing::warn!(kind, %error, "cannot watch; if this is forbidden, apply deploy/install.yaml again");
                (None, LOOK_AGAIN)
            }
        };
        // The pause comes after what it follows has been passed on. (kube's own backoff starts anew with each list that
        // is tried.)
        watcher(api, watcher::Config::default().labels(label))
            .flat_map(move |event| {
                let (change, pause) = seen(event);
                // Not even of no length where there is none: a timer takes a millisecond.
                let pause = stream::iter((!pause.is_zero()).then_some(pause)).then(tokio::time::sleep);
                stream::iter(change).chain(pause.filter_map(|()| std::future::ready(None)))
            })
            .boxed()
    }
}
