//! The `gwmon.io/` annotations: every key that a user may set, its values and its meaning.

mod invalid;
mod values;

use crate::kubernetes::labels::Labels;
use crate::kubernetes::{Annotations, Version};
use crate::reason::{Finding, Reason, shown};
use invalid::InvalidValue;
pub use values::{Discovery, Mode, PartialResources, Profile, Resources, Sidecar, Target};
pub(crate) use values::{SMALLEST_MEMORY_LIMIT, duration};
use values::{flag, monitor_labels, port, resources};

/// The prefix of every annotation and label that is gwmon's.
pub const PREFIX: &str = "gwmon.io/";

/// Opts in (`"true"`) or out (`"false"`).
pub const INJECT: &str = "gwmon.io/inject";
/// The value of the label [`INJECT`] on a Namespace all of whose gateways are to be injected.
pub const ENABLED: &str = "enabled";
/// Overrides the detection of the gateway's kind.
pub const GATEWAY: &str = "gwmon.io/gateway";
/// Names the gateway's container.
pub const CONTAINER: &str = "gwmon.io/container";
/// The mode: statsd to the sidecar, or a scrape of the gateway's own endpoint.
pub const MODE: &str = "gwmon.io/mode";
/// The UDP port on which the sidecar takes statsd, on the pod's loopback.
pub const STATSD_PORT: &str = "gwmon.io/statsd-port";
/// The TCP port that is scraped.
pub const METRICS_PORT: &str = "gwmon.io/metrics-port";
/// The Envoy version, where the image tag does not tell.
pub const ENVOY_VERSION: &str = "gwmon.io/envoy-version";
/// The gateway's own version, where the image tag does not tell.
pub const GATEWAY_VERSION: &str = "gwmon.io/gateway-version";
/// Forwards statsd to the server to which the gateway sent before.
pub const RELAY: &str = "gwmon.io/relay";
/// The profile of metric names.
pub const PROFILE: &str = "gwmon.io/profile";
/// The kind of the sidecar container.
pub const SIDECAR: &str = "gwmon.io/sidecar";
/// The way Prometheus discovers the pods.
pub const DISCOVERY: &str = "gwmon.io/discovery";
/// The Prometheus to select the ServiceMonitor.
pub const PROMETHEUS: &str = "gwmon.io/prometheus";
/// Labels of the ServiceMonitor besides those that its Prometheus requires.
pub const MONITOR_LABELS: &str = "gwmon.io/monitor-labels";
/// The scrape interval of the `ServiceMonitor`.
pub const INTERVAL: &str = "gwmon.io/interval";
/// Requests and limits of the sidecar.
pub const RESOURCES: &str = "gwmon.io/resources";

/// The values of [`GATEWAY`].
pub const GATEWAYS: &[&str] = &[
    "ambassador",
    "appmesh",
    "consul",
    "contour",
    "envoy-gateway",
    "gloo",
    "haproxy",
    "istio",
    "kgateway",
    "kong",
    "nginx",
    "osm",
    "traefik",
    "envoy",
];

/// An annotation that a user may set.
pub struct Key {
    /// The annotation's name.
    pub name: &'static str,
    /// Its possible values.
    pub allowed: &'static str,
    /// Its meaning, in one line.
    pub meaning: &'static str,
}

