//! One gateway: pods in, Service and ServiceMonitors applied or removed.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ListParams;
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use super::access::AccessReviews;
use super::apply::{AppliedVersions, Presence, Writer, place_of, presence};
use super::bindings::{Binding, Bindings};
use super::cache::ClusterCache;
use super::events::{EventRecorder, Published};
use super::index::{NamespacedName, controller_of, is_reference, place};
use super::kong::Plugins;
use super::objects::{objects, text_of};
use super::revisions::Revision;
use super::ttl_cache::TtlCache;
use super::{GatewayKey, Installation, api_error, lock};
use crate::annotations::{DISCOVERY, Discovery, INJECT, PROMETHEUS, Target, WORKLOAD_NAMESPACE};
use crate::config::Config;
use crate::injection::gateway::kong;
use crate::injection::{confirm, monitor_name};
use crate::labels::Labels;
use crate::metrics::Metrics;
use crate::monitoring::objects::{MONITOR, SERVICE};
use crate::monitoring::predicate::Condition;
use crate::monitoring::{Cluster, CurrentState, Owner, Plan, ScrapeTarget, Scraper, Source, plan};
use crate::reason::{Finding, Reason};

/// The state that reconciliations share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) installation: Installation,
    pub(super) config: Config,
    pub(super) cache: ClusterCache,
    pub(super) metrics: Metrics,
    pub(super) events: EventRecorder,
    pub(super) hasher: RandomState,
    /// Other workloads ask for injection than before.
    pub(super) workloads_changed: Notify,
    memories: Mutex<HashMap<GatewayKey, GatewayState>>,
    access: AccessReviews,
    plugins: Plugins,
    /// The labels of other people's monitors, by namespace.
    existing_monitors: TtlCache<String, Vec<Labels>>,
    /// Turns to read a pod whole.
    whole_pods: Semaphore,
}

/// The state of one gateway between reconciliations.
#[derive(Default)]
struct GatewayState {
    /// The workload above the ReplicaSet of this UID.
    owner: Option<(String, Owner)>,
    /// The roll-out of which a pod has been read whole, and found to say what it is.
    confirmed: Option<Arc<Revision>>,
    /// Since when the Prometheus that read it is gone.
    reader_gone: Option<Instant>,
    /// Its objects have been written, and nobody has been told yet that it is scraped.
    is_news: bool,
    bindings: Bindings,
    written: AppliedVersions,
    published: Published,
}

/// The time that gwmon waits for a deleted Prometheus to come back, as it does when its chart is reinstalled, before
/// another one gets its gateways.
const READER_AWAITED: Duration = Duration::from_mins(10);
/// The time for which a list of other monitors is cached; they only decide between Prometheuses that match equally.
const NEIGHBOURS_HOLD: Duration = Duration::from_mins(1);

/// Monitors that are deleted at once.
const MOST_DELETED: usize = 16;

