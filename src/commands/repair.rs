//! `gwmon repair`: roll-outs of gateways whose pods lack what gwmon would inject now.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::Selector;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::connection::Connection;
use super::diagnose::Progress;
use super::installation;
use super::output;
use super::workload_name::WorkloadName;
use crate::annotations::{EXPORTER, MONITORED_BY, STATUS};
use crate::cli::Repair;
use crate::cluster::observe::{Depth, Scope, observe};
use crate::cluster::request::{callers_error, objects};
use crate::diagnosis::gateway::Gateway;
use crate::diagnosis::path::{Probes, outdated};
use crate::diagnosis::workload::Workload;
use crate::injection::Status;
use crate::kubernetes::rollout::{Rollout, rollout};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The annotation that `kubectl rollout restart` sets as well: a change of the template makes new pods.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// A workload whose pods are to be replaced.
struct Broken {
    workload: Workload,
    why: String,
    /// True if pods run without what gwmon injects; otherwise they run something older.
    is_missed: bool,
    /// What was injected into its pods, each once.
    hashes: BTreeSet<String>,
}

fn say(line: &str) -> Result<()> {
    output::print(&format!("{line}\n"))
}

/// Restarts what needs it.
///
/// # Errors
/// No cluster, no such workload, or a right that is lacking.
pub fn run(args: &Repair) -> Result<ExitCode> {
    let wanted: Vec<WorkloadName> = args.workloads.iter().map(|name| name.parse()).collect::<Result<_>>()?;
    let connection = Connection::open(&args.cluster)?;
    let own = args.namespace.clone().unwrap_or_else(|| connection.namespace.clone());
    let scope = Scope { namespace: (!args.all_namespaces).then_some(own.as_str()), selector: args.selector.as_deref() };
    let progress = Progress::new();
    progress.says("reading the gateways");
    let broken = connection.run(find(&connection.client, scope, &wanted))?;
    drop(progress);
    if broken.is_empty() {
        say("nothing to repair")?;
        return Ok(ExitCode::SUCCESS);
    }
    let timeout = Duration::from_secs(args.timeout.unsigned_abs());
    let mut has_failed = false;
    for Broken { workload, why, is_missed, hashes } in broken {
        let name = format!("{} -n {}", workload.resource(), workload.namespace);
        let hash = match connection.run(would_be_injected(&connection.client, &workload))? {
            Ok(hash) => hash,
            Err(obstacle) => {
                say(&format!("{name}: {why}; not restarted, since {obstacle}"))?;
                has_failed = true;
                continue;
            }
        };
        // What this command predicts is not what counts.
        if !is_missed && hash.is_some_and(|hash| hashes.iter().all(|other| *other == hash)) {
            continue;
        }
        if args.dry_run {
            say(&format!("{name}: {why}; it would be restarted, and its new pods would be injected"))?;
            continue;
        }
        say(&format!("{name}: {why}; restarting it"))?;
        connection.run(restart(&connection.client, &workload))?;
        if let Err(error) = connection.run(rolled_out(&connection.client, &workload, timeout)) {
            say(&format!("{name}: {error:#}; to go back: kubectl rollout undo {name}. The rest was left as it is"))?;
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The workloads that need it, of those that are wanted.
async fn find(client: &Client, scope: Scope<'_>, wanted: &[WorkloadName]) -> Result<Vec<Broken>> {
    let found = installation::find(client).await?;
    let mut observation = observe(client, &found.installation, scope, Depth::Summary).await?;
    observation.adopt_labelled();
    for resource in ["pods", "deployments", "statefulsets", "daemonsets"] {
        if let Some(why) = observation.unread.why(resource) {
            bail!("cannot tell what needs repair: {why}");
        }
    }
    let kubernetes = observation.snapshot.kubernetes;
    let (config, note) = installation::config(client, &found.installation, kubernetes).await;
    let probes = Probes::default();
    let around = observation.surroundings(&config, note.is_none(), &probes);
    for name in wanted {
        let is_there = observation.gateways.values().any(|gateway| {
            let (kind, own) = gateway.workload_name();
            name.is(kind, own)
        });
        if !is_there {
            bail!("{name} in namespace {} is no gateway that asks for injection", scope.namespace.unwrap_or_default());
        }
    }
    let broken = observation.gateways.iter().filter_map(|(key, gateway)| {
        let workload = gateway.workload.as_ref()?;
        let is_wanted = wanted.is_empty() || wanted.iter().any(|name| name.is(&workload.kind, &workload.name));
        let outdated = outdated((&key.0, &key.1), gateway, &around);
        let why = reason(gateway, workload, outdated.unwrap_or_default())?;
        let hashes = gateway.live().filter_map(|pod| pod.injected.as_ref()).map(|(_, hash)| hash.clone()).collect();
        is_wanted.then(|| Broken { workload: workload.clone(), why, is_missed: gateway.missed() > 0, hashes })
    });
    let mut broken: Vec<_> = broken.collect();
    for index in (0..broken.len()).rev() {
        // Workload and pods were not read at one moment.
        if broken[index].is_missed && !has_bare_pod(client, &broken[index].workload).await? {
            broken.remove(index);
        }
    }
    Ok(broken)
}

/// Whether a pod of the workload runs without gwmon's label.
async fn has_bare_pod(client: &Client, workload: &Workload) -> Result<bool> {
    let object: Value = serde_json::from_str(&workload.json).context("the workload cannot be read")?;
    let selector: LabelSelector = serde_json::from_value(object["spec"]["selector"].clone())?;
    let selector: Selector = selector.try_into().context("its selector cannot be read")?;
    let pods = objects(client, &workload.namespace, ("v1", "Pod"));
    let found = pods.list_metadata(&ListParams::default().labels_from(&selector)).await.map_err(callers_error);
    let found = found.with_context(|| format!("cannot list the pods of {}", workload.resource()))?;
    Ok(found.items.iter().any(|pod| {
        let is_labelled = [MONITORED_BY, EXPORTER].iter().any(|key| pod.labels().contains_key(*key));
        !is_labelled && pod.metadata.deletion_timestamp.is_none()
    }))
}

/// Why the pods of a workload are to be replaced.
fn reason(gateway: &Gateway, workload: &Workload, outdated: usize) -> Option<String> {
    let total = gateway.total();
    if workload.is_rolling || workload.wanted == 0 {
        return None;
    }
    match (gateway.missed(), outdated) {
        (0, 0) => None,
        (0, outdated) => Some(format!("{outdated} of {total} pods run what another version or configuration injected")),
        (missed, _) => Some(format!("{missed} of {total} pods run without what gwmon injects")),
    }
}

/// The hash of what gwmon injects into a new pod of the workload, as the API server shows it in a dry run; or why it would not be
/// injected, or not be made.
async fn would_be_injected(
    client: &Client,
    workload: &Workload,
) -> Result<std::result::Result<Option<String>, String>> {
    let object: Value = serde_json::from_str(&workload.json).context("the workload cannot be read")?;
    if let Rollout::Waits(why) = rollout(&workload.kind, &object) {
        return Ok(Err(format!("its pods would not be replaced by themselves: {why}")));
    }
    let template = &object["spec"]["template"];
    let mut annotations = template["metadata"]["annotations"].clone();
    // The webhook for workloads copies it when the template changes.
    if workload.inject.is_some() {
        annotations[crate::annotations::INJECT] = json!(workload.inject);
    }
    let Workload { kind, name, uid, namespace, .. } = workload;
    let owner = json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{name}-"), "namespace": namespace, "ownerReferences": owner,
            "labels": template["metadata"]["labels"], "annotations": annotations,
        },
        "spec": template["spec"],
    });
    let pod: DynamicObject = serde_json::from_value(pod)?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match objects(client, namespace, ("v1", "Pod")).create(&params, &pod).await {
        Ok(admitted) => {
            let labels = admitted.metadata.labels.unwrap_or_default();
            let is_injected = [MONITORED_BY, EXPORTER].iter().any(|key| labels.contains_key(*key));
            let why = || {
                format!(
                    "a new pod would not be injected either; see gwmon explain {}/{name} -n {namespace}",
                    kind.to_lowercase()
                )
            };
            let status = admitted.metadata.annotations.unwrap_or_default().remove(STATUS);
            let status = status.and_then(|status| serde_json::from_str::<Status>(&status).ok());
            Ok(if is_injected { Ok(status.map(|status| status.hash)) } else { Err(why()) })
        }
        Err(kube::Error::Api(status)) if status.message.contains(" cannot create resource ") => {
            bail!("repair needs the right to create pods, for a dry run: {}", status.message)
        }
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Ok(Err(format!("the API server refuses a new pod: {}", status.message)))
        }
        Err(error) => Err(callers_error(error)).context("cannot try a new pod on the API server"),
    }
}

