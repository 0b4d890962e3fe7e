//! The reads of `gwmon preview` from a cluster, with the caller's own rights.

use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use crate::annotations::INJECT;
use crate::cluster::request::api_resource;
use crate::cluster::version::oldest_version;
use crate::cluster::{Snapshot, with_kind};
use crate::commands::connection::Connection;
use crate::kubernetes::Version;
use crate::reason::{Finding, Reason};

impl Connection {
    /// Lists the objects on which the decision and the plan depend.
    pub(in crate::commands) fn snapshot(&self) -> Result<Snapshot> {
        self.run(Snapshot::list(&self.client))
    }

    /// The version of the cluster's oldest part, as far as the caller may see that.
    pub(super) fn version(&self) -> Result<Option<Version>> {
        let asking = oldest_version(&self.client);
        self.run(asking).context("cannot ask the API server for its version")
    }

    /// The LimitRanges of a namespace; none where the caller may not read them.
    pub(super) fn limit_ranges(&self, namespace: &str) -> Result<Vec<Value>> {
        let api =
            Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &api_resource("v1", "LimitRange"));
        match self.run(api.list(&ListParams::default())) {
            Ok(list) => Ok(list.items.into_iter().map(|range| with_kind(range, "LimitRange")).collect()),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(vec![]),
            Err(error) => Err(error).with_context(|| format!("cannot list LimitRanges in {namespace}")),
        }
    }

    /// Sends an injected pod to the API server as a server-side dry run, which applies other webhooks, policies, Pod Security
    /// and quotas. `plain` is the same pod, or pod template, without what gwmon adds.
    ///
    /// # Errors
    /// Where it cannot be tried: no right to create pods, no answer.
    pub(super) fn admit(
        &self,
        namespace: &str,
        workload: &str,
        injected: Value,
        mut plain: Value,
    ) -> Result<Result<(), Finding>> {
        let Err(refusal) = self.create(namespace, workload, injected)? else { return Ok(Ok(())) };
        // Where gwmon runs it would inject this one as well.
        plain["metadata"]["annotations"][INJECT] = json!("false");
        let detail = match self.create(namespace, workload, plain)? {
            Ok(()) => format!("the API server refuses the pod with the exporter, and would take it without: {refusal}"),
            Err(_) => format!("the API server refuses the pod, with the exporter and without: {refusal}"),
        };
        Ok(Err(Finding::new(Reason::PodRefused, detail)))
    }

    /// A server-side dry run; what the API server says where it refuses.
    fn create(&self, namespace: &str, workload: &str, mut pod: Value) -> Result<Result<(), String>> {
        // The API server sets or validates other metadata: an owner must have a UID.
        pod["metadata"] = json!({
            "generateName": format!("{workload}-"), "namespace": namespace,
            "labels": pod["metadata"]["labels"], "annotations": pod["metadata"]["annotations"],
        });
        let pod: DynamicObject = serde_json::from_value(pod).context("not a pod")?;
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &api_resource("v1", "Pod"));
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match self.run(api.create(&params, &pod)) {
            Ok(_) => Ok(Ok(())),
            Err(kube::Error::Api(status))
                if status.code == 403 && status.message.contains(" cannot create resource ") =>
            {
                bail!("--server needs the right to create pods: {}", status.message)
            }
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(Err(status.message.clone())),
            Err(error) => Err(error).context("cannot try the pod on the API server"),
        }
    }
}
