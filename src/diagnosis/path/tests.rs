use serde_json::json;

use super::*;
use crate::diagnosis::check::Step;
use crate::diagnosis::gateway::{Pod, Revision};
use crate::injection::Status;
use crate::monitoring::{Operator, Scraper};

fn status() -> Status {
    let status = json!({
        "version": "0.1.0", "gateway": "envoy", "container": "envoy", "mode": "statsd", "statsdPort": 9125,
        "metricsPort": 9102, "added": [], "hash": "h",
    });
    serde_json::from_value(status).unwrap()
}

/// A gateway whose metrics arrive, as a bare pod has them.
fn gateway() -> Gateway {
    let labels =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let ours = json!({"gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": "edge"});
    let mut monitors = ours.clone();
    monitors["release"] = json!("kps");
    let port = json!({"name": "gwmon-metrics", "port": 9102, "targetPort": 9102});
    let endpoint = json!({"port": "gwmon-metrics", "path": "/metrics"});
    let pod_status = json!({"phase": "Running", "initContainerStatuses": [{"name": "gwmon-statsd-exporter", "state": {"running": {}}}]});
    Gateway {
        pods: vec![Pod {
            name: "edge".to_owned(),
            injected: Some(("0.1.0".to_owned(), "h".to_owned())),
            status: serde_json::from_value(pod_status).unwrap(),
            ..Pod::default()
        }],
        revision: Some(Revision {
            status: Some(status()),
            labels: labels(&[("gwmon.io/monitored-by", "edge-gwmon")]),
            annotations: labels(&[
                ("gwmon.io/inject", "true"),
                ("gwmon.io/status", &serde_json::to_string(&status()).unwrap()),
            ]),
            workload: ("Pod".to_owned(), "edge".to_owned()),
            port_name: Some("gwmon-metrics".to_owned()),
            ..Revision::default()
        }),
        service: Some(json!({
            "metadata": {"name": "edge-gwmon", "namespace": "edge", "labels": ours},
            "spec": {"selector": {"gwmon.io/monitored-by": "edge-gwmon"}, "ports": [port]},
        })),
        slices: vec![json!({"endpoints": [{"conditions": {"ready": true}}]})],
        monitors: vec![json!({
            "kind": "ServiceMonitor",
            "metadata": {"name": "edge-gwmon", "namespace": "edge", "labels": monitors},
            "spec": {"selector": {"matchLabels": {"gwmon.io/metrics-for": "edge-gwmon"}}, "endpoints": [endpoint]},
        })],
        ..Gateway::default()
    }
}

fn cluster() -> Cluster {
    let spec =
        json!({"serviceMonitorSelector": {"matchLabels": {"release": "kps"}}, "serviceMonitorNamespaceSelector": {}});
    let is_true = |kind: &str| json!({"type": kind, "status": "True"});
    let prometheus = json!({
        "kind": "Prometheus", "metadata": {"name": "kps", "namespace": "monitoring"}, "spec": spec,
        "status": {"conditions": [is_true("Reconciled"), is_true("Available")]},
    });
    let container = json!({"name": "prometheus-operator", "image": "prometheus-operator:v0.93.1"});
    let operator = json!({"metadata": {"name": "operator", "namespace": "monitoring"}, "spec": {"template": {"spec": {"containers": [container]}}}});
    Cluster {
        scrapers: vec![Scraper::parse(&prometheus.to_string()).unwrap().unwrap()],
        operators: vec![Operator::parse(&operator.to_string()).unwrap().unwrap()],
        ..Cluster::default()
    }
}

fn surroundings<'a>(
    config: &'a Config,
    monitoring: &'a Cluster,
    unread: &'a Unread,
    probes: &'a Probes,
) -> Surroundings<'a> {
    static NO_RANGES: BTreeMap<String, Vec<LimitRange>> = BTreeMap::new();
    Surroundings {
        config,
        is_config_known: true,
        monitoring,
        limit_ranges: &NO_RANGES,
        network_policies: &[],
        others_monitors: &[],
        scope: None,
        kubernetes: None,
        unread,
        probes,
    }
}

/// What is not as it must be: step, verdict and reason.
fn bad(gateway: &Gateway, change: impl Fn(&mut Surroundings)) -> Vec<(Step, Verdict, Option<Reason>)> {
    let (config, monitoring, unread, probes) = (Config::default(), cluster(), Unread::default(), Probes::default());
    let mut around = surroundings(&config, &monitoring, &unread, &probes);
    change(&mut around);
    let checks = walk(("edge", "edge-gwmon"), gateway, &around);
    let bad = checks.into_iter().filter(|check| check.verdict > Verdict::Skip);
    bad.map(|check| (check.step, check.verdict, check.reason)).collect()
}

