//! The exporter's mapping file: statsd lines in, the metric names, labels and units of Envoy's own
//! `/stats/prometheus` out. For statsd_exporter 0.30.

use std::fmt::Write;
use std::sync::LazyLock;

use super::patch::quoted;

/// The bounds of Envoy's own histograms, in milliseconds.
const BUCKETS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10_000., 30_000., 60_000., 300_000., 600_000.,
    1_800_000., 3_600_000.,
];

/// The mapping for an Envoy that sends `dog_statsd`, as a JSON string: names and labels arrive right, so that each rule only
/// keeps the name (`$0`) and says how long, and in which unit.
///
/// - The exporter divides timers by 1000; Envoy's are milliseconds and stay so.
/// - Gauges and counters are sent again at every flush, so they may expire when the stat is gone; histograms
///   are sent with traffic only and may not.
/// - `native_histogram_bucket_factor: 1` turns native histograms off: a Prometheus that scrapes those drops
///   the `_bucket` series that every dashboard reads.
pub(crate) static DOG_STATSD: LazyLock<String> = LazyLock::new(|| quoted(&dog_statsd()).into_owned());

fn dog_statsd() -> String {
    let mut buckets = String::new();
    for bound in BUCKETS {
        let comma = if buckets.is_empty() { "" } else { ", " };
        let _ = write!(buckets, "{comma}{bound}");
    }
    format!(
        "defaults:
  match_type: regex
  observer_type: histogram
  histogram_options:
    native_histogram_bucket_factor: 1
    buckets: [{buckets}]
mappings:
- {{match: '.+', match_metric_type: observer, name: '$0', scale: 1000}}
- {{match: '.+', match_metric_type: gauge, name: '$0', ttl: 5m}}
- {{match: '.+', match_metric_type: counter, name: '$0', ttl: 1h}}
"
    )
}
