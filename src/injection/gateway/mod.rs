//! The gateways: one file each, one line each in [`ALL`].

mod ambassador;
mod appmesh;
mod consul;
pub(super) mod contour;
mod envoy;
mod envoy_gateway;
mod haproxy;
mod istio;
mod kgateway;
mod kong;
mod nginx;
mod osm;
mod traefik;

use std::borrow::Cow;

use serde_json::Value;

use super::bootstrap::Dialect;
use super::changes::Changes;
use crate::annotations::{CONTAINER, GATEWAY, GATEWAYS, METRICS_PORT, Mode, Profile, STATSD_PORT, Settings};
use crate::kubernetes::Version;
use crate::kubernetes::pod::{Container, Env, Pod};
use crate::reason::{Finding, Reason, shown};

/// A kind of gateway: how to recognise it, and how its metrics are had.
pub struct GatewayKind {
    /// The value of `gwmon.io/gateway`.
    pub name: &'static str,
    /// Returns true if this container is such a gateway.
    matches: fn(&Container, &Pod) -> bool,
    /// Returns true if another webhook will add such a container to this pod.
    awaits_injection: fn(&Pod) -> bool,
    /// The name under which another webhook adds it.
    pub container: &'static str,
    /// True if a webhook adds the proxy, so that no template has it.
    injected_later: bool,
    /// A mesh's proxy, which gives way to a gateway beside it.
    is_mesh: bool,
    /// The default mode.
    pub mode: Mode,
    /// Where users of a gateway that a controller makes set pod annotations.
    pub pod_annotations: Option<&'static str>,
    /// The setting that stops that controller from writing `prometheus.io/` annotations.
    pub scrape_annotations_off: Option<&'static str>,
    /// Configures the gateway to send statsd; `None` if its pod cannot do that.
    statsd: Option<ConfigureStatsd>,
    /// Finds the gateway's own metrics endpoint.
    endpoint: fn(&GatewayContext) -> Result<Endpoint, Finding>,
    /// An object that it needs in the cluster before its metrics show the traffic.
    prerequisite: Option<Prerequisite>,
}

/// An object that a kind of gateway needs in the cluster.
#[derive(Clone, Copy)]
pub struct Prerequisite {
    /// The group and version of the object, and its kind.
    pub resource: (&'static str, &'static str),
    /// Finds what a gateway of this version lacks among all objects of that kind.
    pub missing: fn(&[Value], Option<Version>) -> Option<Finding>,
}

/// The prerequisite of a kind of gateway, if it has one.
#[must_use]
pub fn prerequisite(gateway: &str) -> Option<Prerequisite> {
    ALL.iter().find(|kind| kind.name == gateway)?.prerequisite
}

type ConfigureStatsd = fn(&GatewayContext) -> Result<StatsdConfig, Finding>;

/// Defaults for the fields that a kind does not set: a proxy in the pod's template that sends statsd.
const DEFAULTS: GatewayKind = GatewayKind {
    name: "",
    matches: |_, _| false,
    awaits_injection: |_| false,
    container: "envoy",
    injected_later: false,
    is_mesh: false,
    mode: Mode::Statsd,
    pod_annotations: None,
    scrape_annotations_off: None,
    statsd: None,
    endpoint: |_| Err(Finding::new(Reason::EndpointUnknown, "it serves no metrics itself")),
    prerequisite: None,
};

/// Words beside which a pod carries YAML that has to be read: that takes a thousand times as long as the pod itself.
pub const EMBEDDED_YAML: [&str; 2] = [envoy::CONFIG_YAML, istio::CONFIG];

/// Every gateway that gwmon knows, the most specific first: the image of the last one is in many of the others.
pub const ALL: &[GatewayKind] = &[
    ambassador::GATEWAY,
    appmesh::GATEWAY,
    consul::GATEWAY,
    contour::GATEWAY,
    envoy_gateway::GATEWAY,
    kgateway::GLOO,
    haproxy::GATEWAY,
    istio::GATEWAY,
    kgateway::GATEWAY,
    kong::GATEWAY,
    nginx::GATEWAY,
    osm::GATEWAY,
    traefik::GATEWAY,
    envoy::GATEWAY,
];

