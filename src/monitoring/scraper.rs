//! Scrapers: the objects that configure a Prometheus or something like it, in one shape.

mod kinds;

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::operator::CONTROLLER_ID;
use super::selector::Selector;
use crate::annotations::duration;
use crate::kubernetes::labels::Labels;
use crate::kubernetes::pod::{or_null, parse};
use crate::reason::{Finding, cut};

/// The kinds that are read. In the order in which one is preferred to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// prometheus-operator's.
    Prometheus,
    /// prometheus-operator's, without storage or queries.
    PrometheusAgent,
    /// VictoriaMetrics': its operator converts ServiceMonitors, labels and all.
    VMAgent,
    /// opentelemetry-operator's.
    TargetAllocator,
    /// opentelemetry-operator's, with a target allocator built in.
    OpenTelemetryCollector,
}

impl Kind {
    /// Every kind, each with its group and version.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Prometheus, "monitoring.coreos.com/v1"),
        (Self::PrometheusAgent, "monitoring.coreos.com/v1alpha1"),
        (Self::VMAgent, "operator.victoriametrics.com/v1beta1"),
        (Self::TargetAllocator, "opentelemetry.io/v1alpha1"),
        (Self::OpenTelemetryCollector, "opentelemetry.io/v1beta1"),
    ];

    /// The kind as its objects name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prometheus => "Prometheus",
            Self::PrometheusAgent => "PrometheusAgent",
            Self::VMAgent => "VMAgent",
            Self::TargetAllocator => "TargetAllocator",
            Self::OpenTelemetryCollector => "OpenTelemetryCollector",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().map(|(kind, _)| kind).find(|kind| kind.as_str() == name)
    }

    /// Returns true if a prometheus-operator runs it, by its flags.
    pub(super) const fn is_operated(self) -> bool {
        matches!(self, Self::Prometheus | Self::PrometheusAgent)
    }
}

/// From which namespaces monitors are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NamespaceScope {
    Own,
    Matching(Selector),
}

/// The conditions that an operator writes about the pods of a scraper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// `spec.replicas` is 0.
    pub(super) has_no_replica: bool,
    /// The condition `Reconciled`, with its reason where it is False. `None` where it is not there, as before operator 0.57.
    pub(super) reconciled: Option<Result<(), String>>,
    /// The condition `Available` is False.
    pub(super) is_unavailable: bool,
}

/// One reader of ServiceMonitors. What each kind leaves unsaid has been filled in by that kind's own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scraper {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: Labels,
    pub(super) controller_id: String,
    /// The reason why it selects no ServiceMonitor, whatever its selector.
    pub(super) obstacle: Option<String>,
    /// `spec.paused`: its configuration stays as it was.
    pub(super) paused: bool,
    /// Selects by the monitor's labels.
    pub(super) selector: Selector,
    /// The field of `selector`.
    pub(super) selector_field: &'static str,
    pub(super) scope: NamespaceScope,
    /// The field of `scope`.
    pub(super) scope_field: &'static str,
    /// A target allocator's own allow list; `None` is all.
    pub(super) allowed: Option<BTreeSet<String>>,
    /// A target allocator's own deny list.
    pub(super) denied: BTreeSet<String>,
    /// A monitor reaches pods of its own namespace only.
    pub(super) ignore_namespace_selectors: bool,
    /// Set to the monitor's namespace on every series.
    pub(super) enforced_namespace_label: Option<String>,
    /// The default scrape interval.
    pub(super) scrape_interval: Option<String>,
    /// The scrape class that applies to monitors which name none, and those of its fields that change what is scraped. Its
    /// `tlsConfig` does not: the scheme is the monitor's.
    pub(super) default_class: Option<(String, Vec<&'static str>)>,
    /// Fields of `spec` beyond which a scrape is lost whole, with their values.
    pub(super) limits: Vec<String>,
    /// The rules that it loads: by their labels, and from which namespaces. `None` where it loads none.
    pub(super) rules: Option<(Selector, NamespaceScope)>,
    pub(super) health: Health,
    /// Its pods' service account, and the resource by which it discovers targets.
    discovery: Option<(String, &'static str)>,
}

impl fmt::Display for Scraper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

#[derive(Deserialize)]
struct Object<'a> {
    kind: String,
    metadata: Metadata,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "or_null")]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    /// Another kind's may look otherwise.
    #[serde(default)]
    conditions: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default, deserialize_with = "or_null")]
    namespace: String,
    #[serde(default, deserialize_with = "or_null")]
    labels: Labels,
    #[serde(default, deserialize_with = "or_null")]
    annotations: Labels,
    deletion_timestamp: Option<String>,
    #[serde(default, deserialize_with = "or_null")]
    owner_references: Vec<OwnerReference>,
}

const BEING_DELETED: &str = "is being deleted";

