//! The alerts. Each has its runbook in `docs/runbooks`.

use super::over;

/// The part of requests that may fail: 99.9 % succeed.
const ERROR_BUDGET: &str = "0.001";

/// What an alert means for whoever is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Requests are lost: now.
    Critical,
    /// Something will be lost, or is not seen: in working hours.
    Warning,
}

impl Severity {
    /// The value of the label `severity`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// An alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its name, and that of its runbook.
    pub name: &'static str,
    /// The query; whatever it returns fires.
    pub expr: String,
    /// How long it must hold.
    pub hold: &'static str,
    /// Who is called.
    pub severity: Severity,
    /// One line, with Prometheus' templates.
    pub summary: &'static str,
}

/// Fires while the error budget of 30 days burns so fast over a long and a short range (Site Reliability Workbook, chapter 5): long and
/// short range, minutes of the long one, factor. A range counts once half of it has been seen, with a request in ten seconds and ten
/// errors, so that neither a new gateway nor one with little traffic calls anybody for a handful of errors.
fn burn(arms: [(&str, &str, u32, &str); 2]) -> String {
    let arms = arms.map(|(long, short, minutes, factor)| {
        let ratio =
            |range: &str| format!("namespace_job:gwmon_gateway_errors:ratio_rate{range} > {factor} * {ERROR_BUDGET}");
        let requests = format!("namespace_job:gwmon_gateway_requests:rate5m[{long}]");
        let enough = format!(
            "count_over_time({requests}) > {} and avg_over_time({requests}) > 0.1 and 60 * sum_over_time(namespace_job:gwmon_gateway_errors:rate5m[{long}]) > 10",
            minutes / 2
        );
        format!("({} and {} and {enough})", ratio(long), ratio(short))
    });
    arms.join("\nor\n")
}

fn alert(severity: Severity, name: &'static str, hold: &'static str, expr: &str, summary: &'static str) -> Alert {
    Alert { name, expr: over(expr, "5m"), hold, severity, summary }
}

fn warning(name: &'static str, hold: &'static str, expr: &str, summary: &'static str) -> Alert {
    alert(Severity::Warning, name, hold, expr, summary)
}

fn critical(name: &'static str, hold: &'static str, expr: &str, summary: &'static str) -> Alert {
    alert(Severity::Critical, name, hold, expr, summary)
}

/// Every alert; the one on a latency of one's own only where that is chosen, in milliseconds.
#[must_use]
pub fn alerts(latency: Option<u32>) -> Vec<Alert> {
    let mut alerts = [of_requests(), of_upstreams(), of_pods(), of_gwmon()].concat();
    if let Some(bound) = latency {
        // Over two minutes, since most Prometheuses scrape every 30 s or less often.
        let slow = format!(
            "1 - sum by (namespace, job) (rate(envoy_http_downstream_rq_time_bucket{{$sel, $http, le=~\"{bound}([.]0)?\"}}[2m])) / (sum by (namespace, job) (rate(envoy_http_downstream_rq_time_count{{$sel, $http}}[2m])) > 0.1) > 0.01"
        );
        alerts.push(warning("GatewayLatencyAboveThreshold", "1m", &slow,
            "{{ $value | humanizePercentage }} of the requests of gateway {{ $labels.job }} in namespace {{ $labels.namespace }} are slower than the threshold."));
    }
    alerts
}

/// What clients get.
fn of_requests() -> Vec<Alert> {
    vec![
        critical(
            "GatewayDown",
            "5m",
            "sum by (namespace, job) (up{$sel}) == 0",
            "Prometheus reaches no pod of gateway {{ $labels.job }} in namespace {{ $labels.namespace }}.",
        ),
        warning(
            "GatewayPodDown",
            "15m",
            "up{$sel} == 0",
            "Prometheus does not reach pod {{ $labels.pod }} in namespace {{ $labels.namespace }}.",
        ),
        warning(
            "GatewaySendsNothing",
            "15m",
            "up{$sel} == 1 and on (namespace, pod) rate(statsd_exporter_lines_total{$sel}$rate) == 0",
            "Pod {{ $labels.pod }} in namespace {{ $labels.namespace }} is injected, but its gateway sends no statistics.",
        ),
        critical(
            "GatewayErrorBudgetBurn",
            "2m",
            &burn([("1h", "5m", 60, "14.4"), ("6h", "30m", 360, "6")]),
            "Gateway {{ $labels.job }} in namespace {{ $labels.namespace }} answers {{ $value | humanizePercentage }} of requests with 5xx: its error budget of 30 days will be used up within days.",
        ),
        warning(
            "GatewayErrorBudgetBurnSlow",
            "1h",
            &burn([("1d", "2h", 1_440, "3"), ("3d", "6h", 4_320, "1")]),
            "Gateway {{ $labels.job }} in namespace {{ $labels.namespace }} answers {{ $value | humanizePercentage }} of requests with 5xx: its error budget of 30 days will not last.",
        ),
    ]
}

