//! Pods that ask for injection and run without: made while no gwmon answered (R2), or by a template that nobody copied
//! the annotation to. Looked for from time to time and page by page, since a watch would have to see every pod of the
//! cluster; nothing is kept between two looks but what has been told. gwmon restarts nothing on its own (R3).

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};

use super::index::{Meta, controller_of};
use super::objects::{api_resource, objects};
use super::reconcile::{Context, workload};
use super::report::Told;
use super::watch::PAGE;
use super::world::asks_for_injection;
use super::{GatewayKey, plain};
use crate::annotations::{INJECT, MONITORED_BY};
use crate::injection::resources::LimitRange;
use crate::injection::{self, monitor_name};
use crate::monitoring::Owner;
use crate::reason::{Finding, Reason};
use crate::webhook::Surroundings;

/// Between two looks.
const EVERY: Duration = Duration::from_mins(5);
/// After a workload has begun to ask: its pods take a moment to be made.
const SETTLE: Duration = Duration::from_secs(10);
/// Workloads of one namespace that are looked at in one look.
const MOST_LOOKS: usize = 200;
/// Where the shipped webhook configuration asks for no pods, besides gwmon's own namespace.
const SYSTEM: &str = "kube-system";

type Found = HashMap<(String, Owner), (usize, Finding)>;

/// Looks, tells and counts, for ever.
pub(super) async fn look(context: &Context, surroundings: &Surroundings) {
    let mut told: HashMap<(String, Owner), Told> = HashMap::new();
    loop {
        let late = |_| Err(anyhow::anyhow!("no answer from the API server in {EVERY:?}"));
        match tokio::time::timeout(EVERY, find(context, surroundings)).await.unwrap_or_else(late) {
            Ok(found) => {
                let missed = found.values().filter(|(_, finding)| finding.reason == Reason::MissedInjection);
                let count: usize = missed.map(|(pods, _)| pods).sum();
                context.metrics.missed_pods.set(i64::try_from(count).unwrap_or(i64::MAX));
                told.retain(|workload, _| found.contains_key(workload));
                for ((namespace, owner), (_, finding)) in found {
                    let told = told.entry((namespace.clone(), owner.clone())).or_default();
                    context.report.findings(&namespace, &owner, vec![finding], told).await;
                }
            }
            Err(error) => tracing::warn!("cannot look for pods without injection: {error:#}"),
        }
        let soon = async {
            context.workloads_changed.notified().await;
            tokio::time::sleep(SETTLE).await;
        };
        futures::future::select(pin!(tokio::time::sleep(EVERY)), pin!(soon)).await;
    }
}

async fn find(context: &Context, surroundings: &Surroundings) -> Result<Found> {
    let mut found = Found::new();
    let is_served = |namespace: &str| namespace != SYSTEM && namespace != context.site.namespace;
    // By controller: its pods are alike, so one of them is looked at whole.
    let mut pods: HashMap<(String, String), (OwnerReference, String, usize)> = HashMap::new();
    let bare = ListParams::default()
        .labels(&format!("!{MONITORED_BY}"))
        .fields("status.phase!=Succeeded,status.phase!=Failed");
    each_page(context, bare, |pod| {
        let namespace = pod.namespace().unwrap_or_default();
        let missed = asks_for_injection(&pod) && pod.metadata.deletion_timestamp.is_none() && is_served(&namespace);
        if let Some(owner) = controller_of(&pod).filter(|_| missed) {
            let key = (namespace, owner.uid.clone());
            pods.entry(key).or_insert_with(|| (owner.clone(), pod.name_any(), 0)).2 += 1;
        }
    })
    .await?;
    let mut looks = Looks::default();
    // In one order, so that what is not looked at is always the same.
    let pods: BTreeMap<_, _> = pods.into_iter().collect();
    for ((namespace, _), (owner, pod, count)) in pods {
        if !looks.may_look(&namespace) {
            continue;
        }
        let Some(Some(owner)) = readable(workload(&context.client, &namespace, owner).await) else { continue };
        // Of those that gwmon has stepped aside from, people have been told.
        let key = (namespace, monitor_name(&owner.name));
        if surroundings.suspensions().obstacle(&key).is_some() {
            continue;
        }
        let namespace = key.0;
        let limits = surroundings.limits(&namespace);
        let finding = readable(about_pod(context, &limits, &namespace, &pod, &owner).await);
        if let Some(Some(finding)) = finding {
            // A roll-out has two controllers for one workload.
            found.entry((namespace, owner)).or_insert((0, finding)).0 += count;
        }
    }
    let mut looks = Looks::default();
    for (kind, (namespace, name), uid) in context.world.asking() {
        let owner = Owner { api_version: "apps/v1".to_owned(), kind: kind.to_owned(), name, uid };
        let key = GatewayKey { namespace, monitor: monitor_name(&owner.name) };
        if context.world.newest(&key).is_some() || !is_served(&key.namespace) || !looks.may_look(&key.namespace) {
            continue;
        }
        let finding = readable(about_template(context, &key.namespace, &owner).await);
        if let Some(Some((pods, finding))) = finding {
            found.entry((key.namespace, owner)).or_insert((pods, finding));
        }
    }
    Ok(found)
}

