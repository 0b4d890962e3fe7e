//! The decision: which pod gets the exporter, and how its gateway is configured to send to it. Four phases: detect what the pod
//! is, plan what it gets, check that it can have that, render it as a patch. Pure.

pub mod bootstrap;
pub mod changes;
mod checks;
mod claims;
mod command;
mod confirm;
mod detect;
pub mod exporter;
pub mod gateway;
mod mesh;
mod naming;
pub mod patch;
mod plan;
pub mod predict;
mod render;
pub mod resources;
mod status;
pub mod workload;
mod yaml_insert;

use crate::annotations::{INJECT, Settings, TRIAL, is_enabled};
use crate::config::Config;
use crate::kubernetes::labels::Labels;
use crate::kubernetes::pod::Pod;
use crate::reason::{Finding, Reason};
use checks::check;
pub use confirm::confirm;
use detect::detect;
pub use mesh::intercepted;
pub use naming::{monitor_name, workload_named, workload_of};
use patch::Patch;
use plan::plan;
use render::render;
use resources::LimitRange;
pub use status::{Status, StatusMode};

/// A pod that is to be changed.
#[derive(Debug)]
pub struct Injection {
    /// The operations, for just this pod.
    pub patch: Patch,
    /// The result, for the status annotation.
    pub status: Status,
    /// Warnings; the change is made all the same.
    pub warnings: Vec<Finding>,
    /// The name of the workload's monitor.
    pub monitor: String,
}

impl Injection {
    /// Returns true if the pod gets a container.
    #[must_use]
    pub const fn adds_exporter(&self) -> bool {
        self.status.statsd_port.is_some()
    }

    /// Annotates the pod as the trial of the suspension with this start.
    pub fn mark_trial(&mut self, since: i64) {
        // The map is there, or made for the status.
        self.patch.add(&["metadata", "annotations", TRIAL], patch::quoted(&since.to_string()));
    }
}

/// The decision on a pod. There is no "deny": whatever it is, the pod is admitted.
#[derive(Debug)]
pub enum Decision {
    /// The pod is injected.
    Inject(Box<Injection>),
    /// Nothing is to be done: the pod does not ask, or was injected already.
    Skip(Finding),
    /// The pod asks and cannot be injected. The finding has the fix.
    Cannot(Finding),
}

impl Decision {
    /// The injection.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn injection(self) -> Result<Injection, Finding> {
        match self {
            Self::Inject(injection) => Ok(*injection),
            Self::Skip(finding) | Self::Cannot(finding) => Err(finding),
        }
    }
}

impl From<Result<Injection, Finding>> for Decision {
    fn from(decided: Result<Injection, Finding>) -> Self {
        match decided {
            Ok(injection) => Self::Inject(Box::new(injection)),
            Err(finding) if finding.is_warning() => Self::Cannot(finding),
            Err(finding) => Self::Skip(finding),
        }
    }
}

/// Describes a pod's gateway: its kind, its version if the image shows it, and its container. `None` if there is
/// none.
#[must_use]
pub fn describe_gateway(pod: &str) -> Option<String> {
    let pod = Pod::parse(pod).ok()?;
    let (index, gateway) = gateway::find(&pod, &Settings::default()).ok()?;
    let container = pod.spec.containers.as_ref()?.get(index?)?;
    let version = container.version().map(|version| format!(" {version}")).unwrap_or_default();
    Some(format!("{}{version}, in container {}", gateway.name, container.name))
}

/// Decides on a pod as the API server sends it, in a namespace with these `LimitRange`s.
#[must_use]
pub fn decide(config: &Config, limits: &[LimitRange], pod: &str) -> Decision {
    Pod::parse(pod).and_then(|pod| decide_for(config, limits, &pod, Asker::Pod)).into()
}

/// Decides on a pod without `gwmon.io/inject`, in a namespace whose label asks for all its gateways. Whatever is no gateway, or has one
/// only beside it, is left alone without a word.
#[must_use]
pub fn decide_by_namespace(config: &Config, limits: &[LimitRange], pod: &str) -> Decision {
    Pod::parse(pod).and_then(|pod| decide_unasked(config, limits, &pod)).into()
}

