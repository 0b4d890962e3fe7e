//! `gwmon preview` as a user and a script meet it: outputs, exit codes, and what is typed wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/envoy-args.yaml");
const PROMETHEUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/prometheus.yaml");

fn preview(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gwmon"))
        .arg("preview")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails at once may not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_output_is_what_it_says() {
    let json = preview(&["-f", CASE, "--prometheus", PROMETHEUS, "-o", "json"], "");
    assert_eq!(json.status.code(), Some(0));
    let list: Value = serde_json::from_slice(&json.stdout).unwrap();
    let kinds: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!((list["kind"].as_str(), kinds), (Some("List"), vec!["Deployment", "Service", "ServiceMonitor"]));

    let yaml = preview(&["-f", CASE, "--prometheus", PROMETHEUS, "-o", "yaml"], "");
    let documents: Vec<Value> = serde_saphyr::from_multiple(text(&yaml.stdout)).unwrap();
    assert_eq!(Value::from(documents), list["items"], "YAML and JSON say the same");

    let patch = preview(&["-f", CASE, "-o", "patch"], "");
    let patch: json_patch::Patch = serde_json::from_slice(&patch.stdout).unwrap();
    assert!(patch.iter().all(|operation| matches!(operation, json_patch::PatchOperation::Add(_))));

    let diff = preview(&["-f", CASE, "--prometheus", PROMETHEUS], "");
    let diff = text(&diff.stdout);
    assert!(diff.contains("+      - name: gwmon-statsd-exporter") && diff.contains("+    release: kps"), "{diff}");
    assert!(!diff.contains('\u{1b}'), "colour is for terminals");
}

#[test]
fn what_it_prints_needs_no_second_look() {
    let once = preview(&["-f", CASE, "-o", "yaml"], "");
    let twice = preview(&["-f", "-", "-o", "yaml"], text(&once.stdout));
    assert_eq!(twice.status.code(), Some(0), "{}", text(&twice.stderr));
    assert!(text(&twice.stderr).contains("AlreadyInjected"));
}

#[test]
fn a_namespace_is_taken_from_where_kubectl_takes_it() {
    let manifest = std::fs::read_to_string(CASE).unwrap().replace(", namespace: edge", "");
    let namespace = |arguments: &[&str]| {
        let output = preview(&[&["-f", "-", "-o", "json"], arguments].concat(), &manifest);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["items"][1]["metadata"]["namespace"].clone()
    };
    assert_eq!(namespace(&[]), "default");
    assert_eq!(namespace(&["-n", "other"]), "other");
}

#[test]
fn a_limit_range_among_the_manifests_is_respected() {
    let range = "---\n{apiVersion: v1, kind: LimitRange, metadata: {name: limits, namespace: edge}, spec: {limits: [{type: Container, max: {memory: MAX}}]}}\n";
    let with = |max: &str| {
        let manifests = std::fs::read_to_string(CASE).unwrap() + &range.replace("MAX", max);
        preview(&["-f", "-", "-o", "json"], &manifests)
    };
    assert!(text(&with("64Mi").stdout).contains("\"memory\": \"64Mi\""));
    let refused = with("16Mi");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("LimitRangeExceeded"), "{}", text(&refused.stderr));
}

#[test]
fn exit_codes_tell_a_refusal_from_a_mistake() {
    let refused = preview(&["-f", "-"], &std::fs::read_to_string(CASE).unwrap().replace("\"true\"", "\"yes\""));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("InvalidAnnotation") && refused.stdout.is_empty());

    let unasked = preview(&["-f", "-"], &std::fs::read_to_string(CASE).unwrap().replace("\"true\"", "\"false\""));
    assert_eq!(unasked.status.code(), Some(0));
    assert!(text(&unasked.stderr).contains("OptedOut"));

    let unreadable = "{kind: Prometheus, metadata: {name: k, namespace: m}, spec: {serviceMonitorSelector: 7}}";
    let unselected = preview(&["-f", CASE, "--prometheus", "-"], unreadable);
    assert_eq!(unselected.status.code(), Some(1));
    assert!(
        text(&unselected.stderr).contains("NotSelected: Prometheus m/k spec cannot be read: serviceMonitorSelector")
    );

    for (arguments, input, said) in [
        (vec!["-f", "/nowhere.yaml"], "", "/nowhere.yaml"),
        (vec!["-f", "-"], "", "no objects"),
        (vec!["-f", "-"], "a: [", "not YAML"),
        (vec!["-f", "-"], "just words", "not a Kubernetes object"),
        (vec!["-f", "-"], "kind: ConfigMap", "no workload"),
        (vec!["-f", CASE, "--prometheus", "/nowhere.yaml"], "", "/nowhere.yaml"),
        (vec!["-f", CASE, "--prometheus", "-"], "{kind: Prometheus, spec: {}}", "metadata"),
        (vec!["-f", CASE, "--context", "x"], "", "--cluster"),
        (vec!["-f", CASE, "-o", "xml"], "", "xml"),
        (vec![], "", "--filename"),
    ] {
        let output = preview(&arguments, input);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}
