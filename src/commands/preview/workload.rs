//! One object with a pod template: what the webhook and the controller would make of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::annotations::{INJECT, MODE, MONITORED_BY};
use crate::cluster::Snapshot;
use crate::config::Config;
use crate::injection::exporter::PORT_NAME;
use crate::injection::predict::{Predicted, annotation, apply, controller, is_copied, place, predict, template_path};
use crate::injection::{self, Decision, Injection};
use crate::kubernetes::pod::Pod;
use crate::manifest::{display_name, namespace_of};
use crate::monitoring::network::{Reader, Scraped, closes, denying};
use crate::monitoring::{CurrentState, Plan, ScrapeTarget, plan};
use crate::reason::Finding;

/// One workload as it would run, and what would be made for it.
pub(in crate::commands) struct Previewed<'c> {
    pub(in crate::commands) after: Value,
    pub(in crate::commands) injection: Injection,
    /// `None` for discovery by annotations.
    pub(in crate::commands) plan: Option<Plan<'c>>,
    /// A NetworkPolicy that keeps Prometheus from the pod.
    pub(super) closed: Option<Finding>,
}

/// The reason why gwmon cannot read an object: a field that is not a map.
pub(in crate::commands) fn malformed(object: &Value) -> Option<String> {
    let path = template_path(object).unwrap_or_default();
    ["", path].into_iter().find_map(|path| {
        let metadata = object.pointer(path)?.get("metadata")?;
        let is_map = |value: &Value| value.is_object() || value.is_null();
        let shown = |field: &str| {
            format!("{}: it must be a map", format!("{path}/{field}").trim_start_matches('/').replace('/', "."))
        };
        if !is_map(metadata) {
            return Some(shown("metadata"));
        }
        let field =
            ["annotations", "labels"].into_iter().find(|field| metadata.get(*field).is_some_and(|map| !is_map(map)))?;
        Some(shown(&format!("metadata/{field}")))
    })
}

/// The command that has a gateway without an annotation monitored; `None` if the object is not a gateway, or another
/// object makes it.
pub(super) fn advice(object: &Value, path: &str, namespace: &str) -> Option<String> {
    if controller(object).is_some() {
        return None;
    }
    let pod = object.pointer(path)?;
    let gateway = injection::describe_gateway(&pod.to_string())?;
    let name = display_name(object, namespace);
    Some(if is_copied(object) {
        format!("it is {gateway}; to have it monitored: kubectl annotate {name} {INJECT}=true")
    } else {
        format!("it is {gateway}; to have it monitored, set {INJECT}: \"true\" {}", place(path))
    })
}

/// Requests injection if a gateway has no annotation.
pub(in crate::commands) fn ask(object: &mut Value, path: &str) {
    if annotation(object, path, INJECT).is_some() || advice(object, path, "").is_none() {
        return;
    }
    let path = if is_copied(object) { "" } else { path };
    if let Some(target) = object.pointer_mut(path) {
        target["metadata"]["annotations"][INJECT] = json!("true");
    }
}

/// Previews an object with a pod template at this path.
///
/// # Errors
/// The reason why its pods stay as they are.
pub(in crate::commands) fn preview<'c>(
    config: &Config,
    snapshot: &'c Snapshot,
    object: &Value,
    path: &str,
    namespace: &str,
) -> Result<Previewed<'c>, Finding> {
    let namespace = namespace_of(object, namespace);
    let limits = snapshot.limit_ranges.get(namespace).map_or(&[][..], Vec::as_slice);
    let labels = snapshot.monitoring.namespace_labels(namespace);
    let Predicted { workload: mut after, mut pod, injection } =
        predict(config, limits, (namespace, &labels), object, path)?;
    // Kept only where it will be asked for.
    let asked = (!snapshot.network_policies.is_empty()).then(|| pod.clone());
    apply(&mut pod, &injection.patch)?;

    let metadata = Pod::parse(&pod.to_string())?.metadata;
    let none = BTreeMap::new();
    let annotations = metadata.annotations.as_ref().unwrap_or(&none);
    let gateway = ScrapeTarget::of_pod(config, namespace, &injection.monitor, annotations, None)?;
    let existing_monitors = snapshot.existing_monitors.get(namespace).map_or(&[][..], Vec::as_slice);
    let current = CurrentState { existing_monitors, ..CurrentState::default() };
    let plan =
        metadata.label(MONITORED_BY).is_some().then(|| plan(&gateway, &snapshot.monitoring, &config.bounds, &current));
    let closed = asked.and_then(|asked| closed(config, snapshot, namespace, plan.as_ref(), &injection, (asked, &pod)));
    if path.is_empty() {
        after = pod;
    } else if let (Some(template), Some(map)) = (after.pointer_mut(path), pod["metadata"].as_object_mut()) {
        map.remove("ownerReferences");
        *template = pod;
    }
    Ok(Previewed { after, injection, plan, closed })
}

/// The `NetworkPolicy`s that keep Prometheus away, with the rule to add, and with the gateway's own port where that is open.
fn closed(
    config: &Config,
    snapshot: &Snapshot,
    namespace: &str,
    plan: Option<&Plan>,
    injection: &Injection,
    (mut own, pod): (Value, &Value),
) -> Option<Finding> {
    let port = injection.status.metrics_port;
    let labels = serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
    let ports = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = ports.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let name = if injection.adds_exporter() {
        Some(PORT_NAME)
    } else {
        ports.find(|declared| declared["containerPort"] == port).and_then(|declared| declared["name"].as_str())
    };
    let readers = plan.into_iter().flat_map(|plan| &plan.readers);
    let readers: Vec<_> = readers.map(|reader| Reader::of(reader, &snapshot.monitoring)).collect();
    // Whether a policy holds for the node's own addresses is up to each network plugin.
    if pod["spec"]["hostNetwork"] == true {
        return None;
    }
    let scraped = Scraped { namespace, labels: &labels, port, name };
    let Finding { reason, mut detail } = closes(&snapshot.network_policies, &scraped, &readers)?;
    // The gateway's own endpoint, which its chart may have opened.
    own["metadata"]["annotations"][MODE] = json!("scrape");
    if injection.adds_exporter()
        && let Decision::Inject(own) = injection::decide(config, &[], &own.to_string())
        && own.warnings.is_empty()
        && denying(
            &snapshot.network_policies,
            &Scraped { port: own.status.metrics_port, name: None, ..scraped },
            &readers,
        )
        .is_empty()
    {
        let _ = write!(
            detail,
            "; or set {MODE}: scrape, which scrapes port {}, which the policies allow",
            own.status.metrics_port
        );
    }
    Some(Finding::new(reason, detail))
}
