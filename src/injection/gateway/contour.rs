//! Contour's Envoy: the plain image, with the configuration that `contour bootstrap` wrote.

use super::{DEFAULTS, GatewayContext, GatewayKind, StatsdConfig, envoy};
use crate::kubernetes::pod::{Container, Metadata, Pod};
use crate::reason::{Finding, Reason};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "contour",
    matches,
    pod_annotations: Some("ContourDeployment, spec.envoy.podAnnotations"),
    statsd: Some(statsd),
    // The listener `stats` that Contour configures; its admin interface is a socket.
    endpoint: |_| Ok(envoy::statistics(8002)),
    ..DEFAULTS
};

/// The same as for a plain Envoy, unless the configuration that Contour 0.6 to 1.0 wrote has a sink already: a second
/// one would send everything twice.
fn statsd(context: &GatewayContext) -> Result<StatsdConfig, Finding> {
    const FLAG: &str = "--statsd-enabled";
    let mut containers = context.pod.all_containers();
    let has_flag = |container: &&Container| {
        container.command.iter().chain(container.args.iter().flatten()).any(|word| word.starts_with(FLAG))
    };
    if let Some(container) = containers.find(has_flag) {
        let detail =
            format!("container {} has Envoy send its statistics elsewhere ({FLAG}); remove that", container.name);
        return Err(Finding::new(Reason::ExistingStatsd, detail));
    }
    envoy::statsd(context)
}

/// Contour's gateway-provisioner sets a label and no owner reference. When it updates a Deployment, it keeps only its own
/// annotations, on it and on its pod template; on a DaemonSet it keeps the workload's (seen on Contour 1.33.8).
pub(in crate::injection) fn is_reverted(workload: &Metadata, kind: &str) -> bool {
    kind == "Deployment" && workload.label("app.kubernetes.io/managed-by") == Some("contour-gateway-provisioner")
}

/// By Contour's own container beside it, or the one that wrote its configuration.
fn matches(container: &Container, pod: &Pod) -> bool {
    let is_contours = |other: &Container| other.image_name() == "contour" || other.name == "envoy-initconfig";
    envoy::matches(container) && *pod.has_contour.get_or_init(|| pod.all_containers().any(is_contours))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, kind};
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_told_from_a_plain_envoy_by_what_stands_beside_it() {
        let envoy = json!({"name": "envoy", "image": "docker.io/envoyproxy/envoy:distroless-v1.36.0"});
        let init = json!({"spec": {"initContainers": [{"name": "envoy-initconfig", "image": "x/contour:v1.33"}]}});
        assert_eq!(kind(&envoy, &init), Ok(GATEWAY.name));
        assert_eq!(kind(&envoy, &json!({})), Ok("envoy"));
        let sends = json!({"initContainers": [{"name": "envoy-initconfig", "args": ["bootstrap", "/e.yaml", "--statsd-enabled"]}]});
        let pod = testing::pod(&envoy, &json!({"spec": sends}));
        let refused = GATEWAY.statsd(&testing::context(&pod, &crate::annotations::Settings::default())).unwrap_err();
        assert_eq!(refused.reason, Reason::ExistingStatsd);
    }
}
