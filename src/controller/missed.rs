//! Finds what changed while the webhook was unavailable: pods that ask for injection and run without it (R2), and
//! workloads that no longer ask but whose pods still have it. Pods are listed from time to time, page by page, since
//! a watch would receive every pod of the cluster; workloads are checked when they start or stop asking. gwmon
//! restarts nothing by itself (R3).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use serde::Deserialize;

use super::reconcile::Context;
use crate::annotations::{INJECT, MONITORED_BY, is_enabled};
use crate::cluster::events::Published;
use crate::cluster::object::{GatewayKey, Meta, is_itself, owner_of_pod, requests_injection};
use crate::cluster::owners::workload;
use crate::cluster::request::{api_error, api_resource, next_page, text_of};
use crate::cluster::watch::{PAGE, UNFINISHED};
use crate::config::Config;
use crate::diagnosis::missed::{self, Template};
use crate::diagnosis::scope::WebhookScope;
use crate::injection::monitor_name;
use crate::injection::resources::LimitRange;
use crate::monitoring::{Cluster, Owner};
use crate::reason::{Finding, Reason};
use crate::webhook::AdmissionState;

/// Interval between two scans.
const EVERY: Duration = Duration::from_mins(5);
/// After a workload has begun to ask: its pods take a moment to be made.
const SETTLE: Duration = Duration::from_secs(10);
/// Workloads of one namespace that are checked in one scan.
const MOST_CHECKED: usize = 200;

type Found = HashMap<(String, Owner), (usize, Finding)>;

/// Scans, publishes and counts until it is dropped.
pub(super) async fn scan(context: &Context, admission_state: &AdmissionState) {
    let mut published: HashMap<(String, Owner), Published> = HashMap::new();
    let (mut among_pods, mut next) = (Found::new(), Instant::now());
    let mut others = HashSet::new();
    loop {
        let find = async {
            let scope = Scope::read(context).await?;
            if Instant::now() >= next {
                among_pods = missed_pods(context, admission_state, &scope, &mut others).await?;
                next = Instant::now() + EVERY;
            }
            let mut found = among_pods.clone();
            for (workload, finding) in missed_workloads(context, admission_state, &scope).await {
                found.entry(workload).or_insert(finding);
            }
            anyhow::Ok(found)
        };
        let late = |_| Err(anyhow::anyhow!("no answer from the API server in {EVERY:?}"));
        match tokio::time::timeout(EVERY, find).await.unwrap_or_else(late) {
            Ok(found) => {
                let missed = found.values().filter(|(_, finding)| finding.reason == Reason::MissedInjection);
                let count: usize = missed.map(|(pods, _)| pods).sum();
                context.metrics.missed_pods.set(i64::try_from(count).unwrap_or(i64::MAX));
                published.retain(|workload, _| found.contains_key(workload));
                for ((namespace, owner), (_, finding)) in found {
                    let published = published.entry((namespace.clone(), owner.clone())).or_default();
                    context.events.publish_new(&namespace, &owner, vec![finding], published).await;
                }
            }
            Err(error) => tracing::warn!("cannot look for what was missed: {error:#}"),
        }
        let soon = async {
            context.workloads_changed.notified().await;
            tokio::time::sleep(SETTLE).await;
        };
        futures::future::select(pin!(tokio::time::sleep(EVERY)), pin!(soon)).await;
    }
}

/// The scope of gwmon's webhook configuration, with the labels of the namespaces.
struct Scope {
    webhook: WebhookScope,
    cluster: Arc<Cluster>,
    config: Arc<Config>,
}

impl Scope {
    async fn read(context: &Context) -> Result<Self> {
        let configurations = Api::<MutatingWebhookConfiguration>::all(context.client.clone());
        let name = &context.installation.name;
        let found = configurations.get_opt(name).await.map_err(api_error);
        let found = found.with_context(|| format!("cannot read MutatingWebhookConfiguration {name}"))?;
        let webhook = WebhookScope::of(found).map_err(anyhow::Error::msg)?;
        Ok(Self { webhook, cluster: context.cache.cluster(), config: Arc::clone(&context.config) })
    }

    fn check(&self, namespace: &str) -> Result<(), Finding> {
        self.config.check_namespace(namespace)?;
        self.webhook.check(namespace, &self.cluster.namespace_labels(namespace))
    }