/// Every annotation that a user may set. `docs/reference/annotations.md` is made from it.
pub const VOCABULARY: &[Key] = &[
    Key { name: INJECT, allowed: "\"true\" or \"false\"", meaning: "inject the exporter or leave the workload alone" },
    Key {
        name: GATEWAY,
        allowed: "one of ambassador, appmesh, consul, contour, envoy-gateway, gloo, haproxy, istio, kgateway, kong, nginx, osm, traefik, envoy",
        meaning: "the kind of gateway, if gwmon does not detect it",
    },
    Key {
        name: CONTAINER,
        allowed: "the name of a container",
        meaning: "the gateway's container, if several could be",
    },
    Key {
        name: MODE,
        allowed: "statsd or scrape",
        meaning: "send statsd to the exporter, or have Prometheus scrape the gateway's own endpoint; the default depends on the gateway",
    },
    Key {
        name: STATSD_PORT,
        allowed: "a port from 1 to 65535",
        meaning: "the UDP port of the exporter on the pod's loopback; 9125 by default, 8125 with App Mesh, always 8125 with Ambassador",
    },
    Key {
        name: METRICS_PORT,
        allowed: "a port from 1 to 65535",
        meaning: "the TCP port that Prometheus scrapes; 9102 by default for the exporter",
    },
    Key {
        name: ENVOY_VERSION,
        allowed: "a version such as 1.34",
        meaning: "the version of Envoy, if the image tag does not show it",
    },
    Key {
        name: GATEWAY_VERSION,
        allowed: "a version such as 3.9",
        meaning: "the version of Ambassador or ingress-nginx, if the image tag does not show it",
    },
    Key {
        name: RELAY,
        allowed: "\"true\" or \"false\"",
        meaning: "forward everything to the statsd server to which the gateway sends now; Ambassador only, and only to an IPv4 address",
    },
    Key {
        name: PROFILE,
        allowed: "envoy or bakins",
        meaning: "names of the metrics: Envoy's own, or those of bakins/kubernetes-envoy-example",
    },
    Key {
        name: SIDECAR,
        allowed: "native or regular",
        meaning: "run the exporter as a native sidecar (Kubernetes 1.29) or as a regular container",
    },
    Key {
        name: DISCOVERY,
        allowed: "monitor, annotations or both",
        meaning: "how Prometheus finds the pods: by a ServiceMonitor, by prometheus.io/ annotations on them, or by both",
    },
    Key {
        name: PROMETHEUS,
        allowed: "a Prometheus as namespace/name, or all",
        meaning: "the Prometheus that scrapes the gateway, if there are several",
    },
    Key {
        name: MONITOR_LABELS,
        allowed: "up to 32 labels such as release=prometheus,team=edge",
        meaning: "labels of the ServiceMonitor, in addition to those that its Prometheus selects by",
    },
    Key { name: INTERVAL, allowed: "a duration such as 15s or 1m30s", meaning: "the scrape interval" },
    Key {
        name: RESOURCES,
        allowed: "requests and limits such as cpu=50m/500m,memory=32Mi/192Mi",
        meaning: "requests and limits of the exporter; what is left out keeps its default, which is shown here",
    },
];

/// The monitor that a pod belongs to. Written by gwmon, as a label.
pub const MONITORED_BY: &str = "gwmon.io/monitored-by";
/// On the metrics Service: the monitor that it serves. Written by gwmon, as a label.
pub const METRICS_FOR: &str = "gwmon.io/metrics-for";
/// On generated objects: the namespace of the workload, which is not always the object's. Written by gwmon, as
/// a label.
pub const WORKLOAD_NAMESPACE: &str = "gwmon.io/workload-namespace";
/// Envoy's additional configuration, where it comes as a file. Written by gwmon.
pub const BOOTSTRAP: &str = "gwmon.io/envoy-bootstrap";
/// The result of an injection, as JSON. Written by gwmon.
pub const STATUS: &str = "gwmon.io/status";
/// The exporter's mapping file. Written by gwmon.
pub const MAPPING: &str = "gwmon.io/mapping";
/// On a pod template: which of its annotations gwmon copied from the workload, as JSON. Written by gwmon.
pub const COPIED: &str = "gwmon.io/copied";

/// The monitor of a pod that has an exporter, however that is scraped. Written by gwmon, as a label.
pub const EXPORTER: &str = "gwmon.io/exporter";
/// On the trial pod of a suspended workload: the start of the suspension. Written by gwmon.
pub const TRIAL: &str = "gwmon.io/trial";

const WRITTEN: &[&str] = &[MONITORED_BY, STATUS, MAPPING, BOOTSTRAP, COPIED, EXPORTER, TRIAL];

/// Bytes of a value: more than any sensible one has, and no more than the controller keeps.
pub(crate) const LONGEST: usize = 1 << 10;

/// Annotations that have no effect beside a value of another, so that one of the two is a mistake.
const CONTRADICTIONS: &[(&str, &str, &[&str])] = &[
    (MODE, "scrape", &[STATSD_PORT, RELAY, PROFILE, SIDECAR, RESOURCES]),
    (DISCOVERY, "annotations", &[PROMETHEUS, MONITOR_LABELS, INTERVAL]),
];

