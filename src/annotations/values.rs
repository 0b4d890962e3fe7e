//! The values of annotations: words, ports, versions, durations, labels and resources, parsed.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::PREFIX;
use super::invalid::{DurationError, InvalidValue, ResourcesError};
use crate::kubernetes::labels::{self, Labels};
use crate::kubernetes::quantity::Quantity;
use crate::reason::shown;

/// The maximum number of labels that a user may add to a monitor.
const MOST_LABELS: usize = 32;

/// Declares an enum whose values are words that a user writes.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $value:ident = $word:literal $(was $old:literal)?,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$each])* $value,)+ }

        impl $name {
            /// The words that a user may write.
            pub(super) const WORDS: &'static [&'static str] = &[$($word,)+];

            /// The word that a user writes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(word: &str) -> Result<Self, InvalidValue> {
                match word {
                    $($word => Ok(Self::$value),)+
                    $($($old => Err(InvalidValue::Renamed($word)),)?)+
                    _ => Err(InvalidValue::UnknownWord(Self::WORDS)),
                }
            }
        }
    )+};
}

words! {
    /// The path of a gateway's metrics to Prometheus.
    Mode {
        /// The gateway sends statsd to the exporter sidecar, which Prometheus scrapes.
        #[default]
        Statsd = "statsd",
        /// Prometheus scrapes the gateway's own metrics endpoint.
        Scrape = "scrape" was "native",
    }
    /// The way Prometheus discovers the pods.
    Discovery {
        /// By a Service and a `ServiceMonitor`.
        #[default]
        Monitor = "monitor",
        /// By `prometheus.io/` annotations on the pod.
        Annotations = "annotations",
        /// By both; a Prometheus that reads both scrapes twice.
        Both = "both",
    }
    /// The names of the metrics.
    Profile {
        /// The names of Envoy's own `/stats/prometheus`.
        #[default]
        Envoy = "envoy",
        /// The names of bakins/kubernetes-envoy-example, times in seconds.
        Bakins = "bakins",
    }
    /// The kind of container that the sidecar is.
    Sidecar {
        /// A native sidecar: an init container with `restartPolicy: Always` (Kubernetes 1.29).
        #[default]
        Native = "native",
        /// A regular container.
        Regular = "regular" was "container",
    }
}

/// Requests and limits of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// CPU: request, limit.
    pub cpu: (Quantity, Quantity),
    /// Memory: request, limit.
    pub memory: (Quantity, Quantity),
}

const fn millicores(millicores: u128) -> Quantity {
    Quantity::from_thousandths(millicores)
}

const fn mebibytes(mebibytes: u128) -> Quantity {
    Quantity::from_thousandths((mebibytes << 20) * 1000)
}

/// The least memory limit with which the exporter serves a small gateway (`benches/loss.rs`).
pub(crate) const SMALLEST_MEMORY_LIMIT: Quantity = mebibytes(32);

impl Default for Resources {
    /// The limits let it take what it takes beside an Envoy of 5,000 requests a second and for six times the largest
    /// gateway of `benches/loss.rs`; at rest it takes next to nothing.
    fn default() -> Self {
        Self { cpu: (millicores(50), millicores(500)), memory: (mebibytes(32), mebibytes(192)) }
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

impl FromStr for Target {
    type Err = InvalidValue;

    fn from_str(value: &str) -> Result<Self, InvalidValue> {
        let parts: Vec<_> = value.split('/').collect();
        match parts[..] {
            ["all"] => Ok(Self::All),
            [name] if !name.is_empty() => Err(InvalidValue::TargetWithoutNamespace(name.chars().take(64).collect())),
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::Named { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(InvalidValue::NotATarget),
        }
    }
}

pub(super) fn port(value: &str) -> Result<u16, InvalidValue> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidValue::PortNotANumber);
    }
    value.parse().ok().filter(|port| *port != 0).ok_or(InvalidValue::PortOutOfRange)
}

pub(super) fn flag(value: &str) -> Result<bool, InvalidValue> {
    value.parse().map_err(|_| InvalidValue::UnknownWord(&["true", "false"]))
}

pub(super) fn monitor_labels(value: &str) -> Result<Labels, InvalidValue> {
    let labels = labels::parse(value)?;
    if labels.is_empty() {
        return Err(InvalidValue::Empty);
    }
    if labels.len() > MOST_LABELS {
        return Err(InvalidValue::TooManyLabels { count: labels.len(), most: MOST_LABELS });
    }
    match labels.keys().find(|key| key.starts_with(PREFIX)) {
        Some(reserved) => Err(InvalidValue::ReservedLabel(reserved.clone())),
        None => Ok(labels),
    }
}

/// Milliseconds of a Prometheus duration, by the pattern of prometheus-operator's `Duration` type.
///
/// # Errors
/// Also for zero, which no interval may be.
pub(crate) fn duration(value: &str) -> Result<u64, DurationError> {
    const SECOND: u64 = 1000;
    const DAY: u64 = 24 * 60 * 60 * SECOND;
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * DAY),
        ("w", 7 * DAY),
        ("d", DAY),
        ("h", 60 * 60 * SECOND),
        ("m", 60 * SECOND),
        ("s", SECOND),
        ("ms", 1),
    ];
    let mut rest = value;
    let mut sum = 0_u64;
    for (unit, length) in UNITS {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let Some(after) = tail.strip_prefix(unit) else { continue };
        // `5ms` is not five minutes and an `s`.
        if digits == 0 || (unit == "m" && after.starts_with('s')) {
            continue;
        }
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        sum = sum.saturating_add(number.saturating_mul(length));
        rest = after;
    }
    if rest.is_empty() && !value.is_empty() {
        return if sum == 0 { Err(DurationError::Zero) } else { Ok(sum) };
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_pair = |text: &str| UNITS.iter().any(|(unit, _)| text.strip_suffix(unit).is_some_and(is_number));
    Err(match rest {
        _ if value.is_empty() => DurationError::NotADuration,
        _ if value.starts_with('-') => DurationError::Negative,
        _ if is_number(value) && value.bytes().all(|b| b == b'0') => DurationError::Zero,
        _ if is_number(value) => DurationError::NoUnit(value.chars().take(20).collect()),
        _ if value.contains('.') => DurationError::Fraction,
        _ if value.split_inclusive(char::is_alphabetic).all(is_pair) => DurationError::UnitOrder,
        _ => DurationError::NotADuration,
    })
}

