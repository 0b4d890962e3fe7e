//! Steps aside: where an exporter keeps a gateway from being ready, or its pods are refused because of one, the next pods of
//! that workload are admitted without. Deletes no pod, scales nothing; what a person has to do is said in an Event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use super::apply::is_alive;
use super::reconcile::{Context, workload};
use super::sidecars::{self, Refusal, Refused, Suspended, Trouble, Watched, seconds_now, whole_seconds};
use super::world::objects;
use super::{FIELD_MANAGER, PATIENCE, Site, plain};
use crate::annotations::INJECT;
use crate::injection::monitor_name;
use crate::monitoring::Owner;
use crate::monitoring::objects::MANAGED_BY;
use crate::reason::{Finding, Reason};
use crate::suspension::{Key, Phase, Suspension, Suspensions, Timing, Workload};
use crate::webhook::Surroundings;

/// How often it is looked at what lasts too long; while there is nothing, only for suspensions that somebody has written.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AT_REST: Duration = Duration::from_secs(10);
/// How long a suspension takes to reach every replica, at most.
const KNOWN: Duration = Duration::from_secs(3);
/// Within so long after that, a controller whose pods are still refused has tried again (its back-off doubles from
/// milliseconds).
const TRIED_AGAIN: Duration = Duration::from_mins(5);
/// Nodes may be on their way (the cluster autoscaler takes minutes), but not for a pod that is made for one node.
const NODES_TAKE: i64 = 10;

impl Site {
    /// The ConfigMap that holds the suspended workloads.
    #[must_use]
    pub fn suspensions(&self) -> String {
        format!("{}-suspensions", self.name)
    }
}

/// Looks after every injected pod, for ever.
pub(super) async fn run(context: &Context, surroundings: &Surroundings, timing: Timing) {
    let mut changes = sidecars::watch(&context.client);
    let mut watched = Watched::default();
    let suspender = Suspender { context, surroundings, timing };
    let mut looked = tokio::time::Instant::now();
    loop {
        let idle = watched.is_idle() && surroundings.suspensions().is_empty();
        let next = looked + if idle { LOOK_AT_REST } else { LOOK };
        if let Ok(Some(seen)) = tokio::time::timeout_at(next, changes.next()).await {
            watched.take(seen);
            continue;
        }
        let looking = tokio::time::timeout(PATIENCE, suspender.look(&mut watched));
        if let Err(error) = looking.await.unwrap_or_else(|_| bail!("no answer from the API server in {PATIENCE:?}")) {
            tracing::warn!("cannot look after the injected pods: {error:#}");
        }
        looked = tokio::time::Instant::now();
    }
}

/// What decides and writes.
struct Suspender<'a> {
    context: &'a Context,
    surroundings: &'a Surroundings,
    timing: Timing,
}

