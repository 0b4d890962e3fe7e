//! Envoy Gateway's proxies: the plain image, with the whole configuration in `--config-yaml`.

use super::{DEFAULTS, GatewayKind, envoy};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "envoy-gateway",
    matches: |container, pod| {
        envoy::matches(container) && pod.metadata.label("app.kubernetes.io/managed-by") == Some("envoy-gateway")
    },
    pod_annotations: Some("EnvoyProxy, spec.provider.kubernetes.envoyDeployment.pod.annotations"),
    scrape_annotations_off: Some("EnvoyProxy, spec.telemetry.metrics.prometheus.disable: true"),
    statsd: Some(envoy::statsd),
    // The listener for Prometheus that is on unless `telemetry.metrics.prometheus.disable` is set.
    endpoint: |_| Ok(envoy::statistics(19001)),
    ..DEFAULTS
};

#[cfg(test)]
mod tests {
    use super::super::testing::kind;
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_told_from_a_plain_envoy_by_its_label() {
        let envoy = json!({"name": "envoy", "image": "docker.io/envoyproxy/envoy:distroless-v1.36.0"});
        let label = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "envoy-gateway"}}});
        assert_eq!(kind(&envoy, &label), Ok(GATEWAY.name));
    }
}
