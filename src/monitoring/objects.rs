//! The shapes of the generated objects.

use serde_json::{Value, json};

use super::selection::Placement;
use crate::annotations::{
    INTERVAL, METRICS_FOR, MONITOR_LABELS, MONITORED_BY, PROMETHEUS, Profile, STATUS, Settings, Target,
    WORKLOAD_NAMESPACE,
};
use crate::config::{Bounds, Config};
use crate::injection::exporter::PORT_NAME;
use crate::injection::{Status, StatusMode};
use crate::kubernetes::labels::Labels;
use crate::kubernetes::{Annotations, Version};
use crate::reason::{Finding, Reason};

/// The group and version of a ServiceMonitor, and its kind.
pub const MONITOR: (&str, &str) = ("monitoring.coreos.com/v1", "ServiceMonitor");
/// The group and version of a Service, and its kind.
pub const SERVICE: (&str, &str) = ("v1", "Service");

/// Shows people that gwmon made the object. A Prometheus may ask for another value, so gwmon does not rely on it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "gwmon");

/// A workload's owner reference: where it goes, its objects follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// `apps/v1` and the like.
    pub api_version: String,
    /// The workload's kind: never a ReplicaSet's or a pod's where a Deployment stands above it.
    pub kind: String,
    /// The workload's name.
    pub name: String,
    /// The workload's UID.
    pub uid: String,
}

/// The target of the scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Injected pods, at this port. They need a Service, which is made.
    Pods {
        /// The port.
        metrics_port: u16,
        /// The path there.
        path: String,
    },
    /// A Service that is there, by its labels, at this named port.
    Service {
        /// Labels of the Service.
        labels: Labels,
        /// The name of its port.
        port: &'static str,
    },
}

/// One gateway, as its injected pods tell; or gwmon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeTarget {
    /// The workload's namespace.
    pub namespace: String,
    /// The name of its objects, and the value of its pods' label.
    pub monitor: String,
    /// The kind of gateway ([`crate::annotations::GATEWAY`]); empty for gwmon itself.
    pub kind: String,
    /// The version of its image.
    pub version: Option<Version>,
    /// The target of the scrape.
    pub source: Source,
    /// The scrape interval, if the user sets one.
    pub interval: Option<String>,
    /// Labels of the pods that every series gets.
    pub pod_labels: &'static [&'static str],
    /// The Prometheus to select it.
    pub target: Target,
    /// Labels that the user wants on the monitor.
    pub labels: Labels,
    /// Its workload; absent in a preview, where no UID is known.
    pub owner: Option<Owner>,
    /// Settings of the user that are not allowed.
    pub notes: Vec<Finding>,
}

/// Takes back what the configuration does not allow, and says so.
fn bound(settings: &mut Settings, bounds: &Bounds) -> Vec<Finding> {
    let mut notes = vec![];
    if let Some(interval) = &mut settings.interval {
        let too_short = Some(&bounds.min_interval).filter(|least| least.is_above(interval));
        let too_long = bounds.max_interval.as_ref().filter(|most| most.is_below(interval));
        let bound = too_short.map(|least| (least, "shorter", "minInterval"));
        if let Some((bound, how, field)) = bound.or_else(|| too_long.map(|most| (most, "longer", "maxInterval"))) {
            let detail = format!(
                "{INTERVAL}: {interval} is {how} than {bound}, which is taken instead (gwmon's configuration, monitors.{field})"
            );
            notes.push(Finding::new(Reason::NotAllowed, detail));
            bound.as_str().clone_into(interval);
        }
    }
    if let Some(labels) = &mut settings.monitor_labels {
        let allowed = &bounds.monitor_labels;
        let forbidden: Vec<_> = labels.keys().filter(|key| !allowed.contains(key)).cloned().collect();
        labels.retain(|key, _| allowed.contains(key));
        if !forbidden.is_empty() {
            let detail = format!(
                "{MONITOR_LABELS}: {} is left out; allowed is {allowed} (gwmon's configuration, monitors.allowedLabels)",
                forbidden.join(", "),
            );
            notes.push(Finding::new(Reason::NotAllowed, detail));
        }
    }
    notes
}

/// The name of a gateway's objects in a namespace. Outside its own, workloads of the same name from several
/// namespaces meet; neither a namespace's nor a Service's name has a dot.
#[must_use]
pub fn name_in(namespace: &str, home: &str, monitor: &str) -> String {
    if namespace == home { monitor.to_owned() } else { format!("{home}.{monitor}") }
}

