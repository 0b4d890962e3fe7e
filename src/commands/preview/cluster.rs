//! The reads of `gwmon preview` from a cluster, with the caller's own rights.

use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::known::Known;
use crate::annotations::{INJECT, Version};
use crate::commands::{REQUEST_TIMEOUT, oldest_version};
use crate::controller::api_resource;
use crate::monitoring::objects::MONITOR;
use crate::monitoring::operator::OPERATOR_LABELS;
use crate::monitoring::scraper::Kind;
use crate::reason::{Finding, Reason};

const NETWORK_POLICY: (&str, &str) = ("networking.k8s.io/v1", "NetworkPolicy");

/// An object of a list, which leaves out what all of its objects are.
fn with_kind(mut object: DynamicObject, kind: &str) -> Value {
    object.managed_fields_mut().clear();
    let mut object = json!(object);
    object["kind"] = json!(kind);
    object
}

/// The cluster of a kube context.
pub(super) struct Cluster {
    runtime: Runtime,
    client: Client,
    /// The context's namespace.
    pub(super) namespace: String,
}

impl Cluster {
    pub(super) fn connect(context: Option<&str>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (client, namespace) = runtime.block_on(async {
            let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
            let config = Config::from_kubeconfig(&options).await.context("cannot use the kubeconfig")?;
            let namespace = config.default_namespace.clone();
            anyhow::Ok((Client::try_from(config)?, namespace))
        })?;
        Ok(Self { runtime, client, namespace })
    }

    /// Lists the objects on which the decision and the plan depend.
    pub(super) fn ask(&self) -> Result<Known> {
        self.runtime.block_on(async {
            let mut objects = Vec::new();
            let kinds = Kind::ALL.map(|(kind, version)| (version, kind.as_str(), None));
            let rest = [("v1", "Namespace"), ("v1", "LimitRange"), MONITOR, NETWORK_POLICY];
            let rest = rest.map(|(version, kind)| (version, kind, None));
            let operators = OPERATOR_LABELS.map(|label| ("apps/v1", "Deployment", Some(label)));
            for (version, kind, label) in kinds.into_iter().chain(operators).chain(rest) {
                let api = Api::<DynamicObject>::all_with(self.client.clone(), &api_resource(version, kind));
                let params = label.map_or_else(ListParams::default, |label| ListParams::default().labels(label));
                match api.list(&params).await {
                    Ok(list) => objects.extend(list.items.into_iter().map(|object| with_kind(object, kind))),
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    // Not knowing of any is no more than not being told.
                    Err(kube::Error::Api(status)) if status.code == 403 && kind == NETWORK_POLICY.1 => {}
                    Err(error) => return Err(error).with_context(|| format!("cannot list {kind} objects")),
                }
            }
            let mut known = Known::of(&objects)?;
            known.kubernetes =
                oldest_version(&self.client).await.context("cannot ask the API server for its version")?;
            Ok(known)
        })
    }

    /// The version of the cluster's oldest part, as far as the caller may see that.
    pub(super) fn version(&self) -> Result<Option<Version>> {
        let asking = oldest_version(&self.client);
        self.runtime.block_on(asking).context("cannot ask the API server for its version")
    }

    /// The LimitRanges of a namespace; none where the caller may not read them.
    pub(super) fn limit_ranges(&self, namespace: &str) -> Result<Vec<Value>> {
        let api =
            Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &api_resource("v1", "LimitRange"));
        match self.runtime.block_on(api.list(&ListParams::default())) {
            Ok(list) => Ok(list.items.into_iter().map(|range| with_kind(range, "LimitRange")).collect()),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(vec![]),
            Err(error) => Err(error).with_context(|| format!("cannot list LimitRanges in {namespace}")),
        }
    }

    /// Has the API server admit an injected pod without making it, through all that stands there: other webhooks, policies,
    /// Pod Security, quotas. `plain` is the same pod, or pod template, without what gwmon adds.
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
        // Of the rest the API server makes its own, or checks it: an owner must have a UID.
        pod["metadata"] = json!({
            "generateName": format!("{workload}-"), "namespace": namespace,
            "labels": pod["metadata"]["labels"], "annotations": pod["metadata"]["annotations"],
        });
        let pod: DynamicObject = serde_json::from_value(pod).context("not a pod")?;
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &api_resource("v1", "Pod"));
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let created =
            self.runtime.block_on(async { tokio::time::timeout(REQUEST_TIMEOUT, api.create(&params, &pod)).await });
        match created.with_context(|| format!("no answer from the API server in {REQUEST_TIMEOUT:?}"))? {
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
