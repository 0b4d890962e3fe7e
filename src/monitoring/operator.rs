//! The scope of a Prometheus Operator: the flags of its Deployment (prometheus-operator 0.93,
//! `cmd/operator/main.go`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::selector::Selector;
use crate::kubernetes::Version;
use crate::kubernetes::pod::{Container, PodSpec, or_null, parse};
use crate::reason::Finding;

/// One operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// `namespace/name` of its Deployment.
    pub name: String,
    /// `--namespaces`; `None` is all of them.
    namespaces: Option<BTreeSet<String>>,
    /// `--deny-namespaces`.
    denied: BTreeSet<String>,
    /// `--prometheus-instance-namespaces`; `None`: as `namespaces`. Has no effect on monitors.
    instance_namespaces: Option<BTreeSet<String>>,
    /// `--prometheus-instance-selector`.
    instances: Selector,
    /// `--controller-id`; empty where there is none.
    controller_id: String,
    /// Feature gate `StatusForConfigurationResources`: it writes on a monitor who has taken it.
    pub writes_bindings: bool,
    /// True if it writes conditions on the objects that it runs: since 0.57.
    pub(super) writes_conditions: bool,
    /// The state of its pods, as far as its Deployment shows.
    pub(super) running: Running,
    /// Flags whose value is not in the manifest or not valid; they count as absent.
    pub unread: Vec<String>,
}

/// The state of an operator's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Running {
    /// The Deployment has had no replica yet, or is to have none: it may be no operator at all.
    Never,
    /// It has been rolled out, and no replica is available at the moment.
    NotNow,
    /// A replica is available, or a manifest does not tell.
    #[default]
    Now,
}

#[derive(Deserialize)]
struct Deployment<'a> {
    #[serde(default, deserialize_with = "or_null")]
    metadata: Metadata,
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(default, deserialize_with = "or_null")]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, deserialize_with = "or_null")]
    name: String,
    #[serde(default, deserialize_with = "or_null")]
    namespace: String,
}

#[derive(Deserialize)]
struct Spec<'a> {
    replicas: Option<i64>,
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Deserialize)]
struct Template<'a> {
    #[serde(borrow)]
    spec: PodSpec<'a>,
}

/// Empty in a manifest, which says nothing of a cluster.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    observed_generation: Option<i64>,
    available_replicas: Option<i64>,
    #[serde(default, deserialize_with = "or_null")]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(default)]
    reason: String,
}

impl Status {
    /// Returns true if the Deployment was rolled out once; about the present it says nothing.
    fn was_rolled_out(&self) -> bool {
        self.conditions.iter().any(|condition| condition.reason == "NewReplicaSetAvailable")
    }
}

impl Operator {
    /// Reads a Deployment. `None` where no container of it is a Prometheus Operator, by its name or that of its image.
    ///
    /// # Errors
    /// [`crate::reason::Reason::MalformedObject`], naming the field.
    pub fn parse(json: &str) -> Result<Option<Self>, Finding> {
        let deployment: Deployment = parse(json)?;
        let is_operator = |container: &&Container| {
            container.name == "prometheus-operator" || container.image_parts().0.last() == Some(&"prometheus-operator")
        };
        let Some(container) = deployment.spec.template.spec.containers.iter().flatten().find(is_operator) else {
            return Ok(None);
        };
        let environment: BTreeMap<String, Option<String>> =
            container.read_env()?.into_iter().map(|variable| (variable.name, variable.value)).collect();
        let Metadata { name, namespace } = deployment.metadata;
        let status = deployment.status;
        let running = if deployment.spec.replicas == Some(0) {
            Running::Never
        } else if status.observed_generation.is_none() || status.available_replicas.is_some_and(|count| count > 0) {
            Running::Now
        } else if status.was_rolled_out() {
            Running::NotNow
        } else {
            Running::Never
        };
        let writes_conditions = container.version().is_none_or(|version| version >= CONDITIONS_SINCE);
        let mut operator = Self { name: format!("{namespace}/{name}"), writes_conditions, running, ..Self::default() };
        // The first word of a command is the program.
        let mut arguments = container.command.iter().skip(1).chain(container.args.iter().flatten()).peekable();
        // As Go's package flag does: up to the first word that is no flag, or to `--`.
        while let Some(argument) = arguments.next().filter(|argument| argument.len() > 1 && *argument != "--") {
            let Some(flag) = argument.strip_prefix('-') else { break };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (flag, value) = match flag.split_once('=') {
                Some((flag, value)) => (flag, value),
                None if SWITCHES.contains(&flag) => continue,
                None => (flag, arguments.next().map_or("", String::as_str)),
            };
            operator.set(flag, value, &environment);
        }
        Ok(Some(operator))
    }

