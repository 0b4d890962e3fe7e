//! Watches that survive a kind that is not served, a missing right, or an API server that cannot be reached.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::OptionFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use kube::api::{Api, ApiResource};
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::Need;
use super::object::{Meta, NamespacedName, place};
use super::request::text_of;
use crate::lock::lock;
use crate::reason::Finding;

/// The pause after a failed watch, and the delay until a newly installed operator is noticed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Returns true if the cluster does not serve the kind, as opposed to having no object of it. The API server answers
/// an unknown path without a `Status`, so only the code tells.
fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// Returns true if gwmon lacks the right to list the kind.
fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403)
}

/// Logs why a kind cannot be watched, with the fix. Returns true if gwmon lacks the right to list it.
pub(crate) fn log_watch_error(kind: &str, error: &watcher::Error) -> bool {
    let is_forbidden = is_forbidden(error);
    if is_forbidden {
        tracing::warn!(kind, %error, "forbidden to watch; apply deploy/install.yaml again");
    } else {
        tracing::warn!(kind, %error, "cannot watch");
    }
    is_forbidden
}

/// Page size of a list. A tenant's may have 1.5 MiB each, and their labels alone as much.
pub(crate) const PAGE: u32 = 10;

/// A field selector: pods that run or may yet. Ended or evicted pods are not scraped.
pub(crate) const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Objects that this label selector selects.
pub(crate) fn labelled(selector: &str) -> watcher::Config {
    watcher::Config::default().labels(selector).page_size(PAGE)
}

/// Parsed objects of one kind.
#[derive(Debug)]
pub(crate) struct Parsed<T> {
    pub(crate) live: BTreeMap<NamespacedName, T>,
    /// A list that has begun and is not complete.
    fresh: BTreeMap<NamespacedName, T>,
}

/// Watches of one client.
pub(crate) struct Watches<'a> {
    client: &'a Client,
    /// The number of watches whose initial list is not complete.
    pending: Arc<AtomicUsize>,
    listed: CancellationToken,
}