/// Requests and limits that somebody asks for; what is left out is the default's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialResources {
    /// CPU: request, limit.
    pub cpu: (Option<Quantity>, Option<Quantity>),
    /// Memory: request, limit.
    pub memory: (Option<Quantity>, Option<Quantity>),
}

impl PartialResources {
    /// Reads requests and limits as a container has them.
    ///
    /// # Errors
    /// What no container of an exporter may have.
    pub(crate) fn of(
        requests: &BTreeMap<String, String>,
        limits: &BTreeMap<String, String>,
    ) -> Result<Self, ResourcesError> {
        if let Some(other) =
            requests.keys().chain(limits.keys()).find(|name| !["cpu", "memory"].contains(&name.as_str()))
        {
            return Err(ResourcesError::UnknownResource(other.clone()));
        }
        let of = |name: &'static str| {
            let text = |list: &BTreeMap<String, String>| list.get(name).cloned().unwrap_or_default();
            Ok((amount(name, &text(requests))?, amount(name, &text(limits))?))
        };
        let resources = Self { cpu: of("cpu")?, memory: of("memory")? };
        resources.checked()
    }

    /// These, and the default's for the rest. One that is given moves its counterpart if it must: no request is above its limit.
    #[must_use]
    pub fn over(&self, default: &Resources) -> Resources {
        let merge = |given: (Option<Quantity>, Option<Quantity>), default: (Quantity, Quantity)| match given {
            (None, None) => default,
            (Some(request), None) => (request, default.1.max(request)),
            (None, Some(limit)) => (default.0.min(limit), limit),
            (Some(request), Some(limit)) => (request, limit),
        };
        Resources { cpu: merge(self.cpu, default.cpu), memory: merge(self.memory, default.memory) }
    }

    /// Checks them over gwmon's own defaults.
    fn checked(self) -> Result<Self, ResourcesError> {
        let default = Resources::default();
        within("cpu", default.cpu, self.cpu.0, self.cpu.1)?;
        let (request, limit) = within("memory", default.memory, self.memory.0, self.memory.1)?;
        if limit < SMALLEST_MEMORY_LIMIT {
            let request = request.min(SMALLEST_MEMORY_LIMIT);
            return Err(ResourcesError::MemoryLimitTooSmall { request, limit, least: SMALLEST_MEMORY_LIMIT });
        }
        Ok(self)
    }
}

/// `cpu=50m/500m,memory=32Mi`: what is not named keeps its default, so that no annotation can drop a request or a
/// limit (R18, R19).
pub(super) fn resources(value: &str) -> Result<PartialResources, ResourcesError> {
    let mut resources = PartialResources::default();
    let mut seen = Vec::new();
    for part in value.split(',').map(str::trim) {
        let (name, amounts) = part.split_once('=').ok_or_else(|| ResourcesError::NoEquals(part.to_owned()))?;
        let (name, slot) = match name.trim() {
            "cpu" => ("cpu", &mut resources.cpu),
            "memory" => ("memory", &mut resources.memory),
            other => return Err(ResourcesError::UnknownResource(other.to_owned())),
        };
        if seen.contains(&name) {
            return Err(ResourcesError::Twice(name));
        }
        seen.push(name);
        let (request, limit) = amounts.split_once('/').unwrap_or((amounts, ""));
        *slot = (amount(name, request)?, amount(name, limit)?);
        if *slot == (None, None) {
            return Err(ResourcesError::NoAmount(name));
        }
    }
    resources.checked()
}

/// One request or limit; `None` where it is left out.
fn amount(resource: &'static str, text: &str) -> Result<Option<Quantity>, ResourcesError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains('/') {
        return Err(ResourcesError::TooManyAmounts(resource));
    }
    let amount = Quantity::parse_exact(text).map_err(|error| ResourcesError::Amount {
        resource,
        amount: text.to_owned(),
        error,
    })?;
    if amount == Quantity::default() {
        return Err(ResourcesError::Zero(resource));
    }
    if resource == "memory" && amount != Quantity::from_thousandths(amount.units() * 1000) {
        return Err(ResourcesError::FractionOfAByte(shown(text)));
    }
    Ok(Some(amount))
}

/// Request and limit, the defaults where one is left out. The API server refuses a pod whose request is above its limit.
fn within(
    resource: &'static str,
    default: (Quantity, Quantity),
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Result<(Quantity, Quantity), ResourcesError> {
    let both = (request.unwrap_or(default.0), limit.unwrap_or(default.1));
    if both.0 <= both.1 {
        return Ok(both);
    }
    let text = |typed: Option<Quantity>, amount: Quantity| {
        if typed.is_some() { amount.to_string() } else { format!("{amount} (the default)") }
    };
    let least = if resource == "memory" { SMALLEST_MEMORY_LIMIT } else { Quantity::default() };
    let fix = request.unwrap_or(both.1).max(least);
    Err(ResourcesError::RequestAboveLimit { resource, request: text(request, both.0), limit: text(limit, both.1), fix })
}
