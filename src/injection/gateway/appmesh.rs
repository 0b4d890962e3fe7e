//! AWS App Mesh: its Envoy image is configured by environment variables, which its controller also takes from a pod annotation.
//! So it does not matter whose webhook is called first.

use super::{Changes, DEFAULTS, Endpoint, GatewayContext, GatewayKind, StatsdConfig};
use crate::injection::bootstrap::Dialect;
use crate::kubernetes::pod::{Container, Env, Pod};
use crate::reason::{Finding, Reason, shown};

pub(super) const GATEWAY: GatewayKind = GatewayKind {
    name: "appmesh",
    matches,
    awaits_injection: |pod| pod.metadata.annotation(OPT_IN) == Some("enabled"),
    injected_later: true,
    is_mesh: true,
    statsd: Some(statsd),
    endpoint,
    ..DEFAULTS
};

const OPT_IN: &str = "appmesh.k8s.aws/sidecarInjectorWebhook";
/// `K=V, K=V`; the controller refuses a pod whose value it cannot split so, an empty one and a last comma included. Read
/// for virtual nodes only; a virtual gateway's container is in the pod already.
const SIDECAR_ENV: &str = "appmesh.k8s.aws/sidecarEnv";

/// The image's default, and the controller's own where it is installed with `stats.statsdEnabled`: that writes it over
/// whatever is there.
const PORT: u16 = 8125;
const ENABLED: &str = "ENABLE_ENVOY_DOG_STATSD";
const STATSD_PORT: &str = "STATSD_PORT";
const ADDRESS: &str = "STATSD_ADDRESS";
const TAGS: &str = "ENABLE_ENVOY_STATS_TAGS";
const OWN_TAGS: &str = "ENVOY_STATS_CONFIG_FILE";
/// Each makes the image ignore the settings above.
const OVERRIDES: [&str; 3] = ["ENVOY_STATS_SINKS_CFG_FILE", "ENVOY_CONFIG_FILE", "STATSD_SOCKET_PATH"];

/// By the image, by a stub that the controller puts its own in the place of (two are in AWS' walkthroughs), or by the image's environment. The
/// controller calls its container `envoy`; another's environment, beside others, may be most of the pod, and is not
/// searched.
fn matches(container: &Container, pod: &Pod) -> bool {
    let is_named =
        matches!(container.image_name(), "aws-appmesh-envoy" | "injector-envoy-image" | "controller-override");
    let has = |name: &str| container.env.is_some_and(|env| env.get().contains(name));
    let has_mesh_variables = || has("\"APPMESH_RESOURCE_ARN\"") || has("\"APPMESH_VIRTUAL_NODE_NAME\"");
    let is_alone = pod.spec.containers.as_ref().is_some_and(|containers| containers.len() == 1);
    is_named || ((container.name == "envoy" || is_alone) && has_mesh_variables())
}

fn statsd(context: &GatewayContext) -> Result<StatsdConfig, Finding> {
    let mut changes = Changes::default();
    let statsd_port;
    if let Some(container) = context.container {
        (statsd_port, changes.container.env) = missing_variables(context, &container.read_env()?)?;
    } else {
        let written = context.pod.metadata.annotation(SIDECAR_ENV).unwrap_or_default();
        let missing;
        (statsd_port, missing) = missing_variables(context, &parse(written)?)?;
        let added = missing.iter().map(|(name, value)| format!("{name}={value}"));
        let all: Vec<_> = Some(written.to_owned()).filter(|w| !w.is_empty()).into_iter().chain(added).collect();
        changes.annotations = vec![(SIDECAR_ENV, all.join(", "))];
    }
    Ok(StatsdConfig { statsd_port, dialect: Dialect::DogStatsd, envoy: None, relay: None, changes })
}

fn parse(written: &str) -> Result<Vec<Env>, Finding> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').filter(|(_, value)| !value.contains('='))?;
        Some(Env { name: name.trim().to_owned(), value: Some(value.trim().to_owned()), value_from: None })
    };
    let pairs = written.split(',').filter(|_| !written.is_empty()).map(pair).collect::<Option<_>>();
    pairs.ok_or_else(|| {
        let detail = format!("annotation {SIDECAR_ENV}: {} is not of the form K=V, K=V", shown(written));
        Finding::new(Reason::UnreadableConfiguration, detail)
    })
}

