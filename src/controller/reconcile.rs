//! One gateway: pods in, Service and ServiceMonitors applied or removed.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ListParams;
use kube::{Client, ResourceExt};
use tokio::sync::{Notify, Semaphore};

use super::apply::{AppliedVersions, Presence, Writer, presence};
use crate::annotations::{DISCOVERY, Discovery, INJECT, Target, WORKLOAD_NAMESPACE, is_enabled};
use crate::cluster::access::AccessReviews;
use crate::cluster::bindings::Bindings;
use crate::cluster::cache::ClusterCache;
use crate::cluster::events::{EventRecorder, Published};
use crate::cluster::installation::own_deployment;
use crate::cluster::object::{GatewayKey, POD, is_reference};
use crate::cluster::owners::{is_named_after, workload};
use crate::cluster::prerequisites::Prerequisites;
use crate::cluster::request::{api_error, objects, text_of};
use crate::cluster::revisions::Revision;
use crate::cluster::ttl_cache::TtlCache;
use crate::config::Config;
use crate::config::Installation;
use crate::injection::confirm;
use crate::kubernetes::labels::Labels;
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::monitoring::objects::{MONITOR, SERVICE};
use crate::monitoring::{Owner, ScrapeTarget, Source};
use crate::reason::{Finding, Reason};

/// The state that reconciliations share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) installation: Installation,
    pub(super) config: Arc<Config>,
    pub(super) cache: ClusterCache,
    pub(super) metrics: Metrics,
    pub(super) events: EventRecorder,
    pub(super) hasher: RandomState,
    /// Notifies that the set of opted-in workloads changed.
    pub(super) workloads_changed: Notify,
    states: Mutex<HashMap<GatewayKey, GatewayState>>,
    pub(super) access: AccessReviews,
    pub(super) prerequisites: Prerequisites,
    /// The labels of ServiceMonitors that gwmon does not manage, by namespace.
    existing_monitors: TtlCache<String, Vec<Labels>>,
    /// Limits concurrent reads of whole pods.
    whole_pods: Semaphore,
}

/// The state of one gateway between reconciliations.
#[derive(Default)]
pub(super) struct GatewayState {
    /// The workload above the controller of this UID.
    owner: Option<(String, Owner)>,
    /// The revision of which a whole pod was read and confirmed.
    confirmed: Option<Arc<Revision>>,
    /// Since when the Prometheus that read it is gone.
    pub(super) reader_gone: Option<Instant>,
    /// Its objects have been written, and the Event `Monitored` is not published yet.
    pub(super) is_news: bool,
    pub(super) bindings: Bindings,
    pub(super) written: AppliedVersions,
    pub(super) published: Published,
}

/// The time that gwmon waits for a deleted Prometheus to come back, as it does when its chart is reinstalled, before
/// another one gets its gateways.
pub(super) const READER_AWAITED: Duration = Duration::from_mins(10);
/// The time for which a list of other monitors is cached; they only decide between Prometheuses that match equally.
const MONITORS_CACHED: Duration = Duration::from_mins(1);

/// The most ServiceMonitors deleted in one reconciliation.
const MOST_DELETED: usize = 16;

impl GatewayState {
    /// The workload above the pods' controller, where it is known.
    fn owner_of(&self, revision: &Revision) -> Option<&Owner> {
        let (controller, owner) = self.owner.as_ref()?;
        (*controller == revision.owner.as_ref()?.uid).then_some(owner)
    }
}

/// The result of reading a gateway's workload and one of its pods.
enum Verified {
    /// The gateway.
    Target(Box<ScrapeTarget>),
    /// The workload or the pod is gone.
    Gone,
    /// Its pods cannot be verified, or the namespace is full.
    Refused(Finding),
}

impl Context {
    pub(super) fn new(
        client: Client,
        installation: Installation,
        config: Arc<Config>,
        cache: ClusterCache,
        metrics: Metrics,
        instance: String,
    ) -> Self {
        let events = EventRecorder::new(client.clone(), instance);
        let (access, prerequisites) = (AccessReviews::new(client.clone()), Prerequisites::new(client.clone()));
        let (states, existing_monitors) = (Mutex::default(), TtlCache::new(MONITORS_CACHED));
        let (hasher, workloads_changed) = (RandomState::new(), Notify::new());
        Self {
            client,
            installation,
            config,
            cache,
            metrics,
            events,
            hasher,
            workloads_changed,
            states,
            access,
            prerequisites,
            existing_monitors,
            whole_pods: Semaphore::new(8),
        }
    }

