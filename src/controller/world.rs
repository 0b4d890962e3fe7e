//! What the controller knows of the cluster: metadata of injected pods and of its own objects, labels of
//! namespaces, and the Prometheus objects. Memory follows gateways, not the cluster's pods (R23).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube::core::GroupVersionKind;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::GatewayKey;
use crate::annotations::MONITORED_BY;
use crate::monitoring::objects::MANAGED_BY;
use crate::monitoring::{Cluster, Consumer};

/// Metadata of an object of any kind.
pub(crate) type Meta = PartialObjectMeta<DynamicObject>;

/// Something happened.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// To one gateway's pods or objects.
    Gateway(GatewayKey),
    /// To a Prometheus or a namespace, so that every gateway may be selected otherwise now; or to a whole list, from
    /// which gateways may have vanished unseen.
    Everything,
}

/// The kinds that gwmon reads or writes.
pub(crate) fn api_resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The live state, kept by watches.
pub(crate) struct World {
    pods: Store<Meta>,
    services: Store<Meta>,
    cluster: Arc<ArcSwap<Cluster>>,
    /// How many watches have not delivered their first list yet.
    pending: Arc<AtomicUsize>,
}

impl World {
    /// Starts to watch; the stream must be polled for anything to be known.
    pub(crate) fn watch(client: &Client) -> (Self, impl Stream<Item = Change> + use<>) {
        let pending = Arc::new(AtomicUsize::new(0));
        let labelled = |label: &str| watcher::Config::default().labels(label);
        let (pods, pod_events) = observe::<Meta>(client, api_resource("v1", "Pod"), labelled(MONITORED_BY), &pending);
        let ours = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
        let (services, service_events) =
            observe::<Meta>(client, api_resource("v1", "Service"), labelled(&ours), &pending);
        let monitors = api_resource("monitoring.coreos.com/v1", "ServiceMonitor");
        let (_, monitor_events) = observe::<Meta>(client, monitors, labelled(&ours), &pending);
        let (namespaces, namespace_events) =
            observe::<Meta>(client, api_resource("v1", "Namespace"), labelled(""), &pending);
        let consumers =
            [("monitoring.coreos.com/v1", "Prometheus"), ("monitoring.coreos.com/v1alpha1", "PrometheusAgent")];
        let (consumers, consumer_events): (Vec<_>, Vec<_>) = consumers
            .into_iter()
            .map(|(version, kind)| {
                observe::<DynamicObject>(client, api_resource(version, kind), labelled(""), &pending)
            })
            .unzip();

        let of_gateway = |seen: Seen<Meta>| {
            let change = match seen.0 {
                Some(object) => GatewayKey::of(&object).map(Change::Gateway),
                None => Some(Change::Everything),
            };
            std::future::ready(change)
        };
        let cluster = Arc::new(ArcSwap::from_pointee(Cluster::default()));
        let known = Arc::clone(&cluster);
        let monitoring = stream::select(
            namespace_events.map(|_| ()).boxed(),
            stream::select_all(consumer_events.into_iter().map(|events| events.map(|_| ()).boxed())),
        )
        .map(move |()| {
            known.store(Arc::new(monitoring_of(&namespaces, &consumers)));
            Change::Everything
        });
        let changes: [BoxStream<'static, Change>; 4] = [
            pod_events.filter_map(of_gateway).boxed(),
            service_events.filter_map(of_gateway).boxed(),
            monitor_events.filter_map(of_gateway).boxed(),
            monitoring.boxed(),
        ];
        (Self { pods, services, cluster, pending }, stream::select_all(changes))
    }

    /// Whether every watch has delivered its first list, so that what is not known is not there.
    pub(crate) fn is_ready(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }

    /// Every gateway that has pods or a Service.
    pub(crate) fn gateways(&self) -> Vec<GatewayKey> {
        let objects = self.pods.state().into_iter().chain(self.services.state());
        objects.filter_map(|object| GatewayKey::of(&object)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The newest injected pod of a gateway: during a roll-out it tells what is to come.
    pub(crate) fn newest_pod(&self, key: &GatewayKey) -> Option<Arc<Meta>> {
        let pods = self.pods.state_filter(|pod| GatewayKey::of(pod).as_ref() == Some(key));
        pods.into_iter().max_by(|a, b| a.creation_timestamp().cmp(&b.creation_timestamp()))
    }

    /// What is known of the cluster's monitoring.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        self.cluster.load_full()
    }
}

fn monitoring_of(namespaces: &Store<Meta>, consumers: &[Store<DynamicObject>]) -> Cluster {
    let labels: BTreeMap<_, _> = namespaces.state().iter().map(|ns| (ns.name_any(), ns.labels().clone())).collect();
    let parse = |object: Arc<DynamicObject>| {
        let json = serde_json::to_string(&*object).unwrap_or_default();
        Consumer::parse(&json)
            .inspect_err(|refusal| {
                let (namespace, name) = (ResourceExt::namespace(&*object), object.name_any());
                tracing::warn!(namespace, name, "a Prometheus object cannot be read and is left out: {refusal}");
            })
            .ok()
    };
    Cluster { consumers: consumers.iter().flat_map(Store::state).filter_map(parse).collect(), namespaces: labels }
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

/// One object seen; `None` where the whole list may have changed.
struct Seen<K>(Option<K>);

/// Keeps a store of one kind. A kind that the cluster does not serve is an empty list, looked for again.
fn observe<K>(
    client: &Client,
    resource: ApiResource,
    config: watcher::Config,
    pending: &Arc<AtomicUsize>,
) -> (Store<K>, BoxStream<'static, Seen<K>>)
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
    pending.fetch_add(1, Ordering::AcqRel);
    let api = Api::<K>::all_with(client.clone(), &resource);
    let (mut first, mut absent) = (Some(Arc::clone(pending)), false);
    let mut listed = move || {
        if let Some(pending) = first.take() {
            pending.fetch_sub(1, Ordering::AcqRel);
        }
    };
    let mut writer = Writer::<K>::new(resource.clone());
    let store = writer.as_reader();
    let mut take = move |event: watcher::Result<Event<K>>| {
        let mut event = match event {
            Ok(event) => event,
            Err(error) if is_absent(&error) => {
                if !std::mem::replace(&mut absent, true) {
                    tracing::info!(
                        kind = resource.kind,
                        "the cluster does not serve this kind; looking again from time to time"
                    );
                }
                writer.apply_watcher_event(&Event::Init);
                writer.apply_watcher_event(&Event::InitDone);
                listed();
                return (Some(Seen(None)), LOOK_AGAIN);
            }
            Err(error) => {
                tracing::warn!(kind = resource.kind, %error, "cannot watch; if this is forbidden, apply deploy/base/rbac.yaml");
                return (None, LOOK_AGAIN);
            }
        };
        if let Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) = &mut event {
            // The largest part of most objects, and nothing that is read.
            object.meta_mut().managed_fields = None;
        }
        writer.apply_watcher_event(&event);
        let seen = match event {
            Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) => Some(Seen(Some(object))),
            Event::Init => None,
            Event::InitDone => {
                absent = false;
                listed();
                Some(Seen(None))
            }
        };
        (seen, Duration::ZERO)
    };
    // The pause comes after what it follows has been passed on. (kube's own backoff starts anew with each list that
    // is tried.)
    let events = watcher(api, config)
        .flat_map(move |event| {
            let (seen, pause) = take(event);
            let pause = stream::once(tokio::time::sleep(pause)).filter_map(|()| std::future::ready(None));
            stream::iter(seen).chain(pause)
        })
        .boxed();
    (store, events)
}
