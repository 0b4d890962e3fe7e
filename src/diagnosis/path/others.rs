//! What other people's objects do to a gateway's scrape: monitors that repeat it, policies and meshes that refuse it.

use serde_json::Value;

use super::Way;
use super::objects::place;
use crate::diagnosis::check::{Check, Step};
use crate::injection::exporter::PORT_NAME;
use crate::injection::intercepted;
use crate::kubernetes::labels::Labels;
use crate::monitoring::Scraper;
use crate::monitoring::network::{Reader, Scraped, closes};
use crate::monitoring::selector::Selector;
use crate::reason::{Finding, Reason};

impl Way<'_> {
    /// Monitors of other people's that find the same pods, and that one of these scrapers selects. Their series are the same, so
    /// Prometheus does not show it.
    pub(super) fn second_scrapes(&self, readers: &[&Scraper]) -> Vec<Check> {
        let found = self.around.others_monitors.iter().filter_map(|monitor| {
            let (namespace, name) = place(monitor);
            let spec = &monitor["spec"];
            let names = spec["namespaceSelector"]["matchNames"].as_array();
            let sees =
                names.map_or(namespace == self.namespace, |names| names.iter().any(|name| *name == self.namespace));
            if !sees && spec["namespaceSelector"]["any"] != true {
                return None;
            }
            let selector = serde_json::from_value(spec["selector"].clone()).unwrap_or_default();
            let selector = Selector::parse(&selector).ok()?;
            let is_pods = monitor["kind"] == "PodMonitor";
            let finds =
                if is_pods { self.is_pod_monitors(spec, &selector) } else { self.is_service_monitors(spec, &selector) };
            if !finds {
                return None;
            }
            let labels = serde_json::from_value::<Labels>(monitor["metadata"]["labels"].clone()).unwrap_or_default();
            // By which labels PodMonitors are selected is not read.
            let selects =
                |reader: &&&Scraper| is_pods || self.around.monitoring.selects(reader, namespace, &labels).is_ok();
            let reader = readers.iter().find(selects)?;
            let object =
                format!("{}/{name} -n {namespace}", monitor["kind"].as_str().unwrap_or_default().to_lowercase());
            let detail = format!("it finds the pods of {} as well, so {reader} scrapes them twice", self.monitor);
            Some(Check::found(Step::Selection, object, Finding::new(Reason::SelectedTwice, detail)))
        });
        found.collect()
    }

    /// Whether a ServiceMonitor finds the metrics port of the gateway's Service.
    fn is_service_monitors(&self, spec: &Value, selector: &Selector) -> bool {
        let Some(service) = &self.gateway.service else { return false };
        let labels = serde_json::from_value::<Labels>(service["metadata"]["labels"].clone()).unwrap_or_default();
        let mut endpoints = spec["endpoints"].as_array().into_iter().flatten();
        selector.matches(&labels) && endpoints.any(|endpoint| endpoint["port"] == PORT_NAME)
    }

    /// Whether a PodMonitor finds the metrics port of the gateway's pods.
    fn is_pod_monitors(&self, spec: &Value, selector: &Selector) -> bool {
        let Some(revision) = &self.gateway.revision else { return false };
        let port = revision.status.as_ref().map(|status| status.metrics_port);
        let mut endpoints = spec["podMetricsEndpoints"].as_array().into_iter().flatten();
        let is_port = |endpoint: &Value| {
            let number = endpoint["portNumber"].as_u64().or_else(|| endpoint["targetPort"].as_u64());
            endpoint["port"] == PORT_NAME || (number.is_some() && number == port.map(u64::from))
        };
        selector.matches(&revision.labels) && endpoints.any(is_port)
    }

    pub(super) fn network(&self, readers: &[&Scraper]) -> Option<Check> {
        let step = Step::Network;
        if let Some(skipped) = self.not_read(step, "networkpolicies") {
            return Some(skipped);
        }
        let revision = self.gateway.revision.as_ref()?;
        let status = revision.status.as_ref()?;
        let readers: Vec<_> = readers.iter().map(|reader| Reader::of(reader, self.around.monitoring)).collect();
        let scraped = Scraped {
            namespace: self.namespace,
            labels: &revision.labels,
            port: status.metrics_port,
            name: revision.port_name.as_deref(),
        };
        let object = self.workload();
        // Whether a policy holds for the node's own addresses is up to each network plugin.
        if revision.is_on_host_network {
            return Some(Check::skip(
                step,
                object,
                "its pods are on their nodes' network, where policies may not hold",
            ));
        }
        if let Some(finding) = closes(self.around.network_policies, &scraped, &readers) {
            return Some(Check::found(step, object, finding));
        }
        // Istio's own gateway is that sidecar.
        let intercepted = intercepted(&revision.annotations, status.metrics_port).filter(|_| status.gateway != "istio");
        Some(match intercepted {
            Some(finding) => Check::found(step, object, finding),
            None => Check::ok(
                step,
                object,
                format!("no NetworkPolicy and no mesh keeps Prometheus from port {}", status.metrics_port),
            ),
        })
    }
}
