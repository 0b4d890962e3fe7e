//! All gateways, of whatever kind: one series for each workload.

use super::panel::{Panel, Row, Unit};
use super::{Dashboard, JOBS};

/// What a kind of gateway calls its requests, answers with a 5xx code, and durations in milliseconds (`None`: it has no histogram).
struct Kind {
    requests: &'static str,
    errors: &'static str,
    buckets: Option<(&'static str, u32)>,
}

/// A workload is of one kind, so that `or` joins them, but for the minutes of a roll-out from Kong 2 to Kong 3.
const KINDS: [Kind; 7] = [
    // Envoy, and all that is built on it.
    Kind {
        requests: "envoy_http_downstream_rq_xx{$sel, $http}",
        errors: "envoy_http_downstream_rq_xx{$sel, $http, envoy_response_code_class=\"5\"}",
        buckets: Some(("envoy_http_downstream_rq_time_bucket{$sel, $http}", 1)),
    },
    // Istio's gateways have none of Envoy's own HTTP statistics, but for whoever asks for them.
    Kind {
        requests: "istio_requests_total{$sel, reporter=\"source\"}",
        errors: "istio_requests_total{$sel, reporter=\"source\", response_code=~\"5..\"}",
        buckets: Some(("istio_request_duration_milliseconds_bucket{$sel, reporter=\"source\"}", 1)),
    },
    // Kong 3; then Kong 2.
    Kind {
        requests: "kong_http_requests_total{$sel}",
        errors: "kong_http_requests_total{$sel, code=~\"5..\"}",
        buckets: Some(("kong_request_latency_ms_bucket{$sel}", 1)),
    },
    Kind {
        requests: "kong_http_status{$sel}",
        errors: "kong_http_status{$sel, code=~\"5..\"}",
        buckets: Some(("kong_latency_bucket{$sel, type=\"request\"}", 1)),
    },
    Kind {
        requests: "traefik_entrypoint_requests_total{$sel, entrypoint!~\"traefik|metrics|ping\"}",
        errors: "traefik_entrypoint_requests_total{$sel, entrypoint!~\"traefik|metrics|ping\", code=~\"5..\"}",
        buckets: Some((
            "traefik_entrypoint_request_duration_seconds_bucket{$sel, entrypoint!~\"traefik|metrics|ping\"}",
            1000,
        )),
    },
    Kind {
        requests: "haproxy_frontend_http_responses_total{$sel, proxy!~\"healthz|stats|prometheus\"}",
        errors: "haproxy_frontend_http_responses_total{$sel, proxy!~\"healthz|stats|prometheus\", code=\"5xx\"}",
        buckets: None,
    },
    Kind {
        requests: "nginx_ingress_controller_requests{$sel}",
        errors: "nginx_ingress_controller_requests{$sel, status=~\"5..\"}",
        buckets: Some(("nginx_ingress_controller_request_duration_seconds_bucket{$sel}", 1000)),
    },
];

fn any(each: impl Fn(&Kind) -> Option<String>) -> String {
    KINDS.iter().filter_map(each).collect::<Vec<_>>().join("\nor\n")
}

pub(super) fn requests() -> String {
    any(|kind| Some(format!("sum by ($by) (rate({}$rate))", kind.requests)))
}

/// Answers with a 5xx code a second: 0 for a workload that never had one.
pub(super) fn errors() -> String {
    any(|kind| {
        let rate = |series| format!("sum by ($by) (rate({series}$rate))");
        Some(format!("{}\nor\n0 * {}", rate(kind.errors), rate(kind.requests)))
    })
}

/// The share of requests that were answered with a 5xx code.
fn share_of_errors() -> String {
    format!("(\n{}\n)\n/ (\n{}\n)", errors(), requests())
}

pub(super) fn quantile(quantile: &str) -> String {
    any(|kind| {
        let (buckets, factor) = kind.buckets?;
        let scale = if factor == 1 { String::new() } else { format!("{factor} * ") };
        Some(format!("{scale}histogram_quantile({quantile}, sum by ($by, le) (rate({buckets}$rate)))"))
    })
}

pub(super) fn dashboard() -> Dashboard {
    let up = "count(count by ($by) (up{$sel} == 1))";
    let down = "sum(up{$sel} == bool 0)";
    let pods = "sum by ($by) (up{$sel})";
    let columns = vec![
        ("Requests", Unit::RequestsPerSecond),
        ("5xx", Unit::Share),
        ("p99", Unit::Milliseconds),
        ("Pods up", Unit::Count),
    ];
    let legend = "{{namespace}}/{{job}} {{cluster}}";
    Dashboard {
        name: "gateways",
        title: "gwmon / Gateways",
        description: "Every gateway that gwmon monitors, of whatever kind: a series for each workload.",
        found_by: "up",
        jobs: JOBS,
        is_of_one: false,
        rows: vec![
            Row {
                title: "Now",
                panels: vec![
                    Panel::number("Gateways", Unit::Count, None, "Workloads with at least one pod that Prometheus reaches.")
                        .query(up, "gateways"),
                    Panel::number("Pods down", Unit::Count, Some(1.), "Pods whose metrics Prometheus cannot scrape.")
                        .query(down, "pods"),
                    Panel::number("Requests", Unit::RequestsPerSecond, None, "Requests of all gateways a second.")
                        .query(&format!("sum({})", requests()), "requests"),
                    Panel::number("5xx", Unit::Share, Some(0.05), "Share of requests that were answered with a 5xx code.")
                        .query(&format!("sum({}) / sum({})", errors(), requests()), "5xx"),
                    Panel::table("Workloads", columns, "A row for each workload; its name leads to the dashboard of its kind.")
                        .query(&requests(), "")
                        .query(&share_of_errors(), "")
                        .query(&quantile("0.99"), "")
                        .query(pods, ""),
                ],
            },
            Row {
                title: "Requests",
                panels: vec![
                    Panel::stacked("Requests", Unit::RequestsPerSecond, "Requests a second.").query(&requests(), legend),
                    Panel::lines("5xx", Unit::Share, "Share of requests that were answered with a 5xx code.").query(&share_of_errors(), legend),
                    Panel::lines(
                        "Latency, p99",
                        Unit::Milliseconds,
                        "99 of 100 requests took at most this long, from the first byte of the request to the last of the answer. HAProxy has no histogram.",
                    )
                    .query(&quantile("0.99"), legend),
                    Panel::lines("Latency, median", Unit::Milliseconds, "Half of the requests took at most this long.")
                        .query(&quantile("0.5"), legend),
                    Panel::lines("Connections", Unit::Count, "Open connections of clients. Istio's gateways do not tell.")
                        .query(&connections(), legend),
                    Panel::lines("Pods", Unit::Count, "Pods whose metrics Prometheus reaches.").query(pods, legend),
                ],
            },
            Row {
                title: "Saturation",
                panels: vec![
                    Panel::lines("Memory", Unit::Bytes, "Memory that the gateway's process holds, by workload (Envoy; HAProxy and ingress-nginx).")
                        .query(
                            "sum by ($by) (envoy_server_memory_physical_size{$sel}) or sum by ($by) (nginx_ingress_controller_nginx_process_resident_memory_bytes{$sel}) or sum by ($by) (haproxy_process_pool_allocated_bytes{$sel})",
                            legend,
                        ),
                    Panel::lines("Requests refused by a circuit breaker", Unit::RequestsPerSecond, "Requests that Envoy answered with 503 itself, since a limit of the upstream cluster was reached.")
                        .query("sum by ($by) (rate(envoy_cluster_upstream_rq_pending_overflow{$sel}$rate))", "{{namespace}}/{{job}}: pending")
                        .query("sum by ($by) (rate(envoy_cluster_upstream_rq_active_overflow{$sel}$rate))", "{{namespace}}/{{job}}: active"),
                    Panel::lines("Series", Unit::Count, "Samples of one scrape, all pods together. Cardinality is what a Prometheus pays for.")
                        .query("sum by ($by) (scrape_samples_scraped{$sel})", legend),
                ],
            },
        ],
    }
}

fn connections() -> String {
    [
        "sum by ($by) (envoy_http_downstream_cx_active{$sel, $http})",
        "sum by ($by) (kong_nginx_connections_total{$sel, state=\"active\"})",
        "sum by ($by) (kong_nginx_http_current_connections{$sel, state=\"active\"})",
        "sum by ($by) (traefik_open_connections{$sel})",
        "sum by ($by) (haproxy_frontend_current_sessions{$sel})",
        "sum by ($by) (nginx_ingress_controller_nginx_process_connections{$sel, state=\"active\"})",
    ]
    .join("\nor\n")
}