/// What the gateway gets from the services behind it, and how long that takes.
fn of_upstreams() -> Vec<Alert> {
    vec![
        warning(
            "GatewayUpstreamErrors",
            "5m",
            "sum by (namespace, job, envoy_cluster_name) (rate(envoy_cluster_upstream_rq_xx{$sel, envoy_response_code_class=\"5\"}$rate)) / (sum by (namespace, job, envoy_cluster_name) (rate(envoy_cluster_upstream_rq_xx{$sel}$rate)) > 0.2) > 0.05",
            "Upstream cluster {{ $labels.envoy_cluster_name }} of gateway {{ $labels.job }} in namespace {{ $labels.namespace }} answers {{ $value | humanizePercentage }} of requests with 5xx.",
        ),
        warning(
            "GatewayLatencyAboveBaseline",
            "15m",
            "namespace_job:gwmon_gateway_latency_milliseconds:p99_rate5m > 3 * quantile_over_time(0.5, namespace_job:gwmon_gateway_latency_milliseconds:p99_rate5m[1d]) and namespace_job:gwmon_gateway_latency_milliseconds:p99_rate5m > 50 and count_over_time(namespace_job:gwmon_gateway_latency_milliseconds:p99_rate5m[1d]) > 360",
            "The p99 of gateway {{ $labels.job }} in namespace {{ $labels.namespace }} is {{ $value | printf \"%.0f\" }} ms, three times its median of a day.",
        ),
        critical(
            "GatewayUpstreamDown",
            "5m",
            "envoy_cluster_membership_total{$sel} > 0 unless envoy_cluster_membership_healthy{$sel} > 0",
            "Upstream cluster {{ $labels.envoy_cluster_name }} of pod {{ $labels.pod }} in namespace {{ $labels.namespace }} has no healthy host.",
        ),
        warning(
            "GatewayUpstreamUnhealthy",
            "10m",
            "(envoy_cluster_membership_healthy{$sel} > 0) / envoy_cluster_membership_total{$sel} < 2 / 3",
            "{{ $value | humanizePercentage }} of the hosts of upstream cluster {{ $labels.envoy_cluster_name }} of pod {{ $labels.pod }} in namespace {{ $labels.namespace }} are healthy.",
        ),
        warning(
            "GatewayCircuitBreakerOpen",
            "5m",
            "sum by (namespace, job, envoy_cluster_name) (rate(envoy_cluster_upstream_rq_pending_overflow{$sel}$rate)) > 0 or sum by (namespace, job, envoy_cluster_name) (rate(envoy_cluster_upstream_rq_active_overflow{$sel}$rate)) > 0",
            "Gateway {{ $labels.job }} in namespace {{ $labels.namespace }} is at the limits of upstream cluster {{ $labels.envoy_cluster_name }}.",
        ),
        warning(
            "GatewayConnectFailures",
            "10m",
            "sum by (namespace, job, envoy_cluster_name) (increase(envoy_cluster_upstream_cx_connect_fail{$sel}$rate)) > 100",
            "Gateway {{ $labels.job }} in namespace {{ $labels.namespace }} failed to connect to upstream cluster {{ $labels.envoy_cluster_name }} {{ $value | humanize }} times in 5 minutes.",
        ),
    ]
}

/// Over statsd, a counter comes with its first event, of which `increase` does not know.
fn rejected() -> String {
    let counters = [
        "envoy_listener_manager_lds_update_rejected",
        "envoy_cluster_manager_cds_update_rejected",
        "envoy_http_rds_update_rejected",
    ];
    let arms = counters.map(|counter| {
        format!("sum by (namespace, job) (increase({counter}{{$sel}}[10m]) > 0 or ({counter}{{$sel}} > 0 unless {counter}{{$sel}} offset 10m))")
    });
    arms.join("\nor\n")
}

