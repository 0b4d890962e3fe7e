//! A plain Envoy, configured by a second piece of configuration on its command line: `--config-yaml`, which Envoy merges over
//! the file of `-c`. Checked on a real Envoy: `docs/root/operations/cli.rst`, "override and merge".

use super::{Changes, DEFAULTS, ENVOY_PATH, Endpoint, GatewayContext, GatewayKind, StatsdConfig};
use crate::annotations::{ENVOY_VERSION, METRICS_PORT};
use crate::injection::bootstrap;
use crate::injection::changes::{ContainerChanges, ReplacedValue};
use crate::injection::command::CommandLine;
use crate::kubernetes::Version;
use crate::kubernetes::pod::Container;
use crate::reason::{Finding, Reason, shown};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "envoy",
    matches: |container, _| matches(container),
    statsd: Some(statsd),
    endpoint,
    ..DEFAULTS
};

/// statsd_exporter's own default; Envoy takes any.
pub(super) const PORT: u16 = 9125;
/// The configuration that both published images run when they are given no arguments.
const IMAGE_CMD: [&str; 2] = ["-c", "/etc/envoy/envoy.yaml"];
/// The flag by which Envoy takes configuration from its command line.
pub(super) const CONFIG_YAML: &str = "--config-yaml";

/// By the names of the published images, or by what runs.
pub(super) fn matches(container: &Container) -> bool {
    is_named(container) || container.command.first().is_some_and(|program| program.rsplit('/').next() == Some("envoy"))
}

fn is_named(container: &Container) -> bool {
    let flavour = container.image_name().strip_prefix("envoy").unwrap_or("?");
    matches!(
        flavour,
        "" | "-alpine" | "-distroless" | "-contrib" | "-dev" | "-debug" | "-contrib-dev" | "-alpine-debug"
    )
}

/// Returns true for a published image, from any registry. Only those have Envoy's version as their tag and a known
/// default command.
fn is_published(container: &Container) -> bool {
    matches!(container.image_parts().0.as_slice(), [.., "envoyproxy", _]) && is_named(container)
}

/// The version that the user names, or the tag of a published image. Another image's tag may be a version of its own: Envoy
/// does not start with the configuration of an older version, so the user must name its version.
fn version(context: &GatewayContext, container: &Container) -> Result<Option<Version>, Finding> {
    let tagged = container.version();
    match context.settings.envoy_version {
        Some(version) => Ok(Some(version)),
        None if is_published(container) => Ok(tagged),
        None if tagged.is_none_or(|version| version >= bootstrap::BATCHES_SINCE) => Ok(None),
        None => {
            let (_, tag) = container.image_parts();
            let detail = format!(
                "the image's tag {} may be Envoy's version or another; name Envoy's with {ENVOY_VERSION}",
                shown(tag.unwrap_or_default())
            );
            Err(Finding::new(Reason::UnsupportedVersion, detail))
        }
    }
}

