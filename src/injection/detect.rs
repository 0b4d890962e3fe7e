//! The first phase: what a pod is, and where its metrics come from.

use super::Asker;
use super::changes::Changes;
use super::command::CommandLine;
use super::exporter::{self, DEFAULT_METRICS_PORT};
use super::gateway::{self, Endpoint, GatewayContext, StatsdConfig};
use super::naming::workload_of;
use super::status::{METRICS_PATH, Status, StatusMode};
use crate::annotations::{INJECT, METRICS_PORT, Mode, STATUS, Settings};
use crate::config::Config;
use crate::kubernetes::pod::{Container, Pod};
use crate::kubernetes::{Annotations, Version};
use crate::reason::{Finding, Reason, shown};

/// A pod that asks for injection and can have it, as far as its gateway is concerned.
pub(super) struct Detection<'a> {
    /// The name of its workload.
    pub(super) workload: String,
    /// True if the pod is its own workload.
    pub(super) is_bare: bool,
    /// True if it is to say itself that it asks for injection, as its namespace does for it.
    pub(super) is_unasked: bool,
    /// The settings from its annotations.
    pub(super) settings: Settings,
    /// Its gateway.
    pub(super) gateway: Gateway<'a>,
}

/// The gateway of a pod, and the source of its metrics.
pub(super) struct Gateway<'a> {
    /// The gateway's kind.
    pub(super) kind: &'static str,
    /// The container that sends or serves the metrics.
    pub(super) container: &'a str,
    /// The version that the tag of its image tells.
    pub(super) version: Option<Version>,
    /// The index in `spec.containers` of the container that is changed. `None` where the proxy is still to come, or an existing
    /// exporter serves the metrics.
    pub(super) index: Option<usize>,
    /// The source.
    pub(super) source: MetricsSource,
}

/// The source of a pod's metrics.
pub(super) enum MetricsSource {
    /// A sidecar, to which the gateway sends statsd.
    Statsd(StatsdConfig),
    /// The gateway's own endpoint.
    Scrape(Endpoint),
    /// An exporter that the pod has already.
    Existing(Endpoint),
}

impl MetricsSource {
    /// The mode, for the status.
    pub(super) const fn mode(&self) -> StatusMode {
        match self {
            Self::Statsd(_) => StatusMode::Statsd,
            Self::Scrape(_) => StatusMode::Scrape,
            Self::Existing(_) => StatusMode::Existing,
        }
    }
}

/// Detects what a pod is.
pub(super) fn detect<'a>(config: &Config, pod: &'a Pod<'a>, asker: Asker) -> Result<Detection<'a>, Finding> {
    static NONE: Annotations = Annotations::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&NONE);
    let is_unasked = asker == Asker::Namespace && !annotations.contains_key(INJECT);
    let settings = if is_unasked { Settings::read(annotations) } else { Settings::parse(annotations) }?;
    let known = if let Asker::Workload(name) = asker { Some(name) } else { None };
    let is_bare = known.is_none() && pod.metadata.is_bare();
    let workload = known.map(str::to_owned).or_else(|| workload_of(&pod.metadata)).ok_or_else(|| {
        let why = match pod.metadata.controller() {
            Some(_) => "this is a static pod, which the kubelet makes; use a DaemonSet",
            None if pod.metadata.owner_references.is_empty() => {
                "this pod has no controller, and no name of its own; annotate a Deployment, or set metadata.name"
            }
            None => "none of the owners of this pod is its controller; annotate a Deployment",
        };
        Finding::new(Reason::NoWorkload, why)
    })?;
    check_pod(pod)?;
    let gateway = gateway_of(pod, &settings, config.mode)?;
    Ok(Detection { workload, is_bare, is_unasked, settings, gateway })
}

/// Checks for what forbids any change, whatever the gateway is.
fn check_pod(pod: &Pod) -> Result<(), Finding> {
    // A manifest that `gwmon preview` has printed, with the annotations taken off: the kubelet would make empty files of
    // them, and with an empty configuration the gateway itself does not start.
    for (volume, annotation) in exporter::READ_FROM_ANNOTATIONS {
        if pod.spec.has_volume(volume) && pod.metadata.annotation(annotation).is_none() {
            let detail = format!(
                "volume {volume} reads the annotation {annotation}, which is missing; apply the whole output of gwmon preview, or remove all that it added"
            );
            return Err(Finding::new(Reason::IncompleteInjection, detail));
        }
    }
    if pod.all_containers().any(|c| c.name == exporter::CONTAINER) {
        return Err(Finding::new(Reason::AlreadyInjected, format!("container {} is there", exporter::CONTAINER)));
    }
    // Without an added container, only the status shows an injection. One with a statsd port, copied into a template, is
    // ignored.
    let status = pod.metadata.annotation(STATUS).and_then(|status| serde_json::from_str::<Status>(status).ok());
    if status.is_some_and(|status| status.statsd_port.is_none()) {
        return Err(Finding::new(Reason::AlreadyInjected, format!("annotation {STATUS} is there")));
    }
    let selected = pod.spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    let asked = pod.spec.os.as_ref().map(|os| &os.name);
    if [selected, asked].into_iter().flatten().any(|os| os == "windows") {
        return Err(Finding::new(Reason::WindowsPod, "the pod asks for Windows, for which there is no exporter image"));
    }
    Ok(())
}

