//! Gateways with metrics of their own, by what they really export. Where such a metric has a label that the target has as well
//! (`namespace`, `service`), Prometheus calls the metric's own one `exported_…`, since gwmon's ServiceMonitors do not set
//! `honorLabels`.

use super::panel::{Panel, Row, Unit};
use super::{Dashboard, JOBS};

pub(super) fn dashboards() -> [Dashboard; 5] {
    [kong(), istio(), traefik(), haproxy(), ingress_nginx()]
}

const QUANTILES: &[(&str, &str)] = &[("0.5", "median"), ("0.99", "p99")];

fn requests(description: &'static str) -> Panel {
    Panel::stacked("Requests", Unit::RequestsPerSecond, description)
}

fn latency(description: &'static str) -> Panel {
    Panel::lines("Latency", Unit::Milliseconds, description)
}

/// Names of Kong 3 and of Kong 2 (`kong/plugins/prometheus/exporter.lua`). Requests, latencies and bytes need the plugin
/// `prometheus`; since Kong 3.0 also its settings `status_code_metrics`, `latency_metrics` and `bandwidth_metrics`.
fn kong() -> Dashboard {
    let one = |title, buckets: [&str; 2], description| {
        let either = |quantile: &str| {
            let [three, two] = buckets;
            format!("histogram_quantile({quantile}, sum by (le) (rate({three}$rate) or rate({two}$rate)))")
        };
        Panel::lines(title, Unit::Milliseconds, description)
            .query(&either("0.5"), "median")
            .query(&either("0.99"), "p99")
    };
    Dashboard {
        name: "kong",
        title: "gwmon / Kong",
        description: "Kong 2 and 3. Without the plugin prometheus, and in Kong 3 its settings for status codes, latencies and bandwidth, only connections and memory are there.",
        found_by: "kong_datastore_reachable",
        jobs: JOBS,
        is_of_one: false,
        rows: vec![
            Row {
                title: "Requests",
                panels: vec![
                    requests("Requests a second by the code of the answer.")
                        .query("sum by (code) (rate(kong_http_requests_total{$sel}$rate) or rate(kong_http_status{$sel}$rate))", "{{code}}"),
                    Panel::stacked("Requests by service", Unit::RequestsPerSecond, "Requests a second by Kong's service.")
                        .query("sum by (exported_service) (rate(kong_http_requests_total{$sel}$rate) or rate(kong_http_status{$sel}$rate))", "{{exported_service}}"),
                    Panel::lines("5xx", Unit::Share, "Share of requests that were answered with a 5xx code, by Kong's route.")
                        .query("sum by (route) (rate(kong_http_requests_total{$sel, code=~\"5..\"}$rate) or rate(kong_http_status{$sel, code=~\"5..\"}$rate)) / sum by (route) (rate(kong_http_requests_total{$sel}$rate) or rate(kong_http_status{$sel}$rate))", "{{route}}"),
                ],
            },
            Row {
                title: "Latency",
                panels: vec![
                    one("Request", ["kong_request_latency_ms_bucket{$sel}", "kong_latency_bucket{$sel, type=\"request\"}"], "From the first byte of the request to the last of the answer."),
                    one("Upstream", ["kong_upstream_latency_ms_bucket{$sel}", "kong_latency_bucket{$sel, type=\"upstream\"}"], "How long the upstream service took to answer."),
                    one("Kong itself", ["kong_kong_latency_ms_bucket{$sel}", "kong_latency_bucket{$sel, type=\"kong\"}"], "How long Kong took for the route and the plugins."),
                ],
            },
            Row {
                title: "Node",
                panels: vec![
                    Panel::lines("Connections", Unit::Count, "Connections of nginx by state.")
                        .query("sum by (state) (kong_nginx_connections_total{$sel, state=~\"active|reading|writing|waiting\"} or kong_nginx_http_current_connections{$sel, state=~\"active|reading|writing|waiting\"})", "{{state}}"),
                    Panel::lines("Bytes", Unit::BytesPerSecond, "What clients send (ingress) and get (egress).")
                        .query("sum by (direction) (rate(kong_bandwidth_bytes{$sel}$rate))", "{{direction}}")
                        .query("sum by (type) (rate(kong_bandwidth{$sel}$rate))", "{{type}}"),
                    Panel::lines("Shared memory", Unit::Share, "Used share of the Lua dictionaries that nginx's workers share, by dictionary.")
                        .query("max by (shared_dict) (kong_memory_lua_shared_dict_bytes{$sel} / kong_memory_lua_shared_dict_total_bytes{$sel})", "{{shared_dict}}"),
                    Panel::lines("Database", Unit::Count, "1 if the pod reaches its database; always 1 without one.")
                        .query("min by (pod) (kong_datastore_reachable{$sel})", "{{pod}}"),
                    Panel::lines("Unhealthy targets", Unit::Count, "Targets of upstreams that a health check refuses, or whose name cannot be resolved.")
                        .query("sum by (upstream, state) (kong_upstream_target_health{$sel, state=~\"unhealthy|dns_error\"})", "{{upstream}}: {{state}}"),
                ],
            },
        ],
    }
}