impl ScrapeTarget {
    /// The gateway that an injected pod belongs to: the pod's annotations tell what was injected and what the user asks
    /// for.
    ///
    /// # Errors
    /// Annotations that cannot be read, after somebody edited a running pod.
    pub fn of_pod(
        config: &Config,
        namespace: &str,
        monitor: &str,
        pod: &Annotations,
        owner: Option<Owner>,
    ) -> Result<Self, Finding> {
        let status = pod.get(STATUS).map_or("", String::as_str);
        let status: Status = serde_json::from_str(status).map_err(|error| {
            Finding::new(Reason::MalformedObject, format!("a pod's annotation {STATUS} cannot be read: {error}"))
        })?;
        let mut settings = Settings::parse(pod)?;
        let notes = bound(&mut settings, &config.bounds);
        Ok(Self {
            namespace: namespace.to_owned(),
            monitor: monitor.to_owned(),
            // An existing exporter does not show the gateway's kind.
            kind: if status.mode == StatusMode::Existing { String::new() } else { status.gateway },
            version: status.image_version.and_then(|version| version.parse().ok()),
            source: Source::Pods { metrics_port: status.metrics_port, path: status.metrics_path },
            interval: settings.interval,
            // The queries of that project ask for them.
            pod_labels: if settings.profile == Profile::Bakins { &["app"] } else { &[] },
            target: settings.prometheus.unwrap_or_default(),
            labels: settings.monitor_labels.unwrap_or_else(|| config.monitor_labels.clone()),
            owner,
            notes,
        })
    }

    /// The labels that identify this gateway's objects.
    fn marks(&self) -> Labels {
        let marks = [(METRICS_FOR, &self.monitor), (WORKLOAD_NAMESPACE, &self.namespace)];
        marks.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()
    }

    /// The monitor's labels that must stay: gwmon's marks and the user's own.
    #[must_use]
    pub fn required_labels(&self) -> Labels {
        self.labels.clone().into_iter().chain(self.marks()).collect()
    }

    /// The monitor's labels that give way to what a Prometheus asks for.
    #[must_use]
    pub fn default_labels() -> Labels {
        Labels::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])
    }

    fn metadata(&self, namespace: &str, suffix: &str, labels: &Labels) -> Value {
        let at_home = namespace == self.namespace;
        let mut metadata = json!({
            "name": name_in(namespace, &self.namespace, &self.monitor) + suffix,
            "namespace": namespace,
            "labels": labels,
        });
        // An owner in another namespace would make the garbage collector delete the object.
        if let Some(owner) = self.owner.as_ref().filter(|_| at_home) {
            metadata["ownerReferences"] = json!([{
                "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
            }]);
        }
        metadata
    }

    /// The metrics Service, where one must be made. Headless, since only discovery reads it. It selects injected pods
    /// only, so that a pod without the exporter is not a target that is always down. The target port is a number: a
    /// named port of a native sidecar is not resolved before Kubernetes 1.32 (R29). It notes who reads the gateway: of all
    /// objects only this one is sure to be in the gateway's namespace, where nobody else's tenants can write.
    #[must_use]
    pub fn service(&self, reader: Option<&str>) -> Option<Value> {
        let Source::Pods { metrics_port, .. } = self.source else { return None };
        let labels = Self::default_labels().into_iter().chain(self.marks()).collect();
        let mut metadata = self.metadata(&self.namespace, "", &labels);
        if let Some(reader) = reader {
            metadata["annotations"] = json!({PROMETHEUS: reader});
        }
        Some(json!({
            "apiVersion": SERVICE.0,
            "kind": SERVICE.1,
            "metadata": metadata,
            "spec": {
                "clusterIP": "None",
                "selector": {MONITORED_BY: self.monitor},
                "ports": [{"name": PORT_NAME, "port": metrics_port, "protocol": "TCP", "appProtocol": "http", "targetPort": metrics_port}],
            },
        }))
    }

    /// The ServiceMonitor. It selects the made Service by a label that only gwmon sets, never by the gateway's own.
    #[must_use]
    pub fn service_monitor(&self, placement: &Placement) -> Value {
        let (labels, port, path) = match &self.source {
            Source::Pods { path, .. } => {
                (Labels::from([(METRICS_FOR.to_owned(), self.monitor.clone())]), PORT_NAME, path.as_str())
            }
            Source::Service { labels, port } => (labels.clone(), *port, "/metrics"),
        };
        let mut endpoint = json!({"port": port, "path": path});
        if let Some(interval) = &self.interval {
            endpoint["interval"] = json!(interval);
        }
        let mut spec = json!({"selector": {"matchLabels": labels}, "endpoints": [endpoint]});
        if !self.pod_labels.is_empty() {
            spec["podTargetLabels"] = json!(self.pod_labels);
        }
        if placement.namespace != self.namespace {
            spec["namespaceSelector"] = json!({"matchNames": [self.namespace]});
        }
        json!({
            "apiVersion": MONITOR.0,
            "kind": MONITOR.1,
            "metadata": self.metadata(&placement.namespace, &placement.suffix, &placement.labels),
            "spec": spec,
        })
    }
}