/// The gateway of a pod. A pod that has an exporter gets no second one: both would hold the same ports, and count everything
/// twice. `default_mode` holds for pods that choose none, and for gateways that have it.
pub(super) fn gateway_of<'a>(
    pod: &'a Pod<'a>,
    settings: &Settings,
    default_mode: Option<Mode>,
) -> Result<Gateway<'a>, Finding> {
    let found = gateway::find(pod, settings);
    if settings.mode != Some(Mode::Scrape)
        && let Some(exporter) = pod.lasting_containers().find(|container| is_exporter(container))
    {
        let kind = match found {
            Ok((_, gateway)) => gateway.name,
            Err(finding) if finding.reason == Reason::NoGateway => "unknown",
            Err(finding) => return Err(finding),
        };
        let source = MetricsSource::Existing(adopt(exporter, settings)?);
        return Ok(Gateway { kind, container: &exporter.name, version: exporter.version(), index: None, source });
    }
    let (index, gateway) = found?;
    let container = index.and_then(|index| pod.spec.containers.as_ref()?.get(index));
    let context = GatewayContext { pod, container, settings };
    let by_default = || match default_mode.filter(|mode| *mode != gateway.mode)? {
        Mode::Scrape => gateway.endpoint(&context).ok().map(MetricsSource::Scrape),
        Mode::Statsd if pod.spec.host_network => None,
        Mode::Statsd => gateway.statsd(&context).ok().map(MetricsSource::Statsd),
    };
    let source = match settings.mode.unwrap_or(gateway.mode) {
        _ if settings.mode.is_none()
            && let Some(source) = by_default() =>
        {
            source
        }
        Mode::Scrape => MetricsSource::Scrape(gateway.endpoint(&context)?),
        // A sidecar's ports would be the node's, so scrape the gateway itself if it serves only metrics.
        Mode::Statsd if pod.spec.host_network && settings.mode.is_none() => match gateway.endpoint(&context) {
            Ok(endpoint) if endpoint.is_harmless() => MetricsSource::Scrape(endpoint),
            _ => MetricsSource::Statsd(gateway.statsd(&context)?),
        },
        Mode::Statsd => MetricsSource::Statsd(gateway.statsd(&context)?),
    };
    let name = container.map_or(gateway.container, |container| container.name.as_str());
    let version = container.and_then(Container::version);
    Ok(Gateway { kind: gateway.name, container: name, version, index, source })
}

/// By the image, or by the flags of another one: a container called `statsd` may be anything.
fn is_exporter(container: &Container) -> bool {
    let flags = ["statsd.mapping-config", "statsd.listen-udp", "statsd.listen-address"];
    let is_flag =
        |word: &String| word.trim_start_matches('-').split('=').next().is_some_and(|flag| flags.contains(&flag));
    matches!(container.image_name(), "statsd-exporter" | "statsd_exporter" | "prom-statsd-exporter")
        || container.command.iter().chain(container.args.iter().flatten()).any(is_flag)
}

/// The endpoint of an existing exporter. Its flags have one dash before version 0.7, two since.
fn adopt(exporter: &Container, settings: &Settings) -> Result<Endpoint, Finding> {
    let line = CommandLine::whole(exporter);
    let flag = |names: [&str; 2]| line.value(&names).map(|set| set.value.to_owned());
    let address = flag(["--web.listen-address", "-web.listen-address"]).unwrap_or_default();
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    if matches!(host, "127.0.0.1" | "localhost" | "[::1]") {
        let detail = format!(
            "the exporter in container {} listens on {}, where Prometheus cannot reach it; set --web.listen-address=:{DEFAULT_METRICS_PORT}",
            exporter.name,
            shown(&address)
        );
        return Err(Finding::new(Reason::EndpointUnreachable, detail));
    }
    let port = match settings.metrics_port {
        Some(port) => port,
        None if port.is_empty() => DEFAULT_METRICS_PORT,
        None => port.parse().map_err(|_| {
            let detail = format!(
                "the exporter in container {} listens on {}; name the port with {METRICS_PORT}",
                exporter.name,
                shown(&address)
            );
            Finding::new(Reason::EndpointUnknown, detail)
        })?,
    };
    let path = flag(["--web.telemetry-path", "-web.telemetry-path"]);
    let path = path.map_or_else(|| METRICS_PATH.into(), Into::into);
    Ok(Endpoint { port, path, changes: Changes::default() })
}

