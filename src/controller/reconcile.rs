//! One gateway: pods in, Service and ServiceMonitor applied or removed.

use anyhow::{Context, Result, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::world::{Meta, World, api_resource};
use super::{FIELD_MANAGER, GatewayKey, plain};
use crate::annotations::{INJECT, INTERVAL, METRICS_FOR, STATUS};
use crate::injection::Status;
use crate::monitoring::objects::MANAGED_BY;
use crate::monitoring::{Gateway, Owner, plan};
use crate::reason::{Reason, Refusal};

const SERVICE: (&str, &str) = ("v1", "Service");
const MONITOR: (&str, &str) = ("monitoring.coreos.com/v1", "ServiceMonitor");

/// Brings one gateway's objects to what its pods and the cluster's Prometheus objects ask for.
pub(super) async fn reconcile(client: &Client, world: &World, key: &GatewayKey) -> Result<()> {
    let Some(pod) = world.newest_pod(key) else { return sweep(client, key).await };
    let Some(owner) = workload(client, &key.namespace, &pod).await? else {
        // The pod outlives its workload for a moment; the garbage collector takes the objects with it.
        return Ok(());
    };
    let status: Status = pod
        .annotations()
        .get(STATUS)
        .and_then(|status| serde_json::from_str(status).ok())
        .with_context(|| format!("pod {} has no readable {STATUS} annotation", pod.name_any()))?;
    let gateway = Gateway {
        namespace: key.namespace.clone(),
        monitor: key.monitor.clone(),
        metrics_port: status.metrics_port,
        interval: pod.annotations().get(INTERVAL).cloned(),
        owner: Some(owner.clone()),
    };
    let plan = plan(&gateway, &world.cluster());
    let service = apply(client, &plan.service, &owner, key).await;
    // Each object for itself: a name that is taken for one is no reason not to make the other.
    let monitor = match &plan.monitor {
        Ok(monitor) => apply(client, monitor, &owner, key).await,
        Err(refusal) => Err(refusal.clone().into()),
    };
    if service.as_ref().is_ok_and(|changed| *changed) || monitor.as_ref().is_ok_and(|changed| *changed) {
        tracing::info!(namespace = key.namespace, monitor = key.monitor, why = plan.why, "monitored");
    }
    service.and(monitor).map(drop)
}

/// The workload above a pod: the controller of its ReplicaSet, where there is one. `None` where it is gone.
async fn workload(client: &Client, namespace: &str, pod: &Meta) -> Result<Option<Owner>> {
    let mut object = pod.metadata.clone();
    loop {
        let Some(owner) = object.owner_references.into_iter().flatten().find(|owner| owner.controller == Some(true))
        else {
            bail!("pod {} has no controller; gwmon monitors workloads", pod.name_any());
        };
        if owner.kind != "ReplicaSet" {
            return Ok(Some(owner_of(owner)));
        }
        let resource = api_resource(&owner.api_version, &owner.kind);
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        let Some(replica_set) = api
            .get_metadata_opt(&owner.name)
            .await
            .map_err(plain)
            .with_context(|| format!("ReplicaSet {}", owner.name))?
        else {
            return Ok(None);
        };
        if replica_set.metadata.owner_references.iter().flatten().all(|above| above.controller != Some(true)) {
            // A ReplicaSet made by hand is a workload of its own.
            return Ok(Some(owner_of(owner)));
        }
        object = replica_set.metadata;
    }
}

fn owner_of(reference: OwnerReference) -> Owner {
    Owner { api_version: reference.api_version, kind: reference.kind, name: reference.name, uid: reference.uid }
}

/// Applies one object, unless its name is taken. True where that changed something.
async fn apply(client: &Client, object: &Value, owner: &Owner, key: &GatewayKey) -> Result<bool> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name, namespace) = (text("/kind"), text("/metadata/name"), text("/metadata/namespace"));
    let what = format!("{kind} {namespace}/{name}");
    let api =
        Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &api_resource(text("/apiVersion"), kind));
    let existing = match api.get_metadata_opt(name).await {
        Ok(existing) => existing,
        Err(error) => return Err(plain(error)).with_context(|| format!("cannot read {what}")),
    };
    if let Some(existing) = &existing
        && !is_ours(existing, key, Some(&owner.uid))
    {
        let detail = format!("{what} exists and is not gwmon's for {} {}; rename or delete it", owner.kind, owner.name);
        return Err(Refusal::new(Reason::NameTaken, detail).into());
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(name, &params, &Patch::Apply(object)).await {
        Ok(applied) => Ok(existing.and_then(|before| before.resource_version()) != applied.resource_version()),
        Err(kube::Error::Api(status)) if status.code == 404 && kind == MONITOR.1 => {
            let detail = format!("cannot apply {what}: the cluster does not serve {} {kind}", MONITOR.0);
            Err(Refusal::new(Reason::NoServiceMonitorKind, detail).into())
        }
        Err(error) => Err(plain(error)).with_context(|| format!("cannot apply {what}")),
    }
}