/// The settings of one pod, parsed from its annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`GATEWAY`].
    pub gateway: Option<&'static str>,
    /// [`CONTAINER`].
    pub container: Option<String>,
    /// [`MODE`]; without it, the gateway's own default.
    pub mode: Option<Mode>,
    /// [`STATSD_PORT`].
    pub statsd_port: Option<u16>,
    /// [`METRICS_PORT`].
    pub metrics_port: Option<u16>,
    /// [`ENVOY_VERSION`].
    pub envoy_version: Option<Version>,
    /// [`GATEWAY_VERSION`].
    pub gateway_version: Option<Version>,
    /// [`RELAY`].
    pub relay: bool,
    /// [`PROFILE`].
    pub profile: Profile,
    /// [`SIDECAR`]; without it, the configuration's.
    pub sidecar: Option<Sidecar>,
    /// [`DISCOVERY`].
    pub discovery: Discovery,
    /// [`PROMETHEUS`].
    pub prometheus: Option<Target>,
    /// [`MONITOR_LABELS`].
    pub monitor_labels: Option<Labels>,
    /// [`INTERVAL`].
    pub interval: Option<String>,
    /// [`RESOURCES`]; what is left out is the configuration's (R19).
    pub resources: PartialResources,
}

impl Settings {
    /// Reads the settings of an object that opts in.
    ///
    /// # Errors
    /// [`Reason::NotRequested`], [`Reason::OptedOut`], or [`Reason::InvalidAnnotation`] with the first
    /// key, in alphabetical order, whose value makes no sense by itself, or beside another.
    pub fn parse(annotations: &Annotations) -> Result<Self, Finding> {
        match annotations.get(INJECT).map(String::as_str) {
            None => return Err(Finding::new(Reason::NotRequested, format!("no {INJECT} annotation"))),
            Some("false") => return Err(Finding::new(Reason::OptedOut, format!("{INJECT}: \"false\""))),
            Some("true") => {}
            Some(other) => {
                let detail = format!("{INJECT}: {} is not one of \"true\", \"false\"", shown(other));
                return Err(Finding::new(Reason::InvalidAnnotation, detail));
            }
        }
        Self::read(annotations)
    }