    /// Brings one gateway's objects to what its pods and the cluster's Prometheus objects ask for. One call at a time
    /// for each gateway.
    pub(super) async fn reconcile(&self, key: &GatewayKey) -> Result<()> {
        let mut state = lock(&self.states).remove(key).unwrap_or_default();
        let result = self.reconcile_with(key, &mut state).await;
        if !state.written.is_empty() || !state.published.is_empty() {
            lock(&self.states).insert(key.clone(), state);
        }
        result
    }

    async fn reconcile_with(&self, key: &GatewayKey, state: &mut GatewayState) -> Result<()> {
        let cluster = self.cache.cluster();
        if *key == GatewayKey::from(&self.installation) {
            let Some(target) = self.self_monitor().await? else { return Ok(()) };
            let plan = self.plan(key, &target, &cluster, state).await?;
            return self.apply_plan(key, &target, &cluster, plan, state).await;
        }
        let Some((pod, revision)) = self.cache.newest(key) else {
            *state = GatewayState::default();
            return self.delete_objects(key).await;
        };
        // In the steady state no request is made: the workload is known, and its objects are applied, or its pods refused for
        // the same reason.
        match state.owner_of(&revision).map(|owner| self.target(key, &revision, owner)) {
            Some(Ok(target)) => {
                let plan = self.plan(key, &target, &cluster, state).await?;
                if self.is_applied(key, &plan, state) {
                    return self.apply_plan(key, &target, &cluster, plan, state).await;
                }
            }
            Some(Err(finding)) if state.published.contains(&(finding.reason, finding.detail.clone())) => return Ok(()),
            _ => {}
        }
        let Some(owner) = self.owner(key, &revision, state).await? else { return Ok(()) };
        if !is_named_after(key, &owner, &revision) {
            *state = GatewayState::default();
            return self.delete_objects(key).await;
        }
        match self.verified_target(key, &pod, &revision, &owner, state).await? {
            Verified::Target(target) => {
                let plan = self.plan(key, &target, &cluster, state).await?;
                self.apply_plan(key, &target, &cluster, plan, state).await
            }
            Verified::Gone => Ok(()),
            Verified::Refused(finding) => {
                self.events.publish_new(&key.namespace, &owner, vec![finding], &mut state.published).await;
                Ok(())
            }
        }
    }

    /// The gateway as its pods' annotations say.
    fn target(&self, key: &GatewayKey, revision: &Revision, owner: &Owner) -> Result<ScrapeTarget, Finding> {
        let Some(annotations) = &revision.annotations else {
            let detail =
                format!("the pods of namespace {} have more gwmon.io/ annotations than gwmon keeps", key.namespace);
            return Err(Finding::new(Reason::TooManyObjects, detail));
        };
        ScrapeTarget::of_pod(&self.config, &key.namespace, &key.monitor, annotations, Some(owner.clone()))
    }

    /// The gateway as its pods say, once its workload and a pod have been read, before anything is written. The objects of a
    /// deleted workload go before its last pods and must not be recreated. Users who may create pods can write anything on
    /// them.
    async fn verified_target(
        &self,
        key: &GatewayKey,
        pod: &str,
        revision: &Arc<Revision>,
        owner: &Owner,
        state: &mut GatewayState,
    ) -> Result<Verified> {
        let refused = |reason, detail| Ok(Verified::Refused(Finding::new(reason, detail)));
        let target = self.target(key, revision, owner);
        match presence(&self.client, &key.namespace, owner).await? {
            Presence::There => {}
            Presence::Gone => return Ok(Verified::Gone),
            Presence::Unreadable => {
                let detail = format!(
                    "gwmon may not read {} of {}, so it cannot verify the pods' owner; grant its ClusterRole get on that kind",
                    owner.kind, owner.api_version
                );
                return refused(Reason::Forbidden, detail);
            }
        }
        if self.cache.services(key).is_empty() && self.cache.served(&key.namespace) >= self.config.bounds.gateways {
            let detail = format!(
                "namespace {} already has {} gateways, the maximum (gwmon's configuration, gateways.maxPerNamespace)",
                key.namespace, self.config.bounds.gateways
            );
            return refused(Reason::TooManyObjects, detail);
        }
        if state.confirmed.as_ref().is_none_or(|confirmed| confirmed != revision) {
            let Some(found) = self.pod(&key.namespace, pod).await? else { return Ok(Verified::Gone) };
            if let Err(finding) = confirm(&found) {
                return Ok(Verified::Refused(finding));
            }
            state.confirmed = Some(Arc::clone(revision));
        }
        Ok(target.map_or_else(Verified::Refused, |target| Verified::Target(Box::new(target))))
    }