/// Istio's standard metrics, which its gateways tell as the source of a request. Of Envoy's own statistics, Istio keeps few
/// unless `proxyStatsMatcher` asks for more.
fn istio() -> Dashboard {
    Dashboard {
        name: "istio",
        title: "gwmon / Istio gateways",
        description: "Istio's ingress and egress gateways, by Istio's standard metrics.",
        found_by: "istio_requests_total",
        jobs: JOBS,
        is_of_one: false,
        rows: vec![
            Row {
                title: "Requests",
                panels: vec![
                    requests("Requests a second by the code of the answer.")
                        .query("sum by (response_code) (rate(istio_requests_total{$sel, reporter=\"source\"}$rate))", "{{response_code}}"),
                    Panel::stacked("Requests by destination", Unit::RequestsPerSecond, "Requests a second by the service that they go to.")
                        .query("sum by (destination_service_name, destination_service_namespace) (rate(istio_requests_total{$sel, reporter=\"source\"}$rate))", "{{destination_service_namespace}}/{{destination_service_name}}"),
                    Panel::lines("5xx", Unit::Share, "Share of requests that were answered with a 5xx code, by destination.")
                        .query("sum by (destination_service_name, destination_service_namespace) (rate(istio_requests_total{$sel, reporter=\"source\", response_code=~\"5..\"}$rate)) / sum by (destination_service_name, destination_service_namespace) (rate(istio_requests_total{$sel, reporter=\"source\"}$rate))", "{{destination_service_namespace}}/{{destination_service_name}}"),
                    latency("As the gateway sees it: its own time, the network and the destination.").quantiles(QUANTILES, "istio_request_duration_milliseconds_bucket{$sel, reporter=\"source\"}", ""),
                    Panel::lines("Flags", Unit::RequestsPerSecond, "Requests that Envoy answered itself, by its response flag: UH no healthy host, UF connection failed, NR no route.")
                        .query("sum by (response_flags) (rate(istio_requests_total{$sel, reporter=\"source\", response_flags!=\"-\"}$rate))", "{{response_flags}}"),
                    Panel::lines("TCP", Unit::BytesPerSecond, "Bytes of connections that are no HTTP.")
                        .query("sum(rate(istio_tcp_sent_bytes_total{$sel, reporter=\"source\"}$rate))", "sent")
                        .query("sum(rate(istio_tcp_received_bytes_total{$sel, reporter=\"source\"}$rate))", "received"),
                ],
            },
            Row {
                title: "Process",
                panels: vec![
                    Panel::lines("Memory", Unit::Bytes, "What Envoy has allocated, by pod.")
                        .query("sum by (pod) (envoy_server_memory_allocated{$sel})", "{{pod}}"),
                    Panel::lines("Upstream connections", Unit::Count, "Open connections to upstream clusters, by pod.")
                        .query("sum by (pod) (envoy_cluster_upstream_cx_active{$sel})", "{{pod}}"),
                ],
            },
        ],
    }
}

/// Traefik 2 and 3, as its metrics of entry points have it (`metrics.prometheus`).
fn traefik() -> Dashboard {
    Dashboard {
        name: "traefik",
        title: "gwmon / Traefik",
        description: "Traefik 2 and 3, by its metrics of entry points and services.",
        found_by: "traefik_config_last_reload_success",
        jobs: JOBS,
        is_of_one: false,
        rows: vec![Row {
            title: "Requests",
            panels: vec![
                requests("Requests a second by the code of the answer.")
                    .query("sum by (code) (rate(traefik_entrypoint_requests_total{$sel, entrypoint!~\"traefik|metrics|ping\"}$rate))", "{{code}}"),
                latency("Of requests at the entry points.").quantiles(QUANTILES, "traefik_entrypoint_request_duration_seconds_bucket{$sel, entrypoint!~\"traefik|metrics|ping\"}", "1000 * "),
                Panel::lines("5xx", Unit::Share, "Share of a service's answers with a 5xx code.")
                    .query("sum by (exported_service) (rate(traefik_service_requests_total{$sel, code=~\"5..\"}$rate)) / sum by (exported_service) (rate(traefik_service_requests_total{$sel}$rate))", "{{exported_service}}"),
                Panel::lines("Connections", Unit::Count, "Open connections by entry point (Traefik 3).")
                    .query("sum by (entrypoint) (traefik_open_connections{$sel})", "{{entrypoint}}"),
                Panel::lines("Age of the configuration", Unit::Seconds, "Time since Traefik last took a new configuration, by pod.")
                    .query("time() - max by (pod) (traefik_config_last_reload_success{$sel})", "{{pod}}"),
            ],
        }],
    }
}

