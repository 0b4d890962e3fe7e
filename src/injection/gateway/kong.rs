//! Kong: no statsd by environment, and a Prometheus endpoint of its own, the status API (Kong 1.4). What that shows of
//! the traffic depends on the prometheus plugin, which is an object in the cluster.

use serde_json::Value;

use super::{DEFAULTS, Endpoint, GatewayContext, GatewayKind, Prerequisite};
use crate::annotations::Mode;
use crate::kubernetes::Version;
use crate::kubernetes::pod::Container;
use crate::reason::{Finding, Reason, shown};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "kong",
    matches: |container, _| matches(container),
    mode: Mode::Scrape,
    endpoint,
    prerequisite: Some(Prerequisite { resource: PLUGIN, missing: missing_plugin }),
    ..DEFAULTS
};

const LISTEN: &str = "KONG_STATUS_LISTEN";
/// The chart's status port since 1.14.0.
const PORT: u16 = 8100;
/// The first with a status API, and with the plugin that answers there.
const STATUS_SINCE: Version = Version(1, 4);
/// The first whose prometheus plugin takes the settings that switch each group of metrics on, and leaves them off.
const SWITCHES_SINCE: Version = Version(3, 0);

/// Not by the controller's image, which stands beside it and has metrics of its own.
fn matches(container: &Container) -> bool {
    let name = container.image_name();
    matches!(name, "kong" | "kong-gateway" | "kong-enterprise" | "kong-enterprise-edition" | "kong-gateway-dev")
        && !matches!(container.name.as_str(), "wait-for-db" | "clear-stale-pid" | "ingress-controller")
}

fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    let container = context.container()?;
    // A port that the user names is taken to be there.
    if let Some(port) = context.settings.metrics_port {
        return Ok(Endpoint::new(port, "/metrics"));
    }
    let env = container.read_env()?;
    if let Some(listen) = context.literal(&env, LISTEN)? {
        let port = reachable(listen).ok_or_else(|| {
            let detail = format!("{LISTEN} is {}; Prometheus needs one such as 0.0.0.0:{PORT}", shown(listen));
            Finding::new(Reason::EndpointUnreachable, detail)
        })?;
        return Ok(Endpoint::new(port, "/metrics"));
    }
    // The chart before 1.14 serves the metrics by an nginx server of its own, at a port that it calls so.
    if let Some(port) = container.port_named("status").or_else(|| container.port_named("metrics")) {
        return Ok(Endpoint::new(port, "/metrics"));
    }
    let refuse = |reason, detail| Err(Finding::new(reason, detail));
    if let Some(version) = container.version().filter(|version| *version < STATUS_SINCE) {
        return refuse(
            Reason::UnsupportedVersion,
            format!("Kong {version} has no status API, which begins with {STATUS_SINCE}"),
        );
    }
    if !container.env_from.is_empty() {
        let detail =
            format!("envFrom of container {} may set {LISTEN}; set it in env, to 0.0.0.0:{PORT}", container.name);
        return refuse(Reason::EnvironmentNotVisible, detail);
    }
    if context.pod.spec.host_network {
        let detail =
            format!("on the host's network gwmon opens no port; set {LISTEN} to one that is free on every node");
        return refuse(Reason::HostNetwork, detail);
    }
    // Opened: it has to be free.
    let port = context.pod.free_port(PORT, "TCP");
    let mut endpoint = Endpoint::new(port, "/metrics");
    endpoint.changes.container.env = vec![(LISTEN, format!("0.0.0.0:{port}"))];
    Ok(endpoint)
}

/// The first listener that speaks plain HTTP to the outside; a first `off` switches off whatever follows
/// (`kong/conf_loader/listeners.lua`).
fn reachable(listen: &str) -> Option<u16> {
    listen.split(',').take_while(|listener| listener.trim() != "off").find_map(|listener| {
        let mut words = listener.split_whitespace();
        let (host, port) = words.next()?.rsplit_once(':')?;
        let is_outside = !matches!(host, "127.0.0.1" | "localhost" | "[::1]");
        port.parse().ok().filter(|_| is_outside && words.all(|flag| flag != "ssl"))
    })
}

/// The group and version of a plugin for every route, and its kind.
const PLUGIN: (&str, &str) = ("configuration.konghq.com/v1", "KongClusterPlugin");

const SWITCHES: [&str; 4] = ["status_code_metrics", "latency_metrics", "bandwidth_metrics", "upstream_health_metrics"];

