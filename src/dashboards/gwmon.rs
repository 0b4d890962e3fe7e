//! gwmon itself, by the metrics of docs/reference/metrics.md.

use super::Dashboard;
use super::panel::{Panel, Row, Unit};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "gwmon",
        title: "gwmon / gwmon itself",
        description: "The webhook and the controller: what they decide, how fast, and what they could not do.",
        found_by: "gwmon_build_info",
        jobs: ".+",
        is_of_one: false,
        rows: vec![
            Row {
                title: "Now",
                panels: vec![
                    Panel::number("Gateways", Unit::Count, None, "Gateways with injected pods.")
                        .query("max(gwmon_gateways{$sel})", "gateways"),
                    Panel::number("Missed pods", Unit::Count, Some(1.), "Pods that ask for injection and run without it: created while the webhook was not reached. `gwmon repair` restarts them.")
                        .query("max(gwmon_missed_pods{$sel})", "pods"),
                    Panel::number("Suspended workloads", Unit::Count, Some(1.), "Workloads for which gwmon suspended injection, since their pods did not start with it.")
                        .query("sum(max by (reason) (gwmon_suspended_workloads{$sel}))", "workloads"),
                    Panel::number("Certificate", Unit::Seconds, None, "Time until the webhook's certificate expires. gwmon renews it long before.")
                        .query("min(gwmon_certificate_expiry_timestamp_seconds{$sel}) - time()", "left"),
                ],
            },
            Row {
                title: "Webhook",
                panels: vec![
                    Panel::stacked("Reviews", Unit::RequestsPerSecond, "Admission reviews a second by their outcome.")
                        .query("sum by (route, outcome) (rate(gwmon_reviews_total{$sel}$rate))", "{{route}}: {{outcome}}"),
                    Panel::lines("Reasons", Unit::RequestsPerSecond, "Why pods and workloads stayed as they were; docs/troubleshooting.md explains each.")
                        .query("sum by (reason) (rate(gwmon_reviews_total{$sel, reason!=\"\"}$rate))", "{{reason}}"),
                    Panel::lines("Latency", Unit::Seconds, "Time to answer a review. The API server waits 3 s at most.")
                        .query("histogram_quantile(0.5, sum by (le) (rate(gwmon_review_duration_seconds_bucket{$sel}$rate)))", "median")
                        .query("histogram_quantile(0.99, sum by (le) (rate(gwmon_review_duration_seconds_bucket{$sel}$rate)))", "p99"),
                ],
            },
            Row {
                title: "Controller",
                panels: vec![
                    Panel::lines("Reconciliations", Unit::EventsPerSecond, "Reconciliations of gateways by outcome. At rest there are none.")
                        .query("sum by (outcome) (rate(gwmon_reconciles_total{$sel}$rate))", "{{outcome}}"),
                    Panel::lines("Writes", Unit::EventsPerSecond, "Services and ServiceMonitors that were applied or deleted.")
                        .query("sum(rate(gwmon_writes_total{$sel}$rate))", "writes"),
                    Panel::lines("Queue", Unit::Count, "Gateways that wait for reconciliation.")
                        .query("max by (pod) (gwmon_queue_depth{$sel})", "{{pod}}"),
                ],
            },
            Row {
                title: "Health",
                panels: vec![
                    Panel::lines("Failures", Unit::Count, "1 while something cannot be updated, and the one before is in use; the number of namespaces in which injection is stopped.")
                        .query("max(gwmon_certificate_update_failing{$sel})", "certificate")
                        .query("max(gwmon_configuration_update_failing{$sel})", "configuration")
                        .query("max(gwmon_injection_stopped{$sel})", "injection stopped"),
                    Panel::lines("Suspended workloads", Unit::Count, "By the reason of the suspension.")
                        .query("max by (reason) (gwmon_suspended_workloads{$sel})", "{{reason}}"),
                    Panel::lines("Versions", Unit::Count, "Replicas by version.")
                        .query("count by (version) (gwmon_build_info{$sel})", "{{version}}"),
                ],
            },
        ],
    }
}