    fn set(&mut self, flag: &str, text: &str, environment: &BTreeMap<String, Option<String>>) {
        if !FLAGS.contains(&flag) {
            return;
        }
        let Some(value) = expand(text, environment) else {
            self.unread.push(format!("--{flag}={text}"));
            return;
        };
        // A list that is given again adds to what it was.
        let names = || value.split(',').map(str::to_owned);
        match flag {
            "namespaces" => self.namespaces.get_or_insert_default().extend(names()),
            "deny-namespaces" => self.denied.extend(names()),
            "prometheus-instance-namespaces" => self.instance_namespaces.get_or_insert_default().extend(names()),
            "controller-id" => self.controller_id = value,
            "feature-gates" => {
                let gate = value.split(',').rev().find_map(|gate| gate.trim().strip_prefix(BINDINGS_GATE));
                // The words that Go takes for true.
                let is_on = |word: &str| matches!(word.trim(), "1" | "t" | "T" | "true" | "TRUE" | "True");
                self.writes_bindings = gate.map_or(self.writes_bindings, is_on);
            }
            _ => match Selector::parse_text(&value) {
                Ok(selector) => self.instances = selector,
                Err(why) => self.unread.push(format!("--{flag}: {why}")),
            },
        }
    }

    /// Returns true if the operator sees ServiceMonitors in this namespace.
    pub(super) fn watches(&self, namespace: &str) -> bool {
        is_among(self.namespaces.as_ref(), namespace) && !self.denied.contains(namespace)
    }

    /// Returns true if the operator knows the namespace itself, with its labels. It lists namespaces by a label
    /// selector, which, unlike its lists of monitors, ignores blanks around a name and takes the empty name
    /// literally.
    pub(super) fn knows(&self, namespace: &str) -> bool {
        let has = |names: &BTreeSet<String>| names.iter().any(|name| name.trim() == namespace);
        match &self.namespaces {
            Some(names) if names.iter().any(|name| !name.is_empty()) => has(names),
            _ => !has(&self.denied),
        }
    }

    /// Checks that this operator runs a `Prometheus` or `PrometheusAgent`.
    ///
    /// # Errors
    /// The flag that leaves it out, with both sides.
    pub(super) fn handles(&self, instance: &Instance) -> Result<(), String> {
        let Self { name, .. } = self;
        let looks_there = match &self.instance_namespaces {
            Some(names) if names.iter().all(String::is_empty) => !self.denied.contains(instance.namespace),
            // The other two flags then have no effect on instances.
            Some(names) => is_among(Some(names), instance.namespace),
            None => self.watches(instance.namespace),
        };
        if !looks_there {
            return Err(format!("operator {name} does not look into namespace {}", instance.namespace));
        }
        if let Err(mismatch) = self.instances.check(instance.labels) {
            return Err(format!("operator {name}'s --prometheus-instance-selector {mismatch}"));
        }
        let (ours, theirs) = (&self.controller_id, instance.controller_id);
        if ours != theirs {
            let shown = |id: &str| if id.is_empty() { "none".to_owned() } else { format!("{id:?}") };
            return Err(format!(
                "operator {name}'s --controller-id is {}, the annotation {CONTROLLER_ID} {}",
                shown(ours),
                shown(theirs)
            ));
        }
        Ok(())
    }
}

/// By either of these an operator's Deployment is found: kube-prometheus' and the operator's own `bundle.yaml` set the
/// first, the kube-prometheus-stack chart the second.
pub const OPERATOR_LABELS: [&str; 2] =
    ["app.kubernetes.io/name=prometheus-operator", "app.kubernetes.io/component=prometheus-operator"];

/// Ties a Prometheus to the operator with that `--controller-id`.
pub(super) const CONTROLLER_ID: &str = "operator.prometheus.io/controller-id";

/// The fields by which an operator decides whether a Prometheus is its own.
pub(super) struct Instance<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: &'a crate::kubernetes::labels::Labels,
    pub(super) controller_id: &'a str,
}

const FLAGS: &[&str] = &[
    "namespaces",
    "deny-namespaces",
    "prometheus-instance-namespaces",
    "prometheus-instance-selector",
    "controller-id",
    "feature-gates",
];

/// Flags that are true or false, and so take no word after them.
const SWITCHES: &[&str] = &[
    "disable-unmanaged-prometheus-configuration",
    "enable-config-reloader-probes",
    "kubelet-endpoints",
    "kubelet-endpointslice",
    "kubelet-http-metrics",
    "short-version",
    "tls-insecure",
    "version",
    "watch-referenced-objects-in-all-namespaces",
    "web.enable-http2",
    "web.enable-tls",
];

const CONDITIONS_SINCE: Version = Version(0, 57);
const BINDINGS_GATE: &str = "StatusForConfigurationResources=";