fn reasons(gateway: &Gateway) -> Vec<Reason> {
    bad(gateway, |_| ()).into_iter().filter_map(|(.., reason)| reason).collect()
}

#[test]
fn what_is_as_it_must_be_gives_no_finding() {
    assert_eq!(bad(&gateway(), |_| ()), []);
}

#[test]
fn d4_d5_d6_objects_that_somebody_changed_are_found() {
    for (pointer, value) in [
        ("/spec/selector", json!({"app": "other"})),
        ("/spec/selector", json!({"gwmon.io/monitored-by": "edge-gwmon", "app": "edge"})),
        ("/spec/ports/0/name", json!("metrics")),
        ("/spec/ports/0/targetPort", json!(9103)),
    ] {
        let mut gateway = gateway();
        *gateway.service.as_mut().unwrap().pointer_mut(pointer).unwrap() = value;
        assert!(reasons(&gateway).contains(&Reason::ObjectChanged), "{pointer}");
    }
    for (pointer, value, reason) in [
        ("/spec/selector", json!({"matchLabels": {"app": "other"}}), Reason::ObjectChanged),
        ("/spec/endpoints/0/port", json!("metrics"), Reason::ObjectChanged),
        ("/spec/endpoints", json!([]), Reason::ObjectChanged),
        ("/spec/endpoints/0/path", json!("/stats"), Reason::CustomResourceOutdated),
        ("/metadata/labels/release", json!("other"), Reason::NotSelected),
    ] {
        let mut gateway = gateway();
        *gateway.monitors[0].pointer_mut(pointer).unwrap() = value;
        assert_eq!(reasons(&gateway), [reason], "{pointer}");
    }
    let mut gateway = gateway();
    gateway.slices.clear();
    assert_eq!(reasons(&gateway), [Reason::NoEndpoints]);
    gateway.service = None;
    assert!(reasons(&gateway).contains(&Reason::ObjectMissing));
}

#[test]
fn d12_the_port_of_a_native_sidecar_has_no_name_before_kubernetes_1_32() {
    let mut gateway = gateway();
    gateway.service.as_mut().unwrap()["spec"]["ports"][0]["targetPort"] = json!("gwmon-metrics");
    let found = |version| {
        bad(&gateway, |around| around.kubernetes = version)
            .into_iter()
            .filter_map(|(.., reason)| reason)
            .collect::<Vec<_>>()
    };
    assert_eq!(found(Some(Version(1, 31))), [Reason::ObjectChanged]);
    assert_eq!(found(Some(Version(1, 32))), []);
}

#[test]
fn what_follows_from_a_failure_is_told_once() {
    let mut gateway = gateway();
    gateway.slices.clear();
    gateway.monitors[0]["metadata"]["labels"]["release"] = json!("other");
    gateway.service.as_mut().unwrap()["spec"]["selector"] = json!({"app": "other"});
    // The Service comes before its endpoints on the way, the selection after them.
    assert_eq!(reasons(&gateway), [Reason::ObjectChanged, Reason::NotSelected]);
}

#[test]
fn what_cannot_be_read_is_no_finding() {
    let mut gateway = gateway();
    (gateway.service, gateway.monitors) = (None, vec![]);
    gateway.slices.clear();
    let resources = ["services", "endpointslices", "servicemonitors", "prometheuses", "networkpolicies"];
    let why = || NotRead::Forbidden("forbidden".to_owned());
    let unread = Unread(resources.into_iter().map(|resource| (resource.to_owned(), why())).collect());
    let (config, monitoring, probes) = (Config::default(), Cluster::default(), Probes::default());
    let around = surroundings(&config, &monitoring, &unread, &probes);
    let checks = walk(("edge", "edge-gwmon"), &gateway, &around);
    assert!(checks.iter().all(|check| check.verdict <= Verdict::Skip), "{checks:#?}");
}

#[test]
fn a_field_that_the_server_dropped_is_named() {
    let planned = json!({"endpoints": [{"port": "p", "interval": "5s"}]});
    let missing = |live: Value| lacking(&planned, &live, "spec");
    assert_eq!(missing(json!({"endpoints": [{"port": "p", "interval": "5s", "scheme": "http"}], "x": 1})), None);
    assert_eq!(missing(json!({"endpoints": [{"port": "p"}]})).as_deref(), Some("spec.endpoints[0].interval"));
    assert_eq!(missing(json!({})).as_deref(), Some("spec.endpoints"));
}
