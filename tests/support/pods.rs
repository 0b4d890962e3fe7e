//! What the real binary makes of pods.
#![allow(dead_code, reason = "every test program takes its part of this")]

use std::path::PathBuf;
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
    try_preview(workload).unwrap()
}

/// The same; `None` if its pods stay as they are.
pub(crate) fn try_preview(workload: &Value) -> Option<Value> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("workload.json");
    std::fs::write(&file, workload.to_string()).unwrap();
    let mut preview = Command::new(env!("CARGO_BIN_EXE_gwmon"));
    let output = preview.args(["preview", "-o", "json", "-f"]).arg(&file).output().unwrap();
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    list["items"].get(0).cloned()
}

fn case_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir("tests/cases").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml") && !file.ends_with("prometheus.yaml"));
    files.sort();
    files
}

/// The pod of every golden case that has one, before gwmon, as somebody would create it in a bare namespace.
pub(crate) fn of_cases() -> Vec<(String, Value)> {
    let mut pods = Vec::new();
    for file in case_files() {
        let text = std::fs::read(&file).unwrap();
        let documents = gwmon::manifest::documents(&text[..], &[]).map(|document| document.unwrap().value);
        for object in documents.flat_map(|value| value.map(gwmon::manifest::objects).unwrap_or_default()) {
            let mut pod = if object["kind"] == "Pod" { object.clone() } else { object["spec"]["template"].clone() };
            if !pod["spec"]["containers"].is_array() {
                continue;
            }
            let asked = object["metadata"]["annotations"].as_object().into_iter().flatten();
            for (key, value) in asked.filter(|(key, _)| key.starts_with("gwmon.io/")) {
                pod["metadata"]["annotations"][key] = value.clone();
            }
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["name"] = json!("pod");
            pod["metadata"].as_object_mut().unwrap().remove("namespace");
            // Objects that the namespace lacks.
            let spec = pod["spec"].as_object_mut().unwrap();
            spec.retain(|field, _| {
                !["serviceAccountName", "serviceAccount", "priorityClassName"].contains(&field.as_str())
            });
            spec.insert("automountServiceAccountToken".to_owned(), json!(false));
            pods.push((format!("{} {}", file.display(), object["metadata"]["name"]), pod));
        }
    }
    pods
}

/// What the real binary makes of every golden case: its objects, with the file and the name of each.
pub(crate) fn golden() -> Vec<(String, Value)> {
    let objects = |file: PathBuf| {
        let mut preview = Command::new(env!("CARGO_BIN_EXE_gwmon"));
        let output = preview.args(["preview", "-o", "json", "-f"]).arg(&file).output().unwrap();
        let mut list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        items.into_iter().map(move |item| (format!("{} {}", file.display(), item["metadata"]["name"]), item))
    };
    case_files().into_iter().flat_map(objects).collect()
}
