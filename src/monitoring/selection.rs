//! Which Prometheus selects a ServiceMonitor, and what the monitor must look like for that: the predicate of
//! prometheus-operator 0.93 (`pkg/prometheus/resource_selector.go` there), read from the live objects.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use crate::injection::pod::{or_null, parse};
use crate::reason::{Reason, Refusal};

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Labels of one object.
pub type Labels = BTreeMap<String, String>;

/// A `Prometheus` or `PrometheusAgent`: the fields that decide what it selects.
#[derive(Clone, Debug, Deserialize)]
pub struct Consumer {
    kind: String,
    metadata: ConsumerMetadata,
    #[serde(default, deserialize_with = "or_null")]
    spec: ConsumerSpec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerMetadata {
    name: String,
    #[serde(default, deserialize_with = "or_null")]
    namespace: String,
    deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerSpec {
    service_monitor_selector: Option<LabelSelector>,
    service_monitor_namespace_selector: Option<LabelSelector>,
    #[serde(default, deserialize_with = "or_null")]
    ignore_namespace_selectors: bool,
    enforced_namespace_label: Option<String>,
    mode: Option<String>,
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.metadata.namespace, self.metadata.name)
    }
}

/// Where a monitor must live and which labels it must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The monitor's namespace.
    pub namespace: String,
    /// The labels it needs beside gwmon's own.
    pub labels: Labels,
    /// Who asks for that and where it says so, in one sentence.
    pub why: String,
}

impl Selection {
    /// Nobody is known to select: the workload's namespace, no labels.
    #[must_use]
    pub fn unknown(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), labels: Labels::new(), why: String::new() }
    }
}

/// What is known of a cluster's monitoring.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Every `Prometheus` and `PrometheusAgent`.
    pub consumers: Vec<Consumer>,
    /// The labels of every namespace.
    pub namespaces: BTreeMap<String, Labels>,
}

impl Cluster {
    /// Finds the Prometheus for a gateway in this namespace, and what it asks for. Where several would do, one
    /// that reads the gateway's own namespace comes first, then a `Prometheus` before an agent, then the name.
    ///
    /// # Errors
    /// [`Reason::NoPrometheus`] where there is none at all; [`Reason::NotSelected`] with the condition that
    /// failed on each.
    pub fn select(&self, namespace: &str) -> Result<Selection, Refusal> {
        if self.consumers.is_empty() {
            return Err(Refusal::new(Reason::NoPrometheus, "no Prometheus or PrometheusAgent object was found"));
        }
        let mut obstacles = Vec::new();
        let mut found = Vec::new();
        for consumer in &self.consumers {
            match self.solve(consumer, namespace) {
                Ok(selection) => {
                    let rank = (selection.namespace != namespace, consumer.kind.as_str(), consumer.key());
                    found.push((rank, selection));
                }
                Err(obstacle) => obstacles.push(format!("{consumer}: {obstacle}")),
            }
        }
        match found.into_iter().min_by_key(|(rank, _)| *rank) {
            Some((_, selection)) => Ok(selection),
            None => Err(Refusal::new(Reason::NotSelected, obstacles.join("; "))),
        }
    }

    /// What one consumer asks for, or the condition that nothing gwmon writes could meet.
    fn solve(&self, consumer: &Consumer, namespace: &str) -> Result<Selection, String> {
        let selector = consumer.eligible()?;
        let (home, whence) = self.home(consumer, namespace)?;
        let labels: Labels = selector.match_labels.clone().unwrap_or_default();
        if !matches(selector, &labels) {
            return Err("spec.serviceMonitorSelector.matchExpressions asks for more than matchLabels give".to_owned());
        }
        let asks = if labels.is_empty() {
            "takes ServiceMonitors with any labels".to_owned()
        } else {
            let wanted: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("asks for {} (spec.serviceMonitorSelector)", wanted.join(","))
        };
        Ok(Selection { why: format!("{consumer} {asks} {whence}"), namespace: home, labels })
    }

    /// The namespace for the monitor: the gateway's own where this consumer reads it, else the consumer's.
    fn home(&self, consumer: &Consumer, namespace: &str) -> Result<(String, &'static str), String> {
        let own = &consumer.metadata.namespace;
        let reads = |candidate: &str| match &consumer.spec.service_monitor_namespace_selector {
            None => candidate == own,
            Some(selector) => match self.namespaces.get(candidate) {
                Some(labels) => matches(selector, labels),
                // Not told of, as in a preview: every namespace has at least this label since Kubernetes 1.22.
                None => matches(selector, &Labels::from([(NAMESPACE_NAME.to_owned(), candidate.to_owned())])),
            },
        };
        if reads(namespace) {
            return Ok((namespace.to_owned(), "and reads this namespace"));
        }
        if !reads(own) {
            return Err(format!(
                "spec.serviceMonitorNamespaceSelector matches neither namespace {namespace} nor its own"
            ));
        }
        if consumer.spec.ignore_namespace_selectors {
            return Err(format!(
                "reads monitors in {own} only, and spec.ignoreNamespaceSelectors keeps those to pods there"
            ));
        }
        if let Some(label) = &consumer.spec.enforced_namespace_label {
            return Err(format!(
                "does not read {namespace}, and spec.enforcedNamespaceLabel would set {label}={own} on its series"
            ));
        }
        Ok((own.clone(), "in its own namespace (spec.serviceMonitorNamespaceSelector)"))
    }
}

impl Consumer {
    /// Reads a `Prometheus` or `PrometheusAgent` from its JSON.
    ///
    /// # Errors
    /// [`Reason::MalformedObject`], naming the field.
    pub fn parse(json: &str) -> Result<Self, Refusal> {
        parse(json)
    }