/// The input of a gateway's functions.
pub struct GatewayContext<'a> {
    /// The pod.
    pub pod: &'a Pod<'a>,
    /// The gateway's container; `None` where another webhook is still to add it.
    pub container: Option<&'a Container<'a>>,
    /// The settings from the annotations.
    pub settings: &'a Settings,
}

/// The configuration with which a gateway sends statsd.
#[derive(Debug, PartialEq, Eq)]
pub struct StatsdConfig {
    /// The UDP port on loopback to which it will send.
    pub statsd_port: u16,
    /// The dialect that it sends.
    pub dialect: Dialect,
    /// The Envoy version, if known.
    pub envoy: Option<Version>,
    /// The server to which it sent before, as `host:port`, and to which the exporter forwards.
    pub relay: Option<String>,
    /// The changes to the pod.
    pub changes: Changes,
}

/// A gateway's own metrics endpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The port.
    pub port: u16,
    /// The path.
    pub path: Cow<'static, str>,
    /// The changes to the pod.
    pub changes: Changes,
}

impl Endpoint {
    fn new(port: u16, path: &'static str) -> Self {
        Self { port, path: path.into(), changes: Changes::default() }
    }

    /// An endpoint at Envoy's admin port, with a warning: clients can stop the gateway and read its configuration.
    fn of_admin(port: u16) -> Self {
        let detail = format!(
            "port {port} is Envoy's admin port, by which anybody who reaches it can read its configuration and end it; allow only Prometheus there, with a NetworkPolicy"
        );
        let warnings = vec![Finding::new(Reason::AdminPortScraped, detail)];
        Self { port, path: ENVOY_PATH.into(), changes: Changes { warnings, ..Changes::default() } }
    }

    /// Returns true if the endpoint serves only metrics.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        self.changes.warnings.iter().all(|warning| warning.reason != Reason::AdminPortScraped)
    }
}

/// The path of Envoy's own metrics.
const ENVOY_PATH: &str = "/stats/prometheus";

impl<'a> GatewayContext<'a> {
    /// The gateway's container.
    ///
    /// # Errors
    /// [`Reason::ProxyNotInjected`] where another webhook is still to add it.
    fn container(&self) -> Result<&'a Container<'a>, Finding> {
        let detail = "the mesh's webhook has not added its proxy; if that never comes, it does not inject this pod";
        self.container.ok_or_else(|| Finding::new(Reason::ProxyNotInjected, detail))
    }

    /// The gateway's version: the user's word, or the tag of its image.
    fn version(&self) -> Option<Version> {
        self.settings.gateway_version.or_else(|| self.container?.version())
    }

    /// The dialect for an Envoy that can send either.
    fn dialect(&self) -> Dialect {
        match self.settings.profile {
            Profile::Envoy => Dialect::DogStatsd,
            Profile::Bakins => Dialect::Statsd,
        }
    }

    /// The port on which the exporter shall listen: the user's, or the first that no container declares.
    fn statsd_port(&self, default: u16) -> u16 {
        self.settings.statsd_port.unwrap_or_else(|| self.pod.free_port(default, "UDP"))
    }

    /// A port that is not the user's to choose.
    ///
    /// # Errors
    /// [`Reason::InvalidAnnotation`] where the user chooses another.
    fn fixed_port(&self, port: u16, why: &str) -> Result<u16, Finding> {
        match self.settings.statsd_port {
            Some(asked) if asked != port => {
                let detail = format!("{STATSD_PORT}: \"{asked}\" cannot be: {why} to port {port}; remove it");
                Err(Finding::new(Reason::InvalidAnnotation, detail))
            }
            _ => Ok(port),
        }
    }

