//! Contour's Envoy: the plain image, with the configuration that `contour bootstrap` wrote.

use super::{Gateway, PLAIN, envoy};
use crate::injection::pod::{Container, Pod};

pub(super) const GATEWAY: Gateway = Gateway {
    name: "contour",
    recognise,
    pod_annotations: Some("ContourDeployment, spec.envoy.podAnnotations"),
    tell: Some(envoy::tell),
    // The listener `stats` that Contour configures; its admin interface is a socket.
    endpoint: |_| Ok(envoy::statistics(8002)),
    ..PLAIN
};

/// By Contour's own container beside it, or the one that wrote its configuration.
fn recognise(container: &Container, pod: &Pod) -> bool {
    let is_contours = |other: &Container| other.image_name() == "contour" || other.name == "envoy-initconfig";
    envoy::recognise(container) && *pod.has_contour.get_or_init(|| pod.all_containers().any(is_contours))
}

#[cfg(test)]
mod tests {
    use super::super::testing::kind;
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_told_from_a_plain_envoy_by_what_stands_beside_it() {
        let envoy = json!({"name": "envoy", "image": "docker.io/envoyproxy/envoy:distroless-v1.36.0"});
        let init = json!({"spec": {"initContainers": [{"name": "envoy-initconfig", "image": "x/contour:v1.33"}]}});
        assert_eq!(kind(&envoy, &init), Ok(GATEWAY.name));
        assert_eq!(kind(&envoy, &json!({})), Ok("envoy"));
    }
}
