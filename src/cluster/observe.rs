//! Reads the gateways of a cluster for a command, with the caller's own rights: by labels where there are labels, a page at a time,
//! and of each object only what is shown.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Event as KubernetesEvent};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Snapshot;
use super::request::{api_resource, callers_error, each_of_list};
use crate::annotations::{EXPORTER, METRICS_FOR, MONITORED_BY, WORKLOAD_NAMESPACE, is_enabled};
use crate::config::{Config, Installation};
use crate::diagnosis::gateway::{Event, Gateway, Gateways, InjectedPod};
use crate::diagnosis::path::{NotRead, Probes, Surroundings, Unread};
use crate::diagnosis::rules;
use crate::diagnosis::workload::Workload;
use crate::injection::confirm;
use crate::monitoring::objects::{MONITOR, SERVICE};
use crate::suspension::Suspensions;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Of pods and objects their metadata.
    Summary,
    /// Everything that a check looks at.
    Whole,
}

/// The gateways to read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope<'a> {
    /// One namespace; all of them if there is none.
    pub(crate) namespace: Option<&'a str>,
    /// The label selector of the workloads.
    pub(crate) selector: Option<&'a str>,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) snapshot: Snapshot,
    pub(crate) gateways: Gateways,
    /// The other workloads.
    pub(crate) others: Vec<Workload>,
    pub(crate) suspensions: Suspensions,
    /// The PrometheusRules about gateways' metrics.
    pub(crate) rules: Vec<Value>,
    /// True if a ThanosRuler is there, which may load them.
    pub(crate) has_thanos_ruler: bool,
    /// The ServiceMonitors and PodMonitors that gwmon did not make.
    pub(crate) others_monitors: Vec<Value>,
    pub(crate) unread: Unread,
}

/// The kinds whose annotations gwmon copies to their pods.
const WORKLOADS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// Reads the gateways of a scope. What the caller may not read is noted; the rest counts.
///
/// # Errors
/// An API server that does not answer, or a label selector that is not valid.
pub(crate) async fn observe(
    client: &Client,
    installation: &Installation,
    scope: Scope<'_>,
    depth: Depth,
) -> Result<Observation> {
    let mut unread = Unread::default();
    let snapshot = Snapshot::list_permitted(client, &mut unread).await?;
    if let Err(kube::Error::Api(status)) = nodes(client).await
        && status.code == 403
    {
        unread.0.insert("nodes".to_owned(), NotRead::Forbidden(status.message.clone()));
    }
    let mut reader = Reader { client, scope, unread, gateways: Gateways::new(), others: vec![] };
    let snapshot = reader.of_namespace(snapshot).await?;
    reader.workloads().await?;
    reader.pods(depth).await?;
    reader.events().await?;
    let (snapshot, others_monitors) = reader.objects(snapshot, depth).await?;
    let suspensions = reader.suspensions(installation).await?;
    let rules = if depth == Depth::Whole { reader.rules().await? } else { vec![] };
    let thanos_ruler = ("monitoring.coreos.com/v1", "ThanosRuler");
    let has_thanos_ruler =
        !rules.is_empty() && !reader.values(thanos_ruler, ListParams::default(), true).await?.is_empty();
    let Reader { unread, mut gateways, mut others, .. } = reader;
    if scope.selector.is_some() {
        // Whose workload was not selected, or is of another kind.
        gateways.retain(|_, gateway| gateway.workload.is_some());
    }
    others.sort_by(|a, b| (&a.namespace, &a.name, &a.kind).cmp(&(&b.namespace, &b.name, &b.kind)));
    for (key, gateway) in &mut gateways {
        gateway.suspended = suspensions.obstacle(key);
    }
    Ok(Observation { snapshot, gateways, others, suspensions, rules, has_thanos_ruler, others_monitors, unread })
}

impl Observation {
    /// What the checks of a gateway need to know, without the webhook's scope.
    pub(crate) fn surroundings<'a>(
        &'a self,
        config: &'a Config,
        is_config_known: bool,
        probes: &'a Probes,
    ) -> Surroundings<'a> {
        let Snapshot { monitoring, limit_ranges, network_policies, kubernetes, .. } = &self.snapshot;
        Surroundings {
            config,
            is_config_known,
            monitoring,
            limit_ranges,
            network_policies,
            others_monitors: &self.others_monitors,
            scope: None,
            kubernetes: *kubernetes,
            unread: &self.unread,
            probes,
        }
    }

    /// Counts the gateways of namespaces whose label asks for all of theirs, among them those without an injected pod.
    pub(crate) fn adopt_labelled(&mut self) {
        let (monitoring, gateways) = (&self.snapshot.monitoring, &mut self.gateways);
        let is_labelled = |workload: &Workload| {
            let is_silent = workload.inject.is_none() && workload.template_inject.is_none();
            is_silent && is_enabled(&monitoring.namespace_labels(&workload.namespace)) && workload.is_gateway
        };
        let (labelled, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.others).into_iter().partition(is_labelled);
        self.others = others;
        for workload in labelled {
            let key = (workload.namespace.clone(), workload.monitor());
            gateways.entry(key).or_default().workload = Some(workload);
        }
    }
}

