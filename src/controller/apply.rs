//! Writing: server-side apply of what is gwmon's and of nothing else, and only where something is to change.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use anyhow::{Context, Result};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::index::Place;
use super::world::{Meta, World, api_resource};
use super::{FIELD_MANAGER, GatewayKey, plain};
use crate::labels::Labels;
use crate::metrics::{Metrics, Verb};
use crate::monitoring::Owner;
use crate::monitoring::objects::MONITOR;
use crate::reason::{Finding, Reason};

/// What was last applied under each name: a hash of the content, and the version of the object that this gave.
pub(super) type Written = HashMap<(&'static str, Place), (u64, String)>;

/// Applies and deletes objects of one gateway.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) world: &'a World,
    pub(super) metrics: &'a Metrics,
    pub(super) hasher: &'a RandomState,
    pub(super) key: &'a GatewayKey,
}

/// An object that is as it should be.
#[derive(Debug)]
pub(super) struct Applied {
    /// Whether it was not before.
    pub(super) changed: bool,
    /// The labels that it has now, whoever set them.
    pub(super) labels: Labels,
}

impl Writer<'_> {
    /// Applies one object, unless it stands as it was last applied, or its name is taken.
    pub(super) async fn apply(&self, object: &Value, owner: Option<&Owner>, written: &mut Written) -> Result<Applied> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let place = (text("/metadata/namespace").to_owned(), text("/metadata/name").to_owned());
        let what = format!("{kind} {}/{}", place.0, place.1);
        let slot = (if kind == MONITOR.1 { MONITOR.1 } else { "Service" }, place.clone());
        let hash = self.hasher.hash_one(object.to_string());
        let seen = self.world.object(kind, self.key, &place);
        if let (Some(seen), Some((before, at))) = (&seen, written.get(&slot))
            && *before == hash
            && !is_newer(seen.resource_version().as_deref(), at)
        {
            return Ok(Applied { changed: false, labels: seen.labels().clone() });
        }

        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &place.0, &api_resource(version, kind));
        let existing = match &seen {
            Some(seen) => Some(Meta::clone(seen)),
            None => match api.get_metadata_opt(&place.1).await {
                Ok(found) => found,
                // The kind itself is not served; applying will tell.
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                Err(error) => return Err(plain(error)).with_context(|| format!("cannot read {what}")),
            },
        };
        let mut object = object.clone();
        let mut params = PatchParams::apply(FIELD_MANAGER);
        if let Some(existing) = &existing {
            if !is_ours(existing, self.key, owner) {
                let detail = format!("{what} is there and not gwmon's; rename or delete it");
                return Err(Finding::new(Reason::NameTaken, detail).into());
            }
            // Just the object that was looked at, not one that has taken its name since.
            object["metadata"]["uid"] = json!(existing.uid());
            params = params.force();
        }
        // Without force, an object that appears at this moment is not overwritten: its fields have another manager.
        match api.patch(&place.1, &params, &Patch::Apply(&object)).await {
            Ok(applied) => {
                let now = applied.resource_version().unwrap_or_default();
                let changed = existing.and_then(|before| before.resource_version()).as_ref() != Some(&now);
                if changed {
                    self.metrics.wrote(Verb::apply);
                }
                written.insert(slot, (hash, now));
                Ok(Applied { changed, labels: applied.metadata.labels.unwrap_or_default() })
            }
            Err(kube::Error::Api(status)) if status.code == 404 && kind == MONITOR.1 => {
                let detail = format!("cannot apply {what}: the cluster does not serve {version} {kind}");
                Err(Finding::new(Reason::NoServiceMonitorKind, detail).into())
            }
            Err(error) => Err(plain(error)).with_context(|| format!("cannot apply {what}")),
        }
    }

    /// Deletes an object, if it is this gateway's beyond doubt.
    pub(super) async fn delete(&self, (version, kind): (&str, &str), object: &Meta) -> Result<()> {
        let place = (object.namespace().unwrap_or_default(), object.name_any());
        if !is_labelled(object, self.key) || !is_managed(object) || !is_named(object, self.key) {
            return Ok(());
        }
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &place.0, &api_resource(version, kind));
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        match api
            .delete(&place.1, &DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() })
            .await
        {
            Ok(_) => {
                self.metrics.wrote(Verb::delete);
                tracing::info!(kind, namespace = place.0, name = place.1, "removed");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(plain(error)).with_context(|| format!("cannot delete {kind} {}/{}", place.0, place.1)),
        }
    }
}

/// Whether a version that a watch has shown comes after another: Kubernetes 1.35 promises that versions are numbers of
/// one order, and every version before it has kept to that.
fn is_newer(seen: Option<&str>, than: &str) -> bool {
    match (seen.and_then(|seen| seen.parse::<u64>().ok()), than.parse::<u64>()) {
        (Some(seen), Ok(than)) => seen > than,
        _ => true,
    }
}

/// Whether gwmon applied this object for this gateway (R27). One of its two marks may have been taken off by hand: then
/// it is put back.
fn is_ours(object: &Meta, key: &GatewayKey, owner: Option<&Owner>) -> bool {
    let owned = owner.is_some_and(|owner| object.owner_references().iter().any(|reference| reference.uid == owner.uid));
    // An object that a former workload of this name owns is about to be collected.
    let foreign =
        object.owner_references().iter().any(|reference| owner.is_some_and(|owner| reference.uid != owner.uid));
    is_managed(object) && (owned || (is_labelled(object, key) && !foreign))
}

fn is_labelled(object: &Meta, key: &GatewayKey) -> bool {
    GatewayKey::of(object).as_ref() == Some(key)
}

fn is_managed(object: &Meta) -> bool {
    object.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// Whether the object's name is one that this gateway's objects have: a label alone is easily changed.
fn is_named(object: &Meta, key: &GatewayKey) -> bool {
    let home = object.namespace().as_ref() == Some(&key.namespace);
    let expected = if home { key.monitor.clone() } else { format!("{}.{}", key.namespace, key.monitor) };
    object.name_any().starts_with(&expected)
}
