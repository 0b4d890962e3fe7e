//! From a pod's controller to the workload.

use anyhow::{Context as _, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;

use super::object::{GatewayKey, controller_of};
use super::request::{api_error, objects};
use super::revisions::Revision;
use crate::injection::monitor_name;
use crate::monitoring::Owner;

/// Returns true if the gateway's name follows from its workload, or from the pods' controller: whoever creates a pod
/// may set any label on it.
pub(crate) fn is_named_after(key: &GatewayKey, owner: &Owner, revision: &Revision) -> bool {
    let controller = revision.owner.as_ref().map(|controller| controller.name.as_str()).unwrap_or_default();
    // A ReplicaSet's name without its pod-template-hash.
    let stem = controller.rsplit_once('-').map_or(controller, |(stem, _)| stem);
    [owner.name.as_str(), controller, stem].into_iter().any(|name| monitor_name(name) == key.monitor)
}

/// Follows a pod's controller up to the workload: through a ReplicaSet to what controls that, of whatever kind. `None`
/// where it is gone.
pub(crate) async fn workload(client: &Client, namespace: &str, owner: OwnerReference) -> Result<Option<Owner>> {
    if owner.kind != "ReplicaSet" {
        return Ok(Some(owner.into()));
    }
    let api = objects(client, namespace, (&owner.api_version, &owner.kind));
    let replica_set = api.get_metadata_opt(&owner.name).await.map_err(api_error);
    let Some(replica_set) = replica_set.with_context(|| format!("cannot read ReplicaSet {}", owner.name))? else {
        return Ok(None);
    };
    // A ReplicaSet made by hand is a workload of its own.
    Ok(Some(controller_of(&replica_set).cloned().unwrap_or(owner).into()))
}

impl From<OwnerReference> for Owner {
    fn from(reference: OwnerReference) -> Self {
        Self { api_version: reference.api_version, kind: reference.kind, name: reference.name, uid: reference.uid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_after_its_workload_or_its_pods_controller() {
        let is_named = |monitor: &str, workload: &str, controller: &str| {
            let key = GatewayKey { namespace: "edge".to_owned(), monitor: monitor.to_owned() };
            let reference = OwnerReference { name: controller.to_owned(), ..OwnerReference::default() };
            let owner = Owner { name: workload.to_owned(), ..Owner::from(reference.clone()) };
            is_named_after(&key, &owner, &Revision { annotations: None, owner: Some(reference) })
        };
        assert!(is_named("edge-gwmon", "edge", "edge-6d4b"));
        assert!(is_named("edge-gwmon", "rollout", "edge-6d4b"), "a workload that is not named like its ReplicaSet");
        assert!(is_named("edge-0-gwmon", "edge-0", "edge-0"));
        assert!(!is_named("west-gwmon", "edge", "edge-6d4b"));
    }
}
