//! gwmon's own metrics. Labels are closed enums: no object's name is ever one, so that the number of series
//! does not grow with the cluster.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::reason::Reason;
use crate::suspension::{self, Suspensions};

/// The outcome of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// The object was changed.
    #[expect(non_camel_case_types)]
    patched,
    /// It was admitted as it is.
    #[expect(non_camel_case_types)]
    unchanged,
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    route: &'static str,
    outcome: Outcome,
    reason: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    outcome: ReconcileOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ReconcileOutcome {
    #[expect(non_camel_case_types)]
    ok,
    #[expect(non_camel_case_types)]
    error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SuspendedLabels {
    reason: Reason,
}

/// The way the controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Verb {
    /// By server-side apply.
    #[expect(non_camel_case_types)]
    apply,
    /// An object that is no longer wanted.
    #[expect(non_camel_case_types)]
    delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: Verb,
}

/// Every metric of the process. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    reviews: Family<ReviewLabels, Counter>,
    review_duration: Histogram,
    reconciles: Family<ReconcileLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    /// Gateways that wait to be reconciled, those that failed and will be tried again among them.
    pub queue_depth: Gauge,
    /// Pods that ask for injection and run without, at the last look.
    pub missed_pods: Gauge,
    /// Gateways with injected pods.
    pub gateways: Gauge,
    certificate_expiry: Gauge<f64, AtomicU64>,
    certificate_update_failing: Gauge,
    configuration_update_failing: Gauge,
    suspended_workloads: Family<SuspendedLabels, Gauge>,
    injection_stopped: Gauge,
}

impl Metrics {
    /// The metrics, and the registry that encodes them.
    #[must_use]
    pub fn new() -> (Self, Registry) {
        let metrics = Self {
            reviews: Family::default(),
            // A review takes microseconds; the top bucket is the webhook's own time limit.
            review_duration: Histogram::new([5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.5, 2.]),
            reconciles: Family::default(),
            writes: Family::default(),
            queue_depth: Gauge::default(),
            missed_pods: Gauge::default(),
            gateways: Gauge::default(),
            certificate_expiry: Gauge::default(),
            certificate_update_failing: Gauge::default(),
            configuration_update_failing: Gauge::default(),
            suspended_workloads: Family::default(),
            injection_stopped: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("gwmon");
        let m = metrics.clone();
        registry.register("reviews", "Admission reviews answered, by webhook, outcome and reason", m.reviews);
        registry.register_with_unit("review_duration", "Time to answer a review", Unit::Seconds, m.review_duration);
        registry.register("reconciles", "Reconciliations of a gateway, by outcome", m.reconciles);
        registry.register("writes", "Services and ServiceMonitors that the controller applied or deleted", m.writes);
        registry.register("queue_depth", "Gateways waiting for reconciliation", m.queue_depth);
        registry.register(
            "missed_pods",
            "Pods that ask for injection and run without it, at the last scan",
            m.missed_pods,
        );
        registry.register("gateways", "Gateways with injected pods", m.gateways);
        let help = "Workloads for which gwmon suspended injection, by reason";
        registry.register("suspended_workloads", help, m.suspended_workloads);
        let help = "Namespaces in which gwmon stopped all injection; 1 if it stopped in the whole cluster";
        registry.register("injection_stopped", help, m.injection_stopped);
        let help = "Expiry of the served certificate, in seconds since 1970";
        registry.register_with_unit("certificate_expiry_timestamp", help, Unit::Seconds, m.certificate_expiry);
        let help = "1 while the newest certificate cannot be read, made or used, and the one before is served";
        registry.register("certificate_update_failing", help, m.certificate_update_failing);
        let help =
            "1 while the configuration file cannot be read or is not valid, and the configuration before is in use";
        registry.register("configuration_update_failing", help, m.configuration_update_failing);
        // A series that exists from the start lets rate() see its first change.
        for outcome in [ReconcileOutcome::ok, ReconcileOutcome::error] {
            drop(metrics.reconciles.get_or_create(&ReconcileLabels { outcome }));
        }
        for verb in [Verb::apply, Verb::delete] {
            drop(metrics.writes.get_or_create(&WriteLabels { verb }));
        }
        metrics.suspended(&Suspensions::default());
        registry.register("build", "The version of gwmon", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        (metrics, registry)
    }

    /// Counts one review of a route, of which there are two.
    pub fn reviewed(&self, route: &'static str, outcome: Outcome, reason: Option<Reason>, took: Duration) {
        self.reviews.get_or_create(&ReviewLabels { route, outcome, reason }).inc();
        self.review_duration.observe(took.as_secs_f64());
    }

    /// Counts one object written.
    pub(crate) fn wrote(&self, verb: Verb) {
        self.writes.get_or_create(&WriteLabels { verb }).inc();
    }

    /// Notes when the served certificate ends, in seconds since 1970.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double for ever")]
    pub fn certificate_ends(&self, timestamp: i64) {
        self.certificate_expiry.set(timestamp as f64);
    }

    /// Notes whether the last attempt to bring the certificate up to date failed.
    pub(crate) fn certificate_update_fails(&self, fails: bool) {
        self.certificate_update_failing.set(fails.into());
    }

    /// Notes whether the configuration file could not be used when it was last read.
    pub(crate) fn configuration_update_fails(&self, fails: bool) {
        self.configuration_update_failing.set(fails.into());
    }

    /// Notes which workloads are suspended.
    pub(crate) fn suspended(&self, suspensions: &Suspensions) {
        self.suspended_workloads.clear();
        for reason in suspension::CAUSES {
            self.suspended_workloads.get_or_create(&SuspendedLabels { reason }).set(0);
        }
        for reason in suspensions.iter().filter(|(_, entry)| entry.is_active()).filter_map(|(_, entry)| entry.reason())
        {
            self.suspended_workloads.get_or_create(&SuspendedLabels { reason }).inc();
        }
        self.injection_stopped.set(i64::try_from(suspensions.stopped().len()).unwrap_or(i64::MAX));
    }

    /// Counts one reconciliation.
    pub fn reconciled(&self, ok: bool) {
        let outcome = if ok { ReconcileOutcome::ok } else { ReconcileOutcome::error };
        self.reconciles.get_or_create(&ReconcileLabels { outcome }).inc();
    }
}
