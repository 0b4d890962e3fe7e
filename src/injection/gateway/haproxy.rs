//! The two ingress controllers that run `HAProxy`, each with a Prometheus endpoint of its own.

use super::{DEFAULTS, Endpoint, GatewayContext, GatewayKind};
use crate::annotations::{METRICS_PORT, Mode};
use crate::injection::command::CommandLine;
use crate::reason::{Finding, Reason};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "haproxy",
    matches: |container, _| {
        let (path, _) = container.image_parts();
        matches!(path.as_slice(), [.., "haproxytech", "kubernetes-ingress"] | [.., "jcmoraisjr", "haproxy-ingress"])
    },
    mode: Mode::Scrape,
    endpoint,
    ..DEFAULTS
};

/// haproxytech/kubernetes-ingress has it always on, with its statistics.
const STATISTICS: u16 = 1024;

fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    let container = context.container()?;
    let own = CommandLine::whole(container).value(&["--stats-bind-port"]).and_then(|set| set.value.parse().ok());
    if container.image_name() == "kubernetes-ingress" {
        return Ok(Endpoint::new(own.unwrap_or(STATISTICS), "/metrics"));
    }
    // Its chart declares the port where metrics are on.
    let port = context.settings.metrics_port.or_else(|| container.port_named("metrics")).ok_or_else(|| {
        let detail = format!(
            "haproxy-ingress serves metrics where its ConfigMap sets prometheus-port; set that, and name the port with {METRICS_PORT}"
        );
        Finding::new(Reason::EndpointUnknown, detail)
    })?;
    Ok(Endpoint::new(port, "/metrics"))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use serde_json::json;

    #[test]
    fn one_is_always_on_and_the_other_has_to_be_told() {
        let at = |image: &str| testing::endpoint(&GATEWAY, &json!({"image": image}));
        assert_eq!(at("haproxytech/kubernetes-ingress:3.1"), Ok((STATISTICS, "/metrics".into())));
        let moved = json!({"image": "haproxytech/kubernetes-ingress", "args": ["--stats-bind-port=1025"]});
        assert_eq!(testing::endpoint(&GATEWAY, &moved), Ok((1025, "/metrics".into())));
        assert_eq!(at("quay.io/jcmoraisjr/haproxy-ingress:v0.14"), Err(Reason::EndpointUnknown));
        let on = json!({"image": "quay.io/jcmoraisjr/haproxy-ingress:v0.14", "ports": [{"name": "metrics", "containerPort": 9101}]});
        assert_eq!(testing::endpoint(&GATEWAY, &on), Ok((9101, "/metrics".into())));
    }
}
