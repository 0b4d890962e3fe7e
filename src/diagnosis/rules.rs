//! PrometheusRules about gateways' metrics that no Prometheus loads.

use serde_json::Value;

use super::check::{Check, Step};
use crate::kubernetes::labels::Labels;
use crate::monitoring::Cluster;
use crate::monitoring::scraper::Kind;
use crate::reason::{Finding, Reason};

/// How the names of the metrics begin that the gateways of gwmon and gwmon itself export.
const METRICS: [&str; 9] =
    ["envoy_", "istio_", "kong_", "traefik_", "haproxy_", "nginx_ingress_", "contour_", "ambassador_", "gwmon_"];

/// Returns true if the text of a rule names a metric of a gateway.
#[must_use]
pub fn is_about_gateways(rule: &str) -> bool {
    METRICS.iter().any(|prefix| rule.contains(prefix))
}

/// Checks that a Prometheus loads each of these rules. Where the cluster has no Prometheus, that is another finding; where it has
/// others that may load them, such as a ThanosRuler, it cannot be told.
#[must_use]
pub fn check(cluster: &Cluster, rules: &[Value], has_others: bool) -> Vec<Check> {
    let prometheuses: Vec<_> = cluster.scrapers.iter().filter(|scraper| scraper.kind() == Kind::Prometheus).collect();
    if prometheuses.is_empty() {
        return vec![];
    }
    let checks = rules.iter().map(|rule| {
        let text = |field: &str| rule["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let labels: Labels = serde_json::from_value(rule["metadata"]["labels"].clone()).unwrap_or_default();
        let object = format!("prometheusrule/{name} -n {namespace}");
        let mut unmet = Vec::new();
        for prometheus in &prometheuses {
            match cluster.loads_rule(prometheus, namespace, &labels) {
                Ok(()) => return Check::ok(Step::Rules, object, format!("{prometheus} loads it")),
                Err(why) => unmet.push(format!("{prometheus}: {why}")),
            }
        }
        let detail = format!("no Prometheus loads it: {}", unmet.join("; "));
        if has_others {
            return Check::skip(Step::Rules, object, format!("{detail}; a ThanosRuler may"));
        }
        Check::found(Step::Rules, object, Finding::new(Reason::RuleNotSelected, detail))
    });
    checks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::check::Verdict;
    use crate::monitoring::Scraper;
    use serde_json::json;

    #[test]
    fn a_rule_that_nobody_loads_is_told_with_both_sides() {
        let rule = |namespace: &str, release: &str| json!({"metadata": {"name": "edge", "namespace": namespace, "labels": {"release": release}}});
        let verdict = |spec: Value, rule: Value| {
            let mut prometheus = json!({"kind": "Prometheus", "metadata": {"name": "kps", "namespace": "monitoring"}, "spec": {"serviceMonitorSelector": {}}});
            json_patch::merge(&mut prometheus["spec"], &spec);
            let scrapers = vec![Scraper::parse(&prometheus.to_string()).unwrap().unwrap()];
            let checks = check(&Cluster { scrapers, ..Cluster::default() }, &[rule], false);
            (checks[0].verdict, checks[0].fact.clone())
        };
        let selector = json!({"matchLabels": {"release": "kps"}});
        let everywhere = json!({"ruleSelector": selector, "ruleNamespaceSelector": {}});
        assert_eq!(verdict(everywhere.clone(), rule("edge", "kps")).0, Verdict::Ok);
        let (told, fact) = verdict(everywhere, rule("edge", "other"));
        assert!(told == Verdict::Warn && fact.contains("spec.ruleSelector needs release"), "{fact}");
        assert_eq!(verdict(json!({"ruleSelector": selector}), rule("edge", "kps")).0, Verdict::Warn);
        assert_eq!(verdict(json!({"ruleSelector": selector}), rule("monitoring", "kps")).0, Verdict::Ok);
        assert_eq!(verdict(json!({}), rule("monitoring", "kps")).0, Verdict::Warn);
        assert!(is_about_gateways("rate(envoy_cluster_upstream_rq[1m])") && !is_about_gateways("up == 0"));
    }
}
