//! A plain Envoy, told by a second piece of configuration on its command line: `--config-yaml`, which
//! Envoy since 1.7 merges over the file of `-c`.

use std::sync::LazyLock;

use serde_json::json;

use super::{Gateway, Telling};
use crate::annotations::{ENVOY_VERSION, Settings, Version};
use crate::injection::patch::{ContainerPatch, Template};
use crate::injection::pod::Container;
use crate::reason::{Finding, Reason};

pub(super) const GATEWAY: Gateway = Gateway { name: "envoy", recognise, tell };

/// statsd_exporter's own default; Envoy takes any.
const PORT: u16 = 9125;
/// `typed_config` with the v3 API. Older shapes are not written yet.
const V3_SINCE: Version = Version(1, 14);
/// `max_bytes_per_datagram` on the `dog_statsd` sink.
const BATCHES_SINCE: Version = Version(1, 16);
/// The configuration that both published images run when they are given no arguments.
const IMAGE_CMD: [&str; 2] = ["-c", "/etc/envoy/envoy.yaml"];

fn recognise(container: &Container) -> bool {
    let (path, _) = container.image_parts();
    let named = path.last().is_some_and(|name| {
        let flavour = name.strip_prefix("envoy").unwrap_or("?");
        matches!(
            flavour,
            "" | "-alpine" | "-distroless" | "-contrib" | "-dev" | "-debug" | "-contrib-dev" | "-alpine-debug"
        )
    });
    named || container.command.first().is_some_and(|program| is_envoy(program))
}

fn is_envoy(program: &str) -> bool {
    program.rsplit('/').next() == Some("envoy")
}

fn tell(container: &Container, settings: &Settings) -> Result<Telling, Finding> {
    let version = settings.envoy_version.or_else(|| image_version(container));
    if let Some(version) = version.filter(|v| *v < V3_SINCE) {
        let detail =
            format!("Envoy {version} is older than {V3_SINCE}; if the image tag misleads, set {ENVOY_VERSION}");
        return Err(Finding::new(Reason::UnsupportedVersion, detail));
    }
    let mut args = configuration(container)?;
    let statsd_port = settings.statsd_port.unwrap_or(PORT);
    // Two arguments: Envoy does not take `--config-yaml=...`.
    args.extend(["--config-yaml".to_owned(), overlay(statsd_port, version.is_none_or(|v| v >= BATCHES_SINCE))]);
    Ok(Telling { statsd_port, patch: ContainerPatch { args, env: vec![] } })
}

/// The version in tags such as `v1.34.2`, `distroless-v1.36.0` and `contrib-v1.30-latest`.
fn image_version(container: &Container) -> Option<Version> {
    container.image_parts().1?.split('-').find_map(|part| part.parse().ok())
}

/// Which arguments have to be repeated so that Envoy keeps its own configuration: those of the image's `CMD`
/// where the pod writes none, since the first argument that a pod writes drops them.
fn configuration(container: &Container) -> Result<Vec<String>, Finding> {
    let refuse = |reason, what: &str| Err(Finding::new(reason, format!("container {}: {what}", container.name)));
    let args = container.args.as_deref().unwrap_or_default();
    let given: Vec<&str> = container.command.iter().chain(args).map(String::as_str).collect();
    let flags = match (container.command.as_slice(), args) {
        ([], []) => return Ok(IMAGE_CMD.map(str::to_owned).to_vec()),
        // The image's entrypoint puts `envoy` before a flag and runs anything else as it is.
        ([], [first, ..]) if first.starts_with('-') => &given[..],
        ([], [first, ..]) if is_envoy(first) => &given[1..],
        ([first, ..], _) if is_envoy(first) => &given[1..],
        _ => {
            let ran = given.first().copied().unwrap_or_default();
            return refuse(
                Reason::UnpatchableCommand,
                &format!("runs {ran}, which may not pass arguments on; run envoy itself"),
            );
        }
    };
    // Envoy also takes a flag and its value in one argument, separated by a space.
    let has = |flag: &str| flags.iter().any(|f| f.split([' ', '=']).next() == Some(flag));
    if has("--config-yaml") {
        return refuse(
            Reason::ConfigYamlInUse,
            "has its own --config-yaml, which Envoy takes once; move it to a file for -c",
        );
    }
    if has("--") {
        return refuse(Reason::UnpatchableCommand, "ends its flags with --; remove that");
    }
    if !has("-c") && !has("--config-path") {
        return refuse(Reason::UnpatchableCommand, "runs envoy without -c; name its configuration file");
    }
    Ok(vec![])
}

