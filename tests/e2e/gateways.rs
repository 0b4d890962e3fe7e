//! Gateways of many kinds on one node, each the real Envoy, started the way that kind starts it, annotated, and with its
//! series in Prometheus. The images of some cannot be had here: the environment or the arguments that they take are
//! played by a few lines of shell before the real Envoy (`tests/cluster/images.py`).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gwmon_cluster::{Prometheus, scenario, wait_for};
use serde_json::{Value, json};

/// How one is started, and what the pod is like apart from that.
struct Kind {
    name: &'static str,
    labels: Value,
    annotations: Value,
    spec: Value,
}

pub(crate) fn every_gateway() -> Result<()> {
    let (node, kubectl) = super::fixture()?;
    let kinds = kinds()?;
    let mut objects = vec![configuration()?];
    objects.extend(kinds.iter().map(deployment));
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
    for kind in &kinds {
        let status = kubectl.run(&format!("-n edge rollout status deploy/{} --timeout=90s", kind.name));
        status.with_context(|| {
            let said = |words: &str| {
                kubectl.run(&format!("-n edge {words}")).map_or_else(|e| format!("{e:#}"), |said| said.out)
            };
            let logs = format!("logs --all-containers --tail=20 deploy/{}", kind.name);
            format!("{}\n{}", said("get pods"), said(&logs))
        })?;
    }
    let _traffic = scenario::Traffic::start(&node, "traffic=yes")?;
    let prometheus = Prometheus::of(&kubectl);
    for kind in &kinds {
        let pool = format!("serviceMonitor/edge/{}-gwmon/0", kind.name);
        scenario::target_up(&prometheus, &pool).context(kind.name)?;
        // Envoy's own names, or those of the exporter that was there; either way a rate.
        let metric =
            if kind.name == "by-names" { "envoy_upstream_rq_total" } else { "envoy_cluster_upstream_rq_total" };
        let query = format!("sum(rate({metric}{{service=\"{}-gwmon\"}}[1m]))", kind.name);
        wait_for(&format!("{query} above zero"), Duration::from_secs(90), || {
            Ok(prometheus.query(&query)?.filter(|rate| *rate > 0.))
        })?;
    }

    // The queries that bakins/kubernetes-envoy-example prints, as they are; and the one of the Ambassador article, which
    // asks for requests a minute.
    for (query, least) in [
        (
            "histogram_quantile(0.95, sum(rate(envoy_upstream_rq_time_bucket{cluster!=\"local_service\"}[5m])) by (le,app, cluster))",
            0.,
        ),
        ("sum(rate(envoy_upstream_rq_time_count{cluster!=\"local_service\"}[5m])) by (app, cluster)", 0.),
        ("sum(envoy_health_check_healthy) by (app,cluster)", 1.),
        ("sum(envoy_upstream_cx_total) by (app,cluster)", 1.),
        ("rate(envoy_http_rq_total[1m])", 0.),
    ] {
        let answer = wait_for(query, Duration::from_secs(90), || {
            let answer = prometheus.ask(&format!("query?query={}", gwmon_cluster::escape(query)))?;
            let values = answer["result"].as_array().into_iter().flatten();
            let best = values.filter_map(|series| series["value"][1].as_str()?.parse::<f64>().ok()).fold(-1., f64::max);
            Ok((best >= least).then_some(answer))
        })?;
        let labels = &answer["result"][0]["metric"];
        ensure!(!query.contains("by (app") || labels["app"] == "by-names", "{query}: {labels}");
    }

    // What was there is adopted: no second exporter, and nothing of the pod's own has changed.
    let adopted = kubectl.get("-n edge pods -l app=adopted")?["items"][0].clone();
    let containers = adopted["spec"]["containers"].as_array().map_or(0, Vec::len);
    ensure!(containers == 2 && adopted["spec"]["initContainers"].is_null(), "{}", adopted["spec"]);
    Ok(())
}

/// The gateway's own configuration, once more with a health check and a statsd sink in the file, and once with an admin
/// port that Prometheus can reach.
fn configuration() -> Result<Value> {
    let own = scenario::envoy_configuration(8080, 9001)?;
    let sink = "stats_sinks:\n- name: own\n  typed_config: {\"@type\": type.googleapis.com/envoy.config.metrics.v3.DogStatsdSink, address: {socket_address: {address: 127.0.0.1, port_value: 9125}}}\n";
    let admin = "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 9901}}}\n";
    let mut checked: Value = serde_saphyr::from_str(&own)?;
    checked["static_resources"]["clusters"][0]["health_checks"] = json!([{
        "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": {"path": "/a"},
    }]);
    let data = json!({
        "envoy.yaml": own.clone(),
        "sink.yaml": format!("{sink}{own}"),
        "admin.yaml": format!("{admin}{own}"),
        "checked.json": checked.to_string(),
    });
    Ok(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kinds", "namespace": "edge"}, "data": data}),
    )
}