/// What a pod holds: certificates, configuration, the exporter, series.
fn of_pods() -> Vec<Alert> {
    vec![
        // Whole days: 0 is less than one, expired, or no certificate at all (Envoy, source/server/server.cc).
        warning(
            "GatewayCertificateExpires",
            "1h",
            "min by (namespace, job) (envoy_server_days_until_first_cert_expiring{$sel} > 0) < 14 or min by (namespace, job) (envoy_server_days_until_first_cert_expiring{$sel} == 0 and max_over_time(envoy_server_days_until_first_cert_expiring{$sel}[3d]) > 0) or (min by (namespace, job) (envoy_listener_ssl_certificate_expiration_unix_time_seconds{$sel}) - time()) / 86400 < 14",
            "A certificate of gateway {{ $labels.job }} in namespace {{ $labels.namespace }} expires in {{ $value | printf \"%.0f\" }} days.",
        ),
        warning(
            "GatewayConfigurationRejected",
            "1m",
            &rejected(),
            "Gateway {{ $labels.job }} in namespace {{ $labels.namespace }} rejects its newest configuration.",
        ),
        warning(
            "ExporterLosesSamples",
            "10m",
            "sum by (namespace, pod) (rate(statsd_exporter_udp_packet_drops_total{$sel}$rate)) > 0 or sum by (namespace, pod) (rate(statsd_exporter_sample_errors_total{$sel}$rate)) > 0 or sum by (namespace, pod) (rate(statsd_exporter_events_conflict_total{$sel}$rate)) > 0",
            "The exporter of pod {{ $labels.pod }} in namespace {{ $labels.namespace }} loses samples: {{ $value | printf \"%.1f\" }} a second.",
        ),
        warning(
            "ExporterRestarts",
            "1m",
            "changes(process_start_time_seconds{$sel}[1h]) > 0 and on (namespace, pod) statsd_exporter_build_info{$sel}",
            "The exporter of pod {{ $labels.pod }} in namespace {{ $labels.namespace }} started again within the hour; its counters began at zero: {{ $value }} times.",
        ),
        warning(
            "GatewayHasManySeries",
            "30m",
            "max by (namespace, job) (scrape_samples_scraped{$sel}) > 50000",
            "A pod of gateway {{ $labels.job }} in namespace {{ $labels.namespace }} has {{ $value | humanize }} series.",
        ),
    ]
}

/// gwmon itself.
fn of_gwmon() -> Vec<Alert> {
    vec![
        warning(
            "GwmonDown",
            "15m",
            "absent(gwmon_build_info)",
            "Prometheus scrapes no gwmon: it does not run, or nobody sees whether it does.",
        ),
        warning(
            "GwmonMissedPods",
            "15m",
            "max(gwmon_missed_pods) > 0",
            "Pods that ask for injection and run without it: {{ $value }}.",
        ),
        warning(
            "GwmonSuspendedWorkloads",
            "15m",
            "max by (reason) (gwmon_suspended_workloads) > 0",
            "Workloads for which gwmon suspended injection: {{ $value }} ({{ $labels.reason }}).",
        ),
        warning(
            "GwmonInjectionStopped",
            "5m",
            "max(gwmon_injection_stopped) > 0",
            "gwmon stopped all injection, in the whole cluster or in namespaces: {{ $value }}.",
        ),
        warning(
            "GwmonCertificateExpires",
            "15m",
            "max(gwmon_certificate_update_failing) > 0 or min(gwmon_certificate_expiry_timestamp_seconds) - time() < 7 * 86400",
            "gwmon cannot renew the certificate of its webhook; when it expires, no pod is injected.",
        ),
        warning(
            "GwmonConfigurationInvalid",
            "15m",
            "max(gwmon_configuration_update_failing) > 0",
            "gwmon cannot read its configuration file, and goes on with the one before.",
        ),
        warning(
            "GwmonReviewsSlow",
            "10m",
            "1 - sum(rate(gwmon_review_duration_seconds_bucket{le=\"0.5\"}$rate)) / sum(rate(gwmon_review_duration_seconds_count$rate)) > 0.01",
            "{{ $value | humanizePercentage }} of admission reviews take gwmon more than 0.5 s; the API server waits 3 s at most.",
        ),
        warning(
            "GwmonReconcilesFail",
            "15m",
            "sum(rate(gwmon_reconciles_total{outcome=\"error\"}$rate)) > 0",
            "gwmon's controller fails to write Services or ServiceMonitors.",
        ),
    ]
}
