//! What a Prometheus Operator looks after: the flags of its Deployment (prometheus-operator 0.93, `cmd/operator/main.go`
//! there).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::selector::Selector;
use crate::injection::pod::{Container, PodSpec, or_null, parse};
use crate::reason::Finding;

/// One running operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// `namespace/name` of its Deployment.
    pub name: String,
    /// `--namespaces`; `None` is all of them.
    namespaces: Option<BTreeSet<String>>,
    /// `--deny-namespaces`.
    denied: BTreeSet<String>,
    /// `--prometheus-instance-namespaces`; `None` is wherever it watches. Does not widen where monitors are watched.
    instance_namespaces: Option<BTreeSet<String>>,
    /// `--prometheus-instance-selector`.
    instances: Selector,
    /// `--controller-id`; empty where there is none.
    controller_id: String,
    /// Flags whose value cannot be seen from outside, and which are taken as absent.
    pub unread: Vec<String>,
}

#[derive(Deserialize)]
struct Deployment<'a> {
    #[serde(default, deserialize_with = "or_null")]
    metadata: Metadata,
    #[serde(borrow)]
    spec: Spec<'a>,
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
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Deserialize)]
struct Template<'a> {
    #[serde(borrow)]
    spec: PodSpec<'a>,
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
        let mut operator = Self { name: format!("{namespace}/{name}"), ..Self::default() };
        let mut arguments = container.command.iter().chain(container.args.iter().flatten());
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-') else { continue };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (flag, value) = match flag.split_once('=') {
                Some((flag, value)) => (flag, value),
                None if FLAGS.contains(&flag) => (flag, arguments.next().map_or("", String::as_str)),
                None => continue,
            };
            if FLAGS.contains(&flag) {
                operator.set(flag, value, &environment);
            }
        }
        Ok(Some(operator))
    }

    fn set(&mut self, flag: &str, value: &str, environment: &BTreeMap<String, Option<String>>) {
        let Some(value) = expand(value, environment) else {
            self.unread.push(format!("--{flag}={value}"));
            return;
        };
        let list = || value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        // An empty list is no restriction, as where the flag is absent.
        let some_list = || Some(list()).filter(|names: &BTreeSet<_>| !names.is_empty());
        match flag {
            "namespaces" => self.namespaces = some_list(),
            "deny-namespaces" => self.denied = list(),
            "prometheus-instance-namespaces" => self.instance_namespaces = some_list(),
            "controller-id" => self.controller_id = value,
            _ => match Selector::parse_text(&value) {
                Ok(selector) => self.instances = selector,
                Err(why) => self.unread.push(format!("--{flag}: {why}")),
            },
        }
    }

    /// Whether the operator sees ServiceMonitors in this namespace, and the namespace itself.
    pub(super) fn watches(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|names| names.contains(namespace)) && !self.denied.contains(namespace)
    }

    /// Whether a `Prometheus` or `PrometheusAgent` is this operator's to run.
    ///
    /// # Errors
    /// The flag that leaves it out, with both sides.
    pub(super) fn handles(&self, instance: &Instance) -> Result<(), String> {
        let Self { name, .. } = self;
        let within = self.instance_namespaces.as_ref().or(self.namespaces.as_ref());
        if within.is_some_and(|names| !names.contains(instance.namespace)) || self.denied.contains(instance.namespace) {
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

/// What an operator looks at to tell whether a Prometheus is its own.
pub(super) struct Instance<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: &'a crate::labels::Labels,
    pub(super) controller_id: &'a str,
}

const FLAGS: &[&str] = &[
    "namespaces",
    "deny-namespaces",
    "prometheus-instance-namespaces",
    "prometheus-instance-selector",
    "controller-id",
];

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
    use serde_json::json;

    fn operator(args: &[&str]) -> Operator {
        let env = json!([{"name": "WHERE", "value": "a,b"}, {"name": "SECRET", "valueFrom": {}}]);
        let container = json!({"name": "o", "image": "quay.io/prometheus-operator/prometheus-operator:v0.93.1", "args": args, "env": env});
        let deployment = json!({"metadata": {"name": "o", "namespace": "n"}, "spec": {"template": {"spec": {"containers": [container]}}}});
        Operator::parse(&deployment.to_string()).unwrap().unwrap()
    }

    #[test]
    fn flags_are_read_in_every_form_that_go_takes() {
        for args in [
            &["--namespaces=a,b"][..],
            &["-namespaces=a,b"],
            &["--namespaces", "a,b"],
            &["-x", "--namespaces=$(WHERE)"],
        ] {
            let operator = operator(args);
            assert!(operator.watches("a") && operator.watches("b") && !operator.watches("c"), "{args:?}");
        }
        assert!(operator(&["--namespaces="]).watches("any"));
        assert!(!operator(&["--deny-namespaces=a"]).watches("a"));
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