/// Whether gwmon made this object for this gateway: the labels say so and, in the gateway's own namespace, the
/// owner (R27).
fn is_ours(object: &Meta, key: &GatewayKey, owner: Option<&str>) -> bool {
    let labelled = object.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
    let elsewhere = object.namespace().as_ref() != Some(&key.namespace);
    let owned = |uid: &str| object.owner_references().iter().any(|reference| reference.uid == uid);
    labelled && GatewayKey::of(object).as_ref() == Some(key) && (elsewhere || owner.is_none_or(owned))
}

/// Removes the objects of a gateway without injected pods, once its workload no longer asks for injection:
/// one that is scaled to nothing keeps them.
async fn sweep(client: &Client, key: &GatewayKey) -> Result<()> {
    let services =
        Api::<DynamicObject>::namespaced_with(client.clone(), &key.namespace, &api_resource(SERVICE.0, SERVICE.1));
    let service =
        services.get_metadata_opt(&key.monitor).await.map_err(plain)?.filter(|service| is_ours(service, key, None));
    if let Some(owner) = service.as_ref().and_then(|service| service.owner_references().first()) {
        let resource = api_resource(&owner.api_version, &owner.kind);
        let owners = Api::<DynamicObject>::namespaced_with(client.clone(), &key.namespace, &resource);
        let template = "/spec/template/metadata/annotations";
        let asks = |object: DynamicObject| {
            let annotation = object.data.pointer(template)?.get(INJECT)?.as_str()?.to_owned();
            Some(annotation == "true")
        };
        if owners.get_opt(&owner.name).await.map_err(plain)?.and_then(asks).unwrap_or_default() {
            return Ok(());
        }
    }
    let monitors = Api::<DynamicObject>::all_with(client.clone(), &api_resource(MONITOR.0, MONITOR.1));
    let selector = format!("{}={},{METRICS_FOR}={}", MANAGED_BY.0, MANAGED_BY.1, key.monitor);
    let found = match monitors.list_metadata(&ListParams::default().labels(&selector)).await {
        Ok(found) => found.items,
        Err(kube::Error::Api(status)) if status.code == 404 => vec![],
        Err(error) => return Err(plain(error)).context("cannot list ServiceMonitors"),
    };
    for monitor in found.iter().filter(|monitor| is_ours(monitor, key, None)) {
        delete(client, MONITOR, monitor).await?;
    }
    if let Some(service) = &service {
        delete(client, SERVICE, service).await?;
    }
    Ok(())
}

/// Deletes just the object that was looked at, not one that has taken its name since.
async fn delete(client: &Client, (api_version, kind): (&str, &str), object: &Meta) -> Result<()> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &api_resource(api_version, kind));
    let preconditions = Preconditions { uid: object.uid(), resource_version: None };
    match api.delete(&name, &DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }).await {
        Ok(_) => tracing::info!(kind, namespace, name, "removed: no pod of the workload is injected any more"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(plain(error)).with_context(|| format!("cannot delete {kind} {namespace}/{name}")),
    }
    Ok(())
}
