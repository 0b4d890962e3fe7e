//! Where a PrometheusRule must be, and what labels it needs, for a Prometheus to load it: the inverse of
//! [`Cluster::loads_rule`](super::Cluster::loads_rule).

use super::predicate::Cluster;
use super::scraper::{Kind, NamespaceScope, Scraper};
use super::selector::solve;
use crate::kubernetes::labels::Labels;
use crate::reason::{Finding, Reason};

/// A PrometheusRule's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePlacement {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// The Prometheus that loads it, and by which field, for a person.
    pub why: String,
}

impl Cluster {
    /// Places a rule, in this namespace if the Prometheus reads that, else in the Prometheus' own. Required labels stay as they are;
    /// default labels may give way.
    ///
    /// # Errors
    /// [`Reason::NoPrometheus`] where there is none, [`Reason::RuleNotSelected`] with the condition that cannot be met on each.
    pub fn place_rule(&self, namespace: &str, required: &Labels, defaults: &Labels) -> Result<RulePlacement, Finding> {
        let mut obstacles = Vec::new();
        let mut prometheuses: Vec<_> =
            self.scrapers.iter().filter(|scraper| scraper.kind() == Kind::Prometheus).collect();
        // Alerts are of use where the metrics are: whoever can select no monitor comes last.
        prometheuses.sort_by_key(|prometheus| solve(&[&prometheus.selector], &Labels::new(), &Labels::new()).is_err());
        for prometheus in prometheuses {
            match self.place_rule_for(prometheus, namespace, (required, defaults)) {
                Ok(placement) => return Ok(placement),
                Err(why) => obstacles.push(format!("{prometheus}: {why}")),
            }
        }
        if obstacles.is_empty() {
            return Err(Finding::new(Reason::NoPrometheus, "no Prometheus object evaluates rules here"));
        }
        Err(Finding::new(Reason::RuleNotSelected, obstacles.join("; ")))
    }

    fn place_rule_for(
        &self,
        prometheus: &Scraper,
        namespace: &str,
        (required, defaults): (&Labels, &Labels),
    ) -> Result<RulePlacement, String> {
        let Some((selector, scope)) = &prometheus.rules else {
            return Err("loads no rules: it has no spec.ruleSelector (set it to {} for all)".to_owned());
        };
        if prometheus.paused {
            return Err("is paused (spec.paused), so its configuration stays as it was".to_owned());
        }
        if let Some(label) = &prometheus.enforced_namespace_label {
            return Err(format!(
                "would have each rule see only series of the rule's own namespace (spec.enforcedNamespaceLabel: {label})"
            ));
        }
        self.handlers(prometheus)?;
        let is_read = match scope {
            NamespaceScope::Own => namespace == prometheus.namespace,
            NamespaceScope::Matching(namespaces) => namespaces.matches(&self.namespace_labels(namespace)),
        };
        let namespace = if is_read { namespace } else { &prometheus.namespace };
        let labels = solve(&[selector], required, defaults).map_err(|why| format!("spec.ruleSelector {why}"))?;
        self.loads_rule(prometheus, namespace, &labels)?;
        Ok(RulePlacement {
            namespace: namespace.to_owned(),
            labels,
            why: format!("{prometheus} loads it by spec.ruleSelector"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn place(spec: &Value) -> Result<(String, Labels), String> {
        let mut prometheus = json!({"kind": "Prometheus", "metadata": {"name": "kps", "namespace": "monitoring"}, "spec": {"serviceMonitorSelector": {}}});
        json_patch::merge(&mut prometheus["spec"], spec);
        let scrapers = vec![Scraper::parse(&prometheus.to_string()).unwrap().unwrap()];
        let defaults = Labels::from([("app.kubernetes.io/part-of".to_owned(), "gwmon".to_owned())]);
        let placed = Cluster { scrapers, ..Cluster::default() }.place_rule("gwmon", &Labels::new(), &defaults);
        placed.map(|placed| (placed.namespace, placed.labels)).map_err(|finding| finding.to_string())
    }

    #[test]
    fn a_prometheus_that_scrapes_no_gateway_comes_last() {
        let prometheus = |name: &str, monitors: Value| {
            let spec = json!({"ruleSelector": {"matchLabels": {"for": name}}, "serviceMonitorSelector": monitors});
            let object =
                json!({"kind": "Prometheus", "metadata": {"name": name, "namespace": "monitoring"}, "spec": spec});
            Scraper::parse(&object.to_string()).unwrap().unwrap()
        };
        let none =
            json!({"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "DoesNotExist"}]});
        let scrapers = vec![prometheus("a", none), prometheus("b", json!({}))];
        let cluster = Cluster { scrapers, ..Cluster::default() };
        let placed = cluster.place_rule("monitoring", &Labels::new(), &Labels::new()).unwrap();
        assert_eq!(placed.labels["for"], "b");
    }

    #[test]
    fn a_rule_goes_where_the_prometheus_reads_it_with_the_labels_that_it_asks_for() {
        let release = json!({"matchLabels": {"release": "kps"}});
        let (namespace, labels) = place(&json!({"ruleSelector": release, "ruleNamespaceSelector": {}})).unwrap();
        assert_eq!((namespace.as_str(), labels["release"].as_str(), labels.len()), ("gwmon", "kps", 2));
        assert_eq!(place(&json!({"ruleSelector": release})).unwrap().0, "monitoring");
        let shops = json!({"ruleSelector": {}, "ruleNamespaceSelector": {"matchLabels": {"team": "shop"}}});
        assert!(place(&shops).unwrap_err().contains("spec.ruleNamespaceSelector needs team=shop"));
        assert!(place(&json!({})).unwrap_err().contains("RuleNotSelected: Prometheus monitoring/kps: loads no rules"));
        let none =
            json!({"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "DoesNotExist"}]});
        assert!(place(&json!({"ruleSelector": none})).unwrap_err().contains("spec.ruleSelector"));
        assert!(
            Cluster::default()
                .place_rule("gwmon", &Labels::new(), &Labels::new())
                .unwrap_err()
                .to_string()
                .contains("NoPrometheus")
        );
    }
}
