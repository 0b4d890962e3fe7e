//! The exporter's mapping file: statsd lines in, the metric names, labels and units of Envoy's own
//! `/stats/prometheus` out. For statsd_exporter 0.30. What the real Envoy makes of it is in `tests/parts/parity`.

use std::fmt::Write;
use std::sync::LazyLock;

use super::tags::{self, TAGS};
use crate::annotations::Profile;
use crate::injection::bootstrap::Dialect;
use crate::injection::naming::short_hash;
use crate::injection::patch::quoted;
use crate::kubernetes::Version;

/// One mapping file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// For an Envoy that sends `dog_statsd`.
    DogStatsd,
    /// For one that sends plain statsd.
    Statsd,
    /// For one that sends plain statsd, and is older than [`tags::XDS_NAMES_SINCE`].
    OldStatsd,
    /// Names as in bakins/kubernetes-envoy-example.
    Bakins,
}

/// The bounds of Envoy's own histograms, in milliseconds.
const BUCKETS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10_000., 30_000., 60_000., 300_000., 600_000.,
    1_800_000., 3_600_000.,
];

impl Mapping {
    /// The mapping for what an Envoy sends. One whose version is not known is taken for a new one.
    #[must_use]
    pub fn of(dialect: Dialect, profile: Profile, envoy: Option<Version>) -> Self {
        match (dialect, profile) {
            (Dialect::DogStatsd, _) => Self::DogStatsd,
            (Dialect::Statsd, Profile::Bakins) => Self::Bakins,
            (Dialect::Statsd, Profile::Envoy) if envoy.is_some_and(|v| v < tags::XDS_NAMES_SINCE) => Self::OldStatsd,
            (Dialect::Statsd, Profile::Envoy) => Self::Statsd,
        }
    }

    /// The size of the exporter's cache of mapped names. With many rules, a name that is not cached costs a hundred
    /// times as much, so the cache then holds more names than an Envoy has statistics.
    #[must_use]
    pub const fn cache_size(self) -> u32 {
        match self {
            Self::DogStatsd => 5000,
            Self::Statsd | Self::OldStatsd | Self::Bakins => 20_000,
        }
    }

    /// The file, as a JSON string.
    pub(crate) fn text(self) -> &'static str {
        &self.made().0
    }

    /// Changes with the file.
    pub(crate) fn hash(self) -> &'static str {
        &self.made().1
    }

    /// Text and hash, made once.
    fn made(self) -> &'static (String, String) {
        static MADE: LazyLock<[(String, String); 4]> = LazyLock::new(|| {
            [Mapping::DogStatsd, Mapping::Statsd, Mapping::OldStatsd, Mapping::Bakins].map(|mapping| {
                let text = quoted(&mapping.file()).into_owned();
                let hash = short_hash(&[&text]);
                (text, hash)
            })
        });
        &MADE[self as usize]
    }

    /// Every observer is scaled: the exporter divides timers by 1000, while Envoy sends each in its own unit, mostly
    /// milliseconds, and calls it milliseconds.
    ///
    /// Gauges and counters are sent again at every flush, so they may expire when the stat is gone; histograms are sent
    /// with traffic only and may not. `native_histogram_bucket_factor: 1` turns native histograms off: a Prometheus that
    /// scrapes those drops the `_bucket` series that every dashboard reads.
    fn file(self) -> String {
        let native =
            format!("native_histogram_bucket_factor: 1\n    buckets: [{}]", BUCKETS.map(|b| b.to_string()).join(", "));
        let histograms = if self == Self::Bakins { "native_histogram_bucket_factor: 1" } else { &native };
        let mut file = format!(
            "defaults:\n  match_type: regex\n  observer_type: histogram\n  histogram_options:\n    {histograms}\nmappings:\n"
        );
        match self {
            // Names and labels arrive right.
            Self::DogStatsd => file.push_str(
                "- {match: '.+', match_metric_type: observer, name: '$0', scale: 1000}\n\
                 - {match: '.+', match_metric_type: gauge, name: '$0', ttl: 5m}\n\
                 - {match: '.+', match_metric_type: counter, name: '$0', ttl: 1h}\n",
            ),
            Self::Bakins => {
                let cluster = r"{match: '^envoy\.cluster\.([^.]+)\.(.+)$', name: 'envoy_$2', labels: {cluster: '$1'}}";
                let (matched, labels) = (format!(r"^envoy\.listener\.{}\.(.+)$", tags::LISTENER), "{listener: '$1'}");
                let _ = writeln!(file, "- {cluster}");
                let _ = writeln!(file, "- {{match: '{matched}', name: 'envoy_listener_$2', labels: {labels}}}");
            }
            Self::Statsd | Self::OldStatsd => {
                for tag in TAGS.iter().filter(|tag| !(tag.is_new && self == Self::OldStatsd)) {
                    for rule in tag.rules() {
                        let _ = writeln!(file, "- {rule}");
                    }
                }
            }
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_small_enough_to_be_carried_by_every_pod() {
        for (mapping, most) in
            [(Mapping::DogStatsd, 2), (Mapping::Statsd, 40), (Mapping::OldStatsd, 40), (Mapping::Bakins, 2)]
        {
            assert!(mapping.text().len() <= most << 10, "{mapping:?} has {} bytes", mapping.text().len());
        }
    }

    #[test]
    fn an_old_envoy_gets_its_own_only_where_it_matters() {
        let of = |dialect, minor| Mapping::of(dialect, Profile::Envoy, Some(Version(1, minor)));
        assert_eq!(of(Dialect::Statsd, 36), Mapping::OldStatsd);
        assert_eq!(of(Dialect::Statsd, 37), Mapping::Statsd);
        assert_eq!(of(Dialect::DogStatsd, 36), Mapping::DogStatsd);
        assert_eq!(Mapping::of(Dialect::Statsd, Profile::Envoy, None), Mapping::Statsd);
    }
}