    /// A pod as the API server sends it, few at a time: a tenant's may have 1.5 MiB.
    pub(super) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<String>> {
        let _turn = self.whole_pods.acquire().await;
        let read = text_of(&self.client, namespace, ("v1", "Pod"), name).await.map_err(api_error);
        read.with_context(|| format!("cannot read pod {namespace}/{name}"))
    }

    pub(super) fn writer<'a>(&'a self, key: &'a GatewayKey) -> Writer<'a> {
        Writer { client: &self.client, cache: &self.cache, metrics: &self.metrics, hasher: &self.hasher, key }
    }

    /// Reads the workload above a pod. `None` where it is gone.
    async fn owner(&self, key: &GatewayKey, revision: &Revision, state: &mut GatewayState) -> Result<Option<Owner>> {
        let Some(owner) = &revision.owner else { return Ok(None) };
        let found = workload(&self.client, &key.namespace, owner.clone()).await?;
        state.owner = found.clone().map(|found| (owner.uid.clone(), found));
        Ok(found)
    }

    /// gwmon's own metrics, where it runs from its Deployment.
    async fn self_monitor(&self) -> Result<Option<ScrapeTarget>> {
        let Installation { namespace, name } = &self.installation;
        Ok(own_deployment(&self.client, &self.installation).await?.map(|deployment| ScrapeTarget {
            namespace: namespace.clone(),
            monitor: name.clone(),
            kind: String::new(),
            version: None,
            source: Source::Service {
                labels: Labels::from([("app.kubernetes.io/name".to_owned(), name.clone())]),
                port: "metrics",
            },
            interval: None,
            pod_labels: &[],
            target: Target::Best,
            labels: self.config.monitor_labels.clone(),
            owner: Some(deployment),
            notes: vec![],
        }))
    }

    /// The labels of ServiceMonitors in a namespace that gwmon does not manage.
    pub(super) async fn existing_monitors(&self, namespace: &str) -> Result<Vec<Labels>> {
        if let Some(known) = self.existing_monitors.get(&namespace.to_owned()) {
            return Ok(known);
        }
        let others = ListParams::default().labels(&format!("!{WORKLOAD_NAMESPACE}"));
        match objects(&self.client, namespace, MONITOR).list_metadata(&others).await {
            Ok(list) => {
                let found: Vec<_> = list.items.into_iter().filter_map(|monitor| monitor.metadata.labels).collect();
                self.existing_monitors.put(namespace.to_owned(), found.clone());
                Ok(found)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(vec![]),
            Err(error) => Err(api_error(error)).with_context(|| format!("cannot list ServiceMonitors in {namespace}")),
        }
    }

    /// Removes the objects of a gateway without injected pods, once its workload no longer asks for injection: one that
    /// is scaled to nothing keeps them.
    async fn delete_objects(&self, key: &GatewayKey) -> Result<()> {
        let services = self.cache.services(key);
        let owner = services.iter().find_map(|service| service.owner_references().first().cloned());
        let owner = owner.filter(is_reference);
        if let Some(owner) = owner
            && self.still_asks(key, &owner).await?
        {
            return Ok(());
        }
        let writer = self.writer(key);
        // A few at a time: each deletion triggers another reconciliation. Users may create any number of lookalikes.
        for monitor in self.cache.monitors(key).into_iter().take(MOST_DELETED) {
            writer.delete(MONITOR, &monitor).await?;
        }
        for service in services {
            writer.delete(SERVICE, &service).await?;
        }
        Ok(())
    }

    async fn still_asks(&self, key: &GatewayKey, owner: &OwnerReference) -> Result<bool> {
        let is_labelled = is_enabled(&self.cache.cluster().namespace_labels(&key.namespace));
        let api = objects(&self.client, &key.namespace, (&owner.api_version, &owner.kind));
        match api.get_opt(&owner.name).await {
            Ok(workload) => Ok(workload.is_some_and(|workload| {
                let template = workload.data.pointer("/spec/template/metadata/annotations");
                let annotation = |key: &str| match owner.kind.as_str() {
                    POD => workload.annotations().get(key).map(String::as_str),
                    _ => template.and_then(|annotations| annotations[key].as_str()),
                };
                let has = |key, value| annotation(key) == Some(value);
                let asks = has(INJECT, "true") || (is_labelled && annotation(INJECT).is_none());
                let is_monitored = asks && !has(DISCOVERY, Discovery::Annotations.as_str());
                workload.uid().as_ref() == Some(&owner.uid) && is_monitored
            })),
            // A kind that gwmon may not read. Its objects are made again when it has pods again.
            Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => Ok(false),
            Err(error) => Err(api_error(error)).with_context(|| format!("cannot read {} {}", owner.kind, owner.name)),
        }
    }
}

#[cfg(test)]
mod tests;
