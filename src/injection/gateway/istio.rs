//! Istio's gateways: the proxy's own endpoint by default, since its statistics are cut down to a few before statsd sees
//! them (`pkg/bootstrap/config.go`), and its statsd sink has no tags.

use std::collections::BTreeMap;

use serde_json::Value;

use super::envoy::{self, PORT};
use super::{Changes, DEFAULTS, Endpoint, GatewayContext, GatewayKind, StatsdConfig};
use crate::annotations::Mode;
use crate::injection::bootstrap::Dialect;
use crate::kubernetes::bounded::{TOO_LARGE, YAML_BYTES};
use crate::reason::{Finding, Reason, shown};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "istio",
    matches: |container, _| container.name == "istio-proxy" || container.image_name() == "proxyv2",
    container: "istio-proxy",
    is_mesh: true,
    mode: Mode::Scrape,
    pod_annotations: Some("Gateway, spec.infrastructure.annotations"),
    statsd: Some(statsd),
    endpoint,
    ..DEFAULTS
};

/// `ProxyConfig`, read by the agent from the pod's annotation when it starts: so it does not matter which webhook is
/// called first.
pub(super) const CONFIG: &str = "proxy.istio.io/config";
const ADDRESS: &str = "statsdUdpAddress";

fn statsd(context: &GatewayContext) -> Result<StatsdConfig, Finding> {
    let config = context.pod.metadata.annotation(CONFIG).unwrap_or_default();
    let unreadable = |_| Finding::new(Reason::UnreadableConfiguration, format!("annotation {CONFIG} is no YAML map"));
    if config.len() > YAML_BYTES {
        let detail = format!("annotation {CONFIG} has over {} KiB, {TOO_LARGE}", YAML_BYTES >> 10);
        return Err(Finding::new(Reason::TooLarge, detail));
    }
    let read: Option<BTreeMap<String, Value>> = serde_saphyr::from_str(config).map_err(unreadable)?;
    let config = |statsd_port, annotations| {
        let changes = Changes { annotations, ..Changes::default() };
        Ok(StatsdConfig { statsd_port, dialect: Dialect::Statsd, envoy: None, relay: None, changes })
    };
    let mut read = read.unwrap_or_default();
    if let Some(set) = read.get(ADDRESS).and_then(Value::as_str) {
        let local = set.strip_prefix("127.0.0.1:").and_then(|port| port.parse().ok()).ok_or_else(|| {
            let detail = format!("annotation {CONFIG} sets {ADDRESS} to {}; remove that", shown(set));
            Finding::new(Reason::ExistingStatsd, detail)
        })?;
        return config(context.fixed_port(local, "annotation proxy.istio.io/config sends")?, vec![]);
    }
    let statsd_port = context.statsd_port(PORT);
    read.insert(ADDRESS.to_owned(), format!("127.0.0.1:{statsd_port}").into());
    // A small map of settings; as JSON, which is YAML too.
    config(statsd_port, vec![(CONFIG, serde_json::json!(read).to_string())])
}

/// The port `http-envoy-prom`, which the mesh's operator or the pod may keep to the pod itself.
fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    const LOCAL_ONLY: &str = "METRICS_LOCALHOST_ACCESS_ONLY";
    let in_env =
        context.container.and_then(|container| container.env).is_some_and(|env| env.get().contains(LOCAL_ONLY));
    if in_env || context.pod.metadata.annotation(CONFIG).is_some_and(|config| config.contains(LOCAL_ONLY)) {
        let detail = format!("{LOCAL_ONLY} keeps the proxy's metrics to the pod itself; remove it");
        return Err(Finding::new(Reason::EndpointUnreachable, detail));
    }
    Ok(envoy::statistics(15090))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{context, kind, pod};
    use super::*;
    use crate::annotations::Settings;
    use serde_json::json;

    #[test]
    fn the_annotation_keeps_what_it_has() {
        let told = |config: Value| {
            let pod = pod(&json!({"name": "istio-proxy"}), &json!({"metadata": {"annotations": {CONFIG: config}}}));
            statsd(&context(&pod, &Settings::default())).map_err(|refusal| refusal.reason)
        };
        let added = |config| told(config).unwrap().changes.annotations;
        assert_eq!(added(Value::Null), [(CONFIG, r#"{"statsdUdpAddress":"127.0.0.1:9125"}"#.to_owned())]);
        let merged = r#"{"concurrency":2,"statsdUdpAddress":"127.0.0.1:9125"}"#;
        assert_eq!(added(json!("concurrency: 2")), [(CONFIG, merged.to_owned())]);
        assert_eq!(told(json!("statsdUdpAddress: 127.0.0.1:8125")).unwrap().statsd_port, 8125);
        assert_eq!(told(json!("statsdUdpAddress: statsd.monitoring:9125")), Err(Reason::ExistingStatsd));
        assert_eq!(told(json!("- a")), Err(Reason::UnreadableConfiguration));
    }

    #[test]
    fn it_gives_way_to_a_gateway_beside_it() {
        let proxy = json!({"name": "istio-proxy", "image": "auto"});
        assert_eq!(kind(&proxy, &json!({})), Ok("istio"));
        let beside = json!({"spec": {"containers": [{"name": "istio-proxy"}, {"name": "envoy", "image": "envoyproxy/envoy:v1.40.0"}]}});
        assert_eq!(kind(&proxy, &beside), Ok("envoy"));
    }
}
