//! An index of objects by gateway, filled by a watch.

use std::collections::{BTreeMap, HashMap};

use kube::runtime::watcher::Event;

use super::object::{GatewayKey, Meta, NamespacedName, place};

/// The most objects with gwmon's labels that are cached per namespace: users may create any number.
const MOST_OBJECTS: usize = 10_000;

/// Values by gateway.
#[derive(Debug)]
pub(crate) struct Index<V> {
    live: Content<V>,
    /// A list that has begun and is not complete.
    fresh: Option<Content<V>>,
}

#[derive(Debug)]
struct Content<V> {
    gateways: HashMap<GatewayKey, BTreeMap<NamespacedName, V>>,
    /// The gateway of each object when it was last seen: somebody may change a label.
    keys: HashMap<NamespacedName, GatewayKey>,
    /// The number of objects in each namespace, whatever gateway they name.
    counts: HashMap<String, usize>,
}

impl<V> Default for Content<V> {
    fn default() -> Self {
        Self { gateways: HashMap::new(), keys: HashMap::new(), counts: HashMap::new() }
    }
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { live: Content::default(), fresh: None }
    }
}

impl<V> Content<V> {
    fn remove(&mut self, place: &NamespacedName) -> Option<GatewayKey> {
        let key = self.keys.remove(place)?;
        if let Some(count) = self.counts.get_mut(&place.0) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place.0);
            }
        }
        if let Some(objects) = self.gateways.get_mut(&key) {
            objects.remove(place);
            if objects.is_empty() {
                self.gateways.remove(&key);
            }
        }
        Some(key)
    }

    /// Adds a new object.
    fn insert(&mut self, place: NamespacedName, object: &Meta, keep: impl FnOnce(&Meta) -> V) -> Option<GatewayKey> {
        let key = GatewayKey::of(object)?;
        let count = self.counts.entry(place.0.clone()).or_default();
        if *count >= MOST_OBJECTS {
            tracing::warn!(
                namespace = place.0,
                "over {MOST_OBJECTS} objects with gwmon's labels; the rest is not seen"
            );
            return None;
        }
        *count += 1;
        self.keys.insert(place.clone(), key.clone());
        self.gateways.entry(key.clone()).or_default().insert(place, keep(object));
        Some(key)
    }
}

impl<V> Index<V> {
    /// Applies a watch event. `keep` makes what is kept of an object. Returns the gateways that a single change concerns; a
    /// whole list concerns all.
    pub(crate) fn take(&mut self, event: &Event<Meta>, keep: impl FnOnce(&Meta) -> V) -> Vec<GatewayKey> {
        match event {
            Event::Init => self.fresh = Some(Content::default()),
            Event::InitApply(object) => {
                let (fresh, place) = (self.fresh.get_or_insert_default(), place(object));
                fresh.remove(&place);
                fresh.insert(place, object, keep);
            }
            Event::InitDone => self.live = self.fresh.take().unwrap_or_default(),
            Event::Apply(object) => {
                let place = place(object);
                let before = self.live.remove(&place);
                let now = self.live.insert(place, object, keep);
                return before.into_iter().filter(|before| Some(before) != now.as_ref()).chain(now.clone()).collect();
            }
            Event::Delete(object) => return self.live.remove(&place(object)).into_iter().collect(),
        }
        vec![]
    }

    /// The values of one gateway's objects.
    pub(crate) fn of(&self, key: &GatewayKey) -> impl Iterator<Item = (&NamespacedName, &V)> {
        self.live.gateways.get(key).into_iter().flatten()
    }

    /// Every gateway that has objects.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &GatewayKey> {
        self.live.gateways.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, monitor: &str) -> Meta {
        let labels = json!({"gwmon.io/monitored-by": monitor});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "edge", "labels": labels}})).unwrap()
    }

    fn key(monitor: &str) -> GatewayKey {
        GatewayKey { namespace: "edge".to_owned(), monitor: monitor.to_owned() }
    }

    /// Takes in an event, and returns the monitors of the gateways that it concerns.
    fn take(index: &mut Index<()>, event: &Event<Meta>) -> Vec<String> {
        index.take(event, |_| ()).into_iter().map(|key| key.monitor).collect()
    }

    #[test]
    fn a_changed_label_concerns_both_gateways() {
        let mut index = Index::default();
        assert_eq!(take(&mut index, &Event::Apply(pod("a", "one"))), ["one"]);
        assert_eq!(take(&mut index, &Event::Apply(pod("a", "one"))), ["one"]);
        assert_eq!(take(&mut index, &Event::Apply(pod("a", "two"))), ["one", "two"]);
        assert_eq!((index.of(&key("one")).count(), index.of(&key("two")).count()), (0, 1));
        assert_eq!(take(&mut index, &Event::Delete(pod("a", "two"))), ["two"]);
        assert_eq!(index.keys().count(), 0);
        assert!(take(&mut index, &Event::Delete(pod("a", "two"))).is_empty(), "it was not known");
    }

    #[test]
    fn a_list_counts_when_it_is_complete_and_replaces_what_was_known() {
        let mut index = Index::default();
        index.take(&Event::Apply(pod("gone", "one")), |_| ());
        index.take(&Event::Init, |_| ());
        index.take(&Event::InitApply(pod("here", "two")), |_| ());
        assert_eq!(index.keys().collect::<Vec<_>>(), [&key("one")]);
        index.take(&Event::InitDone, |_| ());
        assert_eq!(index.keys().collect::<Vec<_>>(), [&key("two")]);
    }

    #[test]
    fn what_has_no_gateway_is_not_kept_and_no_namespace_has_more_than_its_share() {
        let mut index = Index::default();
        let unlabelled: Meta = serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "edge"}})).unwrap();
        assert!(take(&mut index, &Event::Apply(unlabelled)).is_empty());
        for number in 0..=MOST_OBJECTS {
            index.take(&Event::Apply(pod(&number.to_string(), "one")), |_| ());
        }
        assert_eq!(index.of(&key("one")).count(), MOST_OBJECTS);
        index.take(&Event::Delete(pod("0", "one")), |_| ());
        assert_eq!(take(&mut index, &Event::Apply(pod("next", "one"))), ["one"], "there is room again");
    }
}
