//! Consul's API gateways: their Envoy is configured by an object of Consul's own, `ProxyDefaults`, so by default its
//! own endpoint is scraped. (Arguments after `--` reach Envoy too, but whether `-c` is free there depends on the
//! release: consul-dataplane began with `--config-path`.)

use super::envoy::PORT;
use super::{Changes, DEFAULTS, Endpoint, GatewayContext, GatewayKind, StatsdConfig};
use crate::annotations::{METRICS_PORT, Mode};
use crate::injection::bootstrap::Dialect;
use crate::injection::command::CommandLine;
use crate::kubernetes::pod::Container;
use crate::reason::{Finding, Reason};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "consul",
    matches: |container, _| container.image_name() == "consul-dataplane" || runs_consul(container),
    container: "consul-dataplane",
    is_mesh: true,
    mode: Mode::Scrape,
    // GatewayClassConfig has none; what stands on the template, consul-k8s keeps.
    pod_annotations: Some("Deployment, spec.template.metadata.annotations"),
    statsd: Some(|context| Ok(statsd(context))),
    endpoint,
    ..DEFAULTS
};

fn statsd(context: &GatewayContext) -> StatsdConfig {
    let statsd_port = context.statsd_port(PORT);
    let detail = format!(
        "Consul's Envoy is configured by ProxyDefaults; set spec.config.envoy_dogstatsd_url there to udp://127.0.0.1:{statsd_port}"
    );
    let changes = Changes { warnings: vec![Finding::new(Reason::ConfiguredElsewhere, detail)], ..Changes::default() };
    StatsdConfig { statsd_port, dialect: Dialect::DogStatsd, envoy: None, relay: None, changes }
}

/// consul-k8s before 1.0: plain Envoy's image, and Consul from a volume, which starts it.
fn runs_consul(container: &Container) -> bool {
    let mut words = container.command.iter().chain(container.args.iter().flatten());
    words.next().is_some_and(|program| program.ends_with("/consul-bin/consul"))
        && words.next().is_some_and(|word| word == "connect")
}

/// The metrics port of gateways that consul-k8s creates.
const GATEWAY_PORT: u16 = 20200;

/// consul-k8s declares the port of enabled metrics, annotates it or, for API gateways before 1.5, passes it only to
/// the dataplane.
fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    let annotation = |key| context.pod.metadata.annotation(key);
    let is_annotated = annotation("prometheus.io/scrape") == Some("true");
    let annotated = || annotation("prometheus.io/port").filter(|_| is_annotated)?.parse().ok();
    let line = context.container.map(CommandLine::whole);
    let flag = |names: &[&str]| line.as_ref().and_then(|line| line.value(names)).map(|set| set.value.to_owned());
    let scraped = flag(&["-telemetry-prom-scrape-path", "--telemetry-prom-scrape-path"]);
    let port = context.settings.metrics_port.or_else(|| context.container?.port_named("prometheus"));
    let port = port.or_else(annotated).or_else(|| scraped.is_some().then_some(GATEWAY_PORT));
    let port = port.ok_or_else(|| {
        let detail = format!(
            "nothing in the pod says that the gateway serves metrics; switch them on (global.metrics.enabled and enableGatewayMetrics in the chart), or name the port with {METRICS_PORT}"
        );
        Finding::new(Reason::EndpointUnreachable, detail)
    })?;
    let path = scraped.or_else(|| annotation("prometheus.io/path").filter(|_| is_annotated).map(str::to_owned));
    let path = path.map_or_else(|| "/metrics".into(), Into::into);
    Ok(Endpoint { port, path, changes: Changes::default() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, kind};
    use super::*;
    use serde_json::json;

    const IMAGE: &str = "hashicorp/consul-dataplane:1.6.0";

    #[test]
    fn its_endpoint_is_there_where_metrics_are_on() {
        assert_eq!(kind(&json!({"image": IMAGE}), &json!({})), Ok("consul"));
        assert_eq!(testing::endpoint(&GATEWAY, &json!({})), Err(Reason::EndpointUnreachable));
        let on = json!({"ports": [{"name": "prometheus", "containerPort": 20200}]});
        assert_eq!(testing::endpoint(&GATEWAY, &on), Ok((20200, "/metrics".into())));
    }

    #[test]
    fn every_release_says_it_in_its_own_way() {
        let at = |container: &serde_json::Value, annotations: &serde_json::Value| {
            let pod = testing::pod(container, &json!({"metadata": {"annotations": annotations}}));
            let endpoint = GATEWAY.endpoint(&testing::context(&pod, &crate::annotations::Settings::default()));
            endpoint.map(|endpoint| (endpoint.port, endpoint.path.into_owned())).map_err(|finding| finding.reason)
        };
        let none = json!({});
        let annotated =
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "20200", "prometheus.io/path": "/metrics"});
        assert_eq!(at(&json!({"image": IMAGE}), &annotated), Ok((20200, "/metrics".to_owned())));
        assert_eq!(
            at(&json!({"image": IMAGE}), &json!({"prometheus.io/port": "20200"})),
            Err(Reason::EndpointUnreachable)
        );
        let flagged = json!({"image": IMAGE, "args": ["-envoy-concurrency=1", "-telemetry-prom-scrape-path=/stats"]});
        assert_eq!(at(&flagged, &none), Ok((20200, "/stats".to_owned())));
        let old = json!({"image": "envoyproxy/envoy:v1.23.1", "command": ["/consul-bin/consul", "connect", "envoy", "-gateway=mesh"]});
        assert_eq!(kind(&old, &none), Ok("consul"));
        assert_eq!(at(&old, &annotated), Ok((20200, "/metrics".to_owned())));
    }

    #[test]
    fn statsd_needs_a_word_to_consul_and_says_which() {
        let config = testing::statsd(&GATEWAY, &json!({"image": IMAGE})).unwrap();
        assert!(config.changes.warnings[0].detail.contains("udp://127.0.0.1:9125"));
    }
}
