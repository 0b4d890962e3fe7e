//! Writing: server-side apply of what is gwmon's and of nothing else, and only where something is to change.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use anyhow::{Context, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::Status;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::FIELD_MANAGER;
use crate::cluster::cache::ClusterCache;
use crate::cluster::object::{GatewayKey, Meta, NamespacedName, is_managed, is_reference, place};
use crate::cluster::request::{api_error, is_right_lacking, objects};
use crate::kubernetes::labels::Labels;
use crate::metrics::{Metrics, Verb};
use crate::monitoring::Owner;
use crate::monitoring::objects::{MONITOR, SERVICE};
use crate::reason::{Finding, Reason};

/// An object's kind and place.
type ObjectKey = (&'static str, NamespacedName);

/// The last applied version of each object: a hash of its content, and the resource version that resulted.
pub(super) type AppliedVersions = HashMap<ObjectKey, (u64, String)>;

/// Applies and deletes objects of one gateway.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a ClusterCache,
    pub(super) metrics: &'a Metrics,
    pub(super) hasher: &'a RandomState,
    pub(super) key: &'a GatewayKey,
}

/// An object that is as it should be.
#[derive(Debug)]
pub(super) struct Applied {
    /// True if the request changed the object.
    pub(super) changed: bool,
    /// The labels that it has now, whoever set them.
    pub(super) labels: Labels,
}

impl Writer<'_> {
    /// The object as it is, where it stands as it was last applied.
    pub(super) fn up_to_date(&self, object: &Value, written: &AppliedVersions) -> Option<Applied> {
        let (object_key, hash) = self.fingerprint(object);
        self.as_applied(&object_key, hash, written)
    }

    /// The object's key in [`AppliedVersions`], and a hash of its content.
    fn fingerprint(&self, object: &Value) -> (ObjectKey, u64) {
        let kind = if object["kind"] == MONITOR.1 { MONITOR.1 } else { SERVICE.1 };
        ((kind, place_of(object)), self.hasher.hash_one(object.to_string()))
    }

    fn as_applied(&self, object_key: &ObjectKey, hash: u64, written: &AppliedVersions) -> Option<Applied> {
        let seen = self.cache.object(object_key.0, self.key, &object_key.1)?;
        let (before, at) = written.get(object_key)?;
        let settled = *before == hash && !is_newer(seen.resource_version().as_deref(), at);
        settled.then(|| Applied { changed: false, labels: seen.labels().clone() })
    }

    /// Applies one object, unless it is settled, or its name is taken.
    pub(super) async fn apply(&self, object: &Value, owner: &Owner, written: &mut AppliedVersions) -> Result<Applied> {
        let (object_key, hash) = self.fingerprint(object);
        if let Some(settled) = self.as_applied(&object_key, hash, written) {
            return Ok(settled);
        }
        let (kind, place) = &object_key;
        let version = if *kind == MONITOR.1 { MONITOR.0 } else { SERVICE.0 };
        let what = format!("{kind} {}/{}", place.0, place.1);
        let seen = self.cache.object(kind, self.key, place);
        let api = objects(self.client, &place.0, (version, kind));
        let existing = match &seen {
            Some(seen) => Some(Meta::clone(seen)),
            None => match api.get_metadata_opt(&place.1).await {
                Ok(found) => found,
                // The kind itself is not served; the apply reports it.
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                Err(error) => return Err(api_error(error)).with_context(|| format!("cannot read {what}")),
            },
        };
        let mut object = object.clone();
        let mut params = PatchParams::apply(FIELD_MANAGER);
        if let Some(existing) = &existing {
            if !is_ours(existing, self.key, owner) {
                if let Some(other) = former_owner(existing, self.key) {
                    let Owner { kind, name, .. } = &other;
                    anyhow::ensure!(
                        presence(self.client, &place.0, &other).await? != Presence::Gone,
                        "{what} still belongs to {kind} {name}, which is gone or being deleted"
                    );
                    let detail = format!(
                        "{what} is gwmon's for {kind} {name}, which has the same name; delete that, or rename it"
                    );
                    return Err(Finding::new(Reason::NameConflict, detail).into());
                }
                let detail = format!("{what} exists and is not managed by gwmon; rename or delete it");
                return Err(Finding::new(Reason::NameConflict, detail).into());
            }
            // Sets the UID: an object recreated under this name is not changed.
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
                written.insert(object_key, (hash, now));
                Ok(Applied { changed, labels: applied.metadata.labels.unwrap_or_default() })
            }
            Err(kube::Error::Api(status)) if status.code == 404 && *kind == MONITOR.1 => {
                let detail = format!("cannot apply {what}: the cluster does not serve {version} {kind}");
                Err(Finding::new(Reason::ServiceMonitorCRDMissing, detail).into())
            }
            // A quota, a policy or another webhook: a finding reports it to whoever can fix it.
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                Err(Finding::new(Reason::ObjectRefused, format!("cannot apply {what}: {}", status.message)).into())
            }
            Err(error) => Err(api_error(error)).with_context(|| format!("cannot apply {what}")),
        }
    }

    /// Deletes an object, if its labels and field manager say that it is this gateway's.
    pub(super) async fn delete(&self, (version, kind): (&str, &str), object: &Meta) -> Result<()> {
        let place = place(object);
        if !is_labelled(object, self.key) || !is_managed(object) {
            return Ok(());
        }
        let api = objects(self.client, &place.0, (version, kind));
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
            Err(error) => {
                Err(api_error(error)).with_context(|| format!("cannot delete {kind} {}/{}", place.0, place.1))
            }
        }
    }
}

