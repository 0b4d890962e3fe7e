//! `gwmon inject` writes what `gwmon preview` shows, into the text as it is; `gwmon uninject` takes it out to the byte.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What the command prints, and its exit code.
fn gwmon(arguments: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gwmon"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    (output.status.code().unwrap(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn inject(text: &str) -> (i32, String, String) {
    let (code, out, said) = gwmon(&["inject", "-f", "-", "--all"], text.as_bytes());
    (code, String::from_utf8(out).unwrap(), said)
}

fn uninject(text: &str) -> String {
    let (code, out, said) = gwmon(&["uninject", "-f", "-"], text.as_bytes());
    assert_eq!(code, 0, "{said}");
    String::from_utf8(out).unwrap()
}

/// The objects of a text, by gwmon's own reader, which is kubectl's.
fn objects(text: &str) -> Vec<Value> {
    let documents = gwmon::manifest::documents(text.as_bytes(), &[]);
    documents.flat_map(|document| document.unwrap().value.map(gwmon::manifest::objects).unwrap_or_default()).collect()
}

/// The workloads as preview shows them.
fn previewed(text: &str) -> Vec<Value> {
    let (_, out, _) = gwmon(&["preview", "-f", "-", "--inject", "-o", "json"], text.as_bytes());
    let list: Value = serde_json::from_slice(&out).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let is_made = |item: &Value| ["Service", "ServiceMonitor"].contains(&item["kind"].as_str().unwrap_or_default());
    items.into_iter().filter(|item| !is_made(item)).collect()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

#[test]
fn every_case_is_injected_as_preview_shows_it_and_restored_to_the_byte() {
    let (mut injected, mut refused) = (0, vec![]);
    for file in cases() {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let (_, written, said) = inject(&text);
        assert_eq!(uninject(&written), text, "{}", file.display());
        if written == text {
            continue;
        }
        let (written, expected) = (objects(&written), previewed(&text));
        for workload in &expected {
            if !written.contains(workload) {
                assert!(said.contains("laid out") || said.contains("JSON"), "{}: {workload:#}\n{said}", file.display());
                refused.push(file.clone());
            }
        }
        injected += expected.len();
    }
    assert!(injected >= 45, "only {injected} workloads");
    assert!(refused.is_empty(), "{refused:?}");
}

const EDGE: &str = "\
# The gateway.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: edge   # its name
  annotations: {gwmon.io/inject: \"true\"}
spec:
  selector: {matchLabels: {app: edge}}
  template:
    metadata: {labels: {app: edge}}
    spec:
      containers:
      - name: envoy
        image: envoyproxy/envoy:v1.34.0
        args: [-c, /etc/envoy/envoy.yaml]   # as always
";

#[test]
fn comments_order_line_ends_and_other_documents_stay() {
    let web = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n# the end\n";
    for text in [
        EDGE.to_owned(),
        EDGE.trim_end().to_owned(),
        EDGE.replace('\n', "\r\n"),
        format!("{web}---\n{EDGE}---\n{web}"),
        format!("---\n{EDGE}...\n"),
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}",
            EDGE.trim_start_matches("# The gateway.\n").trim_end().replace('\n', "\n  ")
        ),
        EDGE.replace("      containers:\n      - name: envoy\n", "      containers:\n        - name: envoy\n")
            .replace("\n        image:", "\n          image:")
            .replace("\n        args:", "\n          args:"),
        EDGE.replace(
            "args: [-c, /etc/envoy/envoy.yaml]   # as always\n",
            "args:\n        - -c\n        - |\n          a\n\n        # last\n",
        ),
        EDGE.replace("metadata: {labels: {app: edge}}", "metadata:\n      labels: &labels {app: edge}"),
    ] {
        let (code, written, said) = inject(&text);
        assert_eq!(code, 0, "{said}\n{text}");
        assert!(written.contains("gwmon-statsd-exporter"), "{text}");
        assert_eq!(uninject(&written), text);
        let workload = |objects: Vec<Value>| objects.into_iter().find(|object| object["kind"] == "Deployment");
        assert_eq!(workload(objects(&written)), workload(previewed(&text)), "{written}");
        for comment in ["# its name", "# as always"] {
            assert_eq!(written.contains(comment), text.contains(comment), "{written}");
        }
        // A second time nothing is added.
        assert_eq!(inject(&written).1, written);
    }
}

/// What gwmon's controller would make follows, where it is told which Prometheus there is.
#[test]
fn the_service_and_the_service_monitor_follow_and_go_again() {
    let prometheus = "tests/cases/prometheus.yaml";
    for text in [EDGE.to_owned(), EDGE.trim_end().to_owned(), EDGE.replace('\n', "\r\n")] {
        let (code, out, said) = gwmon(&["inject", "-f", "-", "--prometheus", prometheus], text.as_bytes());
        assert!(code == 1 && out == text.as_bytes() && said.contains("it names no namespace"), "{code} {said}");
        let inject = ["inject", "-f", "-", "--prometheus", prometheus, "-n", "edge"];
        let (code, out, said) = gwmon(&inject, text.as_bytes());
        let written = String::from_utf8(out).unwrap();
        assert_eq!(code, 0, "{said}");
        assert_eq!(uninject(&written), text);
        let (_, out, _) =
            gwmon(&["preview", "-f", "-", "-o", "json", "-n", "edge", "--prometheus", prometheus], text.as_bytes());
        let shown: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(&objects(&written), shown["items"].as_array().unwrap(), "{written}");
        assert!(
            written.contains("kind: ServiceMonitor") && written.contains("kind: Service\n".trim_end()),
            "{written}"
        );
        let (_, again, _) = gwmon(&inject, written.as_bytes());
        assert_eq!(String::from_utf8(again).unwrap(), written);
    }
}

#[test]
fn what_cannot_be_injected_is_said_and_stays() {
    for (text, words) in [
        (EDGE.replace("gwmon.io/inject: \"true\"", "gwmon.io/inject: \"maybe\""), "InvalidAnnotation"),
        ("{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"edge\"},\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"envoy\",\"image\":\"envoyproxy/envoy:v1.34.0\"}]}}}}\n".to_owned(), "JSON"),
        ("a: [\n".to_owned(), "line 1"),
    ] {
        let (code, written, said) = inject(&text);
        assert!(code == 1 && said.contains(words), "{code} {said}");
        assert_eq!(written, text);
    }
    let (_, written, _) = inject(EDGE);
    let unmarked: String = written.split_inclusive('\n').filter(|line| !line.contains("# gwmon:")).collect();
    let (code, _, said) = gwmon(&["uninject", "-f", "-"], unmarked.as_bytes());
    assert!(code == 1 && said.contains("the comments by which gwmon finds"), "{said}");
    let (code, _, said) = gwmon(&["uninject", "-f", "-"], b"# gwmon: begin\n");
    assert!(code == 1 && said.contains("without its"), "{said}");
}