    /// `namespace/name`.
    fn key(&self) -> (&str, &str) {
        (&self.metadata.namespace, &self.metadata.name)
    }

    /// The selector of a consumer that takes ServiceMonitors at all. An absent selector takes none, an empty
    /// one takes every one.
    fn eligible(&self) -> Result<&LabelSelector, String> {
        if self.metadata.deletion_timestamp.is_some() {
            return Err("is being deleted".to_owned());
        }
        if self.spec.mode.as_deref() == Some("DaemonSet") {
            return Err("runs as a DaemonSet, which takes PodMonitors only".to_owned());
        }
        self.spec
            .service_monitor_selector
            .as_ref()
            .ok_or_else(|| "has no spec.serviceMonitorSelector, so it selects none".to_owned())
    }
}

/// `metav1.LabelSelectorAsSelector`: all conditions must hold; `NotIn` also holds where the key is absent.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let among = || value.is_some_and(|v| expression.values.iter().flatten().any(|allowed| allowed == v));
            match expression.operator.as_str() {
                "In" => among(),
                "NotIn" => !among(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cluster(specs: &[Value]) -> Cluster {
        let consumer = |(i, spec): (usize, &Value)| {
            let prometheus = json!({"kind": "Prometheus", "metadata": {"namespace": "monitoring", "name": format!("p{i}")}, "spec": spec});
            Consumer::parse(&prometheus.to_string()).unwrap()
        };
        let named =
            |name: &str| (name.to_owned(), Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]));
        Cluster {
            consumers: specs.iter().enumerate().map(consumer).collect(),
            namespaces: BTreeMap::from([named("edge"), named("monitoring")]),
        }
    }

    fn select(spec: Value) -> Result<(String, Labels), String> {
        let selected = cluster(&[spec]).select("edge");
        selected.map(|s| (s.namespace, s.labels)).map_err(|refusal| {
            assert_eq!(refusal.reason, Reason::NotSelected);
            refusal.detail
        })
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    const ALL: fn() -> Value = || json!({});

    #[test]
    fn l1_an_absent_selector_selects_nothing() {
        for spec in [json!({}), json!({"serviceMonitorSelector": null, "serviceMonitorNamespaceSelector": {}})] {
            assert!(select(spec).unwrap_err().contains("selects none"));
        }
    }

    #[test]
    fn l2_an_empty_selector_needs_no_label() {
        let spec = json!({"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": ALL()});
        assert_eq!(select(spec).unwrap(), ("edge".to_owned(), labels(&[])));
    }

    #[test]
    fn l3_l4_match_labels_are_what_the_monitor_gets() {
        for (key, value) in [("release", "prometheus"), ("ambassador", "monitoring")] {
            let spec = json!({"serviceMonitorSelector": {"matchLabels": {key: value}}, "serviceMonitorNamespaceSelector": ALL()});
            assert_eq!(select(spec).unwrap(), ("edge".to_owned(), labels(&[(key, value)])));
        }
    }

    #[test]
    fn l11_not_in_alone_needs_no_label() {
        let not_in = json!({"matchExpressions": [{"key": "user", "operator": "NotIn", "values": ["false"]}]});
        let spec = json!({"serviceMonitorSelector": not_in, "serviceMonitorNamespaceSelector": ALL()});
        assert_eq!(select(spec).unwrap().1, labels(&[]));
    }

    #[test]
    fn n1_n2_n3_a_prometheus_that_reads_its_own_namespace_only() {
        let spec = |extra: &Value| {
            let mut spec = json!({"serviceMonitorSelector": {}});
            json_patch::merge(&mut spec, extra);
            spec
        };
        assert_eq!(select(spec(&json!({}))).unwrap().0, "monitoring");
        assert!(
            select(spec(&json!({"ignoreNamespaceSelectors": true}))).unwrap_err().contains("ignoreNamespaceSelectors")
        );
        assert!(
            select(spec(&json!({"enforcedNamespaceLabel": "namespace"})))
                .unwrap_err()
                .contains("enforcedNamespaceLabel")
        );
    }

    #[test]
    fn n4_n5_n6_namespaces_by_label() {
        let by = |name: &str| {
            let expression = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [name]});
            json!({"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {"matchExpressions": [expression]}})
        };
        assert_eq!(select(by("edge")).unwrap().0, "edge");
        assert_eq!(select(by("monitoring")).unwrap().0, "monitoring");
        assert!(select(by("other")).unwrap_err().contains("neither namespace edge"));
    }

    #[test]
    fn p3_an_agent_daemon_set_takes_no_service_monitor() {
        let spec = json!({"serviceMonitorSelector": {}, "mode": "DaemonSet"});
        assert!(select(spec).unwrap_err().contains("PodMonitor"));
    }

    #[test]
    fn the_one_that_reads_the_gateways_namespace_comes_first_and_every_obstacle_is_told() {
        let own = json!({"serviceMonitorSelector": {"matchLabels": {"a": "1"}}});
        let all = json!({"serviceMonitorSelector": {"matchLabels": {"b": "2"}}, "serviceMonitorNamespaceSelector": {}});
        let selection = cluster(&[own, all]).select("edge").unwrap();
        assert_eq!(selection.labels, labels(&[("b", "2")]));
        assert!(selection.why.contains("Prometheus monitoring/p1 asks for b=2"), "{}", selection.why);

        let refusal = cluster(&[json!({}), json!({"mode": "DaemonSet"})]).select("edge").unwrap_err();
        assert!(refusal.detail.contains("p0: ") && refusal.detail.contains("p1: "), "{refusal}");
        assert_eq!(Cluster::default().select("edge").unwrap_err().reason, Reason::NoPrometheus);
    }
}
