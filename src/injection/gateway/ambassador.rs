//! Ambassador, Emissary-ingress and Edge Stack: told by environment. The rules are those of
//! Emissary's `config.py` and `v3bootstrap.py`, the same since Ambassador 0.60.

use super::{Gateway, Telling};
use crate::annotations::{STATSD_PORT, Settings, Version};
use crate::injection::patch::ContainerPatch;
use crate::injection::pod::{Container, Env};
use crate::reason::{Finding, Reason, shown};

pub(super) const GATEWAY: Gateway = Gateway { name: "ambassador", recognise, tell };

/// Hard-coded in Ambassador; there is no `STATSD_PORT`.
const PORT: u16 = 8125;
/// The first version with `DOGSTATSD`, whose tags carry Envoy's own label names.
const DOG_STATSD_SINCE: Version = Version(0, 60);

const ENABLED: &str = "STATSD_ENABLED";
const HOST: &str = "STATSD_HOST";
const DOG: &str = "DOGSTATSD";
const FLUSH: &str = "STATSD_FLUSH_INTERVAL";

fn recognise(container: &Container) -> bool {
    let (path, _) = container.image_parts();
    // Ambassador's agent runs the same image.
    container.name != "agent"
        && matches!(
            path.as_slice(),
            [.., "datawire" | "emissaryingress" | "emissary-ingress" | "ambassador", "ambassador" | "emissary" | "aes"]
        )
}

fn tell(container: &Container, settings: &Settings) -> Result<Telling, Finding> {
    let (_, tag) = container.image_parts();
    // A digest or a name such as `latest` tells nothing: taken for a version of this decade.
    if let Some(version) = tag.and_then(|tag| tag.parse::<Version>().ok()).filter(|v| *v < DOG_STATSD_SINCE) {
        let detail = format!("Ambassador {version} has no {DOG}; gwmon needs {DOG_STATSD_SINCE} or newer");
        return Err(Finding::new(Reason::UnsupportedVersion, detail));
    }
    if let Some(port) = settings.statsd_port.filter(|port| *port != PORT) {
        let detail =
            format!("{STATSD_PORT}: \"{port}\" cannot be: Ambassador sends to port {PORT} and no other; remove it");
        return Err(Finding::new(Reason::InvalidAnnotation, detail));
    }
    let env = container.read_env()?;
    let mut patch = ContainerPatch::default();
    for (name, value) in [(ENABLED, "true"), (HOST, "127.0.0.1"), (DOG, "true"), (FLUSH, "5")] {
        // Kubernetes lets the last one of a name win.
        match env.iter().rev().find(|variable| variable.name == name) {
            None => patch.env.push((name, value)),
            Some(set) => respect(container, name, set)?,
        }
    }
    // What is written in `env` wins over `envFrom`: the host decides, so a hidden one would be overridden.
    if !container.env_from.is_empty() && patch.env.iter().any(|(name, _)| *name == HOST) {
        let detail =
            format!("envFrom of container {} may set {HOST}; set it in env, to 127.0.0.1 for gwmon", container.name);
        return Err(Finding::new(Reason::HiddenEnvironment, detail));
    }
    Ok(Telling { statsd_port: PORT, patch })
}

/// Whether what the user has set goes with what gwmon needs. Ambassador takes `true` in any case, and nothing
/// else, for on; the flush interval is the user's to choose.
fn respect(container: &Container, name: &str, set: &Env) -> Result<(), Finding> {
    let (value, from_elsewhere) = (set.value.as_deref().unwrap_or_default(), set.value_from.is_some());
    let (fits, needed) = match name {
        FLUSH => (true, ""),
        HOST => (matches!(value, "127.0.0.1" | "localhost"), "127.0.0.1"),
        _ => (value.eq_ignore_ascii_case("true"), "true"),
    };
    if fits && (!from_elsewhere || name == FLUSH) {
        return Ok(());
    }
    let found = if from_elsewhere { "from elsewhere (valueFrom)".to_owned() } else { format!("to {}", shown(value)) };
    let detail = format!("container {} sets {name} {found}; remove it or set it to {needed}", container.name);
    Err(Finding::new(Reason::ExistingStatsd, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(image: &str, extra: &Value) -> Container<'static> {
        let mut all = json!({"name": "ambassador", "image": image});
        json_patch::merge(&mut all, extra);
        serde_json::from_str(all.to_string().leak()).unwrap()
    }

    fn refused(image: &str, extra: &Value) -> Reason {
        tell(&container(image, extra), &Settings::default()).unwrap_err().reason
    }

    const EMISSARY: &str = "docker.io/emissaryingress/emissary:3.9.1";

    #[test]
    fn every_published_image_is_recognised_and_the_agent_is_not() {
        for image in [
            "datawire/ambassador:0.86.1",
            "quay.io/datawire/aes:1.14.4",
            EMISSARY,
            "ghcr.io/emissary-ingress/emissary:4.1.0",
            "mirror.corp:5000/datawire/ambassador@sha256:00",
        ] {
            assert!(recognise(&container(image, &json!({}))), "{image}");
            assert!(!recognise(&container(image, &json!({"name": "agent"}))), "{image}");
        }
        assert!(!recognise(&container("example/emissary-docs:1", &json!({}))));
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let set = json!({"env": [{"name": "STATSD_HOST", "value": "localhost"}, {"name": "STATSD_FLUSH_INTERVAL", "value": "1"}]});
        let telling = tell(&container(EMISSARY, &set), &Settings::default()).unwrap();
        assert_eq!(telling.statsd_port, 8125);
        assert_eq!(telling.patch.env, [(ENABLED, "true"), (DOG, "true")]);
    }

    #[test]
    fn what_the_user_has_set_otherwise_is_left_alone() {
        for (name, value) in [("STATSD_HOST", "statsd-sink"), ("STATSD_ENABLED", "false"), ("DOGSTATSD", "1")] {
            assert_eq!(refused(EMISSARY, &json!({"env": [{"name": name, "value": value}]})), Reason::ExistingStatsd);
        }
        let from = json!({"env": [{"name": "STATSD_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]});
        assert_eq!(refused(EMISSARY, &from), Reason::ExistingStatsd);
        assert_eq!(
            refused(EMISSARY, &json!({"envFrom": [{"configMapRef": {"name": "x"}}]})),
            Reason::HiddenEnvironment
        );
    }

    #[test]
    fn versions_without_dogstatsd_and_other_ports_are_refused() {
        assert_eq!(refused("datawire/ambassador:0.53.1", &json!({})), Reason::UnsupportedVersion);
        let settings = Settings { statsd_port: Some(9125), ..Settings::default() };
        let refusal = tell(&container(EMISSARY, &json!({})), &settings).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidAnnotation);
        assert!(tell(&container("datawire/ambassador:latest", &json!({})), &Settings::default()).is_ok());
    }
}
