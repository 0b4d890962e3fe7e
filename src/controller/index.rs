//! What is kept of the objects of each gateway: an index by gateway, filled by a watch.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;

use super::GatewayKey;

/// Metadata of an object of any kind.
pub(crate) type Meta = PartialObjectMeta<DynamicObject>;

/// An object's namespace and name.
pub(crate) type Place = (String, String);

/// The owner that manages an object.
pub(crate) fn controller_of(object: &Meta) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// What is kept of each object, by gateway.
#[derive(Debug)]
pub(crate) struct Index<V> {
    live: Content<V>,
    /// A list that has begun and is not complete.
    fresh: Option<Content<V>>,
}

#[derive(Debug)]
struct Content<V> {
    gateways: HashMap<GatewayKey, BTreeMap<Place, V>>,
    /// Which gateway an object was last seen to belong to: a label can be changed by hand.
    keys: HashMap<Place, GatewayKey>,
}

impl<V> Default for Content<V> {
    fn default() -> Self {
        Self { gateways: HashMap::new(), keys: HashMap::new() }
    }
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { live: Content::default(), fresh: None }
    }
}

impl<V> Content<V> {
    fn remove(&mut self, place: &Place) -> Option<GatewayKey> {
        let key = self.keys.remove(place)?;
        if let Some(objects) = self.gateways.get_mut(&key) {
            objects.remove(place);
            if objects.is_empty() {
                self.gateways.remove(&key);
            }
        }
        Some(key)
    }

    fn insert(&mut self, place: Place, object: &Meta, keep: impl FnOnce(&Meta, Option<&V>) -> V) -> Option<GatewayKey> {
        let key = GatewayKey::of(object)?;
        self.keys.insert(place.clone(), key.clone());
        let objects = self.gateways.entry(key.clone()).or_default();
        let value = keep(object, objects.values().next());
        objects.insert(place, value);
        Some(key)
    }
}

/// Where an object is.
pub(crate) fn place(object: &Meta) -> Place {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<V> Index<V> {
    /// Takes in what a watch tells. `keep` makes what is kept of an object, and may share it with another of the same
    /// gateway's. Returns the gateways that a single change concerns; a whole list concerns all.
    pub(crate) fn take(&mut self, event: &Event<Meta>, keep: impl FnOnce(&Meta, Option<&V>) -> V) -> Vec<GatewayKey> {
        match event {
            Event::Init => self.fresh = Some(Content::default()),
            Event::InitApply(object) => {
                self.fresh.get_or_insert_default().insert(place(object), object, keep);
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

    /// What is kept of one gateway's objects.
    pub(crate) fn of(&self, key: &GatewayKey) -> impl Iterator<Item = (&Place, &V)> {
        self.live.gateways.get(key).into_iter().flatten()
    }

    /// Every gateway that has objects.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &GatewayKey> {
        self.live.gateways.keys()
    }
}