/// Returns true if the API server refused a request for good: not for a missing right, which [`api_error`] reports,
/// nor for a conflict or a rate limit.
fn is_refusal(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let is_ending = causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating");
    let is_for_now = is_ending || matches!(status.code, 401 | 404 | 408 | 409 | 429);
    (400..500).contains(&status.code) && !is_for_now && !is_right_lacking(status)
}

/// Returns true if a resource version from a watch is newer than another. Kubernetes 1.35 promises that versions are
/// ordered numbers, and every version before it has kept to that.
fn is_newer(seen: Option<&str>, than: &str) -> bool {
    match (seen.and_then(|seen| seen.parse::<u64>().ok()), than.parse::<u64>()) {
        (Some(seen), Ok(than)) => seen > than,
        _ => true,
    }
}

/// The place of an object that is to be applied.
pub(super) fn place_of(object: &Value) -> NamespacedName {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// The state of a workload on the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It exists and is not being deleted.
    There,
    /// It is missing, is being deleted, or has another UID.
    Gone,
    /// gwmon may not read objects of its kind.
    Unreadable,
}

/// Reads whether a workload exists.
pub(super) async fn presence(client: &Client, namespace: &str, owner: &Owner) -> Result<Presence> {
    let api = objects(client, namespace, (&owner.api_version, &owner.kind));
    match api.get_metadata_opt(&owner.name).await {
        Ok(Some(found)) if found.uid().as_ref() == Some(&owner.uid) && found.metadata.deletion_timestamp.is_none() => {
            Ok(Presence::There)
        }
        Ok(_) => Ok(Presence::Gone),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Presence::Gone),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Presence::Unreadable),
        Err(error) => Err(api_error(error)).with_context(|| format!("cannot read {} {}", owner.kind, owner.name)),
    }
}

/// Another workload of this name, for which gwmon has made the object.
fn former_owner(object: &Meta, key: &GatewayKey) -> Option<Owner> {
    let reference = object.owner_references().first().cloned();
    let is_gwmons = |owner: &OwnerReference| is_reference(owner) && is_managed(object) && is_labelled(object, key);
    reference.filter(is_gwmons).map(Owner::from)
}

/// Returns true if gwmon applied this object for this gateway (R27). Its field manager must be gwmon's. The labels or the owner
/// reference may be missing; gwmon restores them.
fn is_ours(object: &Meta, key: &GatewayKey, owner: &Owner) -> bool {
    let owners = object.owner_references();
    let owned = owners.iter().any(|reference| reference.uid == owner.uid);
    // An object of another owner is deleted with that owner.
    let foreign = owners.iter().any(|reference| reference.uid != owner.uid);
    is_managed(object) && (owned || (is_labelled(object, key) && !foreign))
}

fn is_labelled(object: &Meta, key: &GatewayKey) -> bool {
    GatewayKey::of(object).as_ref() == Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> GatewayKey {
        GatewayKey { namespace: "edge".to_owned(), monitor: "edge-gwmon".to_owned() }
    }

    /// An object of this name that has these marks of gwmon's.
    fn object(is_managed: bool, is_labelled: bool, owner: Option<&str>) -> Meta {
        let manager = if is_managed { FIELD_MANAGER } else { "kubectl" };
        let labels = json!({"gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": "edge"});
        let owner = owner.map(|uid| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "edge", "uid": uid}));
        let metadata = json!({
            "name": "edge-gwmon", "namespace": "edge", "labels": if is_labelled { labels } else { json!({}) },
            "managedFields": [{"manager": manager, "operation": "Apply"}], "ownerReferences": owner.into_iter().collect::<Vec<_>>(),
        });
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn one_mark_may_be_gone_and_nothing_of_others_is_taken() {
        let own = Owner {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "edge".to_owned(),
            uid: "d".to_owned(),
        };
        for (is_managed, is_labelled, owner, expected) in [
            (true, true, Some("d"), true),
            (true, true, None, true),
            (true, false, Some("d"), true),
            (true, false, None, false),
            (true, true, Some("another"), false),
            (false, true, Some("d"), false),
            (false, false, None, false),
        ] {
            let found = object(is_managed, is_labelled, owner);
            assert_eq!(is_ours(&found, &key(), &own), expected, "{is_managed} {is_labelled} {owner:?}");
            let is_former = former_owner(&found, &key()).is_some();
            assert_eq!(is_former, is_managed && is_labelled && owner.is_some(), "{is_managed} {is_labelled} {owner:?}");
        }
    }

    #[test]
    fn versions_are_numbers_and_what_is_none_is_newer() {
        assert!(is_newer(Some("10"), "9") && !is_newer(Some("9"), "10") && !is_newer(Some("9"), "9"));
        assert!(is_newer(None, "9") && is_newer(Some("x"), "9") && is_newer(Some("9"), "x"));
    }

    #[test]
    fn a_refusal_for_good_is_told_and_one_for_now_is_tried_again() {
        let is_refused = |status: Value| is_refusal(&serde_json::from_value(status).unwrap());
        let of = |code: u16, message: &str| is_refused(json!({"code": code, "message": message}));
        assert!(of(403, "exceeded quota: services") && of(422, "invalid") && of(400, "a webhook says no"));
        for code in [401, 404, 408, 409, 429, 500, 503] {
            assert!(!of(code, ""), "{code}");
        }
        assert!(!of(403, "services is forbidden: User \"g\" cannot patch resource"), "a right of gwmon's own");
        let ending = json!({"code": 403, "details": {"causes": [{"reason": "NamespaceTerminating"}]}});
        assert!(!is_refused(ending));
    }
}