fn api(client: &Client, workload: &Workload) -> Api<DynamicObject> {
    objects(client, &workload.namespace, ("apps/v1", &workload.kind))
}

async fn restart(client: &Client, workload: &Workload) -> Result<()> {
    let now = time::OffsetDateTime::from(SystemTime::now());
    let annotations = json!({RESTARTED_AT: crate::certs::certificate::date(now)});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    let patched = api(client, workload).patch(&workload.name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(callers_error).with_context(|| format!("cannot restart {}", workload.resource()))
}

async fn rolled_out(client: &Client, workload: &Workload, timeout: Duration) -> Result<()> {
    let (api, started, progress) = (api(client, workload), Instant::now(), Progress::new());
    progress.says("waiting for the new pods");
    loop {
        let live = match api.get(&workload.name).await.map_err(callers_error) {
            Ok(live) => serde_json::to_value(live)?,
            Err(error) if started.elapsed() > timeout => return Err(error),
            Err(_) => {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
        };
        let conditions = live["status"]["conditions"].as_array().into_iter().flatten();
        if conditions.into_iter().any(|condition| condition["reason"] == "ProgressDeadlineExceeded") {
            bail!("its new pods do not become ready (ProgressDeadlineExceeded)");
        }
        match rollout(&workload.kind, &live) {
            Rollout::Done if has_bare_pod(client, workload).await? => {
                bail!("it was rolled out, and new pods were not injected all the same; see gwmon doctor")
            }
            Rollout::Done => {
                drop(progress);
                return say(&format!("{} -n {}: its pods are injected", workload.resource(), workload.namespace));
            }
            Rollout::Waits(why) => bail!("its pods are not replaced by themselves, since {why}"),
            Rollout::Going if started.elapsed() > timeout => bail!("it did not roll out within {timeout:?}"),
            Rollout::Going => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}
