//! One bad object ends no watch and no look: malformed objects of every kind that gwmon reads stand among good ones, on a real
//! API server whose definitions take any shape.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use gwmon_cluster::{ControlPlane, Kubectl};
use serde_json::{Value, json};
use support::kinds::{KINDS, definition};
use support::{Cluster, Installed, by_release, injected, settle};

/// What stands where an object's content should. Of the kinds whose real definitions take any depth, one is deeper than kube's
/// client reads, by its `managedFields` already: it hides its kind, and nothing else.
fn malformed(kind: &str) -> Vec<Value> {
    let depth = if ["VMAgent", "OpenTelemetryCollector"].contains(&kind) { 150 } else { 50 };
    let deep = (0..depth).fold(json!("x"), |inner, _| json!({ "matchLabels": inner }));
    vec![
        json!({}),
        json!({"spec": null}),
        json!({"spec": []}),
        json!({"spec": "all"}),
        json!({"spec": 7}),
        json!({"spec": {"serviceMonitorSelector": "all", "serviceMonitorNamespaceSelector": 7, "paused": "no"}}),
        json!({"spec": {"serviceMonitorSelector": {"matchLabels": [1]}, "scrapeClasses": {"a": 1}}}),
        json!({"spec": {"serviceMonitorSelector": {"matchExpressions": [{"key": 1}, null, {"operator": "Near"}]}}}),
        json!({"spec": {"serviceMonitorSelector": deep, "serviceScrapeSelector": [], "config": "a: ["}}),
        json!({"spec": {"config": {"receivers": 7}, "prometheusCR": [], "selectAllByDefault": {}}, "plugin": 7, "config": []}),
        json!({"spec": {"serviceMonitorSelector": null, "externalLabels": "x".repeat(100_000)}}),
    ]
}

fn create_all(kubectl: &Kubectl, objects: &[Value]) {
    kubectl
        .run_with(
            &["create", "--validate=false", "-f", "-"],
            &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string(),
        )
        .unwrap();
}

/// An object of one of Kubernetes' own kinds.
fn named(kind: &str, version: &str, name: &str, content: &Value) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "west"}});
    json_patch::merge(&mut object, content);
    object
}

/// Objects of other people's definitions.
fn of_definitions() -> Vec<Value> {
    let mut bad = vec![];
    for (group, versions, kind, plural, _) in KINDS {
        for (number, content) in malformed(kind).into_iter().enumerate() {
            let mut object = content;
            object["apiVersion"] = json!(format!("{group}/{}", versions[0]));
            object["kind"] = json!(kind);
            object["metadata"] = json!({
                "name": format!("bad-{number}"), "namespace": "west",
                // Of ServiceMonitors: as if gwmon had made it.
                "labels": {"gwmon.io/metrics-for": format!("bad-{number}"), "gwmon.io/workload-namespace": "west"},
                "ownerReferences": [{"apiVersion": "x?y/v1", "kind": "A b", "name": "..", "uid": "1"}],
            });
            bad.push(object);
        }
        assert!(!plural.is_empty());
    }
    bad
}

fn of_gwmons_kinds() -> Vec<Value> {
    let mut bad = vec![];
    // A Service as if gwmon had made it; an operator's Deployment whose flags mean nothing; a LimitRange of odd amounts.
    let forged = json!({
        "metadata": {
            "labels": {"gwmon.io/metrics-for": "forged", "gwmon.io/workload-namespace": "west"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pods?watch=true&x=", "name": "x", "uid": "1"}],
        },
        "spec": {"clusterIP": "None", "ports": [{"port": 1}]},
    });
    bad.push(named("Service", "v1", "forged", &forged));
    let operator = json!({
        "metadata": {"labels": {"app.kubernetes.io/name": "prometheus-operator"}},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "replicas": 0, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "containers": [{"name": "x", "image": "x", "args": ["--namespaces", "--deny-namespaces=,,", "--prometheus-instance-selector=a in (", "=="]}],
        }}},
    });
    bad.push(named("Deployment", "apps/v1", "operator", &operator));
    let limits = json!({"spec": {"limits": [{"type": "Container", "max": {"memory": "1e30", "cpu": "1n"}}, {"type": "example.com/Odd"}]}});
    bad.push(named("LimitRange", "v1", "odd", &limits));
    bad
}

/// Pods that say they are a gateway's, or should have been.
fn pods() -> Vec<Value> {
    let mut bad = vec![];
    let pod = |annotations: Value, labels: Value, owner: Value| {
        json!({
            "metadata": {"annotations": annotations, "labels": labels, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "envoy", "image": "envoy"}]},
        })
    };
    let owner = |kind: &str, name: &str| json!({"apiVersion": "apps.example/v1", "kind": kind, "name": name, "uid": "1", "controller": true});
    let labels = json!({"gwmon.io/monitored-by": "x-gwmon", "gwmon.io/exporter": "x-gwmon"});
    for (number, status) in
        ["", "{", "[]", "{\"metricsPort\": -1}", "null", &"[".repeat(100_000)].into_iter().enumerate()
    {
        let annotations = json!({"gwmon.io/inject": "true", "gwmon.io/status": status, "gwmon.io/trial": status});
        bad.push(named("Pod", "v1", &format!("status-{number}"), &pod(annotations, labels.clone(), owner("Foo", "x"))));
    }
    for (number, name) in ["..", "a b", "a/b?c", &"x".repeat(300)].into_iter().enumerate() {
        let annotations = json!({"gwmon.io/inject": "true"});
        bad.push(named(
            "Pod",
            "v1",
            &format!("owner-{number}"),
            &pod(annotations.clone(), labels.clone(), owner("ReplicaSet", name)),
        ));
        bad.push(named(
            "Pod",
            "v1",
            &format!("missed-{number}"),
            &pod(annotations, json!({}), owner("ReplicaSet", name)),
        ));
    }
    bad
}

