//! The removal, in an order in which no pod waits for a webhook that is gone and nothing is made anew.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};

use super::find::{Found, Object, without_copies};
use crate::annotations::EXPORTER;
use crate::cluster::request::{api_resource, callers_error};
use crate::config::Installation;
use crate::kubernetes::rollout::{Rollout, rollout};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The time in which a replica that was told to stop ends: 10 seconds for the endpoints, 20 until it is killed.
const REPLICAS_END: Duration = Duration::from_mins(1);

/// Removes an installation.
pub(super) struct Removal<'a> {
    pub(super) client: &'a Client,
    pub(super) installation: &'a Installation,
    pub(super) timeout: Duration,
}

impl Removal<'_> {
    /// Removes what was found. Says each step when it is done; run again, it goes on where it was stopped.
    pub(super) async fn run(&self, found: &Found, keeps_workloads: bool) -> Result<()> {
        for object in found.webhooks.iter().chain(&found.deployments) {
            self.delete(object).await?;
        }
        // A replica writes for ten seconds more, and would make anew what is deleted.
        self.replicas_ended().await?;
        for workload in found.workloads.iter().filter(|_| !keeps_workloads) {
            self.roll_out(workload).await?;
        }
        for object in found.made.iter().chain(&found.rest) {
            self.delete(object).await?;
        }
        // Until it has gone, nothing can be installed in it again.
        for namespace in found.rest.iter().filter(|object| object.kind == "Namespace") {
            self.wait_gone(namespace).await?;
        }
        self.report_injected_pods().await
    }

    async fn wait_gone(&self, object: &Object) -> Result<()> {
        let (api, started) = (self.api(object), Instant::now());
        loop {
            match api.get_metadata_opt(&object.name).await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) if started.elapsed() > self.timeout => {
                    bail!(
                        "{object} is still being deleted; its status.conditions say why: kubectl get {object} -o yaml"
                    )
                }
                // Once the roles have gone, somebody with their rights only may not look.
                Err(kube::Error::Api(status)) if status.code == 403 => return Ok(()),
                Ok(Some(_)) => {}
                Err(error) => return Err(callers_error(error)).with_context(|| format!("cannot read {object}")),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Says which pods still have the sidecar: their templates are somebody's own, or nobody replaces them by themselves.
    async fn report_injected_pods(&self) -> Result<()> {
        let pods = Api::<DynamicObject>::all_with(self.client.clone(), &api_resource("v1", "Pod"));
        let injected = pods.list_metadata(&ListParams::default().labels(EXPORTER)).await.map_err(callers_error);
        let injected = injected.context("cannot list injected pods")?.items;
        for pod in injected.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let namespace = pod.namespace().unwrap_or_default();
            println!("pod/{} -n {namespace} keeps the sidecar until it is replaced", pod.name_any());
        }
        Ok(())
    }

    fn api(&self, object: &Object) -> Api<DynamicObject> {
        let kind = api_resource(object.api_version, object.kind);
        if object.namespace.is_empty() {
            return Api::all_with(self.client.clone(), &kind);
        }
        Api::namespaced_with(self.client.clone(), &object.namespace, &kind)
    }

    async fn delete(&self, object: &Object) -> Result<()> {
        match self.api(object).delete(&object.name, &DeleteParams::background()).await {
            Ok(_) => println!("{object} deleted"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(callers_error(error)).with_context(|| format!("cannot delete {object}")),
        }
        Ok(())
    }

    async fn replicas_ended(&self) -> Result<()> {
        let Installation { namespace, name } = self.installation;
        let pods = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &api_resource("v1", "Pod"));
        let own = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
        let started = Instant::now();
        loop {
            let left =
                pods.list_metadata(&own).await.map_err(callers_error).context("cannot list gwmon's pods")?.items.len();
            if left == 0 {
                return Ok(());
            }
            if started.elapsed() > REPLICAS_END {
                bail!(
                    "{left} pods of gwmon in namespace {namespace} do not end; see kubectl -n {namespace} get pods. If a GitOps tool makes them again, remove gwmon there first; then run the command again"
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Takes the copied annotations off and waits until the new pods run.
    async fn roll_out(&self, object: &Object) -> Result<()> {
        let api = self.api(object);
        if !self.take_off(object, &api).await? {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            let live = api.get_opt(&object.name).await.map_err(callers_error);
            let Some(live) = live.with_context(|| format!("cannot read {object}"))? else { return Ok(()) };
            match rollout(object.kind, &serde_json::to_value(live)?) {
                Rollout::Done => {
                    println!("{object} rolled out without the sidecar");
                    return Ok(());
                }
                Rollout::Waits(why) => {
                    println!("{object} changed; its pods keep the sidecar until they are replaced, since {why}");
                    return Ok(());
                }
                Rollout::Going if started.elapsed() > self.timeout => bail!(
                    "{object} did not roll out within {:?}; repair it (kubectl rollout status), then run the command again for the rest",
                    self.timeout
                ),
                Rollout::Going => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Takes the copied annotations off the pod template. False where there are none any more.
    async fn take_off(&self, object: &Object, api: &Api<DynamicObject>) -> Result<bool> {
        // Its controllers write its status all the time, and each time it is another version.
        let mut refusal = String::new();
        for _ in 0..10 {
            let live = api.get_opt(&object.name).await.map_err(callers_error);
            let live = live.with_context(|| format!("cannot read {object}"))?;
            let Some(operations) = live.as_ref().and_then(without_copies) else { return Ok(false) };
            let patch = Patch::Json::<DynamicObject>(serde_json::from_value(operations)?);
            match api.patch(&object.name, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if [409, 422].contains(&status.code) => {
                    refusal.clone_from(&status.message);
                }
                Err(error) => return Err(callers_error(error)).with_context(|| format!("cannot change {object}")),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        bail!("cannot change {object}: {refusal}; run the command again")
    }
}