/// `HAProxy` 2 and 3, by its own Prometheus exporter.
fn haproxy() -> Dashboard {
    Dashboard {
        name: "haproxy",
        title: "gwmon / HAProxy",
        description: "HAProxy's ingress controllers, by HAProxy's own exporter.",
        found_by: "haproxy_process_build_info",
        jobs: JOBS,
        is_of_one: false,
        rows: vec![Row {
            title: "Requests",
            panels: vec![
                requests("Answers a second by the class of their code.")
                    .query("sum by (code) (rate(haproxy_frontend_http_responses_total{$sel, proxy!~\"healthz|stats|prometheus\"}$rate))", "{{code}}"),
                Panel::stacked("Requests by backend", Unit::RequestsPerSecond, "Requests a second by backend.")
                    .query("sum by (proxy) (rate(haproxy_backend_http_requests_total{$sel}$rate))", "{{proxy}}"),
                Panel::lines(
                    "Latency, mean",
                    Unit::Milliseconds,
                    "Mean of the last 1024 requests of a backend. HAProxy has no histogram.",
                )
                .query("1000 * max by (proxy) (haproxy_backend_total_time_average_seconds{$sel})", "{{proxy}}"),
                Panel::lines("Sessions", Unit::Count, "Sessions at the frontends, and the limit of the process.")
                    .query("sum by (proxy) (haproxy_frontend_current_sessions{$sel})", "{{proxy}}")
                    .query("sum(haproxy_process_max_connections{$sel})", "limit"),
                Panel::lines(
                    "Waiting requests",
                    Unit::Count,
                    "Requests that wait for a connection to a server, by backend.",
                )
                .query("sum by (proxy) (haproxy_backend_current_queue{$sel})", "{{proxy}}"),
                Panel::lines(
                    "Failed connections",
                    Unit::EventsPerSecond,
                    "Connections to servers that failed, by backend.",
                )
                .query("sum by (proxy) (rate(haproxy_backend_connection_errors_total{$sel}$rate))", "{{proxy}}"),
            ],
        }],
    }
}

/// The community's ingress-nginx.
fn ingress_nginx() -> Dashboard {
    Dashboard {
        name: "ingress-nginx",
        title: "gwmon / ingress-nginx",
        description: "The community's ingress-nginx, by its controller's metrics.",
        found_by: "nginx_ingress_controller_nginx_process_connections",
        jobs: JOBS,
        is_of_one: false,
        rows: vec![Row {
            title: "Requests",
            panels: vec![
                requests("Requests a second by the code of the answer.")
                    .query("sum by (status) (rate(nginx_ingress_controller_requests{$sel}$rate))", "{{status}}"),
                Panel::stacked("Requests by Ingress", Unit::RequestsPerSecond, "Requests a second by Ingress.")
                    .query("sum by (exported_namespace, ingress) (rate(nginx_ingress_controller_requests{$sel}$rate))", "{{exported_namespace}}/{{ingress}}"),
                Panel::lines("5xx", Unit::Share, "Share of an Ingress' answers with a 5xx code.")
                    .query("sum by (exported_namespace, ingress) (rate(nginx_ingress_controller_requests{$sel, status=~\"5..\"}$rate)) / sum by (exported_namespace, ingress) (rate(nginx_ingress_controller_requests{$sel}$rate))", "{{exported_namespace}}/{{ingress}}"),
                latency("From the first byte of the request to the last of the answer.").quantiles(QUANTILES, "nginx_ingress_controller_request_duration_seconds_bucket{$sel}", "1000 * "),
                Panel::lines("Connections", Unit::Count, "Connections of nginx by state.")
                    .query("sum by (state) (nginx_ingress_controller_nginx_process_connections{$sel})", "{{state}}"),
                Panel::lines("Configuration", Unit::Count, "1 if nginx took the newest configuration, by pod.")
                    .query("min by (pod) (nginx_ingress_controller_config_last_reload_successful{$sel})", "{{pod}}"),
            ],
        }],
    }
}
