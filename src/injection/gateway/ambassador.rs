//! Ambassador, Emissary-ingress and Edge Stack: configured by environment variables. The rules are those of the releases' own
//! code: `envoy.j2` and `entrypoint.sh` before 0.50, `config.py` and `v3bootstrap.py` since.

use core::net::Ipv4Addr;

use super::{Changes, DEFAULTS, Endpoint, GatewayContext, GatewayKind, StatsdConfig};
use crate::annotations::{GATEWAY_VERSION, Profile, RELAY};
use crate::injection::bootstrap::Dialect;
use crate::injection::changes::{ContainerChanges, ReplacedValue};
use crate::kubernetes::Version;
use crate::kubernetes::pod::{Container, Env, Pod};
use crate::reason::{Finding, Reason, shown};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "ambassador",
    matches: |container, _| matches(container),
    statsd: Some(statsd),
    endpoint,
    ..DEFAULTS
};

/// Hard-coded in every release; there is no `STATSD_PORT`.
const PORT: u16 = 8125;
/// The diagnostics service, which passes Envoy's own metrics on.
const DIAGNOSTICS: u16 = 8877;

/// The first with a Prometheus exporter's port to send to.
const FIRST: Version = Version(0, 21);
/// The last with a container `statsd` in its manifest, which holds port 8125 and passes everything out of the pod.
const LAST_WITH_REPEATER: Version = Version(0, 38);
/// The first that reads these variables; before, it always sends to loopback.
const ENVIRONMENT_SINCE: Version = Version(0, 50);
/// The first with `DOGSTATSD`, whose tags carry Envoy's own label names.
const DOG_STATSD_SINCE: Version = Version(0, 60);
/// The first with `GET /metrics` at its diagnostics service.
const METRICS_SINCE: Version = Version(0, 73);

const ENABLED: &str = "STATSD_ENABLED";
const HOST: &str = "STATSD_HOST";
const DOG: &str = "DOGSTATSD";
const FLUSH: &str = "STATSD_FLUSH_INTERVAL";

/// The other roles of the same images, by the container's name or by the first word of its command.
const OTHER_ROLES: [&str; 7] = [
    "agent",
    "apiext",
    "consul-connect-integration",
    "telepresence-proxy",
    "traffic-agent",
    "traffic-manager",
    "webhook",
];

fn matches(container: &Container) -> bool {
    let (path, _) = container.image_parts();
    let is_named = match path.as_slice() {
        [.., organisation, "ambassador" | "emissary" | "aes"] => {
            matches!(*organisation, "datawire" | "emissaryingress" | "emissary-ingress" | "ambassador")
                // A mirror without organisations.
                || (path.len() == 2 && organisation.contains(['.', ':']) && path[1] != "aes")
        }
        _ => false,
    };
    let first = container.command.first().or_else(|| container.args.as_ref()?.first());
    let role = first.map(|word| word.rsplit('/').next().unwrap_or_default());
    is_named && ![Some(container.name.as_str()), role].iter().flatten().any(|role| OTHER_ROLES.contains(role))
}

fn statsd(context: &GatewayContext) -> Result<StatsdConfig, Finding> {
    let container = context.container()?;
    let version = context.version();
    let since = |first: Version| version.is_none_or(|version| version >= first);
    let statsd_port = context.fixed_port(PORT, "Ambassador sends")?;
    let env = container.read_env()?;
    let (mut changes, mut relay) = (Changes::default(), None);
    if since(ENVIRONMENT_SINCE) {
        let is_dog = since(DOG_STATSD_SINCE) && context.settings.profile == Profile::Envoy;
        (changes.container, relay) = environment(context, container, &env, is_dog)?;
        let dialect = if is_dog { Dialect::DogStatsd } else { Dialect::Statsd };
        return Ok(StatsdConfig { statsd_port, dialect, envoy: None, relay, changes });
    }
    let refuse = |reason, detail: String| Err(Finding::new(reason, detail));
    let version = version.unwrap_or(FIRST);
    if version < FIRST {
        return refuse(
            Reason::UnsupportedVersion,
            format!("Ambassador {version} is older than {FIRST}; if the image's tag misleads, set {GATEWAY_VERSION}"),
        );
    }
    if version <= LAST_WITH_REPEATER {
        if let Some(repeater) = repeater(context.pod) {
            return refuse(
                Reason::PortInUse,
                format!("container {} takes port {PORT} and sends it out of the pod; remove it", repeater.name),
            );
        }
    } else if env.iter().any(|variable| variable.name == ENABLED) {
        return refuse(
            Reason::ExistingStatsd,
            format!("{ENABLED} makes Ambassador {version} hold port {PORT} itself; remove it, its Envoy sends anyhow"),
        );
    }
    Ok(StatsdConfig { statsd_port, dialect: Dialect::Statsd, envoy: None, relay, changes })
}

