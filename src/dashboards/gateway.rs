//! One gateway, as Envoy tells of itself: by statsd and gwmon's exporter, or at its own endpoint. Both have the same names
//! (`tests/parts/parity.rs`).

use super::panel::{Panel, Row, Unit};
use super::{Dashboard, JOBS};

/// A line for each counter.
fn rates(panel: Panel, counters: &[(&str, &'static str)]) -> Panel {
    counters.iter().fold(panel, |panel, (counter, legend)| panel.query(&format!("sum(rate({counter}$rate))"), legend))
}

fn by_cluster(panel: Panel, counters: &[(&str, &'static str)]) -> Panel {
    counters.iter().fold(panel, |panel, (counter, legend)| {
        panel.query(&format!("sum by (envoy_cluster_name) (rate({counter}{{$sel}}$rate)) > 0"), legend)
    })
}

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "gateway",
        title: "gwmon / One gateway (Envoy)",
        description: "One workload of Envoy's: its clients, its upstream clusters, its limits, its process and its exporter.",
        found_by: "envoy_server_live",
        jobs: JOBS,
        is_of_one: true,
        rows: vec![now(), downstream(), upstream(), limits(), tls(), process(), exporter()],
    }
}

fn now() -> Row {
    let errors = "sum(rate(envoy_http_downstream_rq_xx{$sel, $http, envoy_response_code_class=\"5\"}$rate))";
    let all = "sum(rate(envoy_http_downstream_rq_xx{$sel, $http}$rate))";
    Row {
        title: "Now",
        panels: vec![
            Panel::number("Pods", Unit::Count, None, "Pods that serve.").query("sum(envoy_server_live{$sel})", "pods"),
            Panel::number("Requests", Unit::RequestsPerSecond, None, "Requests a second.").query(all, "requests"),
            Panel::number("5xx", Unit::Share, Some(0.05), "Share of requests that were answered with a 5xx code.")
                .query(&format!("({errors} or vector(0)) / {all}"), "5xx"),
            Panel::number("Latency, p99", Unit::Milliseconds, None, "99 of 100 requests took at most this long.").query(
                "histogram_quantile(0.99, sum by (le) (rate(envoy_http_downstream_rq_time_bucket{$sel, $http}$rate)))",
                "p99",
            ),
        ],
    }
}

fn downstream() -> Row {
    let latency =
        Panel::lines("Latency", Unit::Milliseconds, "From the first byte of the request to the last of the answer.");
    let bytes = Panel::lines("Bytes", Unit::BytesPerSecond, "What clients send and get.");
    let broken = Panel::lines(
        "Requests that broke off",
        Unit::EventsPerSecond,
        "Resets by the client and by Envoy, protocol errors, and timeouts. An absent line means that it never happened.",
    );
    Row {
        title: "Clients",
        panels: vec![
            Panel::stacked("Requests", Unit::RequestsPerSecond, "Requests a second by the class of the answer's code.")
                .query(
                    "sum by (envoy_response_code_class) (rate(envoy_http_downstream_rq_xx{$sel, $http}$rate))",
                    "{{envoy_response_code_class}}xx",
                ),
            latency.quantiles(
                &[("0.5", "median"), ("0.9", "p90"), ("0.99", "p99")],
                "envoy_http_downstream_rq_time_bucket{$sel, $http}",
                "",
            ),
            Panel::lines("Requests by pod", Unit::RequestsPerSecond, "Whether the pods share the load.")
                .query("sum by (pod) (rate(envoy_http_downstream_rq_total{$sel, $http}$rate))", "{{pod}}"),
            Panel::lines(
                "Connections",
                Unit::Count,
                "Open connections of clients, and requests that are being answered.",
            )
            .query("sum(envoy_http_downstream_cx_active{$sel, $http})", "connections")
            .query("sum(envoy_http_downstream_rq_active{$sel, $http})", "requests"),
            rates(
                bytes,
                &[
                    ("envoy_http_downstream_cx_rx_bytes_total{$sel, $http}", "received"),
                    ("envoy_http_downstream_cx_tx_bytes_total{$sel, $http}", "sent"),
                ],
            ),
            rates(
                broken,
                &[
                    ("envoy_http_downstream_rq_rx_reset{$sel, $http}", "reset by the client"),
                    ("envoy_http_downstream_rq_tx_reset{$sel, $http}", "reset by Envoy"),
                    ("envoy_http_downstream_cx_protocol_error{$sel, $http}", "protocol error"),
                    ("envoy_http_downstream_rq_timeout{$sel, $http}", "timeout"),
                ],
            ),
        ],
    }
}

fn upstream() -> Row {
    let failures = Panel::lines(
        "Failures",
        Unit::EventsPerSecond,
        "Connections that could not be made, and timeouts. Nothing is shown where nothing failed.",
    );
    let retries = Panel::lines(
        "Retries",
        Unit::RequestsPerSecond,
        "Requests that were tried again, and how many of them that helped.",
    );
    Row {
        title: "Upstream clusters",
        panels: vec![
            Panel::stacked("Requests", Unit::RequestsPerSecond, "Requests a second by upstream cluster.").query(
                "sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_total{$sel}$rate)) > 0",
                "{{envoy_cluster_name}}",
            ),
            Panel::lines("5xx", Unit::Share, "Share of an upstream cluster's answers with a 5xx code.").query(
                "sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_xx{$sel, envoy_response_code_class=\"5\"}$rate)) / sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_xx{$sel}$rate) > 0)",
                "{{envoy_cluster_name}}",
            ),
            Panel::lines("Latency, p99", Unit::Milliseconds, "99 of 100 answers of an upstream cluster took at most this long.").query(
                "histogram_quantile(0.99, sum by (envoy_cluster_name, le) (rate(envoy_cluster_upstream_rq_time_bucket{$sel}$rate)))",
                "{{envoy_cluster_name}}",
            ),
            by_cluster(
                failures,
                &[
                    ("envoy_cluster_upstream_cx_connect_fail", "{{envoy_cluster_name}}: no connection"),
                    ("envoy_cluster_upstream_cx_connect_timeout", "{{envoy_cluster_name}}: connect timeout"),
                    ("envoy_cluster_upstream_rq_timeout", "{{envoy_cluster_name}}: request timeout"),
                ],
            ),
            by_cluster(
                retries,
                &[
                    ("envoy_cluster_upstream_rq_retry", "{{envoy_cluster_name}}: tried again"),
                    ("envoy_cluster_upstream_rq_retry_success", "{{envoy_cluster_name}}: helped"),
                ],
            ),
            Panel::lines("Healthy hosts", Unit::Share, "Share of an upstream cluster's hosts that Envoy takes for healthy.").query(
                "sum by (envoy_cluster_name) (envoy_cluster_membership_healthy{$sel}) / sum by (envoy_cluster_name) (envoy_cluster_membership_total{$sel} > 0)",
                "{{envoy_cluster_name}}",
            ),
        ],
    }
}

fn limits() -> Row {
    let refused = Panel::lines(
        "Circuit breakers",
        Unit::EventsPerSecond,
        "Requests beyond the limits of a cluster (circuit_breakers), which Envoy answers with 503, and connections beyond them, for which requests wait. Nothing is shown where nothing was.",
    );
    Row {
        title: "Limits",
        panels: vec![
            by_cluster(
                refused,
                &[
                    ("envoy_cluster_upstream_rq_pending_overflow", "{{envoy_cluster_name}}: pending requests"),
                    // Since Envoy 1.38; before, they counted as pending ones.
                    ("envoy_cluster_upstream_rq_active_overflow", "{{envoy_cluster_name}}: active requests"),
                    ("envoy_cluster_upstream_cx_overflow", "{{envoy_cluster_name}}: waits for a connection"),
                    ("envoy_cluster_upstream_rq_retry_overflow", "{{envoy_cluster_name}}: retries"),
                ],
            ),
            Panel::lines("Upstream connections", Unit::Count, "Open connections to an upstream cluster.").query(
                "sum by (envoy_cluster_name) (envoy_cluster_upstream_cx_active{$sel})",
                "{{envoy_cluster_name}}",
            ),
            Panel::lines(
                "Hosts that were ejected",
                Unit::Count,
                "Hosts that outlier detection has taken out of a cluster.",
            )
            .query(
                "sum by (envoy_cluster_name) (envoy_cluster_outlier_detection_ejections_active{$sel})",
                "{{envoy_cluster_name}}",
            ),
        ],
    }
}

fn tls() -> Row {
    let broken = Panel::lines(
        "Handshakes that failed",
        Unit::EventsPerSecond,
        "By reason. An absent line means that it never happened.",
    );
    Row {
        title: "TLS",
        panels: vec![
            Panel::lines("Handshakes", Unit::EventsPerSecond, "TLS handshakes of clients, by listener.").query(
                "sum by (envoy_listener_address) (rate(envoy_listener_ssl_handshake{$sel}$rate))",
                "{{envoy_listener_address}}",
            ),
            rates(
                broken,
                &[
                    ("envoy_listener_ssl_connection_error{$sel}", "connection error"),
                    ("envoy_listener_ssl_fail_verify_error{$sel}", "certificate not accepted"),
                    ("envoy_listener_ssl_fail_verify_no_cert{$sel}", "no certificate"),
                ],
            ),
            Panel::number(
                "Days until a certificate expires",
                Unit::Days,
                None,
                "Of the certificates that Envoy holds, the first that expires, in whole days. 0: in less than a day, or expired, or there is none.",
            )
            .wide(8)
            .query("min(envoy_server_days_until_first_cert_expiring{$sel})", "days"),
        ],
    }
}

fn process() -> Row {
    Row {
        title: "Process",
        panels: vec![
            Panel::lines("Memory", Unit::Bytes, "Memory that Envoy's process holds, by pod.")
                .query("sum by (pod) (envoy_server_memory_physical_size{$sel})", "{{pod}}"),
            Panel::lines("Uptime", Unit::Seconds, "Time since Envoy started, by pod.")
                .query("max by (pod) (envoy_server_uptime{$sel})", "{{pod}}"),
            Panel::lines(
                "Configuration",
                Unit::EventsPerSecond,
                "Listeners and clusters that were added or changed. Rejected ones need somebody to look.",
            )
            .query("sum(rate(envoy_listener_manager_listener_added{$sel}$rate))", "listeners added")
            .query("sum(rate(envoy_cluster_manager_cluster_added{$sel}$rate))", "clusters added")
            .query("sum(rate(envoy_listener_manager_lds_update_rejected{$sel}$rate))", "listeners rejected")
            .query("sum(rate(envoy_cluster_manager_cds_update_rejected{$sel}$rate))", "clusters rejected"),
        ],
    }
}

/// Of gateways that send statsd only.
fn exporter() -> Row {
    let lost = Panel::lines(
        "Samples that were lost",
        Unit::EventsPerSecond,
        "Datagrams that the exporter dropped, and lines that it could not read. The kernel's own losses are not counted.",
    );
    Row {
        title: "Exporter (gateways that send statsd)",
        panels: vec![
            Panel::lines("Lines", Unit::EventsPerSecond, "Lines of statsd that gwmon's exporter receives, by pod.")
                .query("sum by (pod) (rate(statsd_exporter_lines_total{$sel}$rate))", "{{pod}}"),
            rates(
                lost,
                &[
                    ("statsd_exporter_udp_packet_drops_total{$sel}", "dropped"),
                    ("statsd_exporter_sample_errors_total{$sel}", "not readable"),
                    ("statsd_exporter_events_conflict_total{$sel}", "conflict of types"),
                ],
            ),
            Panel::lines("Memory", Unit::Bytes, "Memory of the exporter's process, by pod. At its limit of data (192 MiB unless gwmon.io/resources says otherwise) it starts again, empty.")
                .query("sum by (pod) (process_resident_memory_bytes{$sel})", "{{pod}}"),
        ],
    }
}
