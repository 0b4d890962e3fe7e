//! Suspends injection for workloads: where the exporter keeps a gateway's pod from being ready, or from being created, the
//! workload's next pods are admitted without it. Deletes no pod and scales nothing; an Event on the workload says what a person
//! can do.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::apply::{Presence, presence};
use super::reconcile::Context;
use super::sidecars::{
    self, FailedCreate, FailingPod, RefusedPods, SidecarState, SuspendedFor, seconds_now, whole_seconds,
};
use crate::cluster::FIELD_MANAGER;
use crate::cluster::installation::own_deployment;
use crate::cluster::object::{GatewayKey, controller_of, is_itself};
use crate::cluster::owners::workload;
use crate::cluster::request::{api_error, objects};
use crate::config::Installation;
use crate::injection::{self, Decision};
use crate::monitoring::Owner;
use crate::monitoring::objects::MANAGED_BY;
use crate::reason::{Finding, Reason};
use crate::suspension::{Key, Phase, Suspension, Suspensions, Timing, Workload};
use crate::webhook::AdmissionState;

/// The interval at which failures are checked for their duration.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The same while nothing fails: only suspensions that somebody wrote by hand are looked for.
const CHECK_INTERVAL_AT_REST: Duration = Duration::from_secs(10);
/// The time in which a suspension reaches every replica.
const PROPAGATION: Duration = Duration::from_secs(3);
/// One read and one write.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The factor on the time until a suspension, for failures that end by themselves once the nodes are ready.
const SLOW_FACTOR: i64 = 10;

impl Installation {
    /// The ConfigMap that holds the suspended workloads.
    #[must_use]
    pub fn suspensions(&self) -> String {
        format!("{}-suspensions", self.name)
    }
}

/// Watches pods with an exporter and `FailedCreate` Events, and suspends injection, until it is dropped.
pub(super) async fn run(context: &Context, admission_state: &AdmissionState, timing: Timing) {
    let mut changes = sidecars::watch(&context.client);
    let mut state = SidecarState::default();
    let suspender = Suspender { context, admission_state, timing };
    let mut looked = tokio::time::Instant::now();
    loop {
        let idle = state.is_idle() && admission_state.suspensions().is_empty();
        let next = looked + if idle { CHECK_INTERVAL_AT_REST } else { CHECK_INTERVAL };
        if let Ok(Some(observed)) = tokio::time::timeout_at(next, changes.next()).await {
            state.take(observed);
            continue;
        }
        if state.is_known {
            suspender.look(&mut state).await;
        }
        looked = tokio::time::Instant::now();
    }
}

/// The outcome for a controller whose pods are refused.
enum RefusalOutcome {
    /// Not known yet.
    Wait,
    /// Nothing to do: the pods get no exporter, or the suspension has ended.
    Over,
    /// Its pods are refused without the exporter as well.
    Unrelated,
    /// Its workload was suspended.
    Suspended(SuspendedFor),
}

/// A workload whose pods would get an exporter.
struct InjectedWorkload {
    owner: Owner,
    key: Key,
    /// The number of pods of the controller whose pod was refused.
    pods: u64,
}

/// Runs one step with a time limit, and logs its error, so that no object keeps the others from being handled.
async fn attempt<T>(what: impl Future<Output = Result<T>>) -> Option<T> {
    let late = |_| Err(anyhow::anyhow!("no answer from the API server in {ATTEMPT_TIMEOUT:?}"));
    let done = tokio::time::timeout(ATTEMPT_TIMEOUT, what).await.unwrap_or_else(late);
    done.inspect_err(|error| tracing::warn!("cannot suspend or resume injection: {error:#}")).ok()
}

/// Decides on suspensions and writes them.
struct Suspender<'a> {
    context: &'a Context,
    admission_state: &'a AdmissionState,
    timing: Timing,
}