/// The statsd sink, merged by Envoy over its own configuration: lists append, so the user's sinks stay.
/// JSON, every string quoted: YAML 1.1 would read some as something else. The flush interval is not set,
/// since Envoy ends when `stats_flush_on_admin` is set beside it.
fn overlay(statsd_port: u16, batches: bool) -> String {
    static OVERLAYS: LazyLock<[Template; 2]> = LazyLock::new(|| [false, true].map(template));
    fn template(batches: bool) -> Template {
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.config.metrics.v3.DogStatsdSink",
            "address": {"socket_address": {"protocol": "UDP", "address": "127.0.0.1", "port_value": "$port"}},
        });
        if batches {
            config["max_bytes_per_datagram"] = json!(1400);
        }
        let overlay = json!({"stats_sinks": [{"name": "envoy.stat_sinks.dog_statsd", "typed_config": config}]});
        Template::new(&overlay, &["port"])
    }
    OVERLAYS[usize::from(batches)].fill(&[("port", &statsd_port.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn container(extra: &Value) -> Container<'static> {
        let mut all = json!({"name": "edge", "image": "envoyproxy/envoy:v1.34.0"});
        json_patch::merge(&mut all, extra);
        serde_json::from_str(all.to_string().leak()).unwrap()
    }

    fn args(extra: &Value) -> Result<Vec<String>, Reason> {
        tell(&container(extra), &Settings::default()).map(|t| t.patch.args).map_err(|r| r.reason)
    }

    #[test]
    fn images_and_commands_of_envoy_are_recognised() {
        for image in [
            "envoyproxy/envoy:v1.34.0",
            "mirror:5000/envoyproxy/envoy-distroless:v1.9",
            "envoy",
            "envoyproxy/envoy-contrib@sha256:0",
        ] {
            assert!(recognise(&container(&json!({"image": image}))), "{image}");
        }
        assert!(recognise(&container(&json!({"image": "corp/edge:7", "command": ["/usr/local/bin/envoy"]}))));
        for image in
            ["envoyproxy/gateway:v1", "envoyproxy/envoy-perf:1", "aws-appmesh-envoy:v1.27", "istio/proxyv2:1.20"]
        {
            assert!(!recognise(&container(&json!({"image": image}))), "{image}");
        }
    }

    #[test]
    fn every_form_that_keeps_its_configuration_is_extended() {
        let kept = |extra| args(&extra).unwrap().len();
        assert_eq!(args(&json!({})).unwrap()[..2], IMAGE_CMD);
        for extra in [
            json!({"args": ["-c", "/e.yaml"]}),
            json!({"args": ["envoy", "--config-path", "/e.yaml"]}),
            json!({"args": ["--config-path /e.yaml", "-l debug"]}),
            json!({"command": ["envoy"], "args": ["-c", "/e.yaml"]}),
            json!({"command": ["/usr/local/bin/envoy", "-c", "/e.yaml"]}),
        ] {
            assert_eq!(kept(extra.clone()), 2, "{extra}");
        }
    }

    #[test]
    fn what_cannot_be_extended_safely_is_refused() {
        for (extra, reason) in [
            (json!({"command": ["sh", "-c", "envoy -c /e.yaml"]}), Reason::UnpatchableCommand),
            (json!({"args": ["sh", "-c", "envoy"]}), Reason::UnpatchableCommand),
            (json!({"command": ["python", "hot-restarter.py"]}), Reason::UnpatchableCommand),
            (json!({"command": ["envoy"]}), Reason::UnpatchableCommand),
            (json!({"args": ["-c", "/e.yaml", "--", "x"]}), Reason::UnpatchableCommand),
            (json!({"args": ["-c", "/e.yaml", "--config-yaml", "{}"]}), Reason::ConfigYamlInUse),
            (json!({"args": ["--config-yaml {}"]}), Reason::ConfigYamlInUse),
            (json!({"image": "envoyproxy/envoy:v1.13.8"}), Reason::UnsupportedVersion),
        ] {
            assert_eq!(args(&extra), Err(reason), "{extra}");
        }
    }

    #[test]
    fn the_annotation_beats_the_tag_and_an_unknown_version_is_a_new_one() {
        let of = |tag: &str| image_version(&container(&json!({"image": format!("envoyproxy/envoy:{tag}")})));
        assert_eq!(of("v1.34.2"), Some(Version(1, 34)));
        assert_eq!(of("distroless-v1.36.0"), Some(Version(1, 36)));
        assert_eq!(of("contrib-v1.30-latest"), Some(Version(1, 30)));
        assert_eq!(of("latest"), None);
        let settings = Settings { envoy_version: Some(Version(1, 15)), ..Settings::default() };
        let telling = tell(&container(&json!({"image": "corp/envoy:v1.2.0"})), &settings).unwrap();
        assert!(!telling.patch.args[3].contains("max_bytes_per_datagram"));
        assert!(args(&json!({"image": "corp/envoy:prod"})).unwrap()[3].contains("max_bytes_per_datagram"));
    }
}