    /// Reads the settings of an object that is injected whether or not it opts in.
    ///
    /// # Errors
    /// [`Reason::InvalidAnnotation`], as for [`Self::parse`].
    pub(crate) fn read(annotations: &Annotations) -> Result<Self, Finding> {
        let mut settings = Self::default();
        for (key, value) in ours(annotations) {
            check_key(key)?;
            if value.len() > LONGEST && !WRITTEN.contains(&key.as_str()) {
                let detail = format!("{key}: {} has over {LONGEST} bytes; shorten it", shown(value));
                return Err(Finding::new(Reason::InvalidAnnotation, detail));
            }
            settings
                .set(key, value.trim())
                .map_err(|error| Finding::new(Reason::InvalidAnnotation, format!("{key}: {} {error}", shown(value))))?;
        }
        for (key, value, pointless) in CONTRADICTIONS {
            if annotations.get(*key).is_some_and(|set| set.trim() == *value)
                && let Some(other) = pointless.iter().find(|other| annotations.contains_key(**other))
            {
                let detail = format!("{key}: {value:?} and {other} contradict each other; remove one of them");
                return Err(Finding::new(Reason::InvalidAnnotation, detail));
            }
        }
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), InvalidValue> {
        if value.is_empty() && key != INJECT && !WRITTEN.contains(&key) {
            return Err(InvalidValue::Empty);
        }
        match key {
            GATEWAY => {
                let gateway = GATEWAYS.iter().find(|name| **name == value);
                self.gateway = Some(gateway.ok_or(InvalidValue::UnknownWord(GATEWAYS))?);
            }
            CONTAINER => self.container = Some(value.to_owned()),
            MODE => self.mode = Some(value.parse()?),
            STATSD_PORT => self.statsd_port = Some(port(value)?),
            METRICS_PORT => self.metrics_port = Some(port(value)?),
            GATEWAY_VERSION => self.gateway_version = Some(value.parse()?),
            ENVOY_VERSION => self.envoy_version = Some(value.parse()?),
            RELAY => self.relay = flag(value)?,
            PROFILE => self.profile = value.parse()?,
            SIDECAR => self.sidecar = Some(value.parse()?),
            DISCOVERY => self.discovery = value.parse()?,
            PROMETHEUS => self.prometheus = Some(value.parse()?),
            MONITOR_LABELS => self.monitor_labels = Some(monitor_labels(value)?),
            INTERVAL => {
                duration(value)?;
                self.interval = Some(value.to_owned());
            }
            RESOURCES => self.resources = resources(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// Returns true if a Namespace with these labels asks for the injection of all its gateways.
#[must_use]
pub fn is_enabled(labels: &Labels) -> bool {
    labels.get(INJECT).is_some_and(|value| value == ENABLED)
}

/// Those of an object's annotations that are gwmon's.
pub(crate) fn ours(annotations: &Annotations) -> impl Iterator<Item = (&String, &String)> {
    annotations.range(PREFIX.to_owned()..).take_while(|(key, _)| key.starts_with(PREFIX))
}

/// Refuses a mistyped key, which would otherwise do nothing.
fn check_key(key: &str) -> Result<(), Finding> {
    if VOCABULARY.iter().any(|known| known.name == key) || WRITTEN.contains(&key) {
        return Ok(());
    }
    let known: Vec<_> = VOCABULARY.iter().filter_map(|known| known.name.strip_prefix(PREFIX)).collect();
    let detail = format!("{} is none of {PREFIX}{}", shown(key), known.join(", "));
    Err(Finding::new(Reason::InvalidAnnotation, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, Finding> {
        let mut annotations: Annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        annotations.entry(INJECT.to_owned()).or_insert_with(|| "true".to_owned());
        Settings::parse(&annotations)
    }

    #[test]
    fn nothing_asked_is_not_an_error_that_warns() {
        let none = Settings::parse(&Annotations::new()).unwrap_err();
        assert_eq!((none.reason, none.is_warning()), (Reason::NotRequested, false));
        assert_eq!(parse(&[(INJECT, "false")]).unwrap_err().reason, Reason::OptedOut);
    }

    #[test]
    fn every_key_takes_what_it_says_it_allows() {
        let settings = parse(&[
            (GATEWAY, "envoy"),
            (CONTAINER, "edge"),
            (STATSD_PORT, "8126"),
            (METRICS_PORT, " 9200 "),
            (ENVOY_VERSION, "v1.34.2"),
            (MODE, "statsd"),
            (RELAY, "true"),
            (PROFILE, "bakins"),
            (SIDECAR, "regular"),
            (DISCOVERY, "both"),
            (INTERVAL, "1m30s"),
            (RESOURCES, "cpu=60m,memory=/256Mi"),
        ])
        .unwrap();
        assert_eq!(settings.gateway, Some("envoy"));
        assert_eq!(settings.container.as_deref(), Some("edge"));
        assert_eq!((settings.statsd_port, settings.metrics_port), (Some(8126), Some(9200)));
        assert_eq!(settings.envoy_version, Some(Version(1, 34)));
        assert_eq!((settings.mode, settings.relay, settings.profile), (Some(Mode::Statsd), true, Profile::Bakins));
        assert_eq!((settings.sidecar, settings.discovery), (Some(Sidecar::Regular), Discovery::Both));
        assert_eq!(settings.interval.as_deref(), Some("1m30s"));
        let Resources { cpu, memory } = settings.resources.over(&Resources::default());
        assert_eq!(
            [cpu.0, cpu.1, memory.0, memory.1].map(|amount| amount.to_string()),
            ["60m", "500m", "32Mi", "256Mi"]
        );
    }

    #[test]
    fn what_contradicts_each_other_is_said_by_both_names() {
        for (one, other) in [
            ((MODE, "scrape"), (STATSD_PORT, "9125")),
            ((MODE, "scrape"), (RESOURCES, "cpu=20m")),
            ((DISCOVERY, "annotations"), (INTERVAL, "15s")),
        ] {
            let refusal = parse(&[one, other]).unwrap_err();
            assert_eq!(refusal.reason, Reason::InvalidAnnotation);
            assert!(refusal.detail.contains(one.0) && refusal.detail.contains(other.0), "{refusal}");
            assert!(parse(&[one]).is_ok() && parse(&[other]).is_ok());
        }
    }

    #[test]
    fn a_mistyped_key_is_shown_with_those_that_exist() {
        let refusal = parse(&[("gwmon.io/metric-port", "9102")]).unwrap_err();
        assert!(
            refusal.detail.contains("gwmon.io/metric-port") && refusal.detail.contains("metrics-port"),
            "{refusal}"
        );
        assert!(refusal.to_string().len() <= 256, "Kubernetes would cut: {refusal}");
    }

    #[test]
    fn the_gateways_that_are_allowed_are_those_that_are_said() {
        let allowed = VOCABULARY.iter().find(|k| k.name == GATEWAY).unwrap().allowed;
        assert_eq!(allowed, format!("one of {}", GATEWAYS.join(", ")));
    }
}
