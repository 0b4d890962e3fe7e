//! What the real binary makes of pods.
#![allow(dead_code, reason = "every test program takes its part of this")]

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
    preview(&deployment)["spec"]["template"].clone()
}

/// The workload as `gwmon preview` shows it.
pub(crate) fn preview(workload: &Value) -> Value {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("workload.json");
    std::fs::write(&file, workload.to_string()).unwrap();
    let mut preview = Command::new(env!("CARGO_BIN_EXE_gwmon"));
    let output = preview.args(["preview", "-o", "json", "-f"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["items"][0].clone()
}

/// What the real binary makes of every golden case: its objects, with the file and the name of each.
pub(crate) fn golden() -> Vec<(String, Value)> {
    let mut files: Vec<_> = std::fs::read_dir("tests/cases").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml") && !file.ends_with("prometheus.yaml"));
    let objects = |file: std::path::PathBuf| {
        let mut preview = Command::new(env!("CARGO_BIN_EXE_gwmon"));
        let output = preview.args(["preview", "-o", "json", "-f"]).arg(&file).output().unwrap();
        let mut list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        items.into_iter().map(move |item| (format!("{} {}", file.display(), item["metadata"]["name"]), item))
    };
    files.into_iter().flat_map(objects).collect()
}
