//! What the vocabulary's values may be: versions, quantities, durations, the choices.

use std::fmt;
use std::str::FromStr;

use crate::quantity::Quantity;

/// An enum whose values are words of the vocabulary.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $value:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$each])* $value,)+ }

        impl $name {
            /// The word that a user writes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(word: &str) -> Result<Self, ()> {
                match word { $($word => Ok(Self::$value),)+ _ => Err(()) }
            }
        }
    )+};
}

choices! {
    /// How the metrics leave the gateway.
    Mode {
        /// As statsd, to a sidecar.
        #[default]
        Statsd = "statsd",
        /// By the gateway's own Prometheus endpoint.
        Native = "native",
    }
    /// How the scrape is found.
    Discovery {
        /// By a Service and a ServiceMonitor.
        #[default]
        Monitor = "monitor",
        /// By the `prometheus.io/` annotations of the pod.
        Annotations = "annotations",
        /// Both: what reads both scrapes twice.
        Both = "both",
    }
    /// The names that metrics get.
    Profile {
        /// Those of Envoy's own `/stats/prometheus`.
        #[default]
        Envoy = "envoy",
        /// Those of bakins/kubernetes-envoy-example, times in seconds.
        Bakins = "bakins",
    }
    /// What kind of container the sidecar is.
    Sidecar {
        /// An init container with `restartPolicy: Always` (Kubernetes 1.29).
        #[default]
        Native = "native",
        /// A container beside the gateway.
        Container = "container",
    }
}

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

impl Target {
    pub(crate) fn parse(value: &str) -> Option<Self> {
        if value == "all" {
            return Some(Self::All);
        }
        let (namespace, name) = value.split_once('/')?;
        let legal = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        legal.then(|| Self::Named { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

pub(super) fn port(value: &str) -> Option<u16> {
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

/// `cpu=50m/500m,memory=32Mi`: what is not named keeps its default, so that no override can drop a request
/// or a limit (R18, R19). A request above its limit would make the API server refuse the pod: not valid.
pub(super) fn parse_resources(value: &str) -> Option<Resources> {
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
                // A limit of zero would mean "no limit".
                *field = typed.parse().ok().filter(|amount| *amount > Quantity::default())?;
            }
        }
        if slot.0 > slot.1 {
            return None;
        }
    }
    // `128m` of memory is a fraction of a byte.
    let is_whole = |amount: Quantity| amount == Quantity::from_thousandths(amount.units() * 1000);
    let (request, limit) = resources.memory;
    (is_whole(request) && is_whole(limit) && limit >= SMALLEST_MEMORY_LIMIT).then_some(resources)
}