/// Variables that are to be added.
type Missing = Vec<(&'static str, String)>;

/// The port to which the image will send, and the variables to add.
fn missing_variables(context: &GatewayContext, env: &[Env]) -> Result<(u16, Missing), Finding> {
    let set = |name: &str| env.iter().rev().find(|variable| variable.name == name);
    let elsewhere = |name: &str| {
        let detail = format!("{name} tells App Mesh's Envoy to send its statistics elsewhere; remove it");
        Err(Finding::new(Reason::ExistingStatsd, detail))
    };
    if let Some(name) = OVERRIDES.into_iter().find(|name| set(name).is_some()) {
        return elsewhere(name);
    }
    for (name, needed) in [(ENABLED, "1"), (ADDRESS, "127.0.0.1")] {
        if set(name).is_some_and(|variable| variable.value.as_deref() != Some(needed)) {
            return elsewhere(name);
        }
    }
    let port = match set(STATSD_PORT) {
        Some(variable) => {
            let Some(port) = variable.value.as_deref().and_then(|port| port.parse().ok()) else {
                return elsewhere(STATSD_PORT);
            };
            context.fixed_port(port, "STATSD_PORT of App Mesh's Envoy sends")?
        }
        None => context.statsd_port(PORT),
    };
    let needed = [(ENABLED, "1".to_owned()), (STATSD_PORT, port.to_string()), (ADDRESS, "127.0.0.1".to_owned())];
    // The mesh and the virtual node as labels, unless the user has tags of his own.
    let tags = Some((TAGS, "1".to_owned())).filter(|_| set(OWN_TAGS).is_none());
    let missing = needed.into_iter().chain(tags).filter(|(name, _)| set(name).is_none()).collect();
    Ok((port, missing))
}

fn endpoint(context: &GatewayContext) -> Result<Endpoint, Finding> {
    let env = context.container.map_or_else(|| Ok(vec![]), Container::read_env)?;
    let port = context.literal(&env, "ENVOY_ADMIN_ACCESS_PORT")?.and_then(|port| port.parse().ok());
    Ok(Endpoint::of_admin(port.unwrap_or(9901)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, kind, pod};
    use super::*;
    use crate::annotations::Settings;
    use serde_json::{Value, json};

    const IMAGE: &str = "public.ecr.aws/appmesh/aws-appmesh-envoy:v1.27.0.0-prod";

    fn told(env: &Value) -> Result<StatsdConfig, Reason> {
        testing::statsd(&GATEWAY, &json!({"image": IMAGE, "env": env})).map_err(|refusal| refusal.reason)
    }

    /// The annotation on a pod whose Envoy another webhook adds later.
    fn annotated(before: &Value) -> Result<String, Reason> {
        let pod = pod(
            &json!({"image": "corp/app:1"}),
            &json!({"metadata": {"annotations": {OPT_IN: "enabled", SIDECAR_ENV: before}}}),
        );
        let (none, gateway) = super::super::find(&pod, &Settings::default()).unwrap();
        assert_eq!((none, gateway.name), (None, "appmesh"));
        let context = GatewayContext { pod: &pod, container: None, settings: &Settings::default() };
        statsd(&context).map(|config| config.changes.annotations[0].1.clone()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn it_is_recognised_by_image_stub_and_environment() {
        for image in [IMAGE, "injector-envoy-image", "controller-override"] {
            assert_eq!(kind(&json!({"image": image}), &json!({})), Ok("appmesh"), "{image}");
        }
        let by_env = json!({"name": "envoy", "image": "corp/envoy-fork:1", "env": [{"name": "APPMESH_RESOURCE_ARN", "value": "x"}]});
        assert_eq!(kind(&by_env, &json!({})), Ok("appmesh"));
    }

    #[test]
    fn an_envoy_that_is_there_gets_what_is_missing() {
        let config = told(&json!([{"name": "STATSD_PORT", "value": "8126"}])).unwrap();
        assert_eq!(config.statsd_port, 8126);
        let names: Vec<_> = config.changes.container.env.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [ENABLED, ADDRESS, TAGS]);
        for (name, value) in [
            ("STATSD_ADDRESS", "10.0.0.1"),
            ("STATSD_SOCKET_PATH", "/s"),
            ("ENABLE_ENVOY_DOG_STATSD", "0"),
            ("STATSD_PORT", "x"),
            ("ENVOY_CONFIG_FILE", "/e"),
        ] {
            assert_eq!(told(&json!([{"name": name, "value": value}])), Err(Reason::ExistingStatsd), "{name}");
        }
        let own_tags = told(&json!([{"name": OWN_TAGS, "value": "/x"}])).unwrap();
        assert!(own_tags.changes.container.env.iter().all(|(name, _)| *name != TAGS));
    }

    #[test]
    fn one_that_is_still_to_come_is_told_by_annotation() {
        let ours = "ENABLE_ENVOY_DOG_STATSD=1, STATSD_PORT=8125, STATSD_ADDRESS=127.0.0.1, ENABLE_ENVOY_STATS_TAGS=1";
        assert_eq!(annotated(&Value::Null).unwrap(), ours);
        assert_eq!(annotated(&json!("A=b")).unwrap(), format!("A=b, {ours}"));
        for broken in ["A=b=c", "A=b,", "A"] {
            assert_eq!(annotated(&json!(broken)), Err(Reason::UnreadableConfiguration), "{broken}");
        }
        assert_eq!(annotated(&json!("STATSD_ADDRESS=10.0.0.1")), Err(Reason::ExistingStatsd));
    }

    #[test]
    fn its_own_metrics_are_at_the_admin_port() {
        let at = |env: Value| testing::endpoint(&GATEWAY, &json!({"image": IMAGE, "env": env}));
        assert_eq!(at(json!([])), Ok((9901, "/stats/prometheus".into())));
        assert_eq!(
            at(json!([{"name": "ENVOY_ADMIN_ACCESS_PORT", "value": "9902"}])),
            Ok((9902, "/stats/prometheus".into()))
        );
    }
}
