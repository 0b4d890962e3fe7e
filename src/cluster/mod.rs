//! Reads a cluster: a [`Snapshot`] for a command, from lists or files, and a cache of watches for the controller. Both read an
//! object with the same parser, and leave out one that cannot be read.

pub(crate) mod access;
pub(crate) mod bindings;
pub(crate) mod cache;
pub(crate) mod events;
mod index;
pub(crate) mod installation;
pub(crate) mod object;
pub(crate) mod observe;
pub(crate) mod owners;
pub(crate) mod prerequisites;
pub(crate) mod prometheus;
pub(crate) mod request;
pub(crate) mod revisions;
mod snapshot;
pub(crate) mod ttl_cache;
pub(crate) mod version;
pub(crate) mod watch;

use crate::monitoring::scraper::Kind;
pub use snapshot::Snapshot;
pub(crate) use snapshot::with_kind;

/// The name under which gwmon's fields are applied.
pub(crate) const FIELD_MANAGER: &str = "gwmon";

/// The need for a kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Without it nothing can be planned.
    Required,
    /// Where it cannot be read it is taken for empty.
    Optional,
}

/// The kinds that read ServiceMonitors, with their group and version, and the need for each: a forbidden Prometheus must not
/// count as an absent one.
pub(crate) fn scraper_kinds() -> impl Iterator<Item = (Kind, &'static str, Need)> {
    let need = |kind| if kind == Kind::Prometheus { Need::Required } else { Need::Optional };
    Kind::ALL.into_iter().map(move |(kind, version)| (kind, version, need(kind)))
}
