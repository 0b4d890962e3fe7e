//! The `gwmon.io/` vocabulary: every key that a user may write, what it may hold, and what it means.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::labels::{self, Labels};
use crate::reason::{Finding, Reason, shown};

/// Annotations of one object, as Kubernetes stores them.
pub type Annotations = BTreeMap<String, String>;

/// The prefix of every annotation and label that is gwmon's.
pub const PREFIX: &str = "gwmon.io/";

/// Opts in (`"true"`) or out (`"false"`).
pub const INJECT: &str = "gwmon.io/inject";
/// Overrides the detection of the gateway's kind.
pub const GATEWAY: &str = "gwmon.io/gateway";
/// Names the gateway's container.
pub const CONTAINER: &str = "gwmon.io/container";
/// The UDP port on which the sidecar takes statsd, on the pod's loopback.
pub const STATSD_PORT: &str = "gwmon.io/statsd-port";
/// The TCP port on which the sidecar serves `/metrics`.
pub const METRICS_PORT: &str = "gwmon.io/metrics-port";
/// The Envoy version, where the image tag does not tell.
pub const ENVOY_VERSION: &str = "gwmon.io/envoy-version";
/// By which Prometheus to be selected.
pub const PROMETHEUS: &str = "gwmon.io/prometheus";
/// Labels that the `ServiceMonitor` gets whatever is discovered.
pub const MONITOR_LABELS: &str = "gwmon.io/monitor-labels";
/// The scrape interval of the `ServiceMonitor`.
pub const INTERVAL: &str = "gwmon.io/interval";
/// Requests and limits of the sidecar.
pub const RESOURCES: &str = "gwmon.io/resources";

/// The values of [`GATEWAY`].
pub const GATEWAYS: &[&str] = &["ambassador", "envoy"];

/// One key of the vocabulary.
pub struct Key {
    /// The annotation's name.
    pub name: &'static str,
    /// What its value may be, as a message says it.
    pub allowed: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
}

/// Everything a user may write. Parser, messages and the README's table follow it.
pub const VOCABULARY: &[Key] = &[
    Key { name: INJECT, allowed: "\"true\" or \"false\"", meaning: "inject the exporter, or do not" },
    Key { name: GATEWAY, allowed: "ambassador or envoy", meaning: "which gateway this is, when it is not detected" },
    Key { name: CONTAINER, allowed: "the name of a container", meaning: "which container is the gateway" },
    Key {
        name: STATSD_PORT,
        allowed: "a port from 1 to 65535",
        meaning: "UDP port of the exporter on the pod's loopback",
    },
    Key { name: METRICS_PORT, allowed: "a port from 1 to 65535", meaning: "TCP port of the exporter's /metrics" },
    Key {
        name: ENVOY_VERSION,
        allowed: "a version such as 1.34",
        meaning: "the Envoy version, when the image tag does not tell",
    },
    Key {
        name: PROMETHEUS,
        allowed: "a Prometheus as namespace/name, or all",
        meaning: "by which Prometheus to be scraped, when there are several",
    },
    Key {
        name: MONITOR_LABELS,
        allowed: "labels such as release=prometheus,team=edge",
        meaning: "labels of the ServiceMonitor beside those that its Prometheus asks for",
    },
    Key { name: INTERVAL, allowed: "a duration such as 15s or 1m30s", meaning: "how often Prometheus scrapes" },
    Key {
        name: RESOURCES,
        allowed: "requests and limits such as cpu=20m/200m,memory=32Mi/128Mi",
        meaning: "requests and limits of the exporter",
    },
];

