//! One reconciliation at a time, against [`MockApi`]: what is read, what is written, and what is told.

use std::future::ready;

use futures::StreamExt;
use serde_json::{Value, json};

use super::super::mock_api::MockApi;
use super::*;
use crate::injection::decide;

const POD: &str = "/api/v1/namespaces/edge/pods/edge-6d4b-x";
const REPLICA_SET: &str = "/apis/apps/v1/namespaces/edge/replicasets/edge-6d4b";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/edge/deployments/edge";
const SERVICES: &str = "/api/v1/namespaces/edge/services/edge-gwmon";
const MONITORS: &str = "/apis/monitoring.coreos.com/v1/namespaces/edge/servicemonitors/edge-gwmon";
const PROMETHEUS: &str = "/apis/monitoring.coreos.com/v1/namespaces/monitoring/prometheuses/kps";

fn key() -> GatewayKey {
    GatewayKey { namespace: "edge".to_owned(), monitor: "edge-gwmon".to_owned() }
}

/// A pod of Deployment `edge`, as it is once it has been injected.
fn pod() -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "edge-6d4b-x", "namespace": "edge", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "edge", "pod-template-hash": "6d4b"}, "annotations": {"gwmon.io/inject": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "edge-6d4b", "uid": "rs", "controller": true}],
        },
        "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/e.yaml"]}]},
    });
    let injection = decide(&Config::default(), &[], &pod.to_string()).injection().unwrap();
    json_patch::patch(&mut pod, &injection.patch.to_operations().unwrap()).unwrap();
    pod
}

/// A cluster with one gateway and one Prometheus, all as it should be.
fn cluster() -> MockApi {
    let api = MockApi::default();
    api.put(POD, pod());
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "edge", "uid": "d", "controller": true}]);
    api.put(
        REPLICA_SET,
        json!({"kind": "ReplicaSet", "metadata": {"name": "edge-6d4b", "namespace": "edge", "uid": "rs", "ownerReferences": owner}}),
    );
    let template = json!({"metadata": {"annotations": {"gwmon.io/inject": "true"}}});
    api.put(
        DEPLOYMENT,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "edge", "namespace": "edge", "uid": "d"}, "spec": {"template": template}}),
    );
    for namespace in ["edge", "monitoring"] {
        api.put(&format!("/api/v1/namespaces/{namespace}"), json!({"metadata": {"name": namespace}}));
    }
    let spec = json!({"serviceMonitorSelector": {"matchLabels": {"release": "kps"}}, "serviceMonitorNamespaceSelector": {}, "serviceAccountName": "kps"});
    api.put(
        PROMETHEUS,
        json!({"kind": "Prometheus", "metadata": {"name": "kps", "namespace": "monitoring", "uid": "p"}, "spec": spec}),
    );
    // Of a version that writes no conditions.
    let operator = json!({"name": "prometheus-operator", "image": "prometheus-operator:v0.50.0", "args": []});
    let labels = json!({"app.kubernetes.io/name": "prometheus-operator"});
    let metadata = json!({"name": "operator", "namespace": "monitoring", "labels": labels});
    api.put(
        "/apis/apps/v1/namespaces/monitoring/deployments/operator",
        json!({"kind": "Deployment", "metadata": metadata, "spec": {"template": {"spec": {"containers": [operator]}}}}),
    );
    api
}

/// A controller that has seen the whole cluster.
async fn controller(api: &MockApi) -> Context {
    let client = api.client();
    let (cache, changes) = ClusterCache::watch(&client);
    tokio::spawn(changes.for_each(|_| ready(())));
    cache.listed().await;
    settle().await;
    let installation = Installation { namespace: "gwmon".to_owned(), name: "gwmon".to_owned() };
    let context = Context::new(client, installation, Arc::default(), cache, Metrics::new().0, "test".to_owned());
    api.requests();
    context
}

/// Lets the watches deliver what has changed.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// The writes since the last call, and the reasons of the Events.
fn written(api: &MockApi) -> (Vec<String>, Vec<String>) {
    let (mut writes, mut reasons) = (vec![], vec![]);
    for (request, body) in api.requests() {
        if request.contains("/events") {
            reasons.push(body["reason"].as_str().unwrap().to_owned());
        } else if !request.starts_with("GET") && !request.contains("subjectaccessreviews") {
            writes.push(request);
        }
    }
    (writes, reasons)
}

fn both() -> Vec<String> {
    vec![format!("PATCH {SERVICES}"), format!("PATCH {MONITORS}")]
}