    /// The literal value of an environment variable that has to do with the port. Kubernetes lets the last one of a name
    /// win.
    ///
    /// # Errors
    /// [`Reason::EnvironmentNotVisible`] where it comes from elsewhere and cannot be seen here, and the user names no port.
    fn literal(&self, env: &'a [Env], name: &str) -> Result<Option<&'a str>, Finding> {
        match env.iter().rev().find(|variable| variable.name == name) {
            Some(variable) if variable.value_from.is_some() => {
                if self.settings.metrics_port.is_some() {
                    return Ok(None);
                }
                let detail = format!(
                    "{name} comes from elsewhere (valueFrom) and cannot be seen; name the port with {METRICS_PORT}"
                );
                Err(Finding::new(Reason::EnvironmentNotVisible, detail))
            }
            variable => Ok(variable.map(|variable| variable.value.as_deref().unwrap_or_default())),
        }
    }
}

impl GatewayKind {
    /// Configures it to send statsd.
    ///
    /// # Errors
    /// The reason why it cannot be.
    pub fn statsd(&self, context: &GatewayContext) -> Result<StatsdConfig, Finding> {
        let Some(statsd) = self.statsd else {
            let detail =
                format!("{} cannot be configured by its pod to send statsd; use gwmon.io/mode: \"scrape\"", self.name);
            return Err(Finding::new(Reason::UnsupportedMode, detail));
        };
        statsd(context)
    }

    /// Finds the gateway's own metrics endpoint.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn endpoint(&self, context: &GatewayContext) -> Result<Endpoint, Finding> {
        let endpoint = (self.endpoint)(context)?;
        Ok(Endpoint { port: context.settings.metrics_port.unwrap_or(endpoint.port), ..endpoint })
    }
}

/// The one container of the pod that is its gateway: its index in `spec.containers`, which is `None` where it is still
/// to come, and its kind.
///
/// # Errors
/// [`Reason::NoGateway`], [`Reason::AmbiguousGateway`] or [`Reason::ContainerNotFound`], with the annotation
/// that settles it.
pub fn find(pod: &Pod, settings: &Settings) -> Result<(Option<usize>, &'static GatewayKind), Finding> {
    let containers = pod.spec.containers.as_deref().unwrap_or_default();
    let asked = settings.gateway.and_then(|asked| ALL.iter().find(|gateway| gateway.name == asked));
    let kind_of = |container: &Container| ALL.iter().find(|gateway| (gateway.matches)(container, pod));
    if let Some(name) = &settings.container {
        let index = containers.iter().position(|c| c.name == *name).ok_or_else(|| {
            let there: Vec<_> = containers.iter().map(|c| c.name.as_str()).collect();
            let detail = format!("{CONTAINER}: no container {}; there are {}", shown(name), there.join(", "));
            Finding::new(Reason::ContainerNotFound, detail)
        })?;
        let kind = asked.or_else(|| kind_of(&containers[index]));
        return kind.map(|gateway| (Some(index), gateway)).ok_or_else(|| {
            let detail = format!("container {name} is no known gateway; set {GATEWAY} ({})", GATEWAYS.join(", "));
            Finding::new(Reason::NoGateway, detail)
        });
    }
    let mut recognised: Vec<_> = containers
        .iter()
        .enumerate()
        .filter_map(|(index, container)| Some((index, kind_of(container)?)))
        .filter(|(_, kind)| asked.is_none_or(|asked| asked.name == kind.name))
        .collect();
    if recognised.iter().any(|(_, kind)| !kind.is_mesh) {
        recognised.retain(|(_, kind)| !kind.is_mesh);
    }
    // The named mesh's webhook will add the proxy, unless a container is an Envoy already.
    let is_to_come =
        |gateway: &GatewayKind| asked.is_some() && gateway.injected_later && !containers.iter().any(envoy::matches);
    let expected = || {
        let mut candidates = ALL.iter().filter(|gateway| asked.is_none_or(|asked| asked.name == gateway.name));
        candidates.find(|gateway| (gateway.awaits_injection)(pod) || is_to_come(gateway))
    };
    match (recognised.as_slice(), containers) {
        ([(index, kind)], _) => Ok((Some(*index), kind)),
        ([], _) if let Some(gateway) = expected() => Ok((None, gateway)),
        // Not recognised, but the user says what it is and there is only this one.
        ([], [_]) if let Some(gateway) = asked => Ok((Some(0), gateway)),
        ([], _) => Err(no_gateway(containers)),
        (several, _) => {
            let names: Vec<_> = several.iter().map(|(i, _)| containers[*i].name.as_str()).collect();
            let detail = format!("containers {} could each be the gateway; choose with {CONTAINER}", names.join(", "));
            Err(Finding::new(Reason::AmbiguousGateway, detail))
        }
    }
}

