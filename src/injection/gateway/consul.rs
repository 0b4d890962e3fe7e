//! Consul's API gateways: their Envoy is configured by an object of Consul's own, `ProxyDefaults`, so by default its
//! own endpoint is scraped. (Arguments after `--` reach Envoy too, but whether `-c` is free there depends on the
//! release: consul-dataplane began with `--config-path`.)

use super::envoy::PORT;
use super::{Changes, Endpoint, Gateway, PLAIN, Subject, Telling};
use crate::annotations::{METRICS_PORT, Mode};
use crate::injection::bootstrap::Dialect;
use crate::reason::{Finding, Reason};

pub(super) const GATEWAY: Gateway = Gateway {
    name: "consul",
    recognise: |container, _| container.image_name() == "consul-dataplane",
    container: "consul-dataplane",
    is_mesh: true,
    mode: Mode::Native,
    // GatewayClassConfig has none; what stands on the template, consul-k8s keeps.
    pod_annotations: Some("Deployment, spec.template.metadata.annotations"),
    tell: Some(|subject| Ok(tell(subject))),
    endpoint,
    ..PLAIN
};

fn tell(subject: &Subject) -> Telling {
    let statsd_port = subject.statsd_port(PORT);
    let detail = format!(
        "Consul's Envoy is told by ProxyDefaults; set spec.config.envoy_dogstatsd_url there to udp://127.0.0.1:{statsd_port}"
    );
    let changes = Changes { warnings: vec![Finding::new(Reason::ToldElsewhere, detail)], ..Changes::default() };
    Telling { statsd_port, dialect: Dialect::DogStatsd, envoy: None, relay: None, changes }
}

/// consul-k8s declares the port where metrics are switched on.
fn endpoint(subject: &Subject) -> Result<Endpoint, Finding> {
    let port = subject.settings.metrics_port.or_else(|| subject.container?.port_named("prometheus"));
    let port = port.ok_or_else(|| {
        let detail = format!(
            "the gateway serves no metrics; switch them on (global.metrics.enabled and enableGatewayMetrics in the chart), or name the port with {METRICS_PORT}"
        );
        Finding::new(Reason::EndpointClosed, detail)
    })?;
    Ok(Endpoint::new(port, "/metrics"))
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
        assert_eq!(testing::endpoint(&GATEWAY, &json!({})), Err(Reason::EndpointClosed));
        let on = json!({"ports": [{"name": "prometheus", "containerPort": 20200}]});
        assert_eq!(testing::endpoint(&GATEWAY, &on), Ok((20200, "/metrics".into())));
    }

    #[test]
    fn statsd_needs_a_word_to_consul_and_says_which() {
        let telling = testing::tell(&GATEWAY, &json!({"image": IMAGE})).unwrap();
        assert!(telling.changes.warnings[0].detail.contains("udp://127.0.0.1:9125"));
    }
}