fn kinds() -> Result<Vec<Kind>> {
    let own = scenario::envoy_configuration(8080, 9001)?;
    let envoy = scenario::envoy_image()?;
    let exporter = scenario::exporter_image()?;
    let config = json!([{"name": "config", "configMap": {"name": "kinds"}}]);
    let at = |path: &str| json!([{"name": "config", "mountPath": path}]);
    let plain = |args: Value| json!({"containers": [{"name": "envoy", "image": envoy, "args": args, "volumeMounts": at("/etc/envoy")}], "volumes": config});
    let kind = |name, spec| Kind { name, labels: json!({}), annotations: json!({}), spec };
    let told = |name, key: &str, value: &str, spec| Kind {
        annotations: json!({format!("gwmon.io/{key}"): value}),
        ..kind(name, spec)
    };
    Ok(vec![
        // Told by environment, which the image turns into a sink.
        kind(
            "emissary",
            json!({
                "containers": [{"name": "emissary-ingress", "image": "docker.io/emissaryingress/emissary:3.9.1", "volumeMounts": at("/etc/envoy")}],
                "volumes": config,
            }),
        ),
        // Its configuration is written by an init container of Contour's image.
        kind(
            "contour",
            json!({
                "initContainers": [{
                    "name": "envoy-initconfig", "image": "ghcr.io/projectcontour/contour:v1.33.0",
                    "command": ["cp", "/in/envoy.yaml", "/config/envoy.yaml"],
                    "volumeMounts": [{"name": "config", "mountPath": "/in"}, {"name": "written", "mountPath": "/config"}],
                }],
                "containers": [
                    {"name": "shutdown-manager", "image": "ghcr.io/projectcontour/contour:v1.33.0", "command": ["sleep", "3600"]},
                    {"name": "envoy", "image": envoy, "command": ["envoy"], "args": ["-c", "/config/envoy.yaml", "--log-level info"],
                     "volumeMounts": [{"name": "written", "mountPath": "/config"}]},
                ],
                "volumes": [{"name": "config", "configMap": {"name": "kinds"}}, {"name": "written", "emptyDir": {}}],
            }),
        ),
        // All in one argument, with a variable of Kubernetes' in it.
        Kind {
            labels: json!({"app.kubernetes.io/managed-by": "envoy-gateway"}),
            ..kind(
                "envoy-gateway",
                json!({"containers": [{
                    "name": "envoy", "image": envoy, "command": ["envoy"],
                    "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "args": ["--service-node $(POD)", format!("--config-yaml node: {{locality: {{zone: $(POD)}}}}\n{own}")],
                }]}),
            )
        },
        // A wrapper that passes the whole configuration itself; the sink comes as a file.
        kind(
            "kgateway",
            json!({
                "containers": [{"name": "kgateway-proxy", "image": "cr.kgateway.dev/kgateway-dev/envoy-wrapper:v2.1.0",
                    "args": ["--log-level", "info"], "volumeMounts": at("/etc/envoy")}],
                "volumes": config,
            }),
        ),
        // As in bakins/kubernetes-envoy-example: a sink in the file and an exporter beside it.
        kind(
            "adopted",
            json!({
                "containers": [
                    {"name": "envoy", "image": envoy, "args": ["-c", "/etc/envoy/sink.yaml"], "volumeMounts": at("/etc/envoy")},
                    {"name": "statsd", "image": exporter},
                ],
                "volumes": config,
            }),
        ),
        told("scrape", "mode", "scrape", {
            let mut spec = plain(json!(["-c", "/etc/envoy/admin.yaml"]));
            spec["containers"][0]["ports"] = json!([{"name": "admin", "containerPort": 9901}]);
            spec
        }),
        told("by-names", "profile", "bakins", plain(json!(["-c", "/etc/envoy/checked.json"]))),
        told("regular", "sidecar", "regular", plain(json!(["-c", "/etc/envoy/envoy.yaml"]))),
    ])
}

/// Annotated from the start, in a namespace that demands Pod Security's `restricted`.
fn deployment(kind: &Kind) -> Value {
    let mut labels = json!({"app": kind.name, "traffic": "yes"});
    json_patch::merge(&mut labels, &kind.labels);
    let mut annotations = json!({"gwmon.io/inject": "true"});
    json_patch::merge(&mut annotations, &kind.annotations);
    let mut spec = kind.spec.clone();
    spec["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}});
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["securityContext"] =
                json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        }
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": kind.name, "namespace": "edge", "annotations": annotations},
        "spec": {"selector": {"matchLabels": {"app": kind.name}}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    })
}