#[cfg(test)]
mod tests {
    use super::super::gateway::testing::pod;
    use super::*;
    use serde_json::{Value, json};

    fn source(container: &Value, extra: &Value, settings: &Settings) -> Result<(StatusMode, u16), Reason> {
        let pod = pod(container, extra);
        let source = gateway_of(&pod, settings, None).map_err(|finding| finding.reason)?.source;
        let port = match &source {
            MetricsSource::Statsd(config) => config.statsd_port,
            MetricsSource::Scrape(endpoint) | MetricsSource::Existing(endpoint) => endpoint.port,
        };
        Ok((source.mode(), port))
    }

    #[test]
    fn an_exporter_that_is_there_is_adopted() {
        let with = |image: &str, args: Value| {
            let exporter = json!({"spec": {"initContainers": [{"name": "x", "restartPolicy": "Always", "image": image, "args": args}]}});
            source(&json!({"image": "envoyproxy/envoy:v1.40.0", "args": ["-c", "/e"]}), &exporter, &Settings::default())
        };
        assert_eq!(with("prom/statsd-exporter:v0.28.0", json!([])), Ok((StatusMode::Existing, 9102)));
        assert_eq!(
            with("datawire/prom-statsd-exporter:0.6.0", json!(["-web.listen-address", ":9103"])),
            Ok((StatusMode::Existing, 9103))
        );
        assert_eq!(
            with("statsd-exporter", json!(["--web.listen-address=0.0.0.0:9104"])),
            Ok((StatusMode::Existing, 9104))
        );
        assert_eq!(
            with("statsd-exporter", json!(["--web.listen-address=127.0.0.1:9104"])),
            Err(Reason::EndpointUnreachable)
        );
        assert_eq!(with("statsd-exporter", json!(["--web.listen-address=:$(PORT)"])), Err(Reason::EndpointUnknown));
        assert_eq!(
            with("mirror/metrics:1", json!(["--statsd.mapping-config=/m.yaml"])),
            Ok((StatusMode::Existing, 9102))
        );
        assert_eq!(with("datawire/statsd:0.30", json!([])), Ok((StatusMode::Statsd, 9125)));
        let ended = json!({"spec": {"initContainers": [{"name": "x", "image": "prom/statsd-exporter", "args": ["--check-config"]}]}});
        let envoy = json!({"image": "envoyproxy/envoy:v1.40.0", "args": ["-c", "/e"]});
        assert_eq!(source(&envoy, &ended, &Settings::default()), Ok((StatusMode::Statsd, 9125)));
    }

    #[test]
    fn on_the_nodes_network_only_what_is_harmless_is_scraped() {
        let node = json!({"spec": {"hostNetwork": true}});
        let emissary = json!({"image": "emissaryingress/emissary:3.9.1"});
        assert_eq!(source(&emissary, &node, &Settings::default()), Ok((StatusMode::Scrape, 8877)));
        let envoy = json!({"image": "envoyproxy/envoy:v1.40.0", "ports": [{"name": "admin", "containerPort": 9901}]});
        assert_eq!(
            source(&envoy, &node, &Settings::default()),
            Ok((StatusMode::Statsd, 9125)),
            "refused as a sidecar there"
        );
        let asked = Settings { mode: Some(Mode::Statsd), ..Settings::default() };
        assert_eq!(source(&emissary, &node, &asked), Ok((StatusMode::Statsd, 8125)));
    }

    #[test]
    fn a_gateway_without_statsd_says_so() {
        let asked = Settings { mode: Some(Mode::Statsd), ..Settings::default() };
        assert_eq!(source(&json!({"image": "kong:3.9"}), &json!({}), &asked), Err(Reason::UnsupportedMode));
        assert_eq!(
            source(&json!({"image": "kong:3.9"}), &json!({}), &Settings::default()),
            Ok((StatusMode::Scrape, 8100))
        );
    }
}
