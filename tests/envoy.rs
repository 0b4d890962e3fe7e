//! The real Envoy and the real statsd_exporter, started with just the arguments that gwmon writes into a pod.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use gwmon_cluster::local::{LocalGateway, free_ports};
use gwmon_cluster::scenario::envoy_configuration;
use gwmon_cluster::{program, wait_for};
use serde_json::Value;
use tempfile::TempDir;

/// What `gwmon preview` makes of a gateway with these annotations: the pod.
fn injected(folder: &TempDir, annotations: &[(&str, String)]) -> Value {
    let annotations: Vec<_> = annotations.iter().map(|(key, value)| format!("{key}: \"{value}\",")).collect();
    let annotations = annotations.join(" ");
    let manifest = folder.path().join("gateway.yaml");
    let text = format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: edge, annotations: {{{annotations} gwmon.io/inject: \"true\"}}}},
          spec: {{template: {{spec: {{containers: [{{name: envoy, image: 'envoyproxy/envoy:v1.40.0', args: [-c, /etc/envoy/envoy.yaml]}}]}}}}}}}}"
    );
    std::fs::write(&manifest, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gwmon"))
        .args(["preview", "-o", "json", "-f"])
        .arg(&manifest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["items"][0]["spec"]["template"].clone()
}

/// The names of the metric families in an exposition.
fn families(exposition: &str) -> BTreeSet<&str> {
    exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[test]
fn an_injected_envoy_counts_its_requests_in_the_exporter() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let [statsd, metrics, http, upstreams] = free_ports().unwrap();
    let pod = injected(
        &folder,
        &[("gwmon.io/statsd-port", statsd.to_string()), ("gwmon.io/metrics-port", metrics.to_string())],
    );
    let gateway =
        LocalGateway::start(&pod, &envoy_configuration(http, upstreams).unwrap(), http, folder.path()).unwrap();
    for _ in 0..20 {
        assert!(gateway.request("/a").unwrap().starts_with("HTTP/1.1 200"));
        assert!(gateway.request("/b").unwrap().starts_with("HTTP/1.1 503"));
    }
    // Envoy's own names, labels and units: milliseconds in Envoy's own buckets, as classic histograms. One request
    // more waited for Envoy to start.
    let expected = [
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\"} 21",
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"b\"} 20",
        "envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"b\",envoy_response_code_class=\"5\"} 20",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"0.5\"}",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"3.6e+06\"} 21",
        "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"ingress\"} 41",
    ];
    // Envoy flushes every five seconds.
    let exposition = wait_for("all requests in the exporter", Duration::from_secs(20), || {
        let exposition = gateway.metrics()?;
        let missing = expected.iter().find(|line| !exposition.contains(**line));
        missing.map_or(Ok(()), |line| Err(anyhow::anyhow!("{line} is missing in\n{exposition}")))?;
        Ok(Some(exposition))
    })
    .unwrap();
    assert!(exposition.contains("statsd_exporter_events_unmapped_total 0"));
    assert!(families(&exposition).iter().filter(|name| name.starts_with("envoy_")).count() > 50);
}

#[test]
fn the_mapping_is_what_the_exporter_accepts() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let pod = injected(&folder, &[]);
    let mapping = pod["metadata"]["annotations"]["gwmon.io/mapping"].as_str().unwrap();
    assert!(mapping.len() <= 2048, "{} bytes", mapping.len());
    let file = folder.path().join("mapping.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut check = Command::new(program("statsd_exporter"));
        check
            .arg("--check-config")
            .arg(format!("--statsd.mapping-config={}", file.display()))
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(check(mapping));
    assert!(!check(&mapping.replace("observer_type: histogram", "observer_type: nonsense")), "the check can fail");
}

#[test]
fn the_real_envoy_accepts_every_overlay_over_a_configuration_with_a_sink_of_its_own() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let own = "stats_flush_interval: 2s\nstats_sinks:\n- name: own\n  typed_config: {\"@type\": type.googleapis.com/envoy.config.metrics.v3.StatsdSink, address: {socket_address: {address: 127.0.0.1, port_value: 1}}}\n";
    let config = folder.path().join("envoy.yaml");
    std::fs::write(&config, own.to_owned() + &envoy_configuration(1, 2).unwrap()).unwrap();
    for version in ["1.14", "1.16", "1.40"] {
        let pod = injected(&folder, &[("gwmon.io/envoy-version", version.to_owned())]);
        let arguments: Vec<_> =
            pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let mut validate = Command::new(program("envoy"));
        validate.args(["--mode", "validate"]);
        for argument in arguments {
            validate.arg(argument.replace("/etc/envoy/envoy.yaml", &config.to_string_lossy()));
        }
        let output = validate.output().unwrap();
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