/// Whether nodes may be listed: their kubelets' versions decide on the kind of the sidecar.
async fn nodes(client: &Client) -> kube::Result<()> {
    let nodes = Api::<DynamicObject>::all_with(client.clone(), &api_resource("v1", "Node"));
    nodes.list_metadata(&ListParams::default().limit(1)).await.map(drop)
}

struct Reader<'a> {
    client: &'a Client,
    scope: Scope<'a>,
    unread: Unread,
    gateways: Gateways,
    others: Vec<Workload>,
}

/// What becomes of an object of a list.
type Taken = std::result::Result<(), serde_json::Error>;

impl Reader<'_> {
    /// Lists a kind in the scope's namespace. Objects that cannot be read are left out.
    async fn list(
        &mut self,
        (version, kind): (&str, &str),
        params: ListParams,
        only_metadata: bool,
        mut take: impl FnMut(&str) -> Taken,
    ) -> Result<()> {
        let resource = api_resource(version, kind);
        let mut each = |object: &RawValue| {
            if let Err(error) = take(object.get()) {
                tracing::warn!("left out a {kind} that cannot be read: {error}");
            }
        };
        let listed = each_of_list(self.client, self.scope.namespace, &resource, params, only_metadata, &mut each).await;
        let why = match listed {
            Ok(()) => {
                // Perhaps it could not be read in the whole cluster.
                self.unread.0.remove(&resource.plural);
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 404 => NotRead::NotServed,
            Err(kube::Error::Api(status)) if status.code == 403 => NotRead::Forbidden(status.message.clone()),
            Err(error) => return Err(callers_error(error)).with_context(|| format!("cannot list {}", resource.plural)),
        };
        self.unread.0.insert(resource.plural, why);
        Ok(())
    }

    /// Reads in the scope's namespace what may not be read in the whole cluster.
    async fn of_namespace(&mut self, mut snapshot: Snapshot) -> Result<Snapshot> {
        let Some(namespace) = self.scope.namespace else { return Ok(snapshot) };
        for (kind, resource) in
            [(("v1", "LimitRange"), "limitranges"), (("networking.k8s.io/v1", "NetworkPolicy"), "networkpolicies")]
        {
            if !matches!(self.unread.0.get(resource), Some(NotRead::Forbidden(_))) {
                continue;
            }
            for object in self.values(kind, ListParams::default(), false).await? {
                if let Err(finding) = snapshot.take(&object, namespace) {
                    tracing::warn!("left out a {} that cannot be read: {finding}", kind.1);
                }
            }
        }
        Ok(snapshot)
    }

    async fn workloads(&mut self) -> Result<()> {
        for kind in WORKLOADS {
            let mut found = Vec::new();
            let params = ListParams { label_selector: self.scope.selector.map(str::to_owned), ..ListParams::default() };
            self.list(("apps/v1", kind), params, false, |json| {
                found.push(Workload::parse(kind, json)?);
                Ok(())
            })
            .await?;
            for workload in found {
                let key = (workload.namespace.clone(), workload.monitor());
                // Of two workloads of one name the first counts: they would share a Service and a ServiceMonitor.
                if workload.asks() && !self.gateways.contains_key(&key) {
                    self.gateways.entry(key).or_default().workload = Some(workload);
                } else {
                    self.others.push(workload);
                }
            }
        }
        Ok(())
    }

    /// Injected pods, with the workloads that have been injected without asking themselves.
    async fn pods(&mut self, depth: Depth) -> Result<()> {
        let labels = [MONITORED_BY.to_owned(), format!("{EXPORTER},!{MONITORED_BY}")];
        for label in labels {
            let mut found = Vec::new();
            let params = ListParams::default().labels(&label).fields("status.phase!=Succeeded,status.phase!=Failed");
            self.list(("v1", "Pod"), params, depth == Depth::Summary, |json| {
                if let Some(mut injected) = InjectedPod::parse(json)? {
                    if depth == Depth::Whole {
                        injected.pod.mismatch = confirm(json).err();
                    }
                    found.push(injected);
                }
                Ok(())
            })
            .await?;
            for InjectedPod { key, pod, revision } in found {
                let gateway = self.gateways.entry(key).or_default();
                if !pod.is_over || gateway.revision.is_none() {
                    gateway.revision = Some(revision);
                }
                gateway.pods.push(pod);
            }
        }
        for (key, gateway) in self.gateways.iter_mut().filter(|(_, gateway)| gateway.workload.is_none()) {
            let (kind, name) = gateway.workload_name();
            let is_it = |other: &Workload| other.namespace == key.0 && other.kind == kind && other.name == name;
            if let Some(at) = self.others.iter().position(is_it) {
                gateway.workload = Some(self.others.swap_remove(at));
            }
        }
        Ok(())
    }

    /// gwmon's last Event on each workload.
    async fn events(&mut self) -> Result<()> {
        let mut last: BTreeMap<(String, String, String), Event> = BTreeMap::new();
        let params = ListParams::default().fields("reportingComponent=gwmon");
        self.list(("v1", "Event"), params, false, |json| {
            let event: KubernetesEvent = serde_json::from_str(json)?;
            let seen = event.series.and_then(|series| series.last_observed_time).or(event.event_time);
            let time = seen.map(|time| time.0).or_else(|| event.last_timestamp.map(|time| time.0));
            let about = event.involved_object;
            let key =
                (about.namespace.unwrap_or_default(), about.kind.unwrap_or_default(), about.name.unwrap_or_default());
            let time = time.map(|time| time.to_string()).unwrap_or_default();
            if last.get(&key).is_none_or(|known| known.time < time) {
                let event = Event {
                    time,
                    reason: event.reason.unwrap_or_default(),
                    message: event.message.unwrap_or_default(),
                };
                last.insert(key, event);
            }
            Ok(())
        })
        .await?;
        for ((namespace, _), gateway) in &mut self.gateways {
            let (kind, name) = gateway.workload_name();
            let key = (namespace.clone(), kind.to_owned(), name.to_owned());
            gateway.event = last.remove(&key);
        }
        Ok(())
    }

    /// gwmon's Services and ServiceMonitors, and the EndpointSlices, which carry their Service's labels; and the monitors of others.
    async fn objects(&mut self, mut snapshot: Snapshot, depth: Depth) -> Result<(Snapshot, Vec<Value>)> {
        let ours = || ListParams::default().labels(WORKLOAD_NAMESPACE);
        let is_summary = depth == Depth::Summary;
        for service in self.values(SERVICE, ours(), is_summary).await? {
            if let Some(gateway) = self.gateway_of(&service) {
                gateway.service = Some(service);
            }
        }
        let mut others = Vec::new();
        if !is_summary {
            for slice in self.values(("discovery.k8s.io/v1", "EndpointSlice"), ours(), false).await? {
                if let Some(gateway) = self.gateway_of(&slice) {
                    gateway.slices.push(slice);
                }
            }
            others = self.values((MONITOR.0, "PodMonitor"), ListParams::default(), false).await?;
        }
        // A gateway's monitor may be in another namespace than its own.
        let scope = std::mem::take(&mut self.scope);
        let mut monitors = self.values(MONITOR, ListParams::default(), is_summary).await;
        self.scope = scope;
        let is_refused = |unread: &Unread| matches!(unread.0.get("servicemonitors"), Some(NotRead::Forbidden(_)));
        if scope.namespace.is_some() && is_refused(&self.unread) {
            self.unread.0.remove("servicemonitors");
            monitors = self.values(MONITOR, ListParams::default(), is_summary).await;
        }
        for monitor in monitors? {
            if let Some(gateway) = self.gateway_of(&monitor) {
                gateway.monitors.push(monitor);
            } else {
                if let Err(finding) = snapshot.take(&monitor, "default") {
                    tracing::warn!("left out a ServiceMonitor that cannot be read: {finding}");
                }
                others.push(monitor);
            }
        }
        // gwmon's own, of gateways that are out of scope or gone.
        others.retain(|monitor| monitor["metadata"]["labels"][WORKLOAD_NAMESPACE].is_null());
        Ok((snapshot, others))
    }

    /// The objects of a kind, each with its kind, which lists omit.
    async fn values(&mut self, kind: (&str, &str), params: ListParams, only_metadata: bool) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        self.list(kind, params, only_metadata, |json| {
            let mut object: Value = serde_json::from_str(json)?;
            object["kind"] = kind.1.into();
            found.push(object);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    fn gateway_of(&mut self, object: &Value) -> Option<&mut Gateway> {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let key = (label(WORKLOAD_NAMESPACE)?.to_owned(), label(METRICS_FOR)?.to_owned());
        self.gateways.get_mut(&key)
    }

    async fn rules(&mut self) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        self.list(("monitoring.coreos.com/v1", "PrometheusRule"), ListParams::default(), false, |json| {
            if rules::is_about_gateways(json) {
                found.push(serde_json::from_str(json)?);
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn suspensions(&mut self, installation: &Installation) -> Result<Suspensions> {
        let config_maps = Api::<ConfigMap>::namespaced(self.client.clone(), &installation.namespace);
        match config_maps.get_opt(&installation.suspensions()).await {
            Ok(found) => Ok(Suspensions::parse(&found.and_then(|found| found.data).unwrap_or_default())),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                self.unread.0.insert("configmaps".to_owned(), NotRead::Forbidden(status.message.clone()));
                Ok(Suspensions::default())
            }
            Err(error) => Err(callers_error(error)).context("cannot read the suspended workloads"),
        }
    }
}