    /// Returns true if the namespace's label asks for the injection of all its gateways.
    fn is_enabled(&self, namespace: &str) -> bool {
        is_enabled(&self.cluster.namespace_labels(namespace))
    }
}

/// Pods of one controller that run without the injection that they or their namespace request.
struct MissedPods {
    owner: OwnerReference,
    /// One of them.
    pod: String,
    is_unasked: bool,
    count: usize,
}

/// Pods that request injection, or whose namespace does, and run without it.
/// `others` are controllers in labelled namespaces that nothing has to be said of: they are looked at once.
async fn missed_pods(
    context: &Context,
    admission_state: &AdmissionState,
    scope: &Scope,
    others: &mut HashSet<String>,
) -> Result<Found> {
    let mut found = Found::new();
    // By controller: its pods are alike, so one of them is read.
    let mut pods: HashMap<(String, String), MissedPods> = HashMap::new();
    let bare = ListParams::default().labels(&format!("!{MONITORED_BY}")).fields(UNFINISHED);
    each_page(context, bare, |pod| {
        let namespace = pod.namespace().unwrap_or_default();
        let is_unasked = !pod.annotations().contains_key(INJECT) && scope.is_enabled(&namespace);
        let missed = (is_unasked || requests_injection(&pod)) && pod.metadata.deletion_timestamp.is_none();
        if let Some(owner) = owner_of_pod(&pod).filter(|_| missed) {
            let key = (namespace, owner.uid.clone());
            let first = || MissedPods { owner, pod: pod.name_any(), is_unasked, count: 0 };
            pods.entry(key).or_insert_with(first).count += 1;
        }
    })
    .await?;
    // Whoever asks by an annotation does not wait for those that only their namespace asks for.
    let (mut budget, mut unasked) = (ScanBudget::default(), ScanBudget::default());
    // Sorted, so that the same pods are always skipped.
    let pods: BTreeMap<_, _> = pods.into_iter().collect();
    others.retain(|uid| pods.keys().any(|(_, owner)| owner == uid));
    for ((namespace, uid), MissedPods { owner, pod, is_unasked, count }) in pods {
        let is_out_of_scope = is_unasked && (others.contains(&uid) || scope.check(&namespace).is_err());
        if is_out_of_scope || !(if is_unasked { &mut unasked } else { &mut budget }).take(&namespace) {
            continue;
        }
        let Some(Some(owner)) = readable(workload(&context.client, &namespace, owner).await) else { continue };
        // A suspension has an Event of its own.
        let key = (namespace, monitor_name(&owner.name));
        if admission_state.suspensions().obstacle(&key).is_some() {
            continue;
        }
        let namespace = key.0;
        if let Err(finding) = scope.check(&namespace) {
            found.insert((namespace, owner), (0, finding));
            continue;
        }
        let limits = admission_state.limits(&namespace);
        let finding = readable(check_pod(context, &limits, &namespace, (&pod, is_unasked), &owner).await);
        if is_unasked && matches!(finding, Some(None)) {
            others.insert(uid);
        }
        if let Some(Some(finding)) = finding {
            // During a roll-out a workload has two ReplicaSets.
            found.entry((namespace, owner)).or_insert((0, finding)).0 += count;
        }
    }
    Ok(found)
}

/// Workloads that request injection and whose pod template does not, or the reverse.
async fn missed_workloads(context: &Context, admission_state: &AdmissionState, scope: &Scope) -> Found {
    let (mut found, mut budget) = (Found::new(), ScanBudget::default());
    let mut asking = HashSet::new();
    for (kind, (namespace, name), uid) in context.cache.asking() {
        let key = GatewayKey { namespace, monitor: monitor_name(&name) };
        let owner = Owner { api_version: "apps/v1".to_owned(), kind: kind.to_owned(), name, uid };
        let namespace = key.namespace.clone();
        let is_injected = context.cache.has_owned_pods(&key);
        // A suspension has an Event of its own.
        let is_suspended = admission_state.suspensions().obstacle(&(namespace.clone(), key.monitor.clone())).is_some();
        asking.insert(key);
        if is_injected || is_suspended || !budget.take(&namespace) {
            continue;
        }
        if let Err(finding) = scope.check(&namespace) {
            found.insert((namespace, owner), (0, finding));
            continue;
        }
        let limits = admission_state.limits(&namespace);
        if let Some(Some(missed)) = readable(check_workload(context, &limits, &namespace, &owner, true).await) {
            found.insert((namespace, owner), missed);
        }
    }
    for (key, owner) in context.cache.copied() {
        if asking.contains(&key) || scope.check(&key.namespace).is_err() || !budget.take(&key.namespace) {
            continue;
        }
        let Some(Some(owner)) = readable(workload(&context.client, &key.namespace, owner).await) else { continue };
        let limits = admission_state.limits(&key.namespace);
        if let Some(Some(missed)) = readable(check_workload(context, &limits, &key.namespace, &owner, false).await) {
            found.insert((key.namespace, owner), missed);
        }
    }
    found
}

