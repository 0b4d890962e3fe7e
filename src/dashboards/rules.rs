//! Recording rules and alerts, as a PrometheusRule.

use serde_json::{Value, json};

use super::alerts::alerts;
use super::{gateways, over};
use crate::kubernetes::labels::Labels;

/// The folder of the runbooks in gwmon's repository: a page for each alert, called as the alert.
pub const RUNBOOKS: &str = "docs/runbooks";
/// Whole milliseconds among the bounds of Envoy's histograms, which the exporter's mapping has as well
/// (`src/injection/exporter/mapping.rs`).
pub const BUCKETS: [u32; 18] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
    3_600_000,
];

/// What may be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Alert if more than 1 % of a gateway's requests take longer, in milliseconds: one of [`BUCKETS`].
    pub latency: Option<u32>,
    /// The address at which the runbooks are published, for the annotation `runbook_url`.
    pub runbooks: Option<String>,
}

/// Names and queries of what is recorded, in an order in which each finds what it needs.
#[must_use]
pub fn recorded() -> Vec<(String, String)> {
    let mut rules = vec![
        ("namespace_job:gwmon_gateway_requests:rate5m".to_owned(), over(&gateways::requests(), "5m")),
        ("namespace_job:gwmon_gateway_errors:rate5m".to_owned(), over(&gateways::errors(), "5m")),
        (
            "namespace_job:gwmon_gateway_errors:ratio_rate5m".to_owned(),
            "namespace_job:gwmon_gateway_errors:rate5m / namespace_job:gwmon_gateway_requests:rate5m".to_owned(),
        ),
    ];
    // Sums of what is recorded, so that three days of raw series need not be read.
    for range in ["30m", "1h", "2h", "6h", "1d", "3d"] {
        let sum = |what: &str| format!("sum_over_time(namespace_job:gwmon_gateway_{what}:rate5m[{range}])");
        let ratio = format!("{} / {}", sum("errors"), sum("requests"));
        rules.push((format!("namespace_job:gwmon_gateway_errors:ratio_rate{range}"), ratio));
    }
    // Of next to no requests there is no p99 worth to compare with.
    rules.push((
        "namespace_job:gwmon_gateway_latency_milliseconds:p99_rate5m".to_owned(),
        format!(
            "(\n{}\n)\nand namespace_job:gwmon_gateway_requests:rate5m > 0.1",
            over(&gateways::quantile("0.99"), "5m")
        ),
    ));
    rules
}

/// Labels that a PrometheusRule has unless its Prometheus forbids them.
#[must_use]
pub fn default_labels() -> Labels {
    Labels::from([("app.kubernetes.io/part-of".to_owned(), "gwmon".to_owned())])
}

/// The PrometheusRule; without a namespace it is the one of whoever applies it.
#[must_use]
pub fn prometheus_rule(name: &str, namespace: Option<&str>, labels: &Labels, options: &Options) -> Value {
    let recorded = recorded().into_iter().map(|(record, expr)| json!({"record": record, "expr": expr}));
    let alerts = alerts(options.latency).into_iter().map(|alert| {
        let mut annotations = json!({"summary": alert.summary});
        match options.runbooks.as_deref() {
            Some(base) => {
                annotations["runbook_url"] = json!(format!("{}/{}.md", base.trim_end_matches('/'), alert.name));
            }
            // No link leads there, so it is not called one.
            None => annotations["runbook"] = json!(format!("{RUNBOOKS}/{}.md", alert.name)),
        }
        json!({
            "alert": alert.name,
            "expr": alert.expr,
            "for": alert.hold,
            "labels": {"severity": alert.severity.as_str()},
            "annotations": annotations,
        })
    });
    let mut rule = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name, "labels": labels},
        "spec": {"groups": [
            {"name": "gwmon-gateways", "interval": "1m", "rules": recorded.collect::<Vec<_>>()},
            {"name": "gwmon-alerts", "interval": "1m", "rules": alerts.collect::<Vec<_>>()},
        ]},
    });
    if let Some(namespace) = namespace {
        rule["metadata"]["namespace"] = json!(namespace);
    }
    rule
}
