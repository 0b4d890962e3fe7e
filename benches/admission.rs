//! What gwmon adds to the creation of a pod, as a real API server sees it: its own histograms of requests and of
//! webhook calls, for pods without the annotation and with it. `cargo bench --bench admission`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends where it fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use base64::Engine;
use gwmon_cluster::{ControlPlane, Kubectl};
use serde_json::{Value, json};
use support::Gwmon;

const PODS: usize = 300;
const ROUNDS: usize = 3;

/// Sum and count of a histogram of the API server's, over all series that have these labels.
fn histogram(kubectl: &Kubectl, name: &str, labels: &[&str]) -> (f64, f64) {
    let metrics = kubectl.run("get --raw /metrics").unwrap().out;
    let total = |suffix: &str| -> f64 {
        let prefix = format!("{name}_{suffix}{{");
        let lines =
            metrics.lines().filter(|line| line.starts_with(&prefix) && labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    (total("sum"), total("count"))
}

fn main() {
    let cluster = ControlPlane::start(false).unwrap();
    let kubectl = cluster.kubectl();
    let gwmon = Gwmon::standalone();
    let mut configuration: Value =
        serde_saphyr::from_str(&std::fs::read_to_string("deploy/base/webhook.yaml").unwrap()).unwrap();
    let authority = base64::engine::general_purpose::STANDARD.encode(std::fs::read(gwmon.authority()).unwrap());
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap();
        webhook["clientConfig"] =
            json!({"url": format!("https://127.0.0.1:{}{path}", gwmon.webhook), "caBundle": authority});
    }
    kubectl.apply(&configuration.to_string()).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));

    let pod = |name: &str, inject: bool| {
        let annotations = if inject { json!({"gwmon.io/inject": "true"}) } else { json!({}) };
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name, "annotations": annotations,
                // Not one that exists: the garbage collector takes the pods away again.
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "edge", "uid": "x", "controller": true}],
            },
            "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/e.yaml"]}]},
        })
    };
    let request = ("apiserver_request_duration_seconds", ["resource=\"pods\"", "verb=\"POST\"", "subresource=\"\""]);
    let webhook = ("apiserver_admission_webhook_admission_duration_seconds", ["name=\"pods.gwmon.io\""]);
    println!("{PODS} pods created one after another, mean of what the API server measured");
    for round in 0..=ROUNDS {
        for inject in [false, true] {
            let before = (histogram(&kubectl, request.0, &request.1), histogram(&kubectl, webhook.0, &webhook.1));
            let pods: Vec<_> = (0..PODS).map(|i| pod(&format!("edge-{round}-{inject}-{i}"), inject)).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
            kubectl.run_with(&["create", "-f", "-"], &list.to_string()).unwrap();
            let after = (histogram(&kubectl, request.0, &request.1), histogram(&kubectl, webhook.0, &webhook.1));
            let mean =
                |before: (f64, f64), after: (f64, f64)| (after.0 - before.0) / (after.1 - before.1).max(1.) * 1e3;
            if round > 0 {
                println!(
                    "  {}  request {:6.3} ms   webhook calls {:4}  each {:6.3} ms",
                    if inject { "with annotation   " } else { "without annotation" },
                    mean(before.0, after.0),
                    after.1.1 - before.1.1,
                    mean(before.1, after.1),
                );
            }
        }
    }
}
