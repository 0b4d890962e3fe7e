//! The source of a pod's metrics: an existing exporter, the gateway's own endpoint, or the gateway's statsd.

use super::command::CommandLine;
use super::exporter::METRICS_PORT as EXPORTER_PORT;
use super::gateway::{self, Changes, Endpoint, GatewayContext, StatsdConfig};
use super::pod::{Container, Pod};
use super::status::{METRICS_PATH, StatusMode};
use crate::annotations::{METRICS_PORT, Mode, Settings};
use crate::reason::{Finding, Reason, shown};

/// The gateway of a pod, and the source of its metrics.
pub(super) struct Source<'a> {
    /// The gateway's kind.
    pub(super) gateway: &'static str,
    /// The container that sends or serves them.
    pub(super) container: &'a str,
    pub(super) mode: StatusMode,
    /// The gateway's container, by its index in `spec.containers`.
    pub(super) index: Option<usize>,
    /// The source.
    pub(super) way: Way,
}

pub(super) enum Way {
    /// By a sidecar.
    Statsd(StatsdConfig),
    /// By what serves them already.
    Scrape(Endpoint),
}

/// A pod that has an exporter gets no second one: both would hold the same ports, and count everything twice.
pub(super) fn find<'a>(pod: &'a Pod<'a>, settings: &Settings) -> Result<Source<'a>, Finding> {
    let found = gateway::find(pod, settings);
    if settings.mode != Some(Mode::Scrape)
        && let Some(exporter) = pod.lasting_containers().find(|container| is_exporter(container))
    {
        let gateway = match found {
            Ok((_, gateway)) => gateway.name,
            Err(finding) if finding.reason == Reason::NoGateway => "unknown",
            Err(finding) => return Err(finding),
        };
        let way = Way::Scrape(adopt(exporter, settings)?);
        return Ok(Source { gateway, container: &exporter.name, mode: StatusMode::Existing, index: None, way });
    }
    let (index, gateway) = found?;
    let container = index.and_then(|index| pod.spec.containers.as_ref()?.get(index));
    let context = GatewayContext { pod, container, settings };
    let scrape = || gateway.endpoint(&context).map(Way::Scrape);
    let (mode, way) = match settings.mode.unwrap_or(gateway.mode) {
        Mode::Scrape => (StatusMode::Scrape, scrape()?),
        // A sidecar's ports would be the node's: better the gateway's own, if anybody may reach them.
        Mode::Statsd if pod.spec.host_network && settings.mode.is_none() => match gateway.endpoint(&context) {
            Ok(endpoint) if endpoint.is_harmless() => (StatusMode::Scrape, Way::Scrape(endpoint)),
            _ => (StatusMode::Statsd, Way::Statsd(gateway.statsd(&context)?)),
        },
        Mode::Statsd => (StatusMode::Statsd, Way::Statsd(gateway.statsd(&context)?)),
    };
    let container = container.map_or(gateway.container, |container| container.name.as_str());
    Ok(Source { gateway: gateway.name, container, mode, index, way })
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
            "the exporter in container {} listens on {}, where Prometheus cannot reach it; set --web.listen-address=:{EXPORTER_PORT}",
            exporter.name,
            shown(&address)
        );
        return Err(Finding::new(Reason::EndpointUnreachable, detail));
    }
    let port = match settings.metrics_port {
        Some(port) => port,
        None if port.is_empty() => EXPORTER_PORT,
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
        let source = find(&pod, settings).map_err(|finding| finding.reason)?;
        let port = match source.way {
            Way::Statsd(config) => config.statsd_port,
            Way::Scrape(endpoint) => endpoint.port,
        };
        Ok((source.mode, port))
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