impl<'a> Watches<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, pending: Arc::default(), listed: CancellationToken::new() }
    }

    /// Cancelled when every watch has delivered its first list.
    pub(crate) fn listed(&self) -> CancellationToken {
        self.listed.clone()
    }

    /// Watches the metadata of all of a kind and keeps it.
    pub(crate) fn all(&self, resource: ApiResource, need: Need) -> (Store<Meta>, BoxStream<'static, ()>) {
        let mut writer = Writer::<Meta>::new(resource.clone());
        let store = writer.as_reader();
        let events = self.metadata(resource, labelled(""), need, move |event| {
            let mut event = event.clone();
            if let Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) = &mut event {
                // The largest part of most objects, and nothing that is read.
                object.metadata.managed_fields = None;
            }
            writer.apply_watcher_event(&event);
            // A list counts when it is complete.
            (!matches!(event, Event::Init | Event::InitApply(_))).then_some(())
        });
        (store, events)
    }

    /// Watches a kind and keeps the result of `parse` for each object, where there is one. Reads each object with a request of
    /// its own: a decoded list is ten times as large and could take all memory.
    pub(crate) fn parsed<T: Send + 'static>(
        &self,
        resource: ApiResource,
        label: &str,
        need: Need,
        parse: fn(&str) -> Result<Option<T>, Finding>,
    ) -> (Arc<Mutex<Parsed<T>>>, BoxStream<'static, ()>) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        let kept = Arc::new(Mutex::new(Parsed { live: BTreeMap::new(), fresh: BTreeMap::new() }));
        let (known, client, kind) = (Arc::clone(&kept), self.client.clone(), resource.clone());
        let mut listed = self.first_list();
        let read = move |at: NamespacedName| {
            let (client, kind) = (client.clone(), kind.clone());
            async move {
                let left_out = |why: &dyn Display| {
                    tracing::warn!(
                        kind = kind.kind,
                        namespace = at.0,
                        name = at.1,
                        "left out, since it cannot be read: {why}"
                    );
                };
                let text = loop {
                    match text_of(&client, &at.0, (&kind.api_version, &kind.kind), &at.1).await {
                        Ok(text) => break text?,
                        // A forbidden Prometheus must not count as an absent one.
                        Err(kube::Error::Api(status)) if status.code == 403 && need == Need::Optional => {
                            left_out(&format_args!("{}; apply deploy/install.yaml again", status.message));
                            return None;
                        }
                        Err(error) => left_out(&format_args!("{error}; trying again")),
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                };
                let parsed = parse(&text).inspect_err(|finding| left_out(finding)).ok().flatten()?;
                Some((at, parsed))
            }
        };
        let events = self.metadata(resource, labelled(label), need, |event| {
            Some(match event {
                Event::Init => Event::Init,
                Event::InitApply(object) => Event::InitApply(place(object)),
                Event::InitDone => Event::InitDone,
                Event::Apply(object) => Event::Apply(place(object)),
                Event::Delete(object) => Event::Delete(place(object)),
            })
        });
        let events = events.then(move |event| {
            let reading = match &event {
                Event::Apply(at) | Event::InitApply(at) => Some(read(at.clone())),
                _ => None,
            };
            async move { (event, OptionFuture::from(reading).await.flatten()) }
        });
        let events = events.filter_map(move |(event, read)| {
            let mut kept = lock(&known);
            // A list counts when it is complete.
            let counts = !matches!(event, Event::Init | Event::InitApply(_));
            match event {
                Event::Init => kept.fresh.clear(),
                Event::InitApply(_) => kept.fresh.extend(read),
                Event::InitDone => {
                    kept.live = std::mem::take(&mut kept.fresh);
                    listed();
                }
                Event::Apply(at) | Event::Delete(at) => {
                    kept.live.remove(&at);
                    kept.live.extend(read);
                }
            }
            std::future::ready(counts.then_some(()))
        });
        (kept, events.boxed())
    }

    /// Watches the metadata of the objects of a kind that `which` selects.
    pub(crate) fn metadata<C: Send + 'static>(
        &self,
        resource: ApiResource,
        which: watcher::Config,
        need: Need,
        take: impl FnMut(&Event<Meta>) -> Option<C> + Send + 'static,
    ) -> BoxStream<'static, C> {
        self.typed::<Meta, C>(resource, which, need, take)
    }

    /// Watches the objects of a kind that `which` selects, decoded as `K`.
    pub(crate) fn typed<K, C: Send + 'static>(
        &self,
        resource: ApiResource,
        which: watcher::Config,
        need: Need,
        take: impl FnMut(&Event<K>) -> Option<C> + Send + 'static,
    ) -> BoxStream<'static, C>
    where
        K: Resource<DynamicType = ApiResource> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api = Api::<K>::all_with(self.client.clone(), &resource);
        self.observe(resource.kind, watcher(api, which), need, take)
    }

    /// To be called at a first list's end; true at the first call.
    fn first_list(&self) -> impl FnMut() -> bool + Send + use<> {
        let mut first = Some((Arc::clone(&self.pending), self.listed.clone()));
        move || {
            let Some((pending, all)) = first.take() else { return false };
            if pending.fetch_sub(1, Ordering::AcqRel) == 1 {
                all.cancel();
            }
            true
        }
    }

    /// Forwards watch events while the stream is polled. A kind that is not served counts as an empty list and is retried.
    fn observe<K: Send + 'static, C: Send + 'static>(
        &self,
        kind: String,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        need: Need,
        mut take: impl FnMut(&Event<K>) -> Option<C> + Send + 'static,
    ) -> BoxStream<'static, C> {
        self.pending.fetch_add(1, Ordering::AcqRel);
        let (mut listed, mut absent) = (self.first_list(), false);
        let mut seen = move |event: watcher::Result<Event<K>>| match event {
            Ok(event) => {
                let change = take(&event);
                if matches!(event, Event::InitDone) {
                    absent = false;
                    listed();
                }
                (vec![change], Duration::ZERO)
            }
            Err(error) if is_absent(&error) => {
                listed();
                if std::mem::replace(&mut absent, true) {
                    return (vec![], RETRY_INTERVAL);
                }
                tracing::info!(kind, "the cluster does not serve this kind; gwmon retries every 5 s");
                (vec![take(&Event::Init), take(&Event::InitDone)], RETRY_INTERVAL)
            }
            Err(error) => {
                log_watch_error(&kind, &error);
                // A failing optional kind must not block the others.
                let goes_on =
                    need == Need::Optional && matches!(error, watcher::Error::InitialListFailed(_)) && listed();
                let empty = goes_on.then(|| vec![take(&Event::Init), take(&Event::InitDone)]);
                (empty.unwrap_or_default(), RETRY_INTERVAL)
            }
        };
        // The pause follows the changes. (kube's own backoff starts anew with each list that is tried.)
        events
            .flat_map(move |event| {
                let (changes, pause) = seen(event);
                // No sleep of no length: a timer takes a millisecond.
                let pause = stream::iter((!pause.is_zero()).then_some(pause)).then(tokio::time::sleep);
                stream::iter(changes.into_iter().flatten()).chain(pause.filter_map(|()| std::future::ready(None)))
            })
            .boxed()
    }
}