/// Returns true if a pod is a gateway, though nobody asks for its injection, or may be one of which a person has to choose the
/// container. An application with a mesh's proxy beside it is none, nor is a pod that is to complete.
pub(crate) fn is_gateway(pod: &Pod) -> bool {
    if [GATEWAY, CONTAINER].into_iter().any(|key| pod.metadata.annotation(key).is_some()) {
        return true;
    }
    let containers = pod.spec.containers.as_deref().unwrap_or_default();
    let is_dedicated = |kind: &GatewayKind| !kind.is_mesh || containers.len() == 1;
    !pod.completes()
        && match find(pod, &Settings::default()) {
            Ok((index, kind)) => index.is_some() && is_dedicated(kind),
            Err(finding) if finding.reason == Reason::AmbiguousGateway => containers
                .iter()
                .any(|container| ALL.iter().any(|kind| (kind.matches)(container, pod) && is_dedicated(kind))),
            Err(_) => false,
        }
}

fn no_gateway(containers: &[Container]) -> Finding {
    let names: Vec<_> = containers.iter().map(|container| container.name.as_str()).collect();
    let known = GATEWAYS.join(", ");
    let detail = match names.as_slice() {
        [] => "the pod has no containers".to_owned(),
        names => {
            format!("no known gateway among containers {}; set {GATEWAY} ({known}) and {CONTAINER}", names.join(", "))
        }
    };
    Finding::new(Reason::NoGateway, detail)
}

/// Contexts for the gateways' unit tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use serde_json::{Value, json};

    /// A pod of one container, whatever these add to both.
    pub(in crate::injection) fn pod(container: &Value, extra: &Value) -> Pod<'static> {
        let mut all = json!({"name": "edge", "image": "x"});
        json_patch::merge(&mut all, container);
        let mut pod = json!({"spec": {"containers": [all]}});
        json_patch::merge(&mut pod, extra);
        Pod::parse(pod.to_string().leak()).unwrap()
    }

    /// The pod's first container as this gateway.
    pub(in crate::injection) fn context<'a>(pod: &'a Pod<'a>, settings: &'a Settings) -> GatewayContext<'a> {
        GatewayContext { pod, container: pod.spec.containers.as_ref().unwrap().first(), settings }
    }

    /// The statsd configuration of a container.
    pub(in crate::injection) fn statsd(gateway: &GatewayKind, container: &Value) -> Result<StatsdConfig, Finding> {
        gateway.statsd(&context(&pod(container, &json!({})), &Settings::default()))
    }

    /// Its endpoint: port and path.
    pub(in crate::injection) fn endpoint(
        gateway: &GatewayKind,
        container: &Value,
    ) -> Result<(u16, Cow<'static, str>), Reason> {
        let pod = pod(container, &json!({}));
        gateway.endpoint(&context(&pod, &Settings::default())).map(|e| (e.port, e.path)).map_err(|e| e.reason)
    }

    /// The kind that a pod's containers are taken for.
    pub(in crate::injection) fn kind(container: &Value, extra: &Value) -> Result<&'static str, Reason> {
        let pod = pod(container, extra);
        find(&pod, &Settings::default()).map(|(_, kind)| kind.name).map_err(|e| e.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_can_be_named_in_the_annotation() {
        assert_eq!(ALL.iter().map(|gateway| gateway.name).collect::<Vec<_>>(), GATEWAYS);
    }
}