impl Suspender<'_> {
    async fn look(&self, watched: &mut Watched) -> Result<()> {
        if !watched.is_known {
            return Ok(());
        }
        watched.forget();
        watched.innocent.retain(|_, since| whole_seconds(since.elapsed()) < self.timing.first_retry);
        self.look_at_pods(watched).await?;
        self.look_at_refusals(watched).await?;
        self.look_at_suspensions(watched).await?;
        self.context.metrics.suspended(&self.surroundings.suspensions());
        Ok(())
    }

    async fn look_at_pods(&self, watched: &Watched) -> Result<()> {
        for ((namespace, pod), trouble) in &watched.pods {
            let suspensions = self.surroundings.suspensions();
            let stands = match suspensions.get(&trouble.key) {
                None => true,
                // One that has failed since before is no sign that it fails again.
                Some(entry) if entry.phase == Phase::Resumed => {
                    trouble.created >= entry.since || trouble.began.is_some_and(|began| began >= entry.since)
                }
                Some(entry) => entry.phase == Phase::Watched && entry.pod.as_ref() == Some(pod),
            };
            if !stands || trouble.down.is_none() || whole_seconds(trouble.lasts()) < self.patience(trouble) {
                continue;
            }
            let Some(owner) = workload(&self.context.client, namespace, trouble.owner.clone()).await? else { continue };
            let Finding { reason, detail } = &trouble.finding;
            let finding = Finding::new(*reason, format!("pod {pod} is not ready: {detail}"));
            let advice = format!("to have this pod made again without it: kubectl -n {namespace} delete pod {pod}");
            self.suspend(namespace, &owner, &finding, &advice).await?;
        }
        Ok(())
    }

    fn patience(&self, trouble: &Trouble) -> i64 {
        let waits = trouble.finding.reason == Reason::PodUnschedulable && trouble.owner.kind != "DaemonSet";
        self.timing.patience * if waits { NODES_TAKE } else { 1 }
    }

    async fn look_at_refusals(&self, watched: &mut Watched) -> Result<()> {
        let patience = self.timing.patience;
        let mut over = Vec::new();
        for (uid, refusal) in &mut watched.refusals {
            if let Some(Suspended { key, since, pods }) = &refusal.suspended {
                let phase = self.surroundings.suspensions().get(key).map(|entry| entry.phase);
                match phase {
                    Some(Phase::Suspended) if refusal.last > *since + KNOWN => {
                        // Of several pods the first may have been made and the next be refused for a moment.
                        if self.asking(&refusal.seen).await?.is_some_and(|(_, now)| now <= *pods) {
                            self.acquit(key, refusal).await?;
                            watched.innocent.insert(uid.clone(), Instant::now());
                        }
                        over.push(uid.clone());
                    }
                    Some(Phase::Suspended) if since.elapsed() < TRIED_AGAIN => {}
                    // It was the exporter; or the pod that was to be tried was refused, or somebody has lifted the
                    // suspension: what comes now is counted anew.
                    _ => over.push(uid.clone()),
                }
                continue;
            }
            let is_trial = self.is_trial(refusal).await?;
            if watched.innocent.contains_key(uid) || (whole_seconds(refusal.first.elapsed()) < patience && !is_trial) {
                continue;
            }
            // Controllers try again ever more slowly; one that has not for most of the time has succeeded.
            let lasted = whole_seconds(refusal.last.duration_since(refusal.first));
            let owner = if is_trial || lasted >= patience / 3 { self.asking(&refusal.seen).await? } else { None };
            let Some((owner, pods)) = owner else {
                over.push(uid.clone());
                continue;
            };
            let namespace = &refusal.seen.namespace;
            let finding = Finding::new(Reason::PodRefused, format!("its pods are refused: {}", refusal.seen.message));
            self.suspend(namespace, &owner, &finding, "its controller makes them again by itself").await?;
            let key = (namespace.clone(), monitor_name(&owner.name));
            refusal.suspended = Some(Suspended { key, since: Instant::now(), pods });
        }
        watched.refusals.retain(|uid, _| !over.contains(uid));
        Ok(())
    }

    /// Whether these are pods of a workload of which one is to be tried.
    async fn is_trial(&self, refusal: &Refusal) -> Result<bool> {
        let suspensions = self.surroundings.suspensions();
        let trials: Vec<_> = suspensions
            .iter()
            .filter(|((namespace, _), _)| *namespace == refusal.seen.namespace)
            .filter(|(_, entry)| matches!(entry.phase, Phase::Trial | Phase::Watched))
            .map(|(_, entry)| &entry.workload.uid)
            .collect();
        if trials.is_empty() || refusal.last.elapsed() > KNOWN {
            return Ok(false);
        }
        let owner = self.asking(&refusal.seen).await?;
        Ok(owner.is_some_and(|(owner, _)| trials.contains(&&owner.uid)))
    }

    /// The workload of a controller whose template asks for injection, and how many pods that controller has.
    async fn asking(&self, refused: &Refused) -> Result<Option<(Owner, u64)>> {
        let Refused { namespace, owner, .. } = refused;
        let api = objects(&self.context.client, namespace, (&owner.api_version, &owner.kind));
        let found = api.get_opt(&owner.name).await.map_err(plain);
        let Some(found) = found.with_context(|| format!("cannot read {} {}", owner.kind, owner.name))? else {
            return Ok(None);
        };
        let asks = found.data.pointer("/spec/template/metadata/annotations").is_some_and(|all| all[INJECT] == "true");
        let above = found.owner_references().iter().find(|owner| owner.controller == Some(true)).cloned();
        let count = |field: &str| found.data.pointer(field).and_then(Value::as_u64);
        let pods = count("/status/replicas").or_else(|| count("/status/currentNumberScheduled")).unwrap_or_default();
        Ok(asks.then(|| (above.unwrap_or_else(|| owner.clone()).into(), pods)))
    }

    async fn look_at_suspensions(&self, watched: &mut Watched) -> Result<()> {
        let now = seconds_now();
        let suspensions = self.surroundings.suspensions();
        watched.trials.retain(|key, _| suspensions.get(key).is_some_and(Suspension::is_active));
        for (key, entry) in suspensions.iter() {
            let trial = watched.trials.get(key).filter(|trial| trial.since == entry.since);
            let next = match (entry.phase, trial) {
                (Phase::Trial, Some(trial)) => Some(entry.watched(&trial.pod, now, self.timing)),
                (Phase::Watched, Some(trial)) if trial.has_run(self.timing.patience) => {
                    self.resume(key, entry, &trial.pod).await?;
                    continue;
                }
                // That pod is gone before anything was known: another one.
                (Phase::Watched, None) => Some(entry.on_trial(now, self.timing)),
                _ => entry.at(now, self.timing),
            };
            // Forgotten only when no pod from before fails still: it would be taken for a new failure.
            let is_stuck = || watched.pods.values().any(|trouble| trouble.key == *key && trouble.down.is_some());
            if next.as_ref() == Some(entry) || (next.is_none() && is_stuck()) {
                continue;
            }
            let is_there = !entry.is_active() || self.exists(&key.0, entry).await?;
            self.save(key, next.as_ref().filter(|_| is_there)).await?;
        }
        Ok(())
    }

    /// Whether a suspended workload is still there; one that may not be read is.
    async fn exists(&self, namespace: &str, entry: &Suspension) -> Result<bool> {
        is_alive(&self.context.client, namespace, &entry.workload.clone().into()).await
    }

    async fn suspend(&self, namespace: &str, owner: &Owner, why: &Finding, advice: &str) -> Result<()> {
        let key = (namespace.to_owned(), monitor_name(&owner.name));
        let suspensions = self.surroundings.suspensions();
        let before = suspensions.get(&key);
        if before.is_none() && suspensions.len() >= Suspensions::MOST {
            tracing::error!(namespace, name = owner.name, "too many suspended workloads to keep another: {why}");
            return Ok(());
        }
        let Owner { api_version, kind, name, uid } = owner.clone();
        let entry =
            Suspension::failed(before, Workload { api_version, kind, name, uid }, why, seconds_now(), self.timing);
        self.save(&key, Some(&entry)).await?;
        let wait = Duration::from_secs(u64::try_from(entry.until - entry.since).unwrap_or_default());
        let detail = format!(
            "{}; new pods of {} {} get no exporter until it is tried again in {} s; {advice}",
            why.detail,
            owner.kind,
            owner.name,
            wait.as_secs()
        );
        self.context.report.tell(namespace, owner, EventType::Warning, &Finding::new(why.reason, detail)).await;
        let now_suspended = self.surroundings.suspensions();
        if let Some(stop) = now_suspended.stopped().get(suspensions.stopped().len()) {
            self.tell_operator(&Finding::new(Reason::InjectionStopped, stop.to_string())).await?;
        }
        Ok(())
    }

    async fn resume(&self, key: &Key, entry: &Suspension, pod: &str) -> Result<()> {
        self.save(key, Some(&entry.resumed(seconds_now(), self.timing))).await?;
        let Workload { kind, name, .. } = &entry.workload;
        let detail = format!(
            "pod {pod} runs with the exporter, and new pods of {kind} {name} get it again; for those that were made without it: kubectl -n {} rollout restart {}/{name}",
            key.0,
            kind.to_lowercase()
        );
        self.tell_resumed(key, entry, detail).await;
        Ok(())
    }

    /// Pods are refused without the exporter as well, so it may come back.
    async fn acquit(&self, key: &Key, refusal: &Refusal) -> Result<()> {
        let suspensions = self.surroundings.suspensions();
        let Some(entry) = suspensions.get(key) else { return Ok(()) };
        self.save(key, None).await?;
        let message = &refusal.seen.message;
        let detail = format!("its pods are refused without the exporter, too, so new ones get it again: {message}");
        self.tell_resumed(key, entry, detail).await;
        Ok(())
    }

    async fn tell_resumed(&self, key: &Key, entry: &Suspension, detail: String) {
        let finding = Finding::new(Reason::InjectionResumed, detail);
        self.context.report.tell(&key.0, &entry.workload.clone().into(), EventType::Normal, &finding).await;
    }

    /// Tells the operator of gwmon, on its own Deployment.
    async fn tell_operator(&self, finding: &Finding) -> Result<()> {
        tracing::error!(reason = finding.reason.as_str(), "{}", finding.detail);
        if let Some(deployment) = self.context.own_deployment().await? {
            self.context.report.tell(&self.context.site.namespace, &deployment, EventType::Warning, finding).await;
        }
        Ok(())
    }

    /// Writes one entry, or takes it away. This replica knows at once what it has written.
    async fn save(&self, key: &Key, entry: Option<&Suspension>) -> Result<()> {
        let namespace = &self.context.site.namespace;
        let name = self.context.site.suspensions();
        let api = Api::<ConfigMap>::namespaced(self.context.client.clone(), namespace);
        let value = entry.map(serde_json::to_string).transpose()?;
        let patch = json!({"data": {Suspensions::data_key(key): value}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let written = match api.patch(&name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let data = value.map(|value| (Suspensions::data_key(key), value)).into_iter().collect();
                let labels = BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]);
                let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
                let object = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                api.create(&PostParams::default(), &object).await
            }
            written => written,
        };
        let written = written.map_err(plain).with_context(|| format!("cannot write ConfigMap {namespace}/{name}"))?;
        self.surroundings.suspend(&written.data.unwrap_or_default());
        let (phase, reason) =
            (entry.map(|entry| format!("{:?}", entry.phase)), entry.map(|entry| entry.reason.as_str()));
        tracing::info!(namespace = key.0, monitor = key.1, phase, reason, "wrote a suspension");
        Ok(())
    }
}

impl From<Workload> for Owner {
    fn from(Workload { api_version, kind, name, uid }: Workload) -> Self {
        Self { api_version, kind, name, uid }
    }
}
