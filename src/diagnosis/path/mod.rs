//! The way of one gateway's metrics, step by step: from the annotation to the samples in Prometheus. Each step is checked,
//! whatever the one before it showed.

mod objects;
mod others;
mod pods;
mod series;

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::check::{Check, Verdict, cause};
use super::gateway::Gateway;
use super::scope::WebhookScope;
use super::series::Series;
use crate::config::Config;
use crate::injection::resources::LimitRange;
use crate::kubernetes::Version;
use crate::monitoring::network::NetworkPolicy;
use crate::monitoring::{Cluster, CurrentState, Plan, ScrapeTarget, plan};
use crate::reason::{Finding, Reason};

/// The reasons that follow from a failure before them.
const SYMPTOMS: [Reason; 4] = [Reason::NoEndpoints, Reason::NoTarget, Reason::TargetDown, Reason::NoSamples];

/// What the checks of a gateway need to know of its cluster.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// gwmon's configuration there.
    pub config: &'a Config,
    /// True if that is the configuration of a gwmon of this version: what it would inject can be predicted.
    pub is_config_known: bool,
    /// The objects that configure monitoring.
    pub monitoring: &'a Cluster,
    /// The LimitRanges of each namespace.
    pub limit_ranges: &'a BTreeMap<String, Vec<LimitRange>>,
    /// Every NetworkPolicy.
    pub network_policies: &'a [NetworkPolicy],
    /// The ServiceMonitors and PodMonitors that gwmon did not make.
    pub others_monitors: &'a [Value],
    /// The namespaces in which gwmon's webhook is called, where that is known.
    pub scope: Option<&'a WebhookScope>,
    /// The version of the oldest part of the cluster, where it is known.
    pub kubernetes: Option<Version>,
    /// What could not be read.
    pub unread: &'a Unread,
    /// What was asked of each Prometheus.
    pub probes: &'a Probes,
}

impl Surroundings<'_> {
    /// Returns true if everything is known on which an injection depends.
    fn is_predictable(&self) -> bool {
        self.is_config_known && ["limitranges", "nodes"].iter().all(|resource| self.unread.why(resource).is_none())
    }
}

/// The resources that could not be read, such as `endpointslices`, each with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread(pub BTreeMap<String, NotRead>);

/// The reason why a resource could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRead {
    /// The cluster does not serve it.
    NotServed,
    /// The caller lacks a right; with the words of the API server.
    Forbidden(String),
}

impl Unread {
    /// Why a check of this resource cannot be made.
    #[must_use]
    pub fn why(&self, resource: &str) -> Option<String> {
        Some(match self.0.get(resource)? {
            NotRead::NotServed => format!("the cluster does not serve {resource}"),
            NotRead::Forbidden(message) => format!("you may not list {resource}: {message}"),
        })
    }
}

/// The answers of API server and Prometheus to questions about a scraper.
#[derive(Debug, Default)]
pub struct Probes {
    /// By scraper, as `namespace/name`, and the namespace of the targets.
    pub rights: HashMap<(String, String), Rights>,
    /// By scraper: what it has scraped, or why it cannot be asked.
    pub series: HashMap<String, Result<Series, String>>,
}

/// Whether a scraper may discover targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It may.
    Granted,
    /// It may not.
    Missing(Finding),
    /// That cannot be told, for this reason.
    Unknown(String),
}

/// Checks the way of a gateway's metrics: its namespace and the name of its objects, and what was read of it.
#[must_use]
pub fn walk((namespace, monitor): (&str, &str), gateway: &Gateway, around: &Surroundings) -> Vec<Check> {
    let way = Way { namespace, monitor, gateway, around };
    let mut checks = way.pods();
    if way.is_monitored() {
        let plan = way.plan();
        let selected = way.objects(plan.as_ref().map(Result::as_ref), &mut checks);
        way.series(&selected, &mut checks);
    }
    set_symptoms_aside(&mut checks);
    checks
}

/// Without targets, say, because the ServiceMonitor is not selected: that is told once.
fn set_symptoms_aside(checks: &mut [Check]) {
    let Some(step) = cause(checks).map(|cause| cause.step) else { return };
    let is_symptom = |check: &&mut Check| {
        check.verdict == Verdict::Fail
            && check.step > step
            && check.reason.is_some_and(|reason| SYMPTOMS.contains(&reason))
    };
    for check in checks.iter_mut().filter(is_symptom) {
        let fact = format!("{}; that follows from the failure of the step {}", check.fact, step.as_str());
        let object = check.object.clone();
        *check = Check::skip(check.step, object, fact);
    }
}

/// The number of a gateway's pods in which gwmon would now inject something else; `None` where that cannot be told.
#[must_use]
pub fn outdated((namespace, monitor): (&str, &str), gateway: &Gateway, around: &Surroundings) -> Option<usize> {
    Way { namespace, monitor, gateway, around }.outdated()
}

/// One gateway on its way.
struct Way<'a> {
    namespace: &'a str,
    monitor: &'a str,
    gateway: &'a Gateway,
    around: &'a Surroundings<'a>,
}

impl<'a> Way<'a> {
    /// An object of the gateway's namespace, as kubectl takes it.
    fn object(&self, resource: &str) -> String {
        format!("{resource} -n {}", self.namespace)
    }

    fn workload(&self) -> String {
        self.object(&self.gateway.resource())
    }

    fn limits(&self) -> &'a [LimitRange] {
        self.around.limit_ranges.get(self.namespace).map_or(&[][..], Vec::as_slice)
    }

    /// The objects that gwmon would make for the pods that run; `None` without a pod.
    fn plan(&self) -> Option<Result<Plan<'a>, Finding>> {
        let revision = self.gateway.revision.as_ref()?;
        let config = self.around.config;
        let target = ScrapeTarget::of_pod(config, self.namespace, self.monitor, &revision.annotations, None);
        let reader = self
            .gateway
            .service
            .as_ref()
            .and_then(|service| service["metadata"]["annotations"][crate::annotations::PROMETHEUS].as_str());
        let current = CurrentState { existing_monitors: &[], reader, is_reader_awaited: false };
        Some(target.map(|target| plan(&target, self.around.monitoring, &config.bounds, &current)))
    }
}

/// The scrapers that are to scrape this gateway, by the pods that run.
#[must_use]
pub fn readers<'a>(key: (&'a str, &'a str), gateway: &'a Gateway, around: &'a Surroundings<'a>) -> Vec<String> {
    let way = Way { namespace: key.0, monitor: key.1, gateway, around };
    let plan = way.plan().and_then(Result::ok);
    plan.map_or_else(Vec::new, |plan| plan.readers.iter().map(|reader| reader.place()).collect())
}

/// The first field that is planned and is not there, or is otherwise.
fn lacking(planned: &Value, live: &Value, path: &str) -> Option<String> {
    match (planned, live) {
        (Value::Object(planned), Value::Object(live)) => planned
            .iter()
            .find_map(|(key, value)| lacking(value, live.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"))),
        (Value::Array(planned), Value::Array(live)) if planned.len() == live.len() => planned
            .iter()
            .zip(live)
            .enumerate()
            .find_map(|(index, (planned, live))| lacking(planned, live, &format!("{path}[{index}]"))),
        (planned, live) => (planned != live).then(|| path.to_owned()),
    }
}

#[cfg(test)]
mod tests;