/// How many workloads of each namespace have been looked at: one look has so many for each, so that it ends.
#[derive(Default)]
struct Looks(HashMap<String, usize>);

impl Looks {
    fn may_look(&mut self, namespace: &str) -> bool {
        let looks = self.0.entry(namespace.to_owned()).or_default();
        *looks += 1;
        *looks <= MOST_LOOKS
    }
}

/// One object that cannot be read keeps no other from being looked at: whoever may make a pod may write any owner on it.
fn readable<T>(read: Result<T>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!("left out of the look for pods without injection: {error:#}")).ok()
}

/// Passes every such pod, metadata only, and holds a page of them at a time.
async fn each_page(context: &Context, pods: ListParams, mut each: impl FnMut(Meta)) -> Result<()> {
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &api_resource("v1", "Pod"));
    let mut page = pods.limit(PAGE);
    loop {
        let list = api.list_metadata(&page).await.map_err(plain).context("cannot list pods")?;
        list.items.into_iter().for_each(&mut each);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// What the webhook would have said to this pod.
async fn about_pod(
    context: &Context,
    limits: &[LimitRange],
    namespace: &str,
    pod: &str,
    owner: &Owner,
) -> Result<Option<Finding>> {
    let Some(found) = context.pod(namespace, pod).await? else { return Ok(None) };
    Ok(match injection::decide(&context.policy, limits, &found) {
        Ok(_) => {
            let detail = format!(
                "pods ask for injection and run without: when they were made no gwmon answered, or it had stepped aside; {}",
                repair(namespace, owner)
            );
            Some(Finding::new(Reason::MissedInjection, detail))
        }
        Err(finding) => Some(finding).filter(Finding::is_warning),
    })
}

/// A workload that asks, whose template does not, and how many pods it has.
async fn about_template(context: &Context, namespace: &str, owner: &Owner) -> Result<Option<(usize, Finding)>> {
    let api = objects(&context.client, namespace, (&owner.api_version, &owner.kind));
    let what = || format!("cannot read {} {namespace}/{}", owner.kind, owner.name);
    let Some(found) = api.get_opt(&owner.name).await.map_err(plain).with_context(what)? else { return Ok(None) };
    let at = |pointer: &str| found.data.pointer(pointer);
    let pods = at("/status/replicas").or_else(|| at("/status/currentNumberScheduled"));
    let pods = pods.and_then(serde_json::Value::as_u64).and_then(|pods| usize::try_from(pods).ok()).unwrap_or_default();
    let copied = at("/spec/template/metadata/annotations").is_some_and(|all| all.get(INJECT).is_some());
    if copied || pods == 0 {
        return Ok(None);
    }
    let detail = format!(
        "annotated while no gwmon answered, so its pod template was not and its pods run without; {}",
        repair(namespace, owner)
    );
    Ok(Some((pods, Finding::new(Reason::MissedInjection, detail))))
}

/// What repairs it: any change of the template makes new pods, and an update passes the webhook.
fn repair(namespace: &str, owner: &Owner) -> String {
    match owner.kind.as_str() {
        "Deployment" | "StatefulSet" | "DaemonSet" => {
            format!("kubectl -n {namespace} rollout restart {}/{}", owner.kind.to_lowercase(), owner.name)
        }
        _ => format!("restart the pods of {} {namespace}/{}", owner.kind, owner.name),
    }
}