/// The monitor that a pod belongs to. Written by gwmon, as a label.
pub const MONITORED_BY: &str = "gwmon.io/monitored-by";
/// On the metrics Service: the monitor that it serves. Written by gwmon, as a label.
pub const METRICS_FOR: &str = "gwmon.io/metrics-for";
/// On generated objects: the namespace of the workload, which is not always the object's. Written by gwmon, as
/// a label.
pub const WORKLOAD_NAMESPACE: &str = "gwmon.io/workload-namespace";
/// What was added to a pod, as JSON. Written by gwmon.
pub const STATUS: &str = "gwmon.io/status";
/// The exporter's mapping file. Written by gwmon.
pub const MAPPING: &str = "gwmon.io/mapping";
/// On a pod template: which of its annotations gwmon copied from the workload, as JSON. Written by gwmon.
pub const COPIED: &str = "gwmon.io/copied";

const WRITTEN: &[&str] = &[MONITORED_BY, STATUS, MAPPING, COPIED];

/// A `major.minor` version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl FromStr for Version {
    type Err = ();

    /// `1.34`, `v1.34`, `1.34.2`; anything after a `-` does not count.
    fn from_str(s: &str) -> Result<Self, ()> {
        let mut numbers = s.strip_prefix('v').unwrap_or(s).split(['.', '-']);
        let mut next = || numbers.next().and_then(|n| n.parse().ok()).ok_or(());
        Ok(Self(next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Requests and limits of one container, as Kubernetes quantities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// CPU: request, limit.
    pub cpu: (String, String),
    /// Memory: request, limit.
    pub memory: (String, String),
}

impl Default for Resources {
    fn default() -> Self {
        let pair = |request: &str, limit: &str| (request.to_owned(), limit.to_owned());
        Self { cpu: pair("20m", "200m"), memory: pair("32Mi", "128Mi") }
    }
}

/// By which Prometheus a gateway wants to be selected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// The one that fits best.
    #[default]
    Best,
    /// Every one that can be satisfied.
    All,
    /// This one.
    Named {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Target {
    fn parse(value: &str) -> Option<Self> {
        if value == "all" {
            return Some(Self::All);
        }
        let (namespace, name) = value.split_once('/')?;
        let legal = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        legal.then(|| Self::Named { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// What the annotations of one pod ask for, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`GATEWAY`].
    pub gateway: Option<&'static str>,
    /// [`CONTAINER`].
    pub container: Option<String>,
    /// [`STATSD_PORT`].
    pub statsd_port: Option<u16>,
    /// [`METRICS_PORT`].
    pub metrics_port: Option<u16>,
    /// [`ENVOY_VERSION`].
    pub envoy_version: Option<Version>,
    /// [`PROMETHEUS`].
    pub prometheus: Option<Target>,
    /// [`MONITOR_LABELS`].
    pub monitor_labels: Option<Labels>,
    /// [`INTERVAL`].
    pub interval: Option<String>,
    /// [`RESOURCES`], merged field by field over the defaults (R19).
    pub resources: Resources,
}

impl Settings {
    /// Reads the settings of an object that opts in.
    ///
    /// # Errors
    /// [`Reason::NotRequested`], [`Reason::OptedOut`], or [`Reason::InvalidAnnotation`] with the first
    /// key, in alphabetical order, whose value makes no sense.
    pub fn parse(annotations: &Annotations) -> Result<Self, Finding> {
        match annotations.get(INJECT).map(String::as_str) {
            None => return Err(Finding::new(Reason::NotRequested, format!("no {INJECT} annotation"))),
            Some("false") => return Err(Finding::new(Reason::OptedOut, format!("{INJECT}: \"false\""))),
            Some("true") => {}
            Some(other) => return Err(invalid(INJECT, other)),
        }
        let mut settings = Self::default();
        for (key, value) in ours(annotations) {
            if !settings.set(key, value.trim()) {
                return Err(invalid(key, value));
            }
        }
        Ok(settings)
    }

    /// Takes one value; false where it makes no sense.
    fn set(&mut self, key: &str, value: &str) -> bool {
        fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
            *slot = value;
            slot.is_some()
        }
        match key {
            GATEWAY => put(&mut self.gateway, GATEWAYS.iter().find(|name| **name == value).copied()),
            CONTAINER => put(&mut self.container, (!value.is_empty()).then(|| value.to_owned())),
            STATSD_PORT => put(&mut self.statsd_port, port(value)),
            METRICS_PORT => put(&mut self.metrics_port, port(value)),
            ENVOY_VERSION => put(&mut self.envoy_version, value.parse().ok()),
            PROMETHEUS => put(&mut self.prometheus, Target::parse(value)),
            MONITOR_LABELS => put(&mut self.monitor_labels, monitor_labels(value)),
            INTERVAL => put(&mut self.interval, duration(value).map(|_| value.to_owned())),
            RESOURCES => parse_resources(value).map(|resources| self.resources = resources).is_some(),
            INJECT => true,
            written => WRITTEN.contains(&written),
        }
    }
}

/// Those of an object's annotations that are gwmon's.
pub(crate) fn ours(annotations: &Annotations) -> impl Iterator<Item = (&String, &String)> {
    annotations.range(PREFIX.to_owned()..).take_while(|(key, _)| key.starts_with(PREFIX))
}

fn invalid(key: &str, value: &str) -> Finding {
    let detail = if let Some(known) = VOCABULARY.iter().find(|known| known.name == key) {
        format!("{key}: {} is not valid; allowed is {}", shown(value), known.allowed)
    } else {
        let known: Vec<_> = VOCABULARY.iter().filter_map(|k| k.name.strip_prefix(PREFIX)).collect();
        format!("{} is not a key of gwmon's; after {PREFIX} it knows {}", shown(key), known.join(", "))
    };
    Finding::new(Reason::InvalidAnnotation, detail)
}

/// gwmon's own labels are not the user's to set.
fn monitor_labels(value: &str) -> Option<Labels> {
    labels::parse(value).ok().filter(|labels| !labels.is_empty() && labels.keys().all(|key| !key.starts_with(PREFIX)))
}

fn port(value: &str) -> Option<u16> {
    value.parse().ok().filter(|port| *port != 0)
}

/// Milliseconds of a Prometheus duration: the pattern of prometheus-operator's `Duration` type. `None` for zero, which
/// no interval may be, and for what is none.
pub(crate) fn duration(value: &str) -> Option<u64> {
    const SECOND: u64 = 1000;
    const DAY: u64 = 24 * 60 * 60 * SECOND;
    let mut rest = value;
    let mut sum = 0_u64;
    for (unit, length) in [
        ("y", 365 * DAY),
        ("w", 7 * DAY),
        ("d", DAY),
        ("h", 60 * 60 * SECOND),
        ("m", 60 * SECOND),
        ("s", SECOND),
        ("ms", 1),
    ] {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let Some(after) = tail.strip_prefix(unit) else { continue };
        // `5ms` is not five minutes and an `s`.
        if digits == 0 || (unit == "m" && after.starts_with('s')) {
            continue;
        }
        sum = sum.saturating_add(number.parse::<u64>().ok()?.saturating_mul(length));
        rest = after;
    }
    (sum > 0 && rest.is_empty()).then_some(sum)
}

/// `cpu=20m/200m,memory=32Mi`: what is not named keeps its default, so that no override can drop a request
/// or a limit (R18, R19). A request above its limit would make the API server refuse the pod: not valid.
fn parse_resources(value: &str) -> Option<Resources> {
    let mut resources = Resources::default();
    for part in value.split(',') {
        let (name, amounts) = part.split_once('=')?;
        let slot = match name.trim() {
            "cpu" => &mut resources.cpu,
            "memory" => &mut resources.memory,
            _ => return None,
        };
        let (request, limit) = amounts.split_once('/').unwrap_or((amounts, ""));
        for (field, typed) in [(&mut slot.0, request.trim()), (&mut slot.1, limit.trim())] {
            if !typed.is_empty() {
                typed.clone_into(field);
            }
        }
        if quantity(&slot.0)? > quantity(&slot.1)? {
            return None;
        }
    }
    Some(resources)
}

/// A Kubernetes quantity above zero, in thousandths (a limit of zero would mean "no limit").
fn quantity(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 3 || (fraction.is_empty() && number.contains('.')) {
        return None;
    }
    let thousandths = format!("{whole}{fraction:0<3}").parse::<u128>().ok()?;
    let factor: u128 = match suffix {
        "m" => return (fraction.is_empty() && thousandths > 0).then_some(thousandths / 1000),
        "" => 1,
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    thousandths.checked_mul(factor).filter(|amount| *amount > 0)
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
            (INTERVAL, "1m30s"),
            (RESOURCES, "cpu=50m,memory=/256Mi"),
        ])
        .unwrap();
        assert_eq!(settings.gateway, Some("envoy"));
        assert_eq!(settings.container.as_deref(), Some("edge"));
        assert_eq!((settings.statsd_port, settings.metrics_port), (Some(8126), Some(9200)));
        assert_eq!(settings.envoy_version, Some(Version(1, 34)));
        assert_eq!(settings.interval.as_deref(), Some("1m30s"));
        assert_eq!(settings.resources.cpu, ("50m".into(), "200m".into()));
        assert_eq!(settings.resources.memory, ("32Mi".into(), "256Mi".into()));
    }

    #[test]
    fn nonsense_names_key_value_and_what_is_allowed() {
        let nonsense = [
            (INJECT, "yes"),
            (GATEWAY, "nginx"),
            (CONTAINER, ""),
            (STATSD_PORT, "0"),
            (METRICS_PORT, "65536"),
            (METRICS_PORT, "-1"),
            (ENVOY_VERSION, "latest"),
            (INTERVAL, "15"),
            (INTERVAL, "0s"),
            (INTERVAL, "1s1m"),
            (RESOURCES, "cpu=lots"),
            (RESOURCES, "cpu=500m"),
            (RESOURCES, "disk=1Gi/1Gi"),
            (RESOURCES, "memory=0/1Mi"),
        ];
        for (key, value) in nonsense {
            let refusal = parse(&[(key, value)]).unwrap_err();
            let allowed = VOCABULARY.iter().find(|k| k.name == key).unwrap().allowed;
            assert_eq!(refusal.reason, Reason::InvalidAnnotation, "{key}={value}");
            for part in [key, allowed, &format!("{value:?}")] {
                assert!(refusal.detail.contains(part), "{} lacks {part}", refusal.detail);
            }
            assert!(refusal.to_string().len() <= 256, "Kubernetes would cut: {refusal}");
        }
    }

    #[test]
    fn a_mistyped_key_is_shown_with_those_that_exist() {
        let refusal = parse(&[("gwmon.io/metric-port", "9102")]).unwrap_err();
        assert!(
            refusal.detail.contains("gwmon.io/metric-port") && refusal.detail.contains("metrics-port"),
            "{refusal}"
        );
    }

    #[test]
    fn quantities_compare_across_suffixes() {
        for (smaller, larger) in [("20m", "0.2"), ("1", "1001m"), ("1M", "1Mi"), ("1000Ki", "1Mi"), ("999m", "1")] {
            assert!(quantity(smaller).unwrap() < quantity(larger).unwrap(), "{smaller} < {larger}");
        }
        for broken in
            ["", "m", "1.", ".5", "1e3x", "1 Gi", "-1", "1.5m", "0", "99999999999999999999999999999999999999999Ti"]
        {
            assert_eq!(quantity(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_gateways_that_are_allowed_are_those_that_are_said() {
        let allowed = VOCABULARY.iter().find(|k| k.name == GATEWAY).unwrap().allowed;
        assert_eq!(allowed, GATEWAYS.join(" or "));
    }
}
