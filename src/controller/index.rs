//! An index of objects by gateway, filled by a watch.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;

use super::GatewayKey;

/// Metadata of an object of any kind.
pub(crate) type Meta = PartialObjectMeta<DynamicObject>;

/// An object's namespace and name.
pub(crate) type NamespacedName = (String, String);

/// The owner that manages an object, where it can be one: the API server checks of an owner reference only that nothing is
/// empty, and kind, version and name become parts of a request's path.
pub(crate) fn controller_of(object: &impl ResourceExt) -> Option<&OwnerReference> {
    let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    owner.filter(|owner| is_reference(owner))
}

/// Returns true if every part of an owner reference is a valid Kubernetes name: a kind of letters and digits, a DNS
/// subdomain, `version` or `group/version`. A ReplicaSet, which gwmon looks up, must be of apps/v1.
pub(crate) fn is_reference(owner: &OwnerReference) -> bool {
    let is_subdomain = |name: &str| {
        (1..=253).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    let is_kind = (1..=63).contains(&owner.kind.len()) && owner.kind.bytes().all(|b| b.is_ascii_alphanumeric());
    let parts: Vec<_> = owner.api_version.split('/').collect();
    let is_version = parts.len() <= 2 && parts.iter().all(|part| is_subdomain(part));
    is_kind
        && is_version
        && is_subdomain(&owner.name)
        && owner.uid.len() <= 63
        && (owner.kind != "ReplicaSet" || owner.api_version == "apps/v1")
}

/// Objects with gwmon's labels that are seen of one namespace: whoever may make them there may make any number.
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

    /// An object that is not there yet.
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

/// The namespace and name of an object.
pub(crate) fn place(object: &Meta) -> NamespacedName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<V> Index<V> {
    /// Takes in what a watch tells. `keep` makes what is kept of an object. Returns the gateways that a single change concerns;
    /// a whole list concerns all.
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

    #[test]
    fn an_owner_that_would_change_a_request_is_none() {
        let owner = |api_version: &str, kind: &str, name: &str| {
            is_reference(&OwnerReference {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
                uid: "d9607e19-f88f-11e6-a518-42010a800195".to_owned(),
                ..OwnerReference::default()
            })
        };
        for (api_version, kind, name) in [
            ("apps/v1", "ReplicaSet", "edge-6d4b"),
            ("v1", "ReplicationController", "edge"),
            ("argoproj.io/v1alpha1", "Rollout", "edge.v2"),
        ] {
            assert!(owner(api_version, kind, name), "{api_version} {kind} {name}");
        }
        for (api_version, kind, name) in [
            ("v1", "Pods?watch=true&x=", "a"),
            ("v1", "Pod", "a b"),
            ("v1", "Pod", "../secrets/x"),
            ("v1", "Pod", ""),
            ("a/b/c", "Pod", "a"),
            ("evil.example/v1", "ReplicaSet", "a"),
            ("v1", "Pod", &"a".repeat(254)),
        ] {
            assert!(!owner(api_version, kind, name), "{api_version} {kind} {name}");
        }
    }
}