fn decide_unasked(config: &Config, limits: &[LimitRange], pod: &Pod) -> Result<Injection, Finding> {
    if !gateway::is_gateway(pod) {
        let why = "no container is a known gateway, or it is an application's proxy";
        return Err(Finding::new(Reason::NotAGateway, why));
    }
    decide_for(config, limits, pod, Asker::Namespace)
}

/// Decides on a pod that the API server would send to one of the two webhooks for pods: by its annotation or, without one, by the
/// labels of its namespace.
#[must_use]
pub fn decide_in(config: &Config, limits: &[LimitRange], namespace: &Labels, pod: &str) -> Decision {
    let decide = |pod: Pod| match pod.metadata.annotation(INJECT) {
        None if is_enabled(namespace) => decide_unasked(config, limits, &pod),
        _ => decide_for(config, limits, &pod, Asker::Pod),
    };
    Pod::parse(pod).and_then(decide).into()
}

/// Who asks for a pod's injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker<'a> {
    /// The pod's own annotation.
    Pod,
    /// The template's annotation, of the workload with this name.
    Workload(&'a str),
    /// The label of the namespace.
    Namespace,
}

fn decide_for(config: &Config, limits: &[LimitRange], pod: &Pod, asker: Asker) -> Result<Injection, Finding> {
    let detection = detect(config, pod, asker)?;
    let mut plan = plan(config, limits, pod, detection)?;
    plan.warnings.extend(check(pod, &plan)?);
    Ok(render(config, pod, plan))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::{MONITORED_BY, RELAY, RESOURCES, STATUS};
    use serde_json::{Value, json};

    fn pod(extra: &Value) -> Value {
        let mut pod = json!({
            "metadata": {
                "annotations": {"gwmon.io/inject": "true"},
                "labels": {"pod-template-hash": "6d4b"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "edge-6d4b", "controller": true}],
            },
            "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/e.yaml"]}]},
        });
        json_patch::merge(&mut pod, extra);
        pod
    }

    fn reason(extra: &Value) -> Reason {
        decide(&Config::default(), &[], &pod(extra).to_string()).injection().unwrap_err().reason
    }

    #[test]
    fn surroundings_that_forbid_a_sidecar_have_their_reason() {
        for (extra, expected) in [
            (json!({"metadata": {"annotations": null}}), Reason::NotRequested),
            (json!({"metadata": {"ownerReferences": null}}), Reason::NoWorkload),
            (
                json!({"metadata": {"name": "edge", "ownerReferences": [{"kind": "Node", "name": "n", "controller": true}]}}),
                Reason::NoWorkload,
            ),
            (
                json!({"metadata": {"name": "edge", "ownerReferences": null, "annotations": {"gwmon.io/sidecar": "regular"}}, "spec": {"restartPolicy": "Never"}}),
                Reason::JobPod,
            ),
            (json!({"spec": {"hostNetwork": true}}), Reason::HostNetwork),
            (json!({"spec": {"os": {"name": "windows"}}}), Reason::WindowsPod),
            (json!({"spec": {"nodeSelector": {"kubernetes.io/os": "windows"}}}), Reason::WindowsPod),
            (json!({"spec": {"initContainers": [{"name": "gwmon-statsd-exporter"}]}}), Reason::AlreadyInjected),
            (
                json!({"metadata": {"annotations": {"gwmon.io/metrics-port": "9102"}}, "spec": {"initContainers": [{"name": "x", "ports": [{"containerPort": 9102}]}]}}),
                Reason::PortInUse,
            ),
            (
                json!({"metadata": {"annotations": {"gwmon.io/statsd-port": "9125"}}, "spec": {"initContainers": [{"name": "x", "ports": [{"containerPort": 9125, "protocol": "UDP"}]}]}}),
                Reason::PortInUse,
            ),
            (
                json!({"metadata": {"annotations": {"gwmon.io/sidecar": "regular"}, "ownerReferences": [{"kind": "Job", "name": "j", "controller": true}]}}),
                Reason::JobPod,
            ),
            (
                json!({"metadata": {"annotations": {"gwmon.io/discovery": "both", "prometheus.io/port": "8080"}}}),
                Reason::ScrapeAnnotationConflict,
            ),
            (json!({"spec": {"containers": []}}), Reason::NoGateway),
            (
                json!({"spec": {"containers": vec![json!({"name": "x", "image": "envoyproxy/envoy:v1.34.0"}); 101]}}),
                Reason::TooLarge,
            ),
            (
                json!({"spec": {"initContainers": [{"name": "x", "ports": vec![json!({"containerPort": 1}); 4097]}]}}),
                Reason::TooLarge,
            ),
            (json!({"spec": null}), Reason::MalformedObject),
        ] {
            assert_eq!(reason(&extra), expected, "{extra}");
        }
    }

    /// The pod after its admission.
    fn admitted(extra: &Value) -> Value {
        let mut pod = pod(extra);
        let injection = decide(&Config::default(), &[], &pod.to_string()).injection().unwrap();
        json_patch::patch(&mut pod, &injection.patch.to_operations().unwrap()).unwrap();
        let again = decide(&Config::default(), &[], &pod.to_string()).injection().unwrap_err();
        assert_eq!(again.reason, Reason::AlreadyInjected, "{extra}");
        pod
    }

    #[test]
    fn a_port_that_is_taken_and_not_asked_for_is_passed_over() {
        let taken = json!({"spec": {"initContainers": [{"name": "x", "ports": [{"containerPort": 9102}, {"containerPort": 9125, "protocol": "UDP"}]}]}});
        let sidecar = &admitted(&taken)["spec"]["initContainers"][0];
        assert_eq!(sidecar["ports"][0]["containerPort"], 9103);
        assert_eq!(sidecar["args"][0], "--statsd.listen-udp=127.0.0.1:9126");
    }

    #[test]
    fn what_would_not_start_beside_it_keeps_the_exporter_out() {
        let agent = json!({"spec": {"containers": [
            {"name": "ambassador", "image": "emissaryingress/emissary:3.9.1"}, {"name": "dd", "image": "gcr.io/datadoghq/agent:7"}]}});
        assert_eq!(reason(&agent), Reason::PortInUse);
        assert_eq!(reason(&json!({"metadata": {"annotations": {"gwmon.io/metrics-port": "9901"}}})), Reason::PortInUse);
        let full = json!({"metadata": {"annotations": {"big": "x".repeat(262_000)}}});
        assert_eq!(reason(&full), Reason::AnnotationsTooLarge);
    }

    #[test]
    fn the_exporter_is_neither_root_nor_the_user_that_istio_lets_by() {
        let user = |run_as: Value| {
            let pod = admitted(&json!({"spec": {"securityContext": {"runAsUser": run_as}}}));
            pod["spec"]["initContainers"][0]["securityContext"]["runAsUser"].clone()
        };
        assert_eq!((user(json!(0)), user(json!(1337))), (json!(65534), json!(65534)));
        assert_eq!((user(Value::Null), user(json!(1_000_650_000))), (Value::Null, Value::Null));
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let said = |extra: Value| -> Vec<String> {
            let injection = decide(&Config::default(), &[], &pod(&extra).to_string()).injection().unwrap();
            injection.warnings.into_iter().map(|warning| warning.detail).collect()
        };
        let relay = said(json!({"metadata": {"annotations": {"gwmon.io/relay": "true"}}}));
        assert!(relay.len() == 1 && relay[0].contains(RELAY), "{relay:?}");
        let kong = said(json!({
            "metadata": {"annotations": {"gwmon.io/resources": "cpu=50m", "gwmon.io/container": "envoy"}},
            "spec": {"containers": [{"name": "envoy", "image": "kong:3.9"}]},
        }));
        assert!(kong.len() == 1 && kong[0].contains(RESOURCES), "{kong:?}");
        assert!(said(json!({})).is_empty());
    }

    #[test]
    fn a_plain_container_stands_last_and_keeps_its_port_name() {
        let asked = json!({"metadata": {"annotations": {"gwmon.io/sidecar": "regular"}}});
        let spec = &admitted(&asked)["spec"];
        let sidecar = &spec["containers"][1];
        assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&json!(exporter::CONTAINER), &Value::Null));
        assert_eq!(sidecar["ports"][0]["name"], exporter::PORT_NAME);
        assert!(spec["initContainers"].is_null());
    }

    #[test]
    fn a_gateway_that_serves_metrics_itself_gets_no_container() {
        let scrape = json!({"metadata": {"annotations": {"gwmon.io/mode": "scrape", "gwmon.io/metrics-port": "9901"}}});
        let pod = admitted(&scrape);
        assert!(pod["spec"]["initContainers"].is_null() && pod["spec"]["volumes"].is_null());
        assert_eq!(pod["metadata"]["labels"][MONITORED_BY], "edge-gwmon");
        let status: Status = serde_json::from_str(pod["metadata"]["annotations"][STATUS].as_str().unwrap()).unwrap();
        assert_eq!(
            (status.mode, status.metrics_port, status.metrics_path.as_str()),
            (status::StatusMode::Scrape, 9901, "/stats/prometheus")
        );
    }

    #[test]
    fn a_pod_that_nobody_owns_is_its_own_workload() {
        let bare = |extra: Value| {
            let mut pod = json!({"metadata": {"name": "solo", "ownerReferences": null}});
            json_patch::merge(&mut pod, &extra);
            decide(&Config::default(), &[], &self::pod(&pod).to_string()).injection().unwrap()
        };
        let injection = bare(json!({}));
        assert_eq!(injection.monitor, "solo-gwmon");
        assert_eq!(injection.warnings.iter().map(|w| w.reason).collect::<Vec<_>>(), [Reason::PodNotReappliable]);
        let image = json!([{"name": "ambassador", "image": "emissaryingress/emissary:3.9.1"}]);
        assert!(bare(json!({"spec": {"containers": image}})).warnings.is_empty(), "variables have names");
    }

    #[test]
    fn pods_are_found_as_the_user_wants_them_to_be() {
        for (discovery, is_labelled, is_annotated) in
            [("monitor", true, false), ("annotations", false, true), ("both", true, true)]
        {
            let pod = admitted(&json!({"metadata": {"annotations": {"gwmon.io/discovery": discovery}}}));
            let annotations = &pod["metadata"]["annotations"];
            assert_eq!(pod["metadata"]["labels"][MONITORED_BY].is_string(), is_labelled, "{discovery}");
            assert_eq!(annotations["prometheus.io/port"] == "9102", is_annotated, "{discovery}");
            assert_eq!(annotations["prometheus.io/path"] == "/metrics", is_annotated, "{discovery}");
        }
    }

    #[test]
    fn what_vpa_has_set_on_the_sidecar_stays() {
        let mut pod = admitted(&json!({}));
        pod["spec"]["initContainers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        assert_eq!(
            decide(&Config::default(), &[], &pod.to_string()).injection().unwrap_err().reason,
            Reason::AlreadyInjected
        );
    }

    #[test]
    fn the_hash_changes_with_what_is_injected_and_with_nothing_else() {
        let hash =
            |extra: Value| decide(&Config::default(), &[], &pod(&extra).to_string()).injection().unwrap().status.hash;
        let base = hash(json!({}));
        assert_eq!(hash(json!({"metadata": {"labels": {"app": "x"}}})), base);
        for (key, value) in [
            ("metrics-port", "9200"),
            ("resources", "cpu=30m"),
            ("profile", "bakins"),
            ("sidecar", "regular"),
            ("discovery", "both"),
        ] {
            let annotation = format!("gwmon.io/{key}");
            assert_ne!(hash(json!({"metadata": {"annotations": {annotation: value}}})), base, "{key}");
        }
    }
}