impl Suspender<'_> {
    async fn look(&self, state: &mut SidecarState) {
        let suspensions = self.admission_state.suspensions();
        state.forget(|key| suspensions.get(key).is_some_and(Suspension::is_active));
        state.unrelated.retain(|_, since| whole_seconds(since.elapsed()) < self.timing.retention());
        self.check_pods(state).await;
        self.check_refusals(state).await;
        self.check_suspensions(state).await;
        self.context.metrics.suspended(&self.admission_state.suspensions());
    }

    async fn check_pods(&self, state: &mut SidecarState) {
        for ((namespace, pod), failing) in &mut state.pods {
            if self.is_due(pod, failing) {
                failing.is_reported = attempt(self.suspend_for_pod(namespace, pod, failing)).await.is_some();
            }
        }
    }

    /// Returns true if a pod's failure has lasted long enough to suspend its workload.
    fn is_due(&self, pod: &str, failing: &FailingPod) -> bool {
        let suspensions = self.admission_state.suspensions();
        let stands = match suspensions.get(&failing.key) {
            None => true,
            // A pod that failed before the resumption is not a new failure.
            Some(entry) if entry.phase == Phase::Resumed => {
                failing.created >= entry.since || failing.began.is_some_and(|began| began >= entry.since)
            }
            Some(entry) => entry.phase == Phase::Watched && entry.pod.as_deref() == Some(pod),
        };
        // The cluster autoscaler takes minutes to add a node, and a new node as long to pull its images.
        let is_slow = match failing.finding.reason {
            Reason::PodUnschedulable => failing.owner.kind != "DaemonSet",
            reason => reason == Reason::ImagePullSlow,
        };
        let suspend_after = self.timing.suspend_after * if is_slow { SLOW_FACTOR } else { 1 };
        stands && !failing.is_reported && failing.down.is_some() && whole_seconds(failing.lasts()) >= suspend_after
    }

    async fn suspend_for_pod(&self, namespace: &str, pod: &str, failing: &FailingPod) -> Result<()> {
        let Some(owner) = workload(&self.context.client, namespace, failing.owner.clone()).await? else {
            return Ok(());
        };
        let is_itself = is_itself(&owner.kind, &owner.name, pod);
        let key = GatewayKey { namespace: failing.key.0.clone(), monitor: failing.key.1.clone() };
        // A pod that nobody owns must not suspend the workload whose name it has.
        if is_itself && self.context.cache.has_owned_pods(&key) {
            return Ok(());
        }
        let Finding { reason, detail } = &failing.finding;
        let finding = Finding::new(*reason, format!("pod {pod} is not ready: {detail}"));
        let advice = if is_itself {
            format!("to have it without the exporter: kubectl -n {namespace} delete pod {pod}, and create it again")
        } else {
            format!("to have this pod made again without it: kubectl -n {namespace} delete pod {pod}")
        };
        self.suspend(&failing.key, &owner, &finding, &advice).await
    }

    async fn check_refusals(&self, state: &mut SidecarState) {
        let controllers: Vec<String> = state.refusals.keys().cloned().collect();
        for uid in controllers {
            let Some(refusal) = state.refusals.get_mut(&uid) else { continue };
            match attempt(self.judge(refusal)).await.unwrap_or(RefusalOutcome::Wait) {
                RefusalOutcome::Wait => {}
                RefusalOutcome::Suspended(suspended) => refusal.suspended = Some(suspended),
                RefusalOutcome::Over => drop(state.refusals.remove(&uid)),
                RefusalOutcome::Unrelated => {
                    state.refusals.remove(&uid);
                    state.unrelated.insert(uid, Instant::now());
                }
            }
        }
    }

    async fn judge(&self, refusal: &RefusedPods) -> Result<RefusalOutcome> {
        let suspensions = self.admission_state.suspensions();
        let is_fresh = refusal.last.elapsed() < PROPAGATION;
        if let Some(SuspendedFor { key, since, pods }) = &refusal.suspended {
            let entry = suspensions.get(key).filter(|entry| entry.reason() == Some(Reason::PodRefused));
            return match entry.map(|entry| entry.phase) {
                Some(Phase::Suspended) if refusal.last > *since + PROPAGATION => {
                    // If a pod was created since, this refusal is temporary.
                    let Some(workload) = self.injected_workload(&refusal.latest).await? else {
                        return Ok(RefusalOutcome::Over);
                    };
                    if workload.pods > *pods {
                        return Ok(RefusalOutcome::Over);
                    }
                    self.end_suspension(key, refusal).await?;
                    Ok(RefusalOutcome::Unrelated)
                }
                // The trial pod was refused.
                Some(Phase::Trial) if is_fresh => self.suspend_for_refusal(refusal).await,
                Some(Phase::Suspended | Phase::Trial | Phase::Watched) => Ok(RefusalOutcome::Wait),
                Some(Phase::Resumed) | None => Ok(RefusalOutcome::Over),
            };
        }
        let suspend_after = self.timing.suspend_after;
        // A controller retries with back-off until it succeeds.
        let has_lasted = whole_seconds(refusal.first.elapsed()) >= suspend_after
            && whole_seconds(refusal.last.duration_since(refusal.first)) >= suspend_after / 3;
        let is_tried = |((namespace, _), entry): (&Key, &Suspension)| {
            *namespace == refusal.latest.namespace && entry.phase == Phase::Trial
        };
        if has_lasted || (is_fresh && suspensions.iter().any(is_tried)) {
            return self.suspend_for_refusal(refusal).await;
        }
        Ok(RefusalOutcome::Wait)
    }

    async fn suspend_for_refusal(&self, refusal: &RefusedPods) -> Result<RefusalOutcome> {
        let Some(InjectedWorkload { owner, key, pods }) = self.injected_workload(&refusal.latest).await? else {
            return Ok(RefusalOutcome::Over);
        };
        let phase = self.admission_state.suspensions().get(&key).map(|entry| entry.phase);
        // These pods get no exporter.
        if matches!(phase, Some(Phase::Suspended | Phase::Watched)) {
            return Ok(RefusalOutcome::Wait);
        }
        let finding = Finding::new(Reason::PodRefused, format!("its pods are refused: {}", refusal.latest.message));
        self.suspend(&key, &owner, &finding, "its controller makes them again by itself").await?;
        Ok(RefusalOutcome::Suspended(SuspendedFor { key, since: Instant::now(), pods }))
    }

    /// The workload of a controller whose pods would get an exporter.
    async fn injected_workload(&self, refused: &FailedCreate) -> Result<Option<InjectedWorkload>> {
        let FailedCreate { namespace, owner, .. } = refused;
        let api = objects(&self.context.client, namespace, (&owner.api_version, &owner.kind));
        let found = api.get_opt(&owner.name).await.map_err(api_error);
        let Some(found) = found.with_context(|| format!("cannot read {} {}", owner.kind, owner.name))? else {
            return Ok(None);
        };
        let mut pod = found.data.pointer("/spec/template").cloned().unwrap_or_default();
        pod["metadata"]["ownerReferences"] = json!([{"kind": owner.kind, "name": owner.name, "controller": true}]);
        let limits = self.admission_state.limits(namespace);
        let labels = self.context.cache.cluster().namespace_labels(namespace);
        let decision = injection::decide_in(&self.context.config, &limits, &labels, &pod.to_string());
        let Decision::Inject(injection) = decision else { return Ok(None) };
        let count = |field: &str| found.data.pointer(field).and_then(Value::as_u64);
        let pods = count("/status/replicas").or_else(|| count("/status/currentNumberScheduled")).unwrap_or_default();
        let workload = InjectedWorkload {
            owner: controller_of(&found).unwrap_or(owner).clone().into(),
            key: (namespace.clone(), injection.monitor.clone()),
            pods,
        };
        Ok(injection.adds_exporter().then_some(workload))
    }

    async fn check_suspensions(&self, state: &mut SidecarState) {
        let suspensions = self.admission_state.suspensions();
        state.trials.retain(|key, _| suspensions.get(key).is_some_and(Suspension::is_active));
        for (key, entry) in suspensions.iter() {
            attempt(self.check_suspension(key, entry, state)).await;
        }
    }

    async fn check_suspension(&self, key: &Key, entry: &Suspension, state: &SidecarState) -> Result<()> {
        let (now, suspend_after) = (seconds_now(), self.timing.suspend_after);
        let trial = state.trials.get(key).filter(|trial| trial.since == entry.since);
        let pods = || state.pods.iter().filter(|(_, failing)| failing.key == *key);
        let next = match (entry.phase, trial) {
            (Phase::Trial, Some(trial)) => Some(entry.watched(&trial.pod, now, self.timing)),
            // A failed pod has recovered.
            (Phase::Trial, None)
                if let Some(((_, pod), _)) = pods().find(|(_, pod)| pod.has_recovered(suspend_after)) =>
            {
                return self.resume(key, entry, pod).await;
            }
            (Phase::Watched, Some(trial)) if trial.has_run(suspend_after) => {
                return self.resume(key, entry, &trial.pod).await;
            }
            // The trial pod is gone without an outcome: try another one.
            (Phase::Watched, None) => Some(entry.on_trial(now, self.timing)),
            _ => entry.at(now, self.timing),
        };
        // The entry stays while an old pod still fails: that would count as a new failure.
        let is_stuck = || pods().any(|(_, failing)| failing.down.is_some());
        if next.as_ref() == Some(entry) || (next.is_none() && is_stuck()) {
            return Ok(());
        }
        let is_there = !entry.is_active() || self.exists(&key.0, entry).await?;
        self.save(key, next.as_ref().filter(|_| is_there)).await
    }

    /// Returns true if a suspended workload exists, or cannot be read.
    async fn exists(&self, namespace: &str, entry: &Suspension) -> Result<bool> {
        let workload = entry.workload.clone().into();
        Ok(presence(&self.context.client, namespace, &workload).await? != Presence::Gone)
    }

    async fn suspend(&self, key: &Key, owner: &Owner, why: &Finding, advice: &str) -> Result<()> {
        let namespace = &key.0;
        let suspensions = self.admission_state.suspensions();
        let before = suspensions.get(key);
        if before.is_none() && !suspensions.has_room(namespace) {
            tracing::error!(namespace, name = owner.name, "too many suspended workloads to keep another: {why}");
            return Ok(());
        }
        let Owner { api_version, kind, name, uid } = owner.clone();
        let entry =
            Suspension::failed(before, Workload { api_version, kind, name, uid }, why, seconds_now(), self.timing);
        self.save(key, Some(&entry)).await?;
        let wait = Duration::from_secs(u64::try_from(entry.until - entry.since).unwrap_or_default());
        let detail = format!(
            "{}; new pods of {} {} get no exporter until it is tried again in {} s; {advice}",
            why.detail,
            owner.kind,
            owner.name,
            wait.as_secs()
        );
        self.context.events.publish(namespace, owner, &Finding::new(why.reason, detail)).await;
        let now_suspended = self.admission_state.suspensions();
        let before: Vec<_> = suspensions.stopped().iter().map(|stop| &stop.namespace).collect();
        for stop in now_suspended.stopped().iter().filter(|stop| !before.contains(&&stop.namespace)) {
            self.publish_on_own_deployment(&Finding::new(Reason::InjectionStopped, stop.to_string())).await?;
        }
        Ok(())
    }

    async fn resume(&self, key: &Key, entry: &Suspension, pod: &str) -> Result<()> {
        self.save(key, Some(&entry.resumed(seconds_now(), self.timing))).await?;
        let Workload { kind, name, .. } = &entry.workload;
        let restart = if is_itself(kind, name, pod) {
            "delete and create the pod".to_owned()
        } else {
            format!("kubectl -n {} rollout restart {}/{name}", key.0, kind.to_lowercase())
        };
        let detail = format!(
            "pod {pod} runs with the exporter, and new pods of {kind} {name} get it again; for those that were made without it: {restart}"
        );
        self.publish_resumed(key, entry, detail).await;
        Ok(())
    }

    /// Ends a suspension: pods are refused without the exporter too.
    async fn end_suspension(&self, key: &Key, refusal: &RefusedPods) -> Result<()> {
        let suspensions = self.admission_state.suspensions();
        let Some(entry) = suspensions.get(key) else { return Ok(()) };
        self.save(key, None).await?;
        let message = &refusal.latest.message;
        let detail = format!("its pods are refused without the exporter, too, so new ones get it again: {message}");
        self.publish_resumed(key, entry, detail).await;
        Ok(())
    }

    async fn publish_resumed(&self, key: &Key, entry: &Suspension, detail: String) {
        let finding = Finding::new(Reason::InjectionResumed, detail);
        self.context.events.publish(&key.0, &entry.workload.clone().into(), &finding).await;
    }

    /// Publishes an Event on gwmon's own Deployment.
    async fn publish_on_own_deployment(&self, finding: &Finding) -> Result<()> {
        tracing::error!(reason = finding.reason.as_str(), "{}", finding.detail);
        if let Some(deployment) = own_deployment(&self.context.client, &self.context.installation).await? {
            self.context.events.publish(&self.context.installation.namespace, &deployment, finding).await;
        }
        Ok(())
    }

    /// Writes or deletes one entry. This replica knows at once what it has written.
    async fn save(&self, key: &Key, entry: Option<&Suspension>) -> Result<()> {
        let namespace = &self.context.installation.namespace;
        let name = self.context.installation.suspensions();
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
        let written =
            written.map_err(api_error).with_context(|| format!("cannot write ConfigMap {namespace}/{name}"))?;
        self.admission_state.suspend(&written.data.unwrap_or_default());
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