/// Returns true if this plugin counts the traffic of every route of a Kong of this version.
fn counts_traffic(plugin: &Value, version: Option<Version>) -> bool {
    let needs_switches = version.is_some_and(|version| version >= SWITCHES_SINCE);
    plugin["plugin"] == "prometheus"
        && plugin["metadata"]["labels"]["global"] == "true"
        && plugin["disabled"] != true
        && (!needs_switches
            || plugin["configFrom"].is_object()
            || SWITCHES.iter().any(|switch| plugin["config"][switch] == true))
}

/// The finding that no plugin counts the traffic of every route. gwmon creates none, since a plugin affects every route.
fn missing_plugin(plugins: &[Value], version: Option<Version>) -> Option<Finding> {
    let detail = || {
        format!(
            "Kong serves few metrics and none of the traffic without a global prometheus plugin; echo '{}' | kubectl apply -f -",
            plugin(version)
        )
    };
    let is_there = plugins.iter().any(|plugin| counts_traffic(plugin, version));
    (!is_there).then(|| Finding::new(Reason::KongPluginMissing, detail()))
}

/// The object without which Kong shows no traffic, for `kubectl apply`, in one line. Kong before 3.0 knows none of the
/// switches and refuses a plugin that has them.
fn plugin(version: Option<Version>) -> String {
    let config = if version.is_none_or(|version| version >= SWITCHES_SINCE) {
        format!(", config: {{{}}}", SWITCHES.map(|switch| format!("{switch}: true")).join(", "))
    } else {
        String::new()
    };
    format!(
        "{{apiVersion: {}, kind: {}, metadata: {{name: prometheus, labels: {{global: \"true\"}}, annotations: {{kubernetes.io/ingress.class: kong}}}}, plugin: prometheus{config}}}",
        PLUGIN.0, PLUGIN.1
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, kind};
    use super::*;
    use serde_json::json;
    use std::borrow::Cow;

    fn at(extra: &Value) -> Result<(u16, Cow<'static, str>), Reason> {
        testing::endpoint(&GATEWAY, extra)
    }

    #[test]
    fn it_is_the_proxy_and_not_what_stands_beside_it() {
        for image in ["kong:3.9", "kong/kong-gateway:3.10.0.0", "docker.io/library/kong@sha256:0"] {
            assert_eq!(kind(&json!({"name": "proxy", "image": image}), &json!({})), Ok("kong"), "{image}");
        }
        let controller = json!({"name": "ingress-controller", "image": "kong/kubernetes-ingress-controller:3.4"});
        assert!(kind(&controller, &json!({})).is_err());
    }

    #[test]
    fn the_status_listener_is_used_or_opened() {
        let listen = |value: &str| at(&json!({"env": [{"name": LISTEN, "value": value}]}));
        assert_eq!(listen("0.0.0.0:8100"), Ok((8100, "/metrics".into())));
        assert_eq!(listen("127.0.0.1:8007, [::]:8101 ssl, [::]:8102 reuseport"), Ok((8102, "/metrics".into())));
        for closed in ["off", "off, 0.0.0.0:8100", "127.0.0.1:8100", "0.0.0.0:8443 ssl", ""] {
            assert_eq!(listen(closed), Err(Reason::EndpointUnreachable), "{closed}");
        }
        let old = json!({"ports": [{"name": "metrics", "containerPort": 9542}]});
        assert_eq!(at(&old), Ok((9542, "/metrics".into())));
        assert_eq!(at(&json!({"envFrom": [{}]})), Err(Reason::EnvironmentNotVisible));
        assert_eq!(at(&json!({})), Ok((PORT, "/metrics".into())));
        assert_eq!(
            at(&json!({"ports": [{"containerPort": PORT}]})),
            Ok((PORT + 1, "/metrics".into())),
            "somebody's already"
        );
        assert_eq!(at(&json!({"image": "kong:1.3"})), Err(Reason::UnsupportedVersion));
    }

    #[test]
    fn the_plugin_has_its_switches_where_they_exist() {
        let parsed = |version| serde_saphyr::from_str::<Value>(&plugin(version)).unwrap();
        assert!(parsed(Some(Version(2, 8)))["config"].is_null());
        for version in [None, Some(Version(3, 0))] {
            assert_eq!(parsed(version)["config"]["status_code_metrics"], true);
            assert!(counts_traffic(&parsed(version), version));
            let bare = parsed(Some(Version(2, 8)));
            assert_eq!(counts_traffic(&bare, version), version.is_none(), "all switched off since 3.0");
        }
    }
}
