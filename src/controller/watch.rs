//! Watches that go on whatever happens: a kind that is not served, a right that is lacking, an API server that is away.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use kube::api::{Api, ApiResource};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

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
pub(super) enum Need {
    /// It cannot: without, it waits.
    Must,
    /// It can, and takes it for empty.
    Can,
}

/// Objects that this label selector selects.
pub(super) fn labelled(selector: &str) -> watcher::Config {
    watcher::Config::default().labels(selector)
}

/// Watches of one client.
pub(super) struct Watches<'a> {
    client: &'a Client,
    /// How many watches have not delivered their first list yet.
    pending: Arc<AtomicUsize>,
    listed: CancellationToken,
}

impl<'a> Watches<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self { client, pending: Arc::default(), listed: CancellationToken::new() }
    }

    /// Cancelled when every watch has delivered its first list.
    pub(super) fn listed(&self) -> CancellationToken {
        self.listed.clone()
    }

    /// Watches all of a kind and keeps it whole.
    pub(super) fn all<K>(&self, resource: ApiResource, label: &str, need: Need) -> (Store<K>, BoxStream<'static, ()>)
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
        let events = self.observe(resource, labelled(label), need, move |event: &Event<K>| {
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

    /// Watches those of a kind that `which` selects for as long as the stream is polled. A kind that the cluster does not
    /// serve is an empty list, looked for again.
    pub(super) fn observe<K, C: Send + 'static>(
        &self,
        resource: ApiResource,
        which: watcher::Config,
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
                if is_forbidden(&error) {
                    tracing::warn!(kind, %error, "forbidden to watch; apply deploy/install.yaml again");
                } else {
                    tracing::warn!(kind, %error, "cannot watch");
                }
                (None, LOOK_AGAIN)
            }
        };
        // The pause comes after what it follows has been passed on. (kube's own backoff starts anew with each list that
        // is tried.)
        watcher(api, which)
            .flat_map(move |event| {
                let (change, pause) = seen(event);
                // Not even of no length where there is none: a timer takes a millisecond.
                let pause = stream::iter((!pause.is_zero()).then_some(pause)).then(tokio::time::sleep);
                stream::iter(change).chain(pause.filter_map(|()| std::future::ready(None)))
            })
            .boxed()
    }
}
