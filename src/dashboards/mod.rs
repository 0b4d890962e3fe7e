//! What people look at once the data is there: Grafana dashboards, and rules for Prometheus. Built from types, so that no panel
//! lacks a unit or a description.

pub mod alerts;
mod gateway;
mod gateways;
mod gwmon;
mod others;
mod panel;
pub mod rules;

use serde_json::{Value, json};

use panel::Row;

/// Grafana's version of the dashboard JSON, of Grafana 12 and 13 (`@grafana/schema`, `defaultDashboard`).
const SCHEMA: u32 = 42;
/// The name of the dashboards' variable for the data source.
const DATA_SOURCE: &str = "${datasource}";
/// The jobs of gwmon's ServiceMonitors: Prometheus calls a job as its Service.
const JOBS: &str = ".+-gwmon";
/// HTTP listeners of Envoy that serve nobody's requests: its own, and those that Contour, Envoy Gateway and Istio add for probes and
/// metrics.
const INTERNAL_LISTENERS: &str = "admin|agent|health|stats|ready.*|eg-(ready|stats).*|.*prometheus.*";

/// A Grafana dashboard.
#[derive(Debug)]
pub struct Dashboard {
    /// Its name in files, ConfigMaps and on the command line.
    pub name: &'static str,
    title: &'static str,
    description: &'static str,
    /// The metric by which the variables find the workloads.
    found_by: &'static str,
    /// A regular expression over the jobs.
    jobs: &'static str,
    /// Whether one workload is looked at.
    is_of_one: bool,
    rows: Vec<Row>,
}

/// Every dashboard.
#[must_use]
pub fn all() -> Vec<Dashboard> {
    let mut all = vec![gateways::dashboard(), gateway::dashboard()];
    all.extend(others::dashboards());
    all.push(gwmon::dashboard());
    all
}

impl Dashboard {
    /// The stable identifier by which Grafana knows it, and which other dashboards link to.
    #[must_use]
    pub fn uid(&self) -> String {
        format!("gwmon-{}", self.name)
    }

    /// The JSON that Grafana imports.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let link = json!({
            "title": "gwmon", "type": "dashboards", "tags": ["gwmon"], "asDropdown": true, "includeVars": false, "keepTime": true,
            "icon": "external link", "targetBlank": false, "tooltip": "", "url": "",
        });
        json!({
            "uid": self.uid(),
            "title": self.title,
            "description": self.description,
            "tags": ["gwmon"],
            "schemaVersion": SCHEMA,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": self.variables()},
            "annotations": {"list": []},
            "links": [link],
            "panels": panel::layout(&self.rows, self.is_of_one),
        })
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("gwmon-{}.json", self.name)
    }

    /// The ConfigMap from which Grafana's sidecar of kube-prometheus-stack loads it: by this label, into the folder of that
    /// annotation (its chart's values `sidecar.dashboards.label` and `folderAnnotation`).
    #[must_use]
    pub fn to_config_map(&self, namespace: Option<&str>, (key, value): (&str, &str), folder: &str) -> Value {
        let file = self.file();
        let mut map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": format!("gwmon-dashboard-{}", self.name),
                "labels": {"app.kubernetes.io/part-of": "gwmon", (key): value},
                "annotations": {"grafana_folder": folder},
            },
            "data": {file: format!("{:#}\n", self.to_json())},
        });
        if let Some(namespace) = namespace {
            map["metadata"]["namespace"] = json!(namespace);
        }
        map
    }

    /// In the order in which each narrows the next one.
    fn variables(&self) -> Vec<Value> {
        let source = json!({
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "multi": false,
            "includeAll": false, "hide": 0, "options": [], "regex": "", "skipUrlSync": false,
        });
        let is_of_one = self.is_of_one;
        let values = |label: &str, matchers: &str| {
            format!("label_values({}{{job=~\"{}\"{matchers}}}, {label})", self.found_by, self.jobs)
        };
        // Series of a Prometheus that adds no label `cluster` match as well.
        let cluster = variable("cluster", "Cluster", &values("cluster", ""), Some(".*"));
        let all = |pattern| (!is_of_one).then_some(pattern);
        let namespaces = values("namespace", &format!(", {CLUSTER}"));
        let namespace = variable("namespace", "Namespace", &namespaces, all(".*"));
        let jobs = values("job", &format!(", {CLUSTER}, {NAMESPACE}"));
        // All of gwmon's gateways, and not all that Prometheus has.
        let workload = variable("workload", "Workload", &jobs, all(self.jobs));
        let mut variables = vec![source, cluster, namespace, workload];
        if is_of_one {
            let pods = values("pod", &format!(", {CLUSTER}, {NAMESPACE}, {WORKLOAD}"));
            variables.push(variable("pod", "Pod", &pods, Some(".*")));
        }
        variables
    }
}

const CLUSTER: &str = r#"cluster=~"$cluster""#;
const NAMESPACE: &str = r#"namespace=~"$namespace""#;
const WORKLOAD: &str = r#"job=~"$workload""#;

/// A variable whose values Prometheus tells: one of them, or with a pattern for all several.
fn variable(name: &str, label: &str, query: &str, all: Option<&str>) -> Value {
    let mut variable = json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": DATA_SOURCE},
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": all.is_some(),
        "includeAll": all.is_some(),
        "hide": 0,
        "options": [],
        "regex": "",
        "skipUrlSync": false,
    });
    if let Some(all) = all {
        variable["allValue"] = json!(all);
        variable["current"] = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
    }
    variable
}

/// A query of a dashboard: `$sel` stands for the matchers of the variables, `$http` for the listeners that serve requests, `$by` for the
/// labels of a workload, `$rate` for the range that Grafana computes from the scrape interval and the width of the panel.
fn query(text: &str, is_of_one: bool) -> String {
    let pod = if is_of_one { r#", pod=~"$pod""# } else { "" };
    let text = text.replace("$sel", &format!("{CLUSTER}, {NAMESPACE}, {WORKLOAD}{pod}"));
    let text = text.replace("$http", &users_listeners()).replace("$by", "cluster, namespace, job");
    text.replace("$rate", "[$__rate_interval]")
}

/// The same for a rule: all of gwmon's gateways, with rates over this range. Clusters are what Prometheus itself tells apart.
fn over(query: &str, range: &str) -> String {
    let query = query.replace("$sel", &format!(r#"job=~"{JOBS}""#)).replace("$http", &users_listeners());
    query.replace("$by", "namespace, job").replace("$rate", &format!("[{range}]"))
}

/// The matcher of Envoy's listeners that serve requests.
fn users_listeners() -> String {
    format!(r#"envoy_http_conn_manager_prefix!~"{INTERNAL_LISTENERS}""#)
}
