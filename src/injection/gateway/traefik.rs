//! Traefik: its own Prometheus endpoint, which its arguments switch on.

use super::{DEFAULTS, Endpoint, GatewayContext, GatewayKind};
use crate::annotations::{METRICS_PORT, Mode};
use crate::reason::{Finding, Reason};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "traefik",
    matches: |container, _| matches!(container.image_name(), "traefik" | "traefik-ee" | "traefik-hub"),
    mode: Mode::Scrape,
    endpoint,
    ..DEFAULTS
};

/// The default port of the entry point `traefik`.
const PORT: u16 = 8080;

/// Arguments as Traefik reads them: any case, `=` between flag and value. Those of a file or of the environment cannot
/// be seen here, and Traefik reads only one of the three.
fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    let container = context.container()?;
    let args = container.command.iter().chain(container.args.iter().flatten()).map(|arg| arg.to_ascii_lowercase());
    let args: Vec<_> = args.collect();
    let value = |flag: &str| {
        args.iter().rev().find_map(|arg| arg.trim_start_matches('-').strip_prefix(flag)?.strip_prefix('='))
    };
    let refuse = |reason, what: &str| {
        let detail = format!("container {} {what}, or name the port with {METRICS_PORT}", container.name);
        Err(Finding::new(reason, detail))
    };
    if let Some(port) = context.settings.metrics_port {
        return Ok(Endpoint::new(port, "/metrics"));
    }
    if value("configfile").is_some() {
        return refuse(Reason::EndpointUnknown, "reads a file and none of its arguments; use arguments");
    }
    if value("metrics.prometheus.manualrouting") == Some("true") {
        return refuse(
            Reason::EndpointUnreachable,
            "runs with --metrics.prometheus.manualRouting, which leaves /metrics to your own router; remove it",
        );
    }
    let is_on = args.iter().any(|arg| {
        let flag = arg.trim_start_matches('-');
        flag.starts_with("metrics.prometheus") && flag != "metrics.prometheus=false"
    });
    if args.is_empty() {
        return refuse(Reason::EndpointUnknown, "has no arguments, so its configuration cannot be seen; use arguments");
    }
    if !is_on {
        return refuse(Reason::EndpointUnreachable, "runs without --metrics.prometheus=true; add it");
    }
    let entry_point = value("metrics.prometheus.entrypoint").unwrap_or("traefik");
    let address = value(&format!("entrypoints.{entry_point}.address"));
    if address
        .is_some_and(|address| ["127.0.0.1:", "localhost:", "[::1]:"].iter().any(|local| address.starts_with(local)))
    {
        return refuse(
            Reason::EndpointUnreachable,
            "serves its metrics to the pod only; let its entry point listen on all addresses",
        );
    }
    let port = address.and_then(|address| address.trim_end_matches("/tcp").rsplit(':').next()?.parse().ok());
    Ok(Endpoint::new(port.unwrap_or(PORT), "/metrics"))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_port_is_that_of_the_entry_point() {
        let at = |args: &[&str]| testing::endpoint(&GATEWAY, &json!({"args": args}));
        assert_eq!(at(&["--metrics.prometheus=true"]), Ok((8080, "/metrics".into())));
        let chart = [
            "--entryPoints.metrics.address=:9100/tcp",
            "--metrics.prometheus=true",
            "--metrics.prometheus.entrypoint=metrics",
        ];
        assert_eq!(at(&chart), Ok((9100, "/metrics".into())));
        assert_eq!(at(&[]), Err(Reason::EndpointUnknown));
        assert_eq!(
            at(&["--entrypoints.traefik.address=127.0.0.1:8080", "--metrics.prometheus"]),
            Err(Reason::EndpointUnreachable)
        );
        assert_eq!(at(&["--api.insecure"]), Err(Reason::EndpointUnreachable));
        assert_eq!(at(&["--metrics.prometheus=false"]), Err(Reason::EndpointUnreachable));
        assert_eq!(
            at(&["--metrics.prometheus=true", "--metrics.prometheus.manualRouting=true"]),
            Err(Reason::EndpointUnreachable)
        );
        assert_eq!(at(&["--configFile=/t.yaml", "--metrics.prometheus=true"]), Err(Reason::EndpointUnknown));
    }
}
