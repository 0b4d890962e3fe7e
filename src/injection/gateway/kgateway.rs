//! Gloo Edge's and kgateway's proxies: an `envoyinit` that starts Envoy with the whole configuration in `--config-yaml` and
//! passes its own arguments on. Envoy takes that flag once and merges it with the file of `-c`, so the sink goes into such a
//! file.

use super::envoy::PORT;
use super::{Changes, DEFAULTS, Endpoint, GatewayContext, GatewayKind, StatsdConfig};
use crate::injection::bootstrap;
use crate::injection::changes::ContainerChanges;
use crate::injection::command::CommandLine;
use crate::injection::exporter::BOOTSTRAP_FILE;
use crate::reason::{Finding, Reason};

pub(super) const GLOO: GatewayKind = GatewayKind {
    name: "gloo",
    matches: |container, _| container.image_name() == "gloo-envoy-wrapper",
    statsd: Some(statsd),
    endpoint: |_| Ok(Endpoint::new(8081, "/metrics")),
    ..DEFAULTS
};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "kgateway",
    matches: |container, _| container.image_name() == "envoy-wrapper",
    pod_annotations: Some("GatewayParameters, spec.kube.podTemplate.extraAnnotations"),
    statsd: Some(statsd),
    endpoint: |_| Ok(Endpoint::new(9091, "/metrics")),
    ..DEFAULTS
};

fn statsd(context: &GatewayContext) -> Result<StatsdConfig, Finding> {
    let container = context.container()?;
    let line = CommandLine::of(container, "envoyinit")?.open_ended()?;
    if container.env.is_some_and(|env| env.get().contains("\"ENVOY_SIDECAR\"")) {
        let detail = "ENVOY_SIDECAR makes the image use a file of its own for -c, which Envoy takes once";
        return Err(Finding::new(Reason::UnpatchableCommand, detail));
    }
    if line.value(&["-c", "--config-path"]).is_some() {
        let detail = "it has a file of its own for -c, which Envoy takes once; put the statsd sink into that";
        return Err(Finding::new(Reason::UnpatchableCommand, detail));
    }
    by_file(context, vec!["-c".to_owned(), BOOTSTRAP_FILE.to_owned()])
}

/// The sink in a file that these arguments name.
pub(super) fn by_file(context: &GatewayContext, args: Vec<String>) -> Result<StatsdConfig, Finding> {
    let dialect = context.dialect();
    // The tag of these images is not Envoy's version.
    let envoy = context.settings.envoy_version;
    let statsd_port = context.statsd_port(PORT);
    let file = Some(bootstrap::overlay(&bootstrap::sink(envoy, dialect, statsd_port)?));
    let container = ContainerChanges { args, ..ContainerChanges::default() };
    Ok(StatsdConfig {
        statsd_port,
        dialect,
        envoy,
        relay: None,
        changes: Changes { container, file, ..Changes::default() },
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, kind};
    use super::*;
    use serde_json::json;

    const ARGS: [&str; 3] = ["--disable-hot-restart", "--service-node", "$(POD_NAME)"];

    #[test]
    fn the_sink_comes_as_a_file_beside_the_configuration_that_is_passed_already() {
        let config = testing::statsd(&GATEWAY, &json!({"image": "x/envoy-wrapper:v2.1.0", "args": ARGS})).unwrap();
        assert_eq!(config.changes.container.args, ["-c", BOOTSTRAP_FILE]);
        assert!(config.changes.file.unwrap().contains("max_bytes_per_datagram"), "2.1 is kgateway's version");
        for refused in [
            json!({"args": ["-c", "/mine.yaml"]}),
            json!({"args": ARGS, "env": [{"name": "ENVOY_SIDECAR", "value": "true"}]}),
            json!({"command": ["sh"]}),
        ] {
            assert_eq!(
                testing::statsd(&GATEWAY, &refused).unwrap_err().reason,
                Reason::UnpatchableCommand,
                "{refused}"
            );
        }
    }

    #[test]
    fn each_has_its_own_name_and_port() {
        for (image, name, port) in
            [("solo-io/gloo-envoy-wrapper:1.18.2", "gloo", 8081), ("x/envoy-wrapper:v2.1.0", "kgateway", 9091)]
        {
            assert_eq!(kind(&json!({"image": image}), &json!({})), Ok(name));
            let gateway = if name == "gloo" { &GLOO } else { &GATEWAY };
            assert_eq!(testing::endpoint(gateway, &json!({})), Ok((port, "/metrics".into())));
        }
    }
}