/// The container `statsd`, whatever its image; exporters were detected before.
fn repeater<'a>(pod: &'a Pod<'a>) -> Option<&'a Container<'a>> {
    pod.all_containers().find(|container| container.name == "statsd")
}

/// The environment variables to add, and the server to forward to.
fn environment(
    context: &GatewayContext,
    container: &Container,
    env: &[Env],
    is_dog: bool,
) -> Result<(ContainerChanges, Option<String>), Finding> {
    let (mut patch, mut relay) = (ContainerChanges::default(), None);
    let needed = [(ENABLED, "true"), (HOST, "127.0.0.1"), (DOG, if is_dog { "true" } else { "false" }), (FLUSH, "5")];
    for (name, value) in needed {
        // Kubernetes lets the last one of a name win.
        match env.iter().enumerate().rev().find(|(_, variable)| variable.name == name) {
            None if name == DOG && !is_dog => {}
            None => patch.env.push((name, value.to_owned())),
            Some((_, set)) if is_respected(name, set, value) => {}
            // An exporter ends where it cannot resolve a name, and would keep the pod from starting.
            Some((index, Env { value: Some(host), .. }))
                if name == HOST && context.settings.relay && host.parse::<Ipv4Addr>().is_ok() =>
            {
                relay = Some(format!("{host}:{PORT}"));
                let path = format!("env/{index}/value");
                patch.merged = Some(ReplacedValue { path, to: value.to_owned() });
            }
            Some((_, set)) => return Err(conflict(container, name, set, value)),
        }
    }
    // What is written in `env` wins over `envFrom`: the host decides, so a hidden one would be overridden.
    if !container.env_from.is_empty() && patch.env.iter().any(|(name, _)| *name == HOST) {
        let detail =
            format!("envFrom of container {} may set {HOST}; set it in env, to 127.0.0.1 for gwmon", container.name);
        return Err(Finding::new(Reason::EnvironmentNotVisible, detail));
    }
    Ok((patch, relay))
}

/// Returns true if the user's setting is compatible. Ambassador takes only `true`, in any case, for on; the flush
/// interval is the user's choice.
fn is_respected(name: &str, set: &Env, needed: &str) -> bool {
    let value = set.value.as_deref().unwrap_or_default();
    match name {
        FLUSH => true,
        _ if set.value_from.is_some() => false,
        HOST => matches!(value, "127.0.0.1" | "localhost"),
        _ => value.eq_ignore_ascii_case("true") == (needed == "true"),
    }
}

fn conflict(container: &Container, name: &str, set: &Env, needed: &str) -> Finding {
    let found = match &set.value {
        Some(value) if set.value_from.is_none() => format!("to {}", shown(value)),
        _ => "from elsewhere (valueFrom)".to_owned(),
    };
    let way = match &set.value {
        Some(_) if name == HOST => format!("; {RELAY}: \"true\" passes everything on to it, if it is an IPv4 address"),
        _ => String::new(),
    };
    let detail = format!("container {} sets {name} {found}; remove it or set it to {needed}{way}", container.name);
    Finding::new(Reason::ExistingStatsd, detail)
}

fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    const ADDRESS: &str = "AMBASSADOR_HEALTHCHECK_BIND_ADDRESS";
    const BIND_PORT: &str = "AMBASSADOR_HEALTHCHECK_BIND_PORT";
    let container = context.container()?;
    if let Some(version) = context.version().filter(|version| *version < METRICS_SINCE) {
        let detail = format!("Ambassador {version} serves no metrics itself, which begins with {METRICS_SINCE}");
        return Err(Finding::new(Reason::UnsupportedVersion, detail));
    }
    let env = container.read_env()?;
    if let Some(address @ ("127.0.0.1" | "localhost" | "::1")) = context.literal(&env, ADDRESS)? {
        let detail = format!("{ADDRESS} is {address}, where Prometheus cannot reach it; set it to 0.0.0.0");
        return Err(Finding::new(Reason::EndpointUnreachable, detail));
    }
    let port = context.literal(&env, BIND_PORT)?.and_then(|port| port.parse().ok()).unwrap_or(DIAGNOSTICS);
    Ok(Endpoint::new(port, "/metrics"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, context, kind, pod};
    use super::*;
    use crate::annotations::Settings;
    use serde_json::{Value, json};

    const EMISSARY: &str = "docker.io/emissaryingress/emissary:3.9.1";

    fn with(image: &str, extra: &Value) -> Value {
        let mut all = json!({"name": "ambassador", "image": image});
        json_patch::merge(&mut all, extra);
        all
    }

    fn told(image: &str, extra: &Value) -> Result<StatsdConfig, Reason> {
        testing::statsd(&GATEWAY, &with(image, extra)).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn every_published_image_is_recognised_and_the_agent_is_not() {
        for image in [
            "datawire/ambassador:0.86.1",
            "quay.io/datawire/aes:1.14.4",
            EMISSARY,
            "ghcr.io/emissary-ingress/emissary:4.1.0",
            "mirror.corp:5000/datawire/ambassador@sha256:00",
            "registry.corp/emissary:3.9.1",
        ] {
            assert_eq!(kind(&with(image, &json!({})), &json!({})), Ok("ambassador"), "{image}");
            for other in
                [json!({"name": "agent"}), json!({"name": "traffic-agent"}), json!({"command": ["apiext", "emissary"]})]
            {
                assert!(kind(&with(image, &other), &json!({})).is_err(), "{image} {other}");
            }
        }
        assert!(kind(&with("corp/ambassador:1", &json!({})), &json!({})).is_err());
        assert!(kind(&with("example/emissary-docs:1", &json!({})), &json!({})).is_err());
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let set = json!({"env": [{"name": "STATSD_HOST", "value": "localhost"}, {"name": "STATSD_FLUSH_INTERVAL", "value": "1"}]});
        let config = told(EMISSARY, &set).unwrap();
        assert_eq!((config.statsd_port, config.dialect), (8125, Dialect::DogStatsd));
        assert_eq!(config.changes.container.env, [(ENABLED, "true".to_owned()), (DOG, "true".to_owned())]);
    }

    #[test]
    fn each_version_is_told_what_it_understands() {
        let none = json!({});
        for image in ["datawire/ambassador:0.21.0", "datawire/ambassador:0.38.0", "datawire/ambassador:0.40.2"] {
            let config = told(image, &none).unwrap();
            assert_eq!((config.dialect, config.changes), (Dialect::Statsd, Changes::default()), "{image}");
        }
        let config = told("datawire/ambassador:0.53.1", &none).unwrap();
        assert_eq!(config.dialect, Dialect::Statsd);
        assert_eq!(
            config.changes.container.env.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            [ENABLED, HOST, FLUSH]
        );
        assert_eq!(told("datawire/ambassador:0.20.1", &none), Err(Reason::UnsupportedVersion));
        let enabled = json!({"env": [{"name": ENABLED, "value": "true"}]});
        assert_eq!(told("datawire/ambassador:0.40.2", &enabled), Err(Reason::ExistingStatsd));
        let settings = Settings::default();
        let repeater = json!({"spec": {"initContainers": [{"name": "statsd", "image": "datawire/statsd:0.30.2"}]}});
        for (version, expected) in [("0.34.3", Some(Reason::PortInUse)), ("0.40.2", None)] {
            let pod = pod(&with(&format!("datawire/ambassador:{version}"), &none), &repeater);
            assert_eq!(statsd(&context(&pod, &settings)).err().map(|refusal| refusal.reason), expected);
        }
    }

    #[test]
    fn what_the_user_has_set_otherwise_is_left_alone() {
        for (name, value) in [("STATSD_HOST", "statsd-sink"), ("STATSD_ENABLED", "false"), ("DOGSTATSD", "1")] {
            assert_eq!(told(EMISSARY, &json!({"env": [{"name": name, "value": value}]})), Err(Reason::ExistingStatsd));
        }
        let from = json!({"env": [{"name": "STATSD_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]});
        assert_eq!(told(EMISSARY, &from), Err(Reason::ExistingStatsd));
        let hidden = json!({"envFrom": [{"configMapRef": {"name": "x"}}]});
        assert_eq!(told(EMISSARY, &hidden), Err(Reason::EnvironmentNotVisible));
    }

    #[test]
    fn where_it_sent_before_gets_everything_passed_on_when_asked() {
        let settings = Settings { relay: true, ..Settings::default() };
        let host = json!({"env": [{"name": "X", "value": "y"}, {"name": "STATSD_HOST", "value": "10.0.0.9"}]});
        let pod = pod(&with(EMISSARY, &host), &json!({}));
        let config = statsd(&context(&pod, &settings)).unwrap();
        assert_eq!(config.relay.as_deref(), Some("10.0.0.9:8125"));
        let merged = config.changes.container.merged.unwrap();
        assert_eq!((merged.path.as_str(), merged.to.as_str()), ("env/1/value", "127.0.0.1"));
    }

    #[test]
    fn a_build_between_releases_is_a_new_one_unless_the_user_says_otherwise() {
        assert_eq!(told("emissaryingress/emissary:0.0.0-dev", &json!({})).unwrap().dialect, Dialect::DogStatsd);
        let settings = Settings { gateway_version: Some(Version(0, 53)), ..Settings::default() };
        let pod = pod(&with("emissaryingress/emissary:dev", &json!({})), &json!({}));
        assert_eq!(statsd(&context(&pod, &settings)).unwrap().dialect, Dialect::Statsd);
    }

    #[test]
    fn another_port_cannot_be_and_an_unknown_version_is_a_new_one() {
        let settings = Settings { statsd_port: Some(9125), ..Settings::default() };
        let pod = pod(&with(EMISSARY, &json!({})), &json!({}));
        assert_eq!(statsd(&context(&pod, &settings)).unwrap_err().reason, Reason::InvalidAnnotation);
        assert_eq!(told("datawire/ambassador:latest", &json!({})).unwrap().dialect, Dialect::DogStatsd);
    }

    #[test]
    fn its_own_metrics_are_where_its_diagnostics_are() {
        let at = |image: &str, name: &str, value: &str| {
            testing::endpoint(&GATEWAY, &with(image, &json!({"env": [{"name": name, "value": value}]})))
        };
        assert_eq!(at(EMISSARY, "X", ""), Ok((8877, "/metrics".into())));
        assert_eq!(at(EMISSARY, "AMBASSADOR_HEALTHCHECK_BIND_PORT", "9877"), Ok((9877, "/metrics".into())));
        assert_eq!(at(EMISSARY, "AMBASSADOR_HEALTHCHECK_BIND_ADDRESS", "127.0.0.1"), Err(Reason::EndpointUnreachable));
        assert_eq!(at("datawire/ambassador:0.72.0", "X", ""), Err(Reason::UnsupportedVersion));
    }
}
