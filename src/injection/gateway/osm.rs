//! Open Service Mesh's sidecar: a plain Envoy. The project is archived; its meshes run on.

use super::{DEFAULTS, GatewayKind, envoy};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "osm",
    matches: |container, pod| envoy::matches(container) && pod.metadata.label("osm-proxy-uuid").is_some(),
    injected_later: true,
    is_mesh: true,
    statsd: Some(envoy::statsd),
    // `pkg/constants/constants.go`: the listener for Prometheus.
    endpoint: |_| Ok(envoy::statistics(15010)),
    ..DEFAULTS
};

#[cfg(test)]
mod tests {
    use super::super::testing::kind;
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_told_from_a_plain_envoy_by_its_label() {
        let envoy = json!({"name": "envoy", "image": "envoyproxy/envoy:v1.19.3"});
        assert_eq!(kind(&envoy, &json!({"metadata": {"labels": {"osm-proxy-uuid": "1"}}})), Ok(GATEWAY.name));
    }
}
