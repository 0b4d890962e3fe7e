//! What the real binary makes of a pod.

use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The pod template of a Deployment with this container and these annotations after `gwmon.io/`, as `gwmon preview` shows
/// it.
pub(crate) fn injected(container: &Value, annotations: &[(&str, String)]) -> Value {
    let mut all: Map<_, _> = annotations.iter().map(|(key, value)| (format!("gwmon.io/{key}"), json!(value))).collect();
    all.insert("gwmon.io/inject".to_owned(), json!("true"));
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "edge", "annotations": all},
        "spec": {"template": {"spec": {"containers": [container]}}},
    });
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("edge.json");
    std::fs::write(&file, deployment.to_string()).unwrap();
    let mut preview = Command::new(env!("CARGO_BIN_EXE_gwmon"));
    let output = preview.args(["preview", "-o", "json", "-f"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["items"][0]["spec"]["template"].clone()
}
