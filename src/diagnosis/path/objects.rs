//! From the metrics Service to the network: the objects by which Prometheus finds the gateway.

use serde_json::Value;

use super::{NotRead, Rights, Way, lacking};
use crate::annotations::MONITORED_BY;
use crate::diagnosis::binding::{Binding, binding};
use crate::diagnosis::check::{Check, Step, Verdict};
use crate::injection::exporter::PORT_NAME;
use crate::kubernetes::Version;
use crate::kubernetes::labels::Labels;
use crate::monitoring::predicate::Condition;
use crate::monitoring::selector::Selector;
use crate::monitoring::{Plan, Scraper};
use crate::reason::{Finding, Reason};

/// Since when a named port of a native sidecar is resolved (kubernetes/kubernetes#127958).
const NAMED_SIDECAR_PORTS_SINCE: Version = Version(1, 32);

impl<'a> Way<'a> {
    /// Checks the objects, against what gwmon would make where pods tell it. Returns the scrapers that select a monitor.
    pub(super) fn objects(
        &self,
        plan: Option<Result<&Plan<'a>, &Finding>>,
        checks: &mut Vec<Check>,
    ) -> Vec<&'a Scraper> {
        // Without a pod there is nothing to find.
        if self.gateway.live().next().is_none() && self.gateway.service.is_none() {
            return vec![];
        }
        checks.push(self.service());
        if self.gateway.service.is_some() {
            checks.push(self.endpoints());
        }
        let planned = match plan {
            Some(Ok(plan)) => Some(plan),
            Some(Err(finding)) => {
                checks.push(Check::found(Step::ServiceMonitor, self.workload(), finding.clone()));
                None
            }
            None => None,
        };
        let found = self.monitors(planned);
        checks.extend(found);
        let selected = self.selection(planned, checks);
        for reader in &selected {
            checks.push(self.prometheus(reader));
            checks.push(self.rights(reader));
        }
        checks.extend(self.network(&selected));
        selected
    }

    pub(super) fn not_read(&self, step: Step, resource: &'static str) -> Option<Check> {
        Some(Check::skip(step, self.workload(), self.around.unread.why(resource)?))
    }

    fn service(&self) -> Check {
        let object = self.object(&format!("service/{}", self.monitor));
        let Some(service) = &self.gateway.service else {
            if let Some(skipped) = self.not_read(Step::Service, "services") {
                return skipped;
            }
            let finding = Finding::new(Reason::ObjectMissing, "there is no such Service");
            return Check::found(Step::Service, object, finding);
        };
        let fix = format!("kubectl delete {object}");
        let changed =
            |detail: String| Check::found(Step::Service, object.clone(), Finding::new(Reason::ObjectChanged, detail));
        let selector = &service["spec"]["selector"];
        if selector[MONITORED_BY] != self.monitor || selector.as_object().is_some_and(|labels| labels.len() > 1) {
            let detail =
                format!("spec.selector is {selector}; it must be {MONITORED_BY}: {} and nothing else", self.monitor);
            return changed(detail).fix(fix);
        }
        let ports = service["spec"]["ports"].as_array();
        let Some(port) = ports.into_iter().flatten().find(|port| port["name"] == PORT_NAME) else {
            return changed(format!("it has no port named {PORT_NAME}")).fix(fix);
        };
        let status = self.gateway.revision.as_ref().and_then(|revision| revision.status.as_ref());
        let (target, scraped) = (&port["targetPort"], status.map(|status| status.metrics_port));
        match (target.as_str(), target.as_u64(), scraped) {
            (Some(name), ..) if self.around.kubernetes.is_some_and(|version| version < NAMED_SIDECAR_PORTS_SINCE) => {
                let detail = format!(
                    "targetPort is the name {name}, which this Kubernetes does not find in a native sidecar; it must be a number"
                );
                changed(detail).fix(fix)
            }
            (None, Some(number), Some(scraped)) if number != u64::from(scraped) => {
                changed(format!("targetPort is {number}; the pods serve their metrics at {scraped}")).fix(fix)
            }
            _ => Check::ok(
                Step::Service,
                object,
                format!("port {PORT_NAME} leads to {target} of pods with {MONITORED_BY}={}", self.monitor),
            ),
        }
    }

    fn endpoints(&self) -> Check {
        if let Some(skipped) = self.not_read(Step::Endpoints, "endpointslices") {
            return skipped;
        }
        let object = self.object(&format!("service/{}", self.monitor));
        let endpoints =
            self.gateway.slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false).count();
        let live = self.gateway.live().count();
        if ready == 0 && live > 0 {
            let finding =
                Finding::new(Reason::NoEndpoints, format!("it has no ready address; {live} pods are injected"));
            let fix = format!("kubectl describe pods -n {} -l {MONITORED_BY}={}", self.namespace, self.monitor);
            return Check::found(Step::Endpoints, object, finding).fix(fix);
        }
        Check::ok(Step::Endpoints, object, format!("{ready} ready addresses for {live} injected pods"))
    }

    /// The monitors that are there, against those that gwmon would make.
    fn monitors(&self, plan: Option<&Plan>) -> Vec<Check> {
        let monitors = &self.gateway.monitors;
        if monitors.is_empty() {
            if let Some(NotRead::NotServed) = self.around.unread.0.get("servicemonitors") {
                let finding = Finding::new(
                    Reason::ServiceMonitorCRDMissing,
                    "the cluster does not serve the kind ServiceMonitor",
                );
                return vec![Check::found(Step::ServiceMonitor, self.workload(), finding)];
            }
            if let Some(skipped) = self.not_read(Step::ServiceMonitor, "servicemonitors") {
                return vec![skipped];
            }
            // The selection tells why there is none.
            if plan.is_some_and(|plan| plan.monitors.is_err()) {
                return vec![];
            }
            let finding =
                Finding::new(Reason::ObjectMissing, format!("there is no ServiceMonitor for {}", self.monitor));
            return vec![Check::found(Step::ServiceMonitor, self.workload(), finding)];
        }
        let planned = plan.and_then(|plan| plan.monitors.as_deref().ok()).unwrap_or_default();
        monitors.iter().map(|monitor| self.service_monitor(monitor, planned)).collect()
    }

    fn service_monitor(&self, monitor: &Value, planned: &[Value]) -> Check {
        let (namespace, name) = place(monitor);
        let object = format!("servicemonitor/{name} -n {namespace}");
        let fix = format!("kubectl delete {object}");
        let changed = |detail: String| {
            Check::found(Step::ServiceMonitor, object.clone(), Finding::new(Reason::ObjectChanged, detail))
                .fix(fix.clone())
        };
        let spec = &monitor["spec"];
        let service = self.gateway.service.as_ref();
        let labels = |value: &Value| serde_json::from_value::<Labels>(value.clone()).unwrap_or_default();
        let selector = serde_json::from_value(spec["selector"].clone()).unwrap_or_default();
        if let (Ok(selector), Some(service)) = (Selector::parse(&selector), service)
            && let Err(mismatch) = selector.check(&labels(&service["metadata"]["labels"]))
        {
            return changed(format!(
                "it selects no Service: spec.selector {mismatch} on service/{} -n {}",
                self.monitor, self.namespace
            ));
        }
        let names = spec["namespaceSelector"]["matchNames"].as_array();
        let sees = names.map_or(namespace == self.namespace, |names| names.iter().any(|name| *name == self.namespace));
        if !sees && spec["namespaceSelector"]["any"] != true {
            return changed(format!("spec.namespaceSelector does not name {}", self.namespace));
        }
        let ports = service.and_then(|service| service["spec"]["ports"].as_array());
        let endpoints = spec["endpoints"].as_array().into_iter().flatten();
        let is_port =
            |endpoint: &&Value| ports.is_none_or(|ports| ports.iter().any(|port| port["name"] == endpoint["port"]));
        let unnamed = endpoints.clone().find(|endpoint| !is_port(endpoint));
        if let Some(endpoint) = unnamed {
            return changed(format!(
                "spec.endpoints names the port {}; the Service's is {PORT_NAME}",
                endpoint["port"]
            ));
        }
        if endpoints.count() == 0 {
            return changed("spec.endpoints is empty".to_owned());
        }
        let planned = planned.iter().find(|planned| place(planned) == (namespace, name));
        if let Some(field) = planned.and_then(|planned| lacking(&planned["spec"], spec, "spec")) {
            let detail =
                format!("{field} is not as gwmon writes it: the CRD is older than that field, or somebody changed it");
            return Check::found(Step::ServiceMonitor, object, Finding::new(Reason::CustomResourceOutdated, detail));
        }
        Check::ok(
            Step::ServiceMonitor,
            object,
            format!("it selects service/{} -n {}, port {PORT_NAME}", self.monitor, self.namespace),
        )
    }

    /// Who selects the monitors. Warnings of the plan are told as well.
    fn selection(&self, plan: Option<&Plan<'a>>, checks: &mut Vec<Check>) -> Vec<&'a Scraper> {
        let (cluster, step) = (self.around.monitoring, Step::Selection);
        if cluster.scrapers.is_empty() {
            if let Some(skipped) = self.not_read(step, "prometheuses") {
                checks.push(skipped);
                return vec![];
            }
            let finding = Finding::new(
                Reason::NoPrometheus,
                "the cluster has no Prometheus or other object that reads ServiceMonitors",
            );
            // Grafana Alloy, for one, is configured by no object.
            checks.push(Check { verdict: Verdict::Warn, ..Check::found(step, self.workload(), finding) });
            return vec![];
        }
        let wanted: Vec<&'a Scraper> = plan.map(|plan| plan.readers.clone()).unwrap_or_default();
        let mut selected: Vec<&'a Scraper> = Vec::new();
        let mut unmet = Vec::new();
        for monitor in &self.gateway.monitors {
            let (namespace, name) = place(monitor);
            let labels = serde_json::from_value::<Labels>(monitor["metadata"]["labels"].clone()).unwrap_or_default();
            let object = format!("servicemonitor/{name} -n {namespace}");
            for scraper in &cluster.scrapers {
                // One that is paused goes on with what it has selected; the step of the Prometheus tells that.
                match cluster.would_select(scraper, namespace, &labels) {
                    Ok(()) => {
                        checks.push(Check::ok(
                            step,
                            object.clone(),
                            format!("{scraper} selects it and {}", scraper.asks()),
                        ));
                        if !selected.iter().any(|found| std::ptr::eq(*found, scraper)) {
                            selected.push(scraper);
                        }
                    }
                    Err(why) if wanted.iter().any(|reader| std::ptr::eq(*reader, scraper)) || wanted.is_empty() => {
                        let hint = if why.condition == Condition::Labels { scraper.helm_hint() } else { None };
                        unmet.push(format!("{scraper}: {why}{}", hint.unwrap_or_default()));
                    }
                    Err(_) => {}
                }
            }
        }
        checks.extend(self.second_scrapes(&selected));
        if selected.is_empty() && !self.gateway.monitors.is_empty() {
            let finding = Finding::new(Reason::NotSelected, unmet.join("; "));
            checks.push(Check::found(step, self.workload(), finding));
        }
        if let Some(plan) = plan {
            // Without monitors, this is why.
            let obstacle =
                plan.monitors.as_ref().err().filter(|_| selected.is_empty() && self.gateway.monitors.is_empty());
            let is_prometheus =
                |finding: &&Finding| matches!(finding.reason, Reason::PrometheusPaused | Reason::PrometheusNotRunning);
            let told = plan.warnings.iter().filter(|finding| !is_prometheus(finding)).chain(obstacle);
            checks.extend(told.map(|finding| Check::found(step, self.workload(), finding.clone())));
        }
        selected
    }

    /// The scraper runs, and its operator has taken the monitor.
    fn prometheus(&self, reader: &Scraper) -> Check {
        let object = reader.resource();
        let cluster = self.around.monitoring;
        if let Some(outage) = cluster.outage(reader) {
            if outage.finding.reason == Reason::OperatorUnknown {
                return Check::skip(
                    Step::Prometheus,
                    object,
                    "whether it is reconciled cannot be told: its operator is not known",
                );
            }
            return Check::found(Step::Prometheus, object, outage.finding);
        }
        for monitor in &self.gateway.monitors {
            if let Some(why) = reader.rejects(monitor) {
                let finding =
                    Finding::new(Reason::MonitorRejected, format!("its operator rejects the ServiceMonitor: {why}"));
                return Check::found(Step::Prometheus, object, finding);
            }
            let generation = monitor["metadata"]["generation"].as_i64().unwrap_or_default();
            let said = if cluster.writes_bindings(reader) {
                binding(monitor, generation, reader, place(monitor))
            } else {
                Binding::Accepted
            };
            match said {
                Binding::Rejected(finding) => return Check::found(Step::Prometheus, object, finding),
                Binding::Awaited => {
                    return Check::skip(
                        Step::Prometheus,
                        object,
                        "its operator has not looked at the ServiceMonitor yet",
                    );
                }
                Binding::Accepted => {}
            }
        }
        Check::ok(Step::Prometheus, object, "it runs, and its operator reconciles it")
    }

    fn rights(&self, reader: &Scraper) -> Check {
        let object = reader.resource();
        match self.around.probes.rights.get(&(reader.place(), self.namespace.to_owned())) {
            Some(Rights::Granted) => {
                Check::ok(Step::ScrapeRights, object, format!("it may discover targets in {}", self.namespace))
            }
            Some(Rights::Missing(finding)) => Check::found(Step::ScrapeRights, object, finding.clone()),
            Some(Rights::Unknown(why)) => Check::skip(Step::ScrapeRights, object, why.clone()),
            None => {
                Check::skip(Step::ScrapeRights, object, "it was not asked for: gwmon would choose another Prometheus")
            }
        }
    }
}

/// An object's namespace and name.
pub(super) fn place(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}
