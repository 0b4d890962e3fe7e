//! Manifests, read by gwmon and by kubectl's own reader: every peculiarity of YAML 1.1, one file of `cases/yaml` each.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use gwmon::manifest;
use serde_json::Value;

/// Files of which the two read something else, and why that stays so.
const DIFFERENT: &[(&str, &str)] = &[
    ("escape-apostrophe.yaml", "no YAML; kubectl's parser lets it pass"),
    ("flow-colon.yaml", "a key with a colon in its name, which nobody means; an error here"),
    ("json-surrogates.yaml", "half a character, which kubectl replaces; an error here"),
    ("refused-escape-of-slash.yaml", "YAML 1.2 and JSON have this escape"),
    ("refused-flow-question.yaml", "a URL in brackets; YAML 1.2 has it"),
    ("refused-json-junk.yaml", "words behind objects are a document, and no object"),
    ("refused-separator-text.yaml", "kubectl refuses the document before the separator as well"),
    ("refused-separator-word.yaml", "the same"),
    ("refused-separator.yaml", "the same"),
];

/// Up to the first document that cannot be read, where kubectl ends.
fn by_gwmon(file: &Path) -> Vec<Option<Value>> {
    let mut read = Vec::new();
    for document in manifest::documents(File::open(file).unwrap(), &[]) {
        let value = document.unwrap().value.ok();
        read.push(value);
        if read.last().is_some_and(Option::is_none) {
            break;
        }
    }
    read
}

fn by_kubectl(file: &Path) -> Vec<Option<Value>> {
    let output = Command::new(gwmon_cluster::program("oracle")).arg("yaml").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Lone surrogates are passed on as they stand, and no JSON.
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let documents = answer["documents"].as_array().cloned().unwrap_or_default();
    documents.into_iter().map(|document| document.get("json").cloned()).collect()
}

/// JSON has one kind of number, and so has Kubernetes: 1 and 1.0 are equal.
fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => {
            let (x, y) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            // serde_json reads the last digit of a float for speed.
            a == b || (x - y).abs() <= x.abs() * 1e-15
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => ours == theirs,
    }
}

#[test]
fn gwmon_reads_what_kubectl_reads() {
    gwmon_cluster::build().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/yaml");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 100, "{}", files.len());
    let (mut different, mut read, mut refused) = (Vec::new(), 0, 0);
    for file in &files {
        let (ours, theirs) = (by_gwmon(file), by_kubectl(file));
        read += theirs.iter().flatten().count();
        refused += usize::from(theirs.iter().any(Option::is_none));
        let is_equal = ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|(ours, theirs)| match (ours, theirs) {
                (Some(ours), Some(theirs)) => is_same(ours, theirs),
                (ours, theirs) => ours.is_none() && theirs.is_none(),
            });
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if is_equal == DIFFERENT.iter().any(|(different, _)| *different == name) {
            different.push(format!("{name}\n  gwmon:   {ours:?}\n  kubectl: {theirs:?}"));
        }
    }
    assert!(read > 1000 && refused > 30, "{read} documents, {refused} refusals");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
