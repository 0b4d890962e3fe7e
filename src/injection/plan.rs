//! The second phase: everything that is added to a pod, as values.

use super::bootstrap::Dialect;
use super::changes::ContainerChanges;
use super::detect::{Detection, Gateway, MetricsSource};
use super::exporter::mapping::Mapping;
use super::exporter::{self, Exporter};
use super::gateway::{self, Endpoint, StatsdConfig};
use super::mesh::{Interception, interception};
use super::naming::monitor_name;
use super::resources::{self, LimitRange};
use super::status::{METRICS_PATH, Status};
use crate::annotations::{
    DISCOVERY, Discovery, EXPORTER, INJECT, MONITORED_BY, PROFILE, Profile, RELAY, RESOURCES, SIDECAR, STATSD_PORT,
    Settings, Sidecar,
};
use crate::config::Config;
use crate::kubernetes::pod::Pod;
use crate::reason::{Finding, Reason, shown};

/// The additions to one pod. It holds no JSON: that is one rendering of it ([`super::render`]).
#[derive(Debug)]
pub(super) struct InjectionPlan {
    /// The name of the workload's monitor.
    pub(super) monitor: String,
    /// Labels of the pod.
    pub(super) labels: Vec<(&'static str, String)>,
    /// Annotations of the pod; one that is there gets the new value. Those that hold a file or the status follow from the rest.
    pub(super) annotations: Vec<(&'static str, String)>,
    /// The sidecar, with the volume that it mounts.
    pub(super) exporter: Option<Exporter>,
    /// Secrets with a registry's password for the sidecar's image, which the pod lacks.
    pub(super) pull_secrets: Vec<String>,
    /// Envoy configuration that the gateway's container reads from a file: [`exporter::BOOTSTRAP_FILE`].
    pub(super) file: Option<String>,
    /// The changes of the gateway's container, by its index in `spec.containers`.
    pub(super) container: Option<(usize, ContainerChanges)>,
    /// The status; its hash is set by `render`.
    pub(super) status: Status,
    /// Warnings; the change is made all the same.
    pub(super) warnings: Vec<Finding>,
    /// True if the pod is its own workload.
    pub(super) is_bare: bool,
}

/// Plans the additions to a pod, in a namespace with these `LimitRange`s.
pub(super) fn plan(
    config: &Config,
    limits: &[LimitRange],
    pod: &Pod,
    detection: Detection,
) -> Result<InjectionPlan, Finding> {
    let Detection {
        workload,
        is_bare,
        is_unasked,
        settings,
        gateway: Gateway { kind, container, version, index, source },
    } = detection;
    let mode = source.mode();
    let mut warnings = ignored_annotations(pod, &settings, &source);
    let (changes, exporter, metrics_port, metrics_path) = match source {
        MetricsSource::Statsd(StatsdConfig { statsd_port, dialect, envoy, relay, changes }) => {
            let exporter = Exporter {
                kind: settings.sidecar.unwrap_or(config.sidecar),
                statsd_port,
                metrics_port: settings
                    .metrics_port
                    .unwrap_or_else(|| pod.free_port(exporter::DEFAULT_METRICS_PORT, "TCP")),
                mapping: Mapping::of(dialect, settings.profile, envoy),
                relay,
                is_user_set: matches!(pod.run_as_user(), Some(0 | 1337)),
                resources: resources::fit(pod, &settings.resources.over(&config.resources), limits)?,
            };
            let port = exporter.metrics_port;
            (changes, Some(exporter), port, METRICS_PATH.into())
        }
        MetricsSource::Scrape(Endpoint { port, path, changes })
        | MetricsSource::Existing(Endpoint { port, path, changes }) => (changes, None, port, path),
    };
    warnings.extend(changes.warnings);
    let container_changes = index.map(|index| (index, changes.container));
    let monitor = monitor_name(&workload);
    let is_monitored = settings.discovery != Discovery::Annotations;
    let labels = [(MONITORED_BY, is_monitored), (EXPORTER, exporter.is_some())];
    let labels = labels.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| (key, monitor.clone())).collect();
    let mut annotations = Vec::new();
    if settings.discovery != Discovery::Monitor {
        annotations = scrape_annotations(pod, kind, metrics_port, &metrics_path)?;
    }
    match interception(pod, kind, metrics_port, exporter.is_some()) {
        Interception::Excluded { annotation, value } => annotations.push((annotation, value)),
        Interception::Intercepted(warning) => warnings.push(warning),
        Interception::None => {}
    }
    annotations.extend(changes.annotations);
    if is_unasked {
        annotations.push((INJECT, "true".to_owned()));
    }
    let has_secret = |name: &String| pod.spec.image_pull_secrets.iter().flatten().any(|secret| secret.name == *name);
    let pull_secrets: Vec<_> = match exporter {
        Some(_) => config.image_pull_secrets.iter().filter(|name| !has_secret(name)).cloned().collect(),
        None => vec![],
    };
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        gateway: kind.to_owned(),
        container: container.to_owned(),
        image_version: version.map(|version| version.to_string()),
        mode,
        statsd_port: exporter.as_ref().map(|exporter| exporter.statsd_port),
        metrics_port,
        metrics_path: metrics_path.into_owned(),
        added: vec![],
        hash: String::new(),
    };
    let (file, container) = (changes.file, container_changes);
    let mut plan = InjectionPlan {
        monitor,
        labels,
        annotations,
        exporter,
        pull_secrets,
        file,
        container,
        status,
        warnings,
        is_bare,
    };
    plan.status.added = plan.additions();
    Ok(plan)
}

