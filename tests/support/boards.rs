//! The queries of the dashboards, as Grafana sends them.
#![allow(dead_code, reason = "every test program takes its part of this")]

use gwmon::dashboards;

/// A query of a panel.
pub(crate) struct Query {
    pub(crate) dashboard: &'static str,
    pub(crate) panel: String,
    pub(crate) expr: String,
    pub(crate) legend: String,
}

/// Every query of every dashboard.
pub(crate) fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for dashboard in dashboards::all() {
        let json = dashboard.to_json();
        for panel in json["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
                queries.push(Query {
                    dashboard: dashboard.name,
                    panel: panel["title"].as_str().unwrap_or_default().to_owned(),
                    expr: text("expr"),
                    legend: text("legendFormat"),
                });
            }
        }
    }
    queries
}

impl Query {
    /// With the variables' values: one workload, all of its pods, and a range for its rates.
    pub(crate) fn filled(&self, namespace: &str, job: &str, range: &str) -> String {
        let values = [
            ("$cluster", ".*"),
            ("$namespace", namespace),
            ("$workload", job),
            ("$pod", ".*"),
            ("$__rate_interval", range),
        ];
        values.into_iter().fold(self.expr.clone(), |expr, (variable, value)| expr.replace(variable, value))
    }
}