impl Scraper {
    /// Reads an object of one of the kinds. `None` where it is of another, or reads no ServiceMonitors by design. If its spec
    /// cannot be read, the scraper has an obstacle.
    ///
    /// # Errors
    /// [`crate::reason::Reason::MalformedObject`], where not even its name can be read.
    pub fn parse(json: &str) -> Result<Option<Self>, Finding> {
        let object: Object = parse(json)?;
        let Some(kind) = Kind::named(&object.kind) else { return Ok(None) };
        let mut metadata = object.metadata;
        let mut scraper = Self {
            kind,
            name: metadata.name,
            namespace: metadata.namespace,
            labels: metadata.labels,
            controller_id: metadata.annotations.remove(CONTROLLER_ID).unwrap_or_default(),
            obstacle: None,
            paused: false,
            selector: Selector::default(),
            selector_field: "spec.serviceMonitorSelector",
            scope: NamespaceScope::Own,
            scope_field: "spec.serviceMonitorNamespaceSelector",
            allowed: None,
            denied: BTreeSet::new(),
            ignore_namespace_selectors: false,
            enforced_namespace_label: None,
            scrape_interval: None,
            default_class: None,
            limits: vec![],
            rules: None,
            health: Health::default(),
            discovery: None,
        };
        let spec = object.spec.map_or("{}", RawValue::get);
        let read = match kind {
            Kind::Prometheus | Kind::PrometheusAgent => scraper.read_prometheus(spec),
            Kind::VMAgent => scraper.read_vmagent(spec),
            // The operator makes one for each collector; the collector is read instead.
            Kind::TargetAllocator if metadata.owner_references.iter().any(|owner| owner.controller == Some(true)) => {
                return Ok(None);
            }
            Kind::TargetAllocator => scraper.read_target_allocator(spec),
            Kind::OpenTelemetryCollector => scraper.read_collector(spec),
        };
        match read {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(why) => scraper.obstacle = Some(why),
        }
        if kind.is_operated() {
            scraper.read_conditions(&object.status.conditions);
        }
        if metadata.deletion_timestamp.is_some() {
            scraper.obstacle = Some(BEING_DELETED.to_owned());
        }
        Ok(Some(scraper))
    }

    fn read_conditions(&mut self, conditions: &Value) {
        for condition in conditions.as_array().into_iter().flatten() {
            let is_false = condition["status"] == "False";
            match condition["type"].as_str() {
                Some("Reconciled") if is_false => {
                    let reason = condition["reason"].as_str().unwrap_or("without a reason");
                    self.health.reconciled = Some(Err(cut(reason, 64).into_owned()));
                }
                Some("Reconciled") => self.health.reconciled = Some(Ok(())),
                Some("Available") => self.health.is_unavailable = is_false,
                _ => {}
            }
        }
    }

    /// Returns true if it is being deleted.
    #[must_use]
    pub fn is_being_deleted(&self) -> bool {
        self.obstacle.as_deref() == Some(BEING_DELETED)
    }

    /// `prometheus.monitoring.coreos.com/k8s -n monitoring`, as kubectl takes it.
    #[must_use]
    pub fn resource(&self) -> String {
        let group =
            Kind::ALL.into_iter().find(|(kind, _)| *kind == self.kind).and_then(|(_, version)| version.split_once('/'));
        let group = group.map_or("", |(group, _)| group);
        format!("{}.{group}/{} -n {}", self.kind.as_str().to_lowercase(), self.name, self.namespace)
    }

    /// The labels that it asks a monitor for, and the field.
    #[must_use]
    pub fn asks(&self) -> String {
        if self.selector.is_empty() {
            return "takes ServiceMonitors with any labels".to_owned();
        }
        format!("asks for {} ({})", self.selector, self.selector_field)
    }

    /// What to know of a label that nobody set: kube-prometheus-stack makes a selector by its release where none is given
    /// (`serviceMonitorSelectorNilUsesHelmValues`).
    #[must_use]
    pub fn helm_hint(&self) -> Option<&'static str> {
        let is_charts = self.labels.get("chart").is_some_and(|chart| chart.starts_with("kube-prometheus-stack"));
        let is_default = is_charts && self.selector.keys().eq(["release"]);
        is_default.then_some(
            " (the chart sets this where serviceMonitorSelector is {}: prometheus.prometheusSpec.serviceMonitorSelectorNilUsesHelmValues=false takes it away)",
        )
    }

    /// `namespace/name`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// The service account as which it discovers targets, and the resource that it lists besides `services` and `pods`.
    /// `None` where that is not known.
    #[must_use]
    pub fn discovery(&self) -> Option<(&str, &'static str)> {
        self.discovery.as_ref().map(|(account, resource)| (account.as_str(), *resource))
    }

    /// The reason why its operator would reject a selected monitor (`checkServiceMonitor` there), for the fields that
    /// gwmon writes.
    #[must_use]
    pub fn rejects(&self, monitor: &Value) -> Option<String> {
        let endpoints = monitor.pointer("/spec/endpoints").and_then(Value::as_array);
        endpoints.into_iter().flatten().find_map(|endpoint| {
            let given = |field: &str| endpoint[field].as_str();
            let interval = given("interval").or(self.scrape_interval.as_deref()).unwrap_or("30s");
            let timeout = given("scrapeTimeout")?;
            (duration(timeout).ok()? > duration(interval).ok()?)
                .then(|| format!("scrapeTimeout {timeout} is longer than the interval, {interval}"))
        })
    }
}