/// Returns true if a list of namespaces has this one. An absent list has all, and so has the empty name.
fn is_among(names: Option<&BTreeSet<String>>, namespace: &str) -> bool {
    names.is_none_or(|names| names.contains(namespace) || names.contains(""))
}

/// Replaces `$(NAME)` as the kubelet does. `None` where a value comes from elsewhere than the manifest.
fn expand(text: &str, environment: &BTreeMap<String, Option<String>>) -> Option<String> {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, reference)) = rest.split_once("$(") {
        let (name, after) = reference.split_once(')')?;
        expanded.extend([before, environment.get(name)?.as_deref()?]);
        rest = after;
    }
    Some(expanded + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::labels::Labels;
    use serde_json::{Value, json};

    fn deployment(args: &[&str]) -> Value {
        let env = json!([{"name": "WHERE", "value": "a,b"}, {"name": "SECRET", "valueFrom": {}}]);
        let container = json!({"name": "o", "image": "quay.io/prometheus-operator/prometheus-operator:v0.93.1", "args": args, "env": env});
        json!({"metadata": {"name": "o", "namespace": "n"}, "spec": {"template": {"spec": {"containers": [container]}}}})
    }

    fn operator(args: &[&str]) -> Operator {
        Operator::parse(&deployment(args).to_string()).unwrap().unwrap()
    }

    #[test]
    fn flags_are_read_in_every_form_that_go_takes() {
        for args in [
            &["--namespaces=a,b"][..],
            &["-namespaces=a,b"],
            &["--namespaces", "a,b"],
            &["--version", "--log-level", "debug", "--namespaces=$(WHERE)"],
            &["--namespaces=b", "--namespaces=a"],
        ] {
            let operator = operator(args);
            assert!(operator.watches("a") && operator.watches("b") && !operator.watches("c"), "{args:?}");
        }
        for args in [
            &["--namespaces="][..],
            &["check", "--namespaces=a"],
            &["--version", "x", "--namespaces=a"],
            &["--", "--namespaces=a"],
        ] {
            assert!(operator(args).watches("any"), "{args:?}");
        }
        assert!(!operator(&["--deny-namespaces=a"]).watches("a"));
        for (gates, writes) in [
            ("X=true, StatusForConfigurationResources=1", true),
            ("StatusForConfigurationResources=true,X=false", true),
            ("X=true", false),
        ] {
            assert_eq!(operator(&["--feature-gates", gates]).writes_bindings, writes);
        }
    }

    #[test]
    fn the_lists_of_namespaces_say_nothing_of_instances_that_have_their_own() {
        let handles = |args: &[&str]| {
            let instance = Instance { namespace: "monitoring", labels: &Labels::new(), controller_id: "" };
            operator(args).handles(&instance).is_ok()
        };
        assert!(handles(&["--deny-namespaces=monitoring", "--prometheus-instance-namespaces=monitoring"]));
        assert!(!handles(&["--deny-namespaces=monitoring"]));
        assert!(!handles(&["--deny-namespaces=monitoring", "--prometheus-instance-namespaces="]));
        assert!(!handles(&["--namespaces=monitoring", "--prometheus-instance-namespaces=other"]));
    }

    #[test]
    fn an_operator_that_has_no_pods_runs_nothing() {
        let running = |replicas: u8, status: Value| {
            let mut deployment = deployment(&[]);
            deployment["spec"]["replicas"] = json!(replicas);
            deployment["status"] = status;
            Operator::parse(&deployment.to_string()).unwrap().unwrap().running
        };
        let status = |available: u8, reason: &str| json!({"observedGeneration": 1, "availableReplicas": available, "conditions": [{"type": "Progressing", "reason": reason}]});
        assert_eq!(running(1, Value::Null), Running::Now);
        assert_eq!(running(1, json!({})), Running::Now);
        assert_eq!(running(0, status(1, "NewReplicaSetAvailable")), Running::Never);
        assert_eq!(running(1, status(0, "ReplicaSetUpdated")), Running::Never);
        assert_eq!(running(1, status(0, "NewReplicaSetAvailable")), Running::NotNow);
        assert_eq!(running(1, status(1, "NewReplicaSetAvailable")), Running::Now);
    }

    #[test]
    fn what_cannot_be_read_restricts_nothing_and_is_told() {
        for arg in ["--namespaces=$(SECRET)", "--namespaces=$(ABSENT)", "--prometheus-instance-selector=a b"] {
            let operator = operator(&[arg]);
            assert!(operator.watches("any") && operator.unread.len() == 1, "{arg}");
        }
    }

    #[test]
    fn another_deployment_is_no_operator() {
        let other = json!({"spec": {"template": {"spec": {"containers": [{"name": "o", "image": "nginx"}]}}}});
        assert_eq!(Operator::parse(&other.to_string()).unwrap(), None);
    }
}