/// What stands in the way of a gateway that nobody has seen yet: what is done to the cluster, what is written all the same, what
/// is told, and whether it is tried again.
type Scenario = (&'static str, fn(&MockApi), Vec<String>, &'static [&'static str], bool);

async fn play(scenarios: Vec<Scenario>) {
    for (name, prepare, writes, events, is_retried) in scenarios {
        let api = cluster();
        prepare(&api);
        let context = controller(&api).await;
        let result = context.reconcile(&key()).await;
        let (written, told) = written(&api);
        assert_eq!((written, told), (writes, events.iter().map(|event| (*event).to_owned()).collect()), "{name}");
        assert_eq!(result.is_err(), is_retried, "{name}: {result:?}");
    }
}

#[tokio::test]
async fn a_new_gateway_is_believed_when_its_workload_and_a_pod_agree() {
    play(vec![
        ("all is well", |_| {}, both(), &["Monitored"], false),
        ("the workload is gone", |api| api.remove(DEPLOYMENT), vec![], &[], false),
        ("the ReplicaSet is gone", |api| api.remove(REPLICA_SET), vec![], &[], false),
        (
            "the workload is about to go",
            |api| {
                let mut workload = api.object(DEPLOYMENT).unwrap();
                workload["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                api.put(DEPLOYMENT, workload);
            },
            vec![],
            &[],
            false,
        ),
        (
            "another workload took its name",
            |api| {
                let mut workload = api.object(DEPLOYMENT).unwrap();
                workload["metadata"]["uid"] = json!("another");
                api.put(DEPLOYMENT, workload);
            },
            vec![],
            &[],
            false,
        ),
        (
            "its kind may not be read",
            |api| api.fail(&format!("GET {DEPLOYMENT}"), 403, "forbidden"),
            vec![],
            &["Forbidden"],
            false,
        ),
        ("its kind cannot be read now", |api| api.fail(&format!("GET {DEPLOYMENT}"), 500, "later"), vec![], &[], true),
        (
            "the pod says of itself what is not so",
            |api| {
                let mut pod = api.object(POD).unwrap();
                pod["spec"]["initContainers"] = json!([]);
                api.put(POD, pod);
            },
            vec![],
            &["StatusMismatch"],
            false,
        ),
        (
            "the pod names another workload's monitor",
            |api| {
                let mut replica_set = api.object(REPLICA_SET).unwrap();
                replica_set["metadata"]["ownerReferences"][0]["name"] = json!("west");
                let mut pod = api.object(POD).unwrap();
                pod["metadata"]["ownerReferences"][0]["name"] = json!("west-1");
                api.put(POD, pod);
                replica_set["metadata"]["name"] = json!("west-1");
                api.put(&REPLICA_SET.replace("edge-6d4b", "west-1"), replica_set);
            },
            vec![],
            &[],
            false,
        ),
    ])
    .await;
}

#[tokio::test]
async fn each_object_is_written_for_itself_and_what_keeps_it_out_is_told() {
    play(vec![
        (
            "somebody else has a Service of that name",
            |api| api.put(SERVICES, json!({"metadata": {"name": "edge-gwmon", "namespace": "edge", "uid": "s"}})),
            vec![format!("PATCH {MONITORS}")],
            &["NameConflict"],
            true,
        ),
        (
            "a quota refuses the Service",
            |api| api.fail(&format!("PATCH {SERVICES}"), 403, "exceeded quota: services"),
            both(),
            &["ObjectRefused"],
            true,
        ),
        (
            "gwmon lacks a right",
            |api| {
                api.fail(&format!("PATCH {SERVICES}"), 403, "services is forbidden: User \"g\" cannot patch resource");
            },
            both(),
            &["Forbidden"],
            true,
        ),
        (
            "the cluster has no ServiceMonitors",
            |api| api.fail(&format!("PATCH {MONITORS}"), 404, "not found"),
            both(),
            &["ServiceMonitorCRDMissing"],
            true,
        ),
        ("nobody reads ServiceMonitors", |api| api.remove(PROMETHEUS), both(), &["NoPrometheus"], false),
        (
            "the Prometheus selects nothing",
            |api| {
                let mut prometheus = api.object(PROMETHEUS).unwrap();
                prometheus["spec"]["serviceMonitorSelector"] = json!({"matchLabels": {"gwmon.io/metrics-for": "x"}});
                api.put(PROMETHEUS, prometheus);
            },
            vec![format!("PATCH {SERVICES}")],
            &["NotSelected"],
            false,
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_objects_are_the_workloads_and_the_prometheus_selects_them() {
    let api = cluster();
    let context = controller(&api).await;
    context.reconcile(&key()).await.unwrap();
    for path in [SERVICES, MONITORS] {
        let owner = &api.object(path).unwrap()["metadata"]["ownerReferences"];
        assert_eq!(
            *owner,
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "edge", "uid": "d"}]),
            "{path}"
        );
    }
    assert_eq!(api.object(MONITORS).unwrap()["metadata"]["labels"]["release"], "kps");
}

#[tokio::test]
async fn at_rest_nothing_is_asked_and_nothing_is_told_twice() {
    let api = cluster();
    let context = controller(&api).await;
    context.reconcile(&key()).await.unwrap();
    settle().await;
    api.requests();
    context.reconcile(&key()).await.unwrap();
    assert_eq!(api.requests(), []);
}

#[tokio::test]
async fn what_somebody_changed_is_put_back() {
    let api = cluster();
    let context = controller(&api).await;
    context.reconcile(&key()).await.unwrap();
    let mut monitor = api.object(MONITORS).unwrap();
    monitor["spec"] = json!({});
    api.put(MONITORS, monitor);
    settle().await;
    api.requests();
    context.reconcile(&key()).await.unwrap();
    assert_eq!(written(&api).0, [format!("PATCH {MONITORS}")]);
    assert_eq!(api.object(MONITORS).unwrap()["spec"]["endpoints"][0]["path"], "/metrics");
}

#[tokio::test]
async fn without_pods_the_objects_go_when_the_workload_no_longer_asks() {
    let api = cluster();
    let context = controller(&api).await;
    context.reconcile(&key()).await.unwrap();
    api.remove(POD);
    settle().await;
    api.requests();
    context.reconcile(&key()).await.unwrap();
    assert_eq!(written(&api), (vec![], vec![]), "scaled to nothing");

    let mut workload = api.object(DEPLOYMENT).unwrap();
    workload["spec"]["template"]["metadata"]["annotations"] = json!({});
    api.put(DEPLOYMENT, workload);
    context.reconcile(&key()).await.unwrap();
    let deletes: Vec<_> = api.requests().into_iter().filter(|(request, _)| request.starts_with("DELETE")).collect();
    let uid = |(_, body): &(String, Value)| body["preconditions"]["uid"].clone();
    assert_eq!(deletes.iter().map(uid).collect::<Vec<_>>(), ["made", "made"], "just those that were looked at");
}

#[tokio::test]
async fn what_gwmon_did_not_apply_is_not_deleted() {
    let api = cluster();
    api.remove(POD);
    let labels = json!({"gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": "edge"});
    api.put(SERVICES, json!({"metadata": {"name": "edge-gwmon", "namespace": "edge", "uid": "s", "labels": labels}}));
    let context = controller(&api).await;
    context.reconcile(&key()).await.unwrap();
    assert_eq!(written(&api), (vec![], vec![]));
}

/// The same pod, of this name and with these labels and owners.
fn pod_like(name: &str, uid: &str, owners: &Value) -> Value {
    let mut pod = pod();
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["uid"] = json!(uid);
    pod["metadata"]["ownerReferences"] = owners.clone();
    pod
}

#[tokio::test]
async fn a_pod_that_nobody_owns_is_its_own_workload_and_no_others() {
    let api = cluster();
    let bare = POD.replace("edge-6d4b-x", "edge");
    api.remove(POD);
    api.put(&bare, pod_like("edge", "u1", &json!([])));
    let context = controller(&api).await;
    context.reconcile(&key()).await.unwrap();
    let owner = api.object(SERVICES).unwrap()["metadata"]["ownerReferences"][0].clone();
    assert_eq!(owner, json!({"apiVersion": "v1", "kind": "Pod", "name": "edge", "uid": "u1"}));

    // Beside the pods of a Deployment of that name it does not count, however new it is.
    let mut newer = pod_like("edge", "u1", &json!([]));
    newer["metadata"]["creationTimestamp"] = json!("2026-06-01T00:00:00Z");
    api.put(&bare, newer);
    api.put(POD, pod());
    settle().await;
    assert!(context.cache.has_owned_pods(&key()));
    assert_eq!(context.cache.newest(&key()).unwrap().0, "edge-6d4b-x");
}

#[tokio::test]
async fn a_pod_that_was_orphaned_or_has_a_generated_name_speaks_for_nobody() {
    let mut generated = pod_like("edge", "u1", &json!([]));
    generated["metadata"]["generateName"] = json!("ed");
    for pod in [pod_like("edge-0", "u1", &json!([])), generated] {
        let api = cluster();
        api.remove(POD);
        api.put(&POD.replace("edge-6d4b-x", pod["metadata"]["name"].as_str().unwrap()), pod);
        let context = controller(&api).await;
        context.reconcile(&key()).await.unwrap();
        assert_eq!(written(&api), (vec![], vec![]));
        assert!(!context.cache.has_owned_pods(&key()));
    }
}

#[tokio::test]
async fn a_refused_gateway_at_rest_is_not_read_again() {
    let api = cluster();
    let mut refused = pod();
    refused["metadata"]["annotations"]["gwmon.io/interval"] = json!("often");
    api.put(POD, refused);
    let context = controller(&api).await;
    context.reconcile(&key()).await.unwrap();
    assert_eq!(written(&api).1, ["InvalidAnnotation"]);
    context.reconcile(&key()).await.unwrap();
    assert_eq!(api.requests(), []);
}
