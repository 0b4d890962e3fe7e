//! Asks a Prometheus through the API server's proxy for its Service, with the caller's own rights.

use kube::Client;
use kube::api::ListParams;
use serde::Deserialize;
use serde_json::Value;

use super::request::{callers_error, objects};
use crate::diagnosis::series::{Query, Series, Target, samples};
use crate::kubernetes::labels::Labels;
use crate::monitoring::Scraper;
use crate::monitoring::objects::SERVICE;

/// The port of Prometheus where nothing else is said.
const PORT: u64 = 9090;
/// The most gateways whose errors are asked for.
const MOST_ERRORS: usize = 20;

/// The HTTP API of one Prometheus.
pub(crate) struct PrometheusApi<'a> {
    client: &'a Client,
    /// The path of its root on the API server.
    root: String,
}

impl<'a> PrometheusApi<'a> {
    /// Finds the Service that leads to a Prometheus; `others` are the names of those in its namespace.
    ///
    /// # Errors
    /// Why it cannot be asked, for a person.
    pub(crate) async fn of(client: &'a Client, scraper: &Scraper, others: &[&str]) -> Result<Self, String> {
        let (namespace, name) = scraper.key();
        let told = |error: kube::Error| format!("{:#}", callers_error(error));
        let prometheuses = objects(client, namespace, ("monitoring.coreos.com/v1", "Prometheus"));
        let prometheus = prometheuses.get(name).await.map_err(told)?;
        let spec = &prometheus.data["spec"];
        if spec["shards"].as_u64().is_some_and(|shards| shards > 1) {
            return Err(format!("it has {} shards, and each knows its own targets only", spec["shards"]));
        }
        let services = objects(client, namespace, SERVICE).list(&ListParams::default()).await.map_err(told)?;
        let found = services.items.iter().filter_map(|service| {
            let (port, shared) = leads_to(&service.data["spec"], name, others)?;
            Some((shared, service.metadata.name.clone()?, port))
        });
        let Some((0, service, port)) = found.min() else {
            return Err(format!("no Service in namespace {namespace} leads to {name} alone"));
        };
        let scheme = if spec["web"]["tlsConfig"].is_object() { "https:" } else { "" };
        let prefix = spec["routePrefix"].as_str().map_or_else(|| external_path(spec), str::to_owned);
        let prefix = prefix.trim_end_matches('/');
        let root = format!("/api/v1/namespaces/{namespace}/services/{scheme}{service}:{port}/proxy{prefix}/api/v1");
        Ok(Self { client, root })
    }

    /// The answers to some queries.
    ///
    /// # Errors
    /// Why it cannot be asked, for a person.
    pub(crate) async fn ask(&self, queries: &[Query]) -> Result<Series, String> {
        let mut series = Series::default();
        for query in queries {
            let words = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query.promql()).finish();
            series.take(*query, samples(&self.get(&format!("query?{words}")).await?)?);
        }
        Ok(series)
    }

    /// Adds why targets are down, and whether Prometheus has its newest configuration.
    pub(crate) async fn explain(&self, series: &mut Series) {
        // What stands before a Prometheus may answer queries and nothing else.
        let runtime = self.get("status/runtimeinfo").await.unwrap_or_default();
        let runtime: Value = serde_json::from_str(&runtime).unwrap_or_default();
        series.is_reload_failing = runtime["data"]["reloadConfigSuccess"] == false;
        let is_down = |targets: &[Target]| targets.iter().any(|target| !target.is_up);
        let down = series.targets.iter_mut().filter(|(_, targets)| is_down(targets));
        for ((namespace, service), targets) in down.take(MOST_ERRORS) {
            let pool = form_urlencoded::Serializer::new(String::new())
                .append_pair("state", "active")
                .append_pair("scrapePool", &format!("serviceMonitor/{namespace}/{service}/0"))
                .finish();
            let answer = self.get(&format!("targets?{pool}")).await.unwrap_or_default();
            let Ok(answer) = serde_json::from_str::<Answer>(&answer) else {
                continue;
            };
            for target in targets {
                let is_it = |active: &&Active| active.labels.get("instance") == Some(&target.instance);
                let found = answer.data.active_targets.iter().find(is_it);
                target.error = found.map(|active| active.last_error.clone()).filter(|error| !error.is_empty());
            }
        }
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let request =
            http::Request::get(format!("{}/{path}", self.root)).body(vec![]).map_err(|error| error.to_string())?;
        let answer = self.client.request_text(request).await;
        answer.map_err(|error| format!("it cannot be asked: {:#}", callers_error(error)))
    }
}

/// An answer of `/api/v1/targets`.
#[derive(Deserialize)]
struct Answer {
    data: Data,
}
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    active_targets: Vec<Active>,
}
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Active {
    labels: Labels,
    last_error: String,
}

/// The path of the URL by which people reach it, which is also that of its API.
fn external_path(spec: &Value) -> String {
    let url = spec["externalUrl"].as_str().and_then(|url| url.parse::<http::Uri>().ok());
    url.map(|url| url.path().to_owned()).unwrap_or_default()
}

/// The port by which a Service leads to the pods of the Prometheus of this name, and how many of the others it leads to as well.
fn leads_to(service: &Value, name: &str, others: &[&str]) -> Option<(u64, usize)> {
    let selector = service["selector"].as_object().filter(|selector| !selector.is_empty())?;
    let selects = |name: &str| {
        // As prometheus-operator labels its pods (`pkg/prometheus/server/statefulset.go`).
        let labels = [
            ("app.kubernetes.io/name", "prometheus"),
            ("app.kubernetes.io/managed-by", "prometheus-operator"),
            ("app.kubernetes.io/instance", name),
            ("operator.prometheus.io/name", name),
            ("operator.prometheus.io/shard", "0"),
            ("prometheus", name),
        ];
        selector.iter().all(|(key, value)| labels.iter().any(|(label, is)| label == key && value == is))
    };
    if !selects(name) {
        return None;
    }
    let ports = service["ports"].as_array()?;
    let is_web = |port: &&Value| {
        ["web", "http-web"].iter().any(|name| port["name"] == *name || port["targetPort"] == *name)
            || port["port"] == PORT
    };
    let port = ports.iter().find(is_web).or_else(|| ports.first())?["port"].as_u64()?;
    Some((port, others.iter().filter(|other| **other != name && selects(other)).count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_that_leads_to_one_prometheus_alone_is_taken() {
        let governing =
            json!({"selector": {"app.kubernetes.io/name": "prometheus"}, "ports": [{"name": "web", "port": 9090}]});
        let own = json!({
            "selector": {"app.kubernetes.io/name": "prometheus", "operator.prometheus.io/name": "kps"},
            "ports": [{"name": "reloader-web", "port": 8080}, {"name": "http-web", "port": 80}],
        });
        assert_eq!(leads_to(&governing, "kps", &["kps"]), Some((9090, 0)));
        assert_eq!(leads_to(&governing, "kps", &["kps", "other"]), Some((9090, 1)));
        assert_eq!(leads_to(&own, "kps", &["kps", "other"]), Some((80, 0)));
        assert_eq!(leads_to(&own, "other", &[]), None);
        assert_eq!(leads_to(&json!({"selector": {}, "ports": [{"port": 9090}]}), "kps", &[]), None);
        assert_eq!(external_path(&json!({"externalUrl": "https://example.org/prometheus/"})), "/prometheus/");
        assert_eq!(external_path(&json!({})), "");
    }
}
