//! The decision alone: raw JSON in, JSON Patch out. `cargo bench --bench decision`
//!
//! Goals: 20 µs for a pod of 10 KiB; 5 ms for one of 1 MiB with 1,500 environment variables, and linear up to there.

use divan::Bencher;
use divan::counter::BytesCount;
use gwmon::config::Config;
use gwmon::injection::{self, workload};
use serde_json::{Value, json};

fn main() {
    divan::main();
}

/// A gateway's pod whose other container has so many variables of so many bytes.
fn pod(variables: usize, bytes: usize) -> Value {
    let env: Vec<_> =
        (0..variables).map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "x".repeat(bytes)})).collect();
    json!({
        "metadata": {
            "generateName": "edge-6d4b-",
            "labels": {"app": "edge", "pod-template-hash": "6d4b"},
            "annotations": {"gwmon.io/inject": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "edge-6d4b", "uid": "x", "controller": true}],
        },
        "spec": {
            "containers": [
                {"name": "app", "image": "corp/app:1", "env": env},
                {"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/etc/envoy/envoy.yaml"]},
            ],
        },
    })
}

fn decide(bencher: Bencher, pod: &Value) {
    let (config, text) = (Config::default(), pod.to_string());
    assert!(injection::decide(&config, &[], &text).injection().is_ok());
    bencher.counter(BytesCount::of_str(&text)).bench(|| injection::decide(&config, &[], divan::black_box(&text)));
}

#[divan::bench]
fn pod_of_10_kib(bencher: Bencher) {
    decide(bencher, &pod(90, 64));
}

/// 375 variables are 256 KiB, 1,500 are 1 MiB: four times the time, where it is linear.
#[divan::bench(args = [375, 750, 1500])]
fn pod_with_variables(bencher: Bencher, variables: usize) {
    decide(bencher, &pod(variables, 660));
}

#[divan::bench]
fn workload_of_10_kib(bencher: Bencher) {
    let mut template = pod(90, 64);
    template["metadata"] = json!({"labels": {"app": "edge"}});
    let text = json!({"metadata": {"name": "edge", "annotations": {"gwmon.io/inject": "true"}}, "spec": {"template": template}}).to_string();
    let config = Config::default();
    assert!(workload::decide(&config, &[], &text).is_ok());
    bencher.counter(BytesCount::of_str(&text)).bench(|| workload::decide(&config, &[], divan::black_box(&text)));
}
