//! The parts of a statistic's name that Envoy turns into labels (`well_known_names.cc`), for gateways that send plain
//! statsd with the parts still in the name. Compared with three real Envoys (`tests/parts/parity`).

use crate::kubernetes::Version;

/// A pattern of names.
pub(super) struct Tag {
    /// The name after `envoy.`. `*` is a label of one word, `~` of one or more, `@` a listener's address, `%` an endpoint's, a
    /// final `#` a number. The rest of the name follows: none with `$`, one word with `!`.
    pattern: &'static str,
    /// The labels, in the order of the pattern. Envoy puts `envoy_` before each but `cipher_suite`.
    labels: &'static [&'static str],
    /// True if this form counts response codes, which Envoy turns into labels too.
    has_codes: bool,
    /// True if it came with [`XDS_NAMES_SINCE`].
    pub(super) is_new: bool,
}

/// The first with `envoy.xds_resource_name`, the only tag added since 1.36, the oldest version compared.
pub(super) const XDS_NAMES_SINCE: Version = Version(1, 37);

/// A listener in a name: IPv4 or IPv6 with its port, or its `stat_prefix`.
pub(super) const LISTENER: &str = r"(\d{1,3}(?:\.\d{1,3}){3}_\d+|\[[^\]]+\]_\d+|[^.]+)";
const ENDPOINT: &str = r"(\d{1,3}(?:\.\d{1,3}){3}|\[[^\]]+\])_(\d+)";