impl Context {
    pub(super) fn new(
        client: Client,
        installation: Installation,
        config: Config,
        cache: ClusterCache,
        metrics: Metrics,
        instance: String,
    ) -> Self {
        let events = EventRecorder::new(client.clone(), instance);
        let (access, plugins) = (AccessReviews::new(client.clone()), Plugins::new(client.clone()));
        let (memories, existing_monitors) = (Mutex::default(), TtlCache::new(NEIGHBOURS_HOLD));
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
            memories,
            access,
            plugins,
            existing_monitors,
            whole_pods: Semaphore::new(8),
        }
    }

    /// Brings one gateway's objects to what its pods and the cluster's Prometheus objects ask for. One call at a time
    /// for each gateway.
    pub(super) async fn reconcile(&self, key: &GatewayKey) -> Result<()> {
        let mut state = lock(&self.memories).remove(key).unwrap_or_default();
        let result = self.reconcile_with(key, &mut state).await;
        if !state.written.is_empty() || !state.published.is_empty() {
            lock(&self.memories).insert(key.clone(), state);
        }
        result
    }

    async fn reconcile_with(&self, key: &GatewayKey, state: &mut GatewayState) -> Result<()> {
        if *key == self.installation.key() {
            let Some(gateway) = self.self_monitor().await? else { return Ok(()) };
            return self.apply_plan(key, &gateway, state, true).await.map(drop);
        }
        let Some((pod, revision)) = self.cache.newest(key) else {
            *state = GatewayState::default();
            return self.collect_garbage(key).await;
        };
        // At rest the owner that is known will do. Before anything is written it is looked at: the objects of a workload
        // that goes, go before its last pods do, and must not come back.
        for look in [false, true] {
            if look {
                state.owner = None;
            }
            let Some(owner) = self.owner(key, &revision, state).await? else { return Ok(()) };
            if !is_named_after(key, &owner, &revision) {
                *state = GatewayState::default();
                return self.collect_garbage(key).await;
            }
            let gateway = match self.gateway(key, &pod, &revision, &owner, state, look).await? {
                Ok(Some(gateway)) => gateway,
                Ok(None) => return Ok(()),
                Err(finding) => {
                    self.events.publish_new(&key.namespace, &owner, vec![finding], &mut state.published).await;
                    return Ok(());
                }
            };
            if self.apply_plan(key, &gateway, state, look).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The gateway as its pods tell, or why they are not believed. Before anything is written (`look`), the workload and a pod
    /// are looked at: whoever may make pods writes on them what they like. `None` where one of them is gone.
    async fn gateway(
        &self,
        key: &GatewayKey,
        pod: &str,
        revision: &Arc<Revision>,
        owner: &Owner,
        state: &mut GatewayState,
        look: bool,
    ) -> Result<Result<Option<ScrapeTarget>, Finding>> {
        let Some(annotations) = &revision.annotations else {
            let detail =
                format!("the pods of namespace {} have more gwmon.io/ annotations than gwmon keeps", key.namespace);
            return Ok(Err(Finding::new(Reason::TooManyObjects, detail)));
        };
        if look {
            match presence(&self.client, &key.namespace, owner).await? {
                Presence::There => {}
                Presence::Gone => return Ok(Ok(None)),
                Presence::Unreadable => {
                    let detail = format!(
                        "gwmon may not read {} of {}, and believes no pod of an owner that it cannot see; grant its ClusterRole get on that kind",
                        owner.kind, owner.api_version
                    );
                    return Ok(Err(Finding::new(Reason::Forbidden, detail)));
                }
            }
            if self.cache.services(key).is_empty() && self.cache.served(&key.namespace) >= self.config.bounds.gateways {
                let detail = format!(
                    "namespace {} has {} gateways already, which is as many as gwmon serves in one (--max-gateways-per-namespace)",
                    key.namespace, self.config.bounds.gateways
                );
                return Ok(Err(Finding::new(Reason::TooManyObjects, detail)));
            }
            if state.confirmed.as_ref().is_none_or(|confirmed| confirmed != revision) {
                let Some(found) = self.pod(&key.namespace, pod).await? else { return Ok(Ok(None)) };
                if let Err(finding) = confirm(&found) {
                    return Ok(Err(finding));
                }
                state.confirmed = Some(Arc::clone(revision));
            }
        }
        Ok(ScrapeTarget::of_pod(&self.config, &key.namespace, &key.monitor, annotations, Some(owner.clone())).map(Some))
    }

    /// A pod as the API server sends it, few at a time: a tenant's may have 1.5 MiB.
    pub(super) async fn pod(&self, namespace: &str, name: &str) -> Result<Option<String>> {
        let _turn = self.whole_pods.acquire().await;
        let read = text_of(&self.client, namespace, ("v1", "Pod"), name).await.map_err(api_error);
        read.with_context(|| format!("cannot read pod {namespace}/{name}"))
    }

    /// Applies what is planned and tells what stands against it. Without leave to write it only looks whether there is
    /// anything to do: false, if so.
    async fn apply_plan(
        &self,
        key: &GatewayKey,
        gateway: &ScrapeTarget,
        state: &mut GatewayState,
        write: bool,
    ) -> Result<bool> {
        let Some(owner) = &gateway.owner else { return Ok(true) };
        let cluster = self.cache.cluster();
        let before = self.cache.object(SERVICE.1, key, &(key.namespace.clone(), key.monitor.clone()));
        let reader = before.as_ref().and_then(|service| service.annotations().get(PROMETHEUS)).map(String::as_str);
        let is_there = |reader: &str| {
            cluster.scrapers.iter().any(|scraper| scraper.place() == reader && !scraper.is_being_deleted())
        };
        let is_gone = gateway.target == Target::Best && reader.is_some_and(|reader| !is_there(reader));
        state.reader_gone = is_gone.then(|| state.reader_gone.unwrap_or_else(Instant::now));
        let is_reader_awaited = state.reader_gone.is_some_and(|since| since.elapsed() < READER_AWAITED);
        let current = CurrentState { existing_monitors: &[], reader, is_reader_awaited };
        let mut plan = plan(gateway, &cluster, &self.config.bounds, &current);
        if plan.warnings.iter().any(|warning| warning.reason == Reason::AmbiguousPrometheus) {
            let existing_monitors = self.existing_monitors(&key.namespace).await?;
            let current = CurrentState { existing_monitors: &existing_monitors, ..current };
            plan = crate::monitoring::plan(gateway, &cluster, &self.config.bounds, &current);
        }
        let wanted = plan.service.iter().chain(plan.monitors.iter().flatten());
        let is_done = |object: &Value| self.writer(key).up_to_date(object, &state.written).is_some();
        if !write && !wanted.clone().all(is_done) {
            return Ok(false);
        }
        let mut findings = Vec::new();
        if gateway.kind == kong::NAME {
            findings.extend(self.plugins.missing(gateway.version).await);
        }
        let outcome = self.apply(key, owner, &cluster, plan, state, &mut findings).await;
        self.events.publish_new(&key.namespace, owner, findings, &mut state.published).await;
        outcome.map(|()| true)
    }

    /// Applies each object for itself: a name that is taken for one is no reason not to make the other.
    async fn apply(
        &self,
        key: &GatewayKey,
        owner: &Owner,
        cluster: &Cluster,
        plan: Plan<'_>,
        state: &mut GatewayState,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let Plan { service, monitors, warnings, why, readers } = plan;
        findings.extend(warnings);
        let writer = self.writer(key);
        let mut first_error = None;
        let mut failed = |error: anyhow::Error, findings: &mut Vec<Finding>| {
            findings.extend(error.downcast_ref::<Finding>().cloned());
            first_error.get_or_insert(error);
        };
        if let Some(service) = &service {
            match writer.apply(service, owner, &mut state.written).await {
                Ok(applied) => state.is_news |= applied.changed,
                Err(error) => failed(error, findings),
            }
        }
        let mut planned: Vec<NamespacedName> = Vec::new();
        let mut is_selected = monitors.is_ok();
        match monitors {
            // What was selected once may be so again; it stays.
            Err(finding) => findings.push(finding),
            Ok(monitors) => {
                let mut complete = true;
                for monitor in &monitors {
                    let place = place_of(monitor);
                    match writer.apply(monitor, owner, &mut state.written).await {
                        Ok(applied) => {
                            state.is_news |= applied.changed;
                            let unselected = unselected(cluster, &readers, &place, &applied.labels, monitors.len());
                            is_selected &= unselected.is_none();
                            findings.extend(unselected);
                        }
                        Err(error) => {
                            complete = false;
                            failed(error, findings);
                        }
                    }
                    planned.push(place);
                }
                // The new ones are there before the old ones go.
                if complete {
                    for old in self.cache.monitors(key) {
                        let place = place(&old);
                        if !planned.contains(&place) {
                            writer.delete(MONITOR, &old).await?;
                            state.written.remove(&(MONITOR.1, place));
                        }
                    }
                }
            }
        }
        let mut is_scraped = false;
        for reader in &readers {
            let lacking = self.access.missing_permission(reader, &key.namespace).await;
            let mut scrapes = lacking.is_none() && cluster.outage(reader).is_none() && is_selected;
            findings.extend(lacking);
            if let ([place], true) = (&planned[..], cluster.writes_bindings(reader)) {
                let version = self.cache.object(MONITOR.1, key, place).and_then(|monitor| monitor.resource_version());
                match state.bindings.read(&self.client, reader, place, version).await {
                    Ok(Binding::Accepted) => {}
                    Ok(Binding::Awaited) => scrapes = false,
                    Ok(Binding::Rejected(finding)) => {
                        scrapes = false;
                        findings.push(finding);
                    }
                    Err(error) => {
                        scrapes = false;
                        first_error.get_or_insert(error);
                    }
                }
            }
            is_scraped |= scrapes;
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        if state.is_news && is_scraped {
            self.events.publish(&key.namespace, owner, &Finding::new(Reason::Monitored, why)).await;
            state.is_news = false;
        }
        Ok(())
    }

    fn writer<'a>(&'a self, key: &'a GatewayKey) -> Writer<'a> {
        Writer { client: &self.client, cache: &self.cache, metrics: &self.metrics, hasher: &self.hasher, key }
    }

    /// The workload above a pod. `None` where it is gone.
    async fn owner(&self, key: &GatewayKey, revision: &Revision, state: &mut GatewayState) -> Result<Option<Owner>> {
        let Some(owner) = &revision.owner else { return Ok(None) };
        if let Some((uid, known)) = &state.owner
            && *uid == owner.uid
        {
            return Ok(Some(known.clone()));
        }
        let found = workload(&self.client, &key.namespace, owner.clone()).await?;
        state.owner = found.clone().map(|found| (owner.uid.clone(), found));
        Ok(found)
    }

    /// gwmon's own metrics, where it runs from its Deployment.
    async fn self_monitor(&self) -> Result<Option<ScrapeTarget>> {
        let Installation { namespace, name } = &self.installation;
        Ok(self.own_deployment().await?.map(|deployment| ScrapeTarget {
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

    /// gwmon's own Deployment, where it runs from one.
    pub(super) async fn own_deployment(&self) -> Result<Option<Owner>> {
        let Installation { namespace, name } = &self.installation;
        let (api_version, kind) = ("apps/v1", "Deployment");
        let api = objects(&self.client, namespace, (api_version, kind));
        let deployment =
            api.get_metadata_opt(name).await.map_err(api_error).context("cannot read gwmon's own Deployment")?;
        Ok(deployment.map(|deployment| Owner {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.clone(),
            uid: deployment.uid().unwrap_or_default(),
        }))
    }

    /// The labels of other people's monitors in a namespace.
    async fn existing_monitors(&self, namespace: &str) -> Result<Vec<Labels>> {
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
    async fn collect_garbage(&self, key: &GatewayKey) -> Result<()> {
        let services = self.cache.services(key);
        let owner = services.iter().find_map(|service| service.owner_references().first().cloned());
        let owner = owner.filter(is_reference);
        if let Some(owner) = owner
            && self.still_asks(key, &owner).await?
        {
            return Ok(());
        }
        let writer = self.writer(key);
        // A few at a time: with what is left it is called again. Whoever may make monitors makes any number that look like it.
        for monitor in self.cache.monitors(key).into_iter().take(MOST_DELETED) {
            writer.delete(MONITOR, &monitor).await?;
        }
        for service in services {
            writer.delete(SERVICE, &service).await?;
        }
        Ok(())
    }

    async fn still_asks(&self, key: &GatewayKey, owner: &OwnerReference) -> Result<bool> {
        let api = objects(&self.client, &key.namespace, (&owner.api_version, &owner.kind));
        match api.get_opt(&owner.name).await {
            Ok(workload) => Ok(workload.is_some_and(|workload| {
                let annotations = workload.data.pointer("/spec/template/metadata/annotations");
                let has = |key, value| annotations.is_some_and(|all| all[key] == value);
                let is_monitored = has(INJECT, "true") && !has(DISCOVERY, Discovery::Annotations.as_str());
                workload.uid().as_ref() == Some(&owner.uid) && is_monitored
            })),
            // A kind that gwmon may not read. Its objects are made again when it has pods again.
            Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => Ok(false),
            Err(error) => Err(api_error(error)).with_context(|| format!("cannot read {} {}", owner.kind, owner.name)),
        }
    }
}

/// Returns true if the gateway's name follows from its workload, or from the pods' controller: whoever creates a pod
/// may set any label on it.
fn is_named_after(key: &GatewayKey, owner: &Owner, revision: &Revision) -> bool {
    let controller = revision.owner.as_ref().map(|controller| controller.name.as_str()).unwrap_or_default();
    // A ReplicaSet's less the hash of its template.
    let stem = controller.rsplit_once('-').map_or(controller, |(stem, _)| stem);
    [owner.name.as_str(), controller, stem].into_iter().any(|name| monitor_name(name) == key.monitor)
}

/// Follows a pod's controller up to the workload: through a ReplicaSet to what controls that, of whatever kind. `None`
/// where it is gone.
pub(super) async fn workload(client: &Client, namespace: &str, owner: OwnerReference) -> Result<Option<Owner>> {
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

/// Labels that other people have set on a monitor can keep a Prometheus from selecting it.
fn unselected(
    cluster: &Cluster,
    readers: &[&Scraper],
    (namespace, name): &NamespacedName,
    labels: &Labels,
    monitors: usize,
) -> Option<Finding> {
    // Of several monitors each reader needs one only.
    let [reader] = readers else { return None };
    let unmet = cluster.selects(reader, namespace, labels).err();
    let unmet = unmet.filter(|unmet| monitors == 1 && unmet.condition == Condition::Labels)?;
    let detail = format!("{reader} does not select ServiceMonitor {namespace}/{name} with the labels it has: {unmet}");
    Some(Finding::new(Reason::NotSelected, detail))
}