/// Also for Contour, Envoy Gateway and OSM, whose containers run `envoy`.
pub(super) fn statsd(context: &GatewayContext) -> Result<StatsdConfig, Finding> {
    let container = context.container()?;
    let envoy = version(context, container)?;
    let dialect = context.dialect();
    let line = CommandLine::of(container, "envoy")?.open_ended()?;
    let statsd_port = context.statsd_port(PORT);
    let config = |statsd_port, dialect, container| {
        let changes = Changes { container, ..Changes::default() };
        Ok(StatsdConfig { statsd_port, dialect, envoy, relay: None, changes })
    };
    let sink = bootstrap::sink(envoy, dialect, statsd_port)?;
    if let Some(own) = line.value(&[CONFIG_YAML]) {
        let named = |finding: Finding| {
            let detail = format!("{CONFIG_YAML} of container {}: {}", container.name, finding.detail);
            Finding::new(finding.reason, detail)
        };
        if let Some(local) = bootstrap::local_sink(own.value).map_err(named)? {
            // A second sink to one exporter would count everything twice.
            let port = context.fixed_port(local.port, "its own configuration sends")?;
            return config(port, local.dialect, ContainerChanges::default());
        }
        let merged = bootstrap::with_sink(own.value, &sink).map_err(named)?;
        let to = format!("{}{merged}", own.before);
        return config(
            statsd_port,
            dialect,
            ContainerChanges { merged: Some(ReplacedValue { path: own.path, to }), ..ContainerChanges::default() },
        );
    }
    let mut args = vec![];
    if line.is_empty && !is_published(container) {
        let detail = format!(
            "container {} says nothing of its arguments, and gwmon does not know those of its image; write them into the pod",
            container.name
        );
        return Err(Finding::new(Reason::UnpatchableCommand, detail));
    }
    if line.is_empty {
        // The first argument that a pod writes drops those of the image.
        args.extend(IMAGE_CMD.map(str::to_owned));
    } else if line.value(&["-c", "--config-path"]).is_none() {
        let detail = format!("container {} runs envoy without -c; name its configuration file", container.name);
        return Err(Finding::new(Reason::UnpatchableCommand, detail));
    }
    // Two arguments: Envoy does not take `--config-yaml=...`.
    args.extend([CONFIG_YAML.to_owned(), bootstrap::overlay(&sink)]);
    config(statsd_port, dialect, ContainerChanges { args, ..ContainerChanges::default() })
}

/// Envoy's admin port stands in its configuration, which is mostly a file that the pod only names.
fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    let container = context.container()?;
    let declared = ["admin", "envoy-admin"].into_iter().find_map(|name| container.port_named(name));
    let port = context.settings.metrics_port.or(declared).ok_or_else(|| {
        let detail = format!(
            "the admin port of container {} is in its configuration only; name it with {METRICS_PORT}, or a port of the container admin",
            container.name
        );
        Finding::new(Reason::EndpointUnknown, detail)
    })?;
    Ok(Endpoint::of_admin(port))
}