/// Limits how many workloads of each namespace one scan checks, so that a scan ends.
#[derive(Default)]
struct ScanBudget(HashMap<String, usize>);

impl ScanBudget {
    fn take(&mut self, namespace: &str) -> bool {
        let checked = self.0.entry(namespace.to_owned()).or_default();
        *checked += 1;
        *checked <= MOST_CHECKED
    }
}

/// Skips an object that cannot be read: users may write any owner on a pod.
fn readable<T>(read: Result<T>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!("skipped in the scan for pods without injection: {error:#}")).ok()
}

/// Calls `each` for every such pod, metadata only, and holds a page of them at a time.
async fn each_page(context: &Context, pods: ListParams, mut each: impl FnMut(Meta)) -> Result<()> {
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &api_resource("v1", "Pod"));
    let mut page = pods.limit(PAGE);
    loop {
        let list = api.list_metadata(&page).await.map_err(api_error).context("cannot list pods")?;
        list.items.into_iter().for_each(&mut each);
        match next_page(page, list.metadata) {
            Some(next) => page = next,
            None => return Ok(()),
        }
    }
}

/// The finding about a pod that runs without what it asks for; `None` where nobody has to act.
async fn check_pod(
    context: &Context,
    limits: &[LimitRange],
    namespace: &str,
    (pod, is_unasked): (&str, bool),
    owner: &Owner,
) -> Result<Option<Finding>> {
    let found = context.pod(namespace, pod).await?;
    let is_bare = is_itself(&owner.kind, &owner.name, pod);
    Ok(found.and_then(|found| missed::pod(&context.config, limits, &found, (namespace, owner), (is_bare, is_unasked))))
}

/// The finding about a workload that differs from what it asks for, with the number of its pods; `None` where nobody has to
/// act. `asks` is false for a workload that no longer asks for injection.
async fn check_workload(
    context: &Context,
    limits: &[LimitRange],
    namespace: &str,
    owner: &Owner,
    asks: bool,
) -> Result<Option<(usize, Finding)>> {
    #[derive(Deserialize)]
    struct Workload {
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize)]
    struct Spec {
        selector: LabelSelector,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        replicas: Option<usize>,
        current_number_scheduled: Option<usize>,
    }
    let read = text_of(&context.client, namespace, (&owner.api_version, &owner.kind), &owner.name).await;
    let what = || format!("cannot read {} {namespace}/{}", owner.kind, owner.name);
    let Some(text) = read.map_err(api_error).with_context(what)? else { return Ok(None) };
    let Workload { spec, status } = serde_json::from_str(&text).with_context(what)?;
    let pods = status.replicas.or(status.current_number_scheduled).unwrap_or_default();
    let template = missed::template(&context.config, limits, &text, (namespace, owner), asks, pods > 0);
    match template {
        Template::Agrees => Ok(None),
        Template::Differs(finding) => Ok(Some((pods, finding))),
        Template::Asks => {
            let labels = spec.selector.match_labels.unwrap_or_default();
            let labels = labels.into_iter().map(|(key, value)| format!("{key}={value}"));
            let labels: Vec<_> = labels.chain([format!("!{MONITORED_BY}")]).collect();
            let bare = ListParams::default().labels(&labels.join(",")).fields(UNFINISHED).limit(PAGE);
            let api =
                Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &api_resource("v1", "Pod"));
            let list = api.list_metadata(&bare).await.map_err(api_error).with_context(what)?;
            let Some(pod) = list.items.iter().find(|pod| requests_injection(pod)) else { return Ok(None) };
            let finding = check_pod(context, limits, namespace, (&pod.name_any(), false), owner).await?;
            Ok(finding.map(|finding| (pods, finding)))
        }
    }
}