/// Events of controllers that could not make a pod.
fn told() -> Vec<Value> {
    let mut bad = vec![];
    for (number, object) in [
        json!({"namespace": "west"}),
        json!({"namespace": "west", "kind": "ReplicaSet"}),
        json!({"namespace": "west", "kind": "ReplicaSet", "name": "a b", "uid": "?"}),
    ]
    .into_iter()
    .enumerate()
    {
        let event = json!({"involvedObject": object, "reason": "FailedCreate", "message": "m", "type": "Warning", "lastTimestamp": null});
        bad.push(named("Event", "v1", &format!("event-{number}"), &event));
    }
    bad
}

/// What gwmon itself keeps in the cluster.
fn stored() -> Vec<Value> {
    let mut bad = vec![];
    let entries = json!({"edge.edge-gwmon": "{", "nonsense": "7", "a.b": "{\"phase\": 7}", "x": ""});
    let mut suspensions = named("ConfigMap", "v1", "gwmon-suspensions", &json!({"data": entries}));
    suspensions["metadata"]["namespace"] = json!("gwmon");
    bad.push(suspensions);
    let mut certificate = named(
        "Secret",
        "v1",
        "gwmon-tls",
        &json!({"stringData": {"tls.crt": "x", "tls.key": "-----BEGIN", "ca.crt": ""}}),
    );
    certificate["metadata"]["namespace"] = json!("gwmon");
    // Without the label it would be somebody else's, and stay as it is.
    certificate["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "gwmon"});
    bad.push(certificate);
    bad
}

#[test]
fn one_bad_object_ends_no_watch_and_no_look() {
    let cluster = ControlPlane::start(false).unwrap();
    let kubectl = cluster.kubectl();
    kubectl.apply(&std::fs::read_to_string("deploy/install.yaml").unwrap()).unwrap();
    for kind in KINDS {
        kubectl.apply(&definition(kind).to_string()).unwrap();
    }
    kubectl.wait_established().unwrap();
    for namespace in ["monitoring", "edge", "west"] {
        kubectl.run(&format!("create namespace {namespace}")).unwrap();
    }

    let mut bad = [of_definitions(), of_gwmons_kinds(), pods(), told(), stored()].concat();
    create_all(&kubectl, &bad);

    let installed = Installed { cluster: Cluster::Own(cluster), kubectl };
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    let served = |name: &str| {
        kubectl.apply(&injected("edge", name, 1).to_string()).unwrap();
        settle(&format!("the monitor of {name}"), || installed.monitor("edge", &format!("{name}-gwmon")).map(Some));
    };
    served("listed");

    // The same, while the watches run.
    for object in &mut bad {
        if object["metadata"]["namespace"] == "gwmon" {
            continue;
        }
        object["metadata"]["name"] = json!(format!("late-{}", object["metadata"]["name"].as_str().unwrap()));
    }
    bad.retain(|object| object["metadata"]["namespace"] != "gwmon");
    create_all(kubectl, &bad);
    served("watched");

    // And a look finds the one honest pod that was missed.
    let mut missed = injected("edge", "missed", 1);
    missed["spec"]["template"]["metadata"]["labels"] = json!({"app": "gateway"});
    missed["spec"]["selector"]["matchLabels"] = json!({"app": "gateway"});
    missed["spec"]["template"]["spec"] =
        json!({"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0"}]});
    missed["spec"]["template"]["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
    missed["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
    kubectl.apply(&missed.to_string()).unwrap();
    installed.event("edge", "missed", "MissedInjection", "rollout restart");
    assert!(!gwmon.log().contains("panicked"), "{}", gwmon.log());
    assert!(gwmon.log_bytes() < 1 << 20, "{} bytes of log", gwmon.log_bytes());
}

/// The limit of the shipped Deployment, in MiB.
const MEMORY_LIMIT: f64 = 128.;

/// Objects as large as the API server takes, with gwmon's labels on them.
#[test]
fn large_objects_end_no_process() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let variables: Vec<_> = (0..70_000).map(|_| json!({"name": "a"})).collect();
    let container = json!({"name": "prometheus-operator", "image": "x", "env": variables});
    let operator = json!({
        "metadata": {"labels": {"app.kubernetes.io/name": "prometheus-operator"}},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "replicas": 0, "paused": true, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]},
        }},
    });
    let claimed = json!({
        "metadata": {
            "labels": {"gwmon.io/monitored-by": "x-gwmon", "gwmon.io/exporter": "x-gwmon"},
            "annotations": {"gwmon.io/inject": "true", "padding": "x".repeat(200_000)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "1", "controller": true}],
        },
        "spec": {"containers": [container]},
    });
    for number in 0..12 {
        create_all(kubectl, &[named("Pod", "v1", &format!("pod-{number}"), &claimed)]);
    }
    for number in 0..4 {
        create_all(kubectl, &[named("Deployment", "apps/v1", &format!("operator-{number}"), &operator)]);
    }
    // At the first list, and where they come while the watches run.
    let gwmon = installed.serve();
    kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    settle("the monitor", || installed.monitor("edge", "edge-gwmon").map(Some));
    for number in 0..2 {
        create_all(kubectl, &[named("Deployment", "apps/v1", &format!("late-{number}"), &operator)]);
    }
    kubectl.apply(&injected("edge", "late", 1).to_string()).unwrap();
    settle("the late one's monitor", || installed.monitor("edge", "late-gwmon").map(Some));
    let peak = gwmon.status_kib("VmHWM:") / 1024.;
    assert!(peak < MEMORY_LIMIT, "{peak:.0} MiB");
}