const fn tag(pattern: &'static str, labels: &'static [&'static str]) -> Tag {
    Tag { pattern, labels, has_codes: false, is_new: false }
}

const fn coded(pattern: &'static str, labels: &'static [&'static str]) -> Tag {
    Tag { has_codes: true, ..tag(pattern, labels) }
}

/// The first that fits is taken: the most specific first.
pub(super) const TAGS: &[Tag] = &[
    tag("cluster.*.grpc.*.*", &["cluster_name", "grpc_bridge_service", "grpc_bridge_method"]),
    tag("cluster.*.ext_authz.*", &["cluster_name", "ext_authz_prefix"]),
    tag("cluster.*.ssl.ciphers.*$", &["cluster_name", "cipher_suite"]),
    tag("cluster.*.ssl.curves.*$", &["cluster_name", "ssl_curve"]),
    tag("cluster.*.ssl.sigalgs.*$", &["cluster_name", "ssl_sigalg"]),
    tag("cluster.*.ssl.versions.~$", &["cluster_name", "ssl_version"]),
    tag("cluster.*.ssl.certificate.*", &["cluster_name", "tls_certificate"]),
    tag("cluster.*.endpoint.%", &["cluster_name", "endpoint_address"]),
    coded("cluster.*", &["cluster_name"]),
    tag("http.*.rbac.*.policy.*!", &["http_conn_manager_prefix", "rbac_http_prefix", "rbac_policy_name"]),
    tag("http.*.rbac.*", &["http_conn_manager_prefix", "rbac_http_prefix"]),
    tag("http.*.user_agent.*", &["http_conn_manager_prefix", "http_user_agent"]),
    tag("http.*.ext_authz.*", &["http_conn_manager_prefix", "ext_authz_prefix"]),
    tag("http.*.fault.*", &["http_conn_manager_prefix", "fault_downstream_cluster"]),
    tag("http.*.rds.~!", &["http_conn_manager_prefix", "rds_route_config"]),
    coded("http.*", &["http_conn_manager_prefix"]),
    coded("listener.admin.http.*", &["http_conn_manager_prefix"]),
    tag("listener.admin", &[]),
    coded("listener.@.http.*", &["listener_address", "http_conn_manager_prefix"]),
    tag("listener.@.worker_#", &["listener_address", "worker_id"]),
    tag("listener.@.ssl.ciphers.*$", &["listener_address", "ssl_cipher"]),
    tag("listener.@.ssl.curves.*$", &["listener_address", "ssl_curve"]),
    tag("listener.@.ssl.sigalgs.*$", &["listener_address", "ssl_sigalg"]),
    tag("listener.@.ssl.versions.~$", &["listener_address", "ssl_version"]),
    tag("listener.@.ssl.certificate.*", &["listener_address", "tls_certificate"]),
    tag("listener.@", &["listener_address"]),
    coded("vhost.*.vcluster.*", &["virtual_host", "virtual_cluster"]),
    coded("vhost.*.route.*", &["virtual_host", "route"]),
    coded("vhost.*", &["virtual_host"]),
    tag("listener_manager.worker_#", &["worker_id"]),
    tag("server.worker_#", &["worker_id"]),
    tag("thread_local_cluster_manager.worker_#", &["worker_id"]),
    tag("tcp.*", &["tcp_prefix"]),
    tag("udp.*", &["udp_prefix"]),
    tag("redis.*", &["redis_prefix"]),
    tag("thrift.*", &["thrift_prefix"]),
    tag("ratelimit.*", &["ratelimit_prefix"]),
    tag("dns_filter.*", &["dns_filter_prefix"]),
    tag("mongo.*.cmd.*", &["mongo_prefix", "mongo_cmd"]),
    tag("mongo.*.collection.*.callsite.*.query", &["mongo_prefix", "mongo_collection", "mongo_callsite"]),
    tag("mongo.*.collection.*.query", &["mongo_prefix", "mongo_collection"]),
    tag("mongo.*", &["mongo_prefix"]),
    tag("auth.clientssl.*", &["clientssl_prefix"]),
    tag("connection_limit.*", &["connection_limit_prefix"]),
    tag("local_rate_limit.*", &["local_network_ratelimit_prefix"]),
    tag("listener_local_ratelimit.*", &["local_listener_ratelimit_prefix"]),
    Tag { is_new: true, ..tag("sds.*", &["xds_resource_name"]) },
    tag("*.http_local_rate_limit", &["local_http_ratelimit_prefix"]),
    tag("*.rbac", &["rbac_prefix"]),
    tag("", &[]),
];

impl Tag {
    /// The exporter's rules for this form, the most specific first; each a flow map of YAML.
    pub(super) fn rules(&self) -> Vec<String> {
        const OBSERVED: &str = "match_metric_type: observer, scale: 1000";
        const COUNTED: &str = "match_metric_type: counter, ttl: 1h";
        // Of counters and gauges, what no code has taken.
        const LASTING: &str = "ttl: 1h";

        let pattern = self.pattern.trim_end_matches(['$', '!']);
        let (mut regex, mut name) = ("^envoy".to_owned(), "envoy".to_owned());
        let (mut group, mut values) = (0, Vec::new());
        for word in pattern.split('.').filter(|word| !word.is_empty()) {
            regex.push_str(r"\.");
            let (literal, label) = match word {
                "*" => ("", "([^.]+)"),
                "~" => ("", "(.+)"),
                "@" => ("", LISTENER),
                "%" => ("", ENDPOINT),
                _ => word.strip_suffix('#').map_or((word, ""), |literal| (literal, r"(\d+)")),
            };
            regex.extend([literal, label]);
            if !literal.is_empty() {
                name.extend(["_", literal.trim_end_matches('_')]);
            }
            if word == "%" {
                // A colon in a name comes as `_`; as a label's value Envoy knows it still.
                values.push(format!("${}:${}", group + 1, group + 2));
                group += 2;
            } else if !label.is_empty() {
                group += 1;
                values.push(format!("${group}"));
            }
        }
        let full = |label: &&str| if *label == "cipher_suite" { (*label).to_owned() } else { format!("envoy_{label}") };
        let labels: Vec<_> = self.labels.iter().map(full).zip(values).collect();
        let rule = |rest: &str, name: &str, kind: &str, code: Option<(&str, usize)>| {
            let code = code.map(|(label, group)| (label.to_owned(), format!("${group}")));
            let labels: Vec<_> =
                labels.iter().cloned().chain(code).map(|(label, value)| format!("{label}: '{value}'")).collect();
            let labels = if labels.is_empty() { String::new() } else { format!(", labels: {{{}}}", labels.join(", ")) };
            format!("{{match: '{regex}{rest}$', name: '{name}', {kind}{labels}}}")
        };
        if self.pattern.ends_with('$') {
            return vec![rule("", &name, LASTING, None)];
        }
        let (rest, after) = (group + 1, group + 2);
        let word = if self.pattern.ends_with('!') { r"\.([^.]+)" } else { r"\.(.+)" };
        let mut rules = vec![rule(word, &format!("{name}_${{{rest}}}"), OBSERVED, None)];
        if self.has_codes {
            let (class, code) = (("envoy_response_code_class", after), ("envoy_response_code", after));
            rules.push(rule(r"\.(.*_rq)_(\d)xx", &format!("{name}_${{{rest}}}_xx"), COUNTED, Some(class)));
            rules.push(rule(r"\.(.*_rq)_(\d{3})", &format!("{name}_${{{rest}}}"), COUNTED, Some(code)));
        }
        rules.push(rule(word, &format!("{name}_${{{rest}}}"), LASTING, None));
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_becomes_rules() {
        let rules = |pattern: &str| TAGS.iter().find(|tag| tag.pattern == pattern).unwrap().rules();
        assert_eq!(
            rules("cluster.*")[1],
            r"{match: '^envoy\.cluster\.([^.]+)\.(.*_rq)_(\d)xx$', name: 'envoy_cluster_${2}_xx', match_metric_type: counter, ttl: 1h, labels: {envoy_cluster_name: '$1', envoy_response_code_class: '$3'}}"
        );
        assert_eq!(
            rules("cluster.*.ssl.ciphers.*$"),
            [
                r"{match: '^envoy\.cluster\.([^.]+)\.ssl\.ciphers\.([^.]+)$', name: 'envoy_cluster_ssl_ciphers', ttl: 1h, labels: {envoy_cluster_name: '$1', cipher_suite: '$2'}}"
            ]
        );
        let endpoint = rules("cluster.*.endpoint.%");
        assert!(
            endpoint[0].contains("envoy_endpoint_address: '$2:$3'") && endpoint[0].contains("${4}"),
            "{endpoint:?}"
        );
        assert_eq!(rules("server.worker_#").len(), 2);
    }
}