/// Annotations that a user has set and that change nothing here.
fn ignored_annotations(pod: &Pod, settings: &Settings, source: &MetricsSource) -> Vec<Finding> {
    const SIDECARS: [&str; 4] = [STATSD_PORT, RELAY, SIDECAR, RESOURCES];
    let idle: Vec<_> = match source {
        MetricsSource::Statsd(StatsdConfig { relay, dialect, .. }) => {
            let relays = Some(RELAY).filter(|_| settings.relay && relay.is_none());
            let renames =
                Some(PROFILE).filter(|_| settings.profile == Profile::Bakins && *dialect == Dialect::DogStatsd);
            relays.into_iter().chain(renames).collect()
        }
        MetricsSource::Scrape(_) => SIDECARS.into_iter().chain([PROFILE]).collect(),
        // The monitor still uses the profile.
        MetricsSource::Existing(_) => SIDECARS.to_vec(),
    };
    let set = |key: &&str| pod.metadata.annotation(key).is_some_and(|value| value != "false");
    let finding = |key| Finding::new(Reason::AnnotationIgnored, format!("{key} has no effect here; remove it"));
    idle.into_iter().filter(set).map(finding).collect()
}

/// The annotations by which Prometheuses without an operator, Grafana's agents among them, find what to scrape.
fn scrape_annotations(pod: &Pod, gateway: &str, port: u16, path: &str) -> Result<Vec<(&'static str, String)>, Finding> {
    let wanted = [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", port.to_string()),
        ("prometheus.io/path", path.to_owned()),
    ];
    for (key, value) in &wanted {
        if let Some(other) = pod.metadata.annotation(key).filter(|set| set != value) {
            let own =
                gateway::ALL.iter().find(|known| known.name == gateway).and_then(|known| known.scrape_annotations_off);
            let way =
                own.map_or_else(|| "remove one".to_owned(), |field| format!("its controller writes none with {field}"));
            let detail = format!("{key} is {} already, and {DISCOVERY} needs {}; {way}", shown(other), shown(value));
            return Err(Finding::new(Reason::ScrapeAnnotationConflict, detail));
        }
    }
    Ok(wanted.into_iter().filter(|(key, _)| pod.metadata.annotation(key).is_none()).collect())
}

impl InjectionPlan {
    /// Every addition, by its path in the pod.
    fn additions(&self) -> Vec<String> {
        let mut added = Vec::new();
        if let Some(exporter) = &self.exporter {
            let list = if exporter.kind == Sidecar::Native { "initContainers" } else { "containers" };
            added.push(format!("{list}/{}", exporter::CONTAINER));
            added.push(format!("volumes/{}", exporter::MAPPING_VOLUME));
        }
        added.extend(self.pull_secrets.iter().map(|name| format!("imagePullSecrets/{name}")));
        added.extend(self.labels.iter().map(|(key, _)| format!("labels/{key}")));
        added.extend(self.annotations.iter().map(|(key, _)| format!("annotations/{key}")));
        added.extend(self.file.as_ref().map(|_| format!("volumes/{}", exporter::BOOTSTRAP_VOLUME)));
        if let Some((_, changes)) = &self.container {
            let part = |what: &str| format!("containers/{}/{what}", self.status.container);
            added.extend((!changes.args.is_empty()).then(|| part("args")));
            added.extend(changes.env.iter().map(|(name, _)| part(&format!("env/{name}"))));
            added.extend(changes.merged.iter().map(|merged| part(&merged.path)));
        }
        added
    }
}
