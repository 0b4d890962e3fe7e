//! The Kubernetes project's ingress-nginx: its controller's own Prometheus endpoint.

use super::{DEFAULTS, Endpoint, GatewayContext, GatewayKind};
use crate::annotations::{GATEWAY_VERSION, Mode};
use crate::injection::command::CommandLine;
use crate::kubernetes::Version;
use crate::reason::{Finding, Reason};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "nginx",
    matches: |container, _| {
        let (path, _) = container.image_parts();
        matches!(path.as_slice(), [.., "ingress-nginx", "controller" | "controller-chroot"])
            || container.image_name() == "nginx-ingress-controller"
    },
    mode: Mode::Scrape,
    endpoint,
    ..DEFAULTS
};

/// The controller's health and metrics port.
const PORT: u16 = 10254;

/// The first whose metrics are off by default (kubernetes/ingress-nginx#12095).
const OFF_SINCE: Version = Version(1, 12);

fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    let container = context.container()?;
    let line = CommandLine::whole(container);
    if let Some(port) = context.settings.metrics_port {
        return Ok(Endpoint::new(port, "/metrics"));
    }
    // A bare flag is one that is true.
    let is_said = line.value(&["--enable-metrics"]).map(|set| !set.before.ends_with('=') || set.value != "false");
    let is_said = is_said.or_else(|| line.has("--enable-metrics").then_some(true));
    let is_on = is_said.or_else(|| context.version().map(|version| version < OFF_SINCE));
    if is_on != Some(true) {
        let detail = match is_on {
            Some(_) => {
                "it runs without --enable-metrics=true; in the chart that is controller.metrics.enabled".to_owned()
            }
            None => format!(
                "whether it serves metrics depends on its version, which its image does not tell; set --enable-metrics=true (controller.metrics.enabled in the chart), or {GATEWAY_VERSION}"
            ),
        };
        return Err(Finding::new(Reason::EndpointUnreachable, detail));
    }
    let port = line.value(&["--healthz-port"]).and_then(|set| set.value.parse().ok()).unwrap_or(PORT);
    Ok(Endpoint::new(port, "/metrics"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, kind};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_port_is_that_of_its_health_unless_it_is_off() {
        assert_eq!(
            kind(&json!({"image": "registry.k8s.io/ingress-nginx/controller:v1.12.0"}), &json!({})),
            Ok("nginx")
        );
        let image = "registry.k8s.io/ingress-nginx/controller:v1.11.3";
        let at = |args: &[&str]| testing::endpoint(&GATEWAY, &json!({"image": image, "args": args}));
        assert_eq!(at(&["/nginx-ingress-controller"]), Ok((PORT, "/metrics".into())));
        assert_eq!(at(&["--healthz-port=10300"]), Ok((10300, "/metrics".into())));
        assert_eq!(at(&["--enable-metrics=false"]), Err(Reason::EndpointUnreachable));
        assert_eq!(at(&["--enable-metrics", "--v=2"]), Ok((PORT, "/metrics".into())));
        let of = |tag: &str| testing::endpoint(&GATEWAY, &json!({"image": format!("ingress-nginx/controller:{tag}")}));
        assert_eq!((of("v1.11.3"), of("v1.12.0")), (Ok((PORT, "/metrics".into())), Err(Reason::EndpointUnreachable)));
        // An image that tells no version may be any.
        let untagged = |args: &[&str]| {
            testing::endpoint(&GATEWAY, &json!({"image": "ingress-nginx/controller@sha256:00", "args": args}))
        };
        assert_eq!(
            (untagged(&[]), untagged(&["--enable-metrics"])),
            (Err(Reason::EndpointUnreachable), Ok((PORT, "/metrics".into())))
        );
    }
}