/// A listener that serves Envoy's statistics and nothing else.
pub(super) fn statistics(port: u16) -> Endpoint {
    Endpoint::new(port, ENVOY_PATH)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, context, kind, pod};
    use super::*;
    use crate::annotations::Settings;
    use crate::injection::bootstrap::Dialect;
    use serde_json::{Value, json};

    fn with_image(extra: &Value) -> Value {
        let mut all = json!({"image": "envoyproxy/envoy:v1.34.0"});
        json_patch::merge(&mut all, extra);
        all
    }

    fn changes(extra: &Value) -> Result<ContainerChanges, Reason> {
        testing::statsd(&GATEWAY, &with_image(extra)).map(|t| t.changes.container).map_err(|r| r.reason)
    }

    #[test]
    fn images_and_commands_of_envoy_are_recognised() {
        for image in [
            "envoyproxy/envoy:v1.34.0",
            "mirror:5000/envoyproxy/envoy-distroless:v1.9",
            "envoy",
            "envoyproxy/envoy-contrib@sha256:0",
        ] {
            assert_eq!(kind(&json!({"image": image}), &json!({})), Ok("envoy"), "{image}");
        }
        let by_command = json!({"image": "corp/edge:7", "command": ["/usr/local/bin/envoy"]});
        assert_eq!(kind(&by_command, &json!({})), Ok("envoy"));
        for image in ["envoyproxy/gateway:v1", "envoyproxy/envoy-perf:1", "projectcontour/contour:v1.30"] {
            assert_eq!(kind(&json!({"image": image}), &json!({})), Err(Reason::NoGateway), "{image}");
        }
    }

    #[test]
    fn every_form_that_keeps_its_configuration_is_extended() {
        let added = |extra| changes(&extra).unwrap().args;
        assert_eq!(added(json!({}))[..2], IMAGE_CMD);
        for extra in [
            json!({"args": ["-c", "/e.yaml"]}),
            json!({"args": ["envoy", "--config-path", "/e.yaml"]}),
            json!({"args": ["--config-path /e.yaml", "-l debug"]}),
            json!({"command": ["envoy"], "args": ["-c", "/e.yaml"]}),
            json!({"command": ["/usr/local/bin/envoy", "-c", "/e.yaml"]}),
        ] {
            assert_eq!(added(extra.clone()).len(), 2, "{extra}");
        }
    }

    #[test]
    fn its_own_configuration_on_the_command_line_gets_the_sink_in_place() {
        for (extra, path, before) in [
            (json!({"args": ["-c", "/e.yaml", "--config-yaml", "admin: {}"]}), "args/3", ""),
            (json!({"args": ["--config-yaml admin: {}"]}), "args/0", "--config-yaml "),
            (json!({"command": ["envoy", "--config-yaml", "admin: {}"]}), "command/2", ""),
        ] {
            let patch = changes(&extra).unwrap();
            let ReplacedValue { path: place, to } = patch.merged.unwrap();
            assert_eq!(place, path, "{extra}");
            assert!(to.starts_with(&format!("{before}stats_sinks: [{{")) && to.ends_with("\nadmin: {}"), "{to}");
            assert!(patch.args.is_empty());
        }
    }

    #[test]
    fn only_a_published_image_tells_its_version() {
        let added = |image: &str| changes(&json!({"image": image, "args": ["-c", "/e.yaml"]}));
        assert_eq!(added("corp/envoy:1.12.3"), Err(Reason::UnsupportedVersion));
        assert!(added("corp/envoy:2024.1").unwrap().args[1].contains("max_bytes_per_datagram"));
        assert!(added("mirror:5000/envoyproxy/envoy-alpine:v1.12.3").unwrap().args[1].contains("\"config\""));
    }

    #[test]
    fn a_sink_to_loopback_is_adopted_and_not_doubled() {
        let own = bootstrap::overlay(&bootstrap::sink(None, Dialect::Statsd, 8126).unwrap());
        let config = testing::statsd(&GATEWAY, &with_image(&json!({"args": ["--config-yaml", own]}))).unwrap();
        assert_eq!((config.statsd_port, config.dialect), (8126, Dialect::Statsd));
        assert_eq!(config.changes, Changes::default());
    }

    #[test]
    fn what_cannot_be_extended_safely_is_refused() {
        for (extra, reason) in [
            (json!({"command": ["sh", "-c", "envoy -c /e.yaml"]}), Reason::UnpatchableCommand),
            (json!({"command": ["envoy"]}), Reason::UnpatchableCommand),
            (json!({"image": "corp/envoy:prod"}), Reason::UnpatchableCommand),
            (json!({"args": ["-c", "/e.yaml", "--", "x"]}), Reason::UnpatchableCommand),
            (json!({"args": ["-c", "/e.yaml", "--config-yaml", "a: ["]}), Reason::UnreadableConfiguration),
            (json!({"image": "envoyproxy/envoy:v1.6.0"}), Reason::UnsupportedVersion),
        ] {
            assert_eq!(changes(&extra), Err(reason), "{extra}");
        }
    }

    #[test]
    fn the_annotation_beats_the_tag_and_a_taken_port_is_passed_over() {
        let settings = Settings { envoy_version: Some(Version(1, 15)), ..Settings::default() };
        let ports = json!([{"containerPort": 9125, "protocol": "UDP"}, {"containerPort": 9126}]);
        let pod = pod(&json!({"image": "corp/envoy:v1.2.0", "args": ["-c", "/e"], "ports": ports}), &json!({}));
        let config = statsd(&context(&pod, &settings)).unwrap();
        assert!(!config.changes.container.args[1].contains("max_bytes_per_datagram"));
        assert_eq!(config.statsd_port, 9126, "9126 is taken for TCP only");
    }

    #[test]
    fn the_admin_port_has_to_be_named_and_comes_with_a_warning() {
        let endpoint = |container: &Value| testing::endpoint(&GATEWAY, container);
        assert_eq!(endpoint(&json!({})), Err(Reason::EndpointUnknown));
        let declared = json!({"ports": [{"containerPort": 9901, "name": "admin"}]});
        assert_eq!(endpoint(&declared), Ok((9901, "/stats/prometheus".into())));
        assert!(!Endpoint::of_admin(9901).is_harmless() && statistics(8002).is_harmless());
    }
}
