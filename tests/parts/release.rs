//! How a release is made: its workflow by actionlint, its notes, its krew manifest, and an image that is the same each time.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use gwmon_cluster::{folder, write_static_image};
use serde_json::{Value, json};

fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn the_workflow_is_valid() {
    let mut lint = Command::new("go");
    lint.args(["tool", "actionlint", "-no-color"]).current_dir(folder().join("go/actionlint")).env("GOWORK", "off");
    let workflow = fs::canonicalize(".github/workflows/release.yml").unwrap();
    let output = lint.arg(&workflow).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );

    // It finds what is wrong.
    let place = tempfile::tempdir().unwrap();
    let broken = place.path().join("broken.yml");
    let text = fs::read_to_string(&workflow).unwrap();
    fs::write(&broken, text.replace("matrix.arch", "matrix.architecture")).unwrap();
    let mut lint = Command::new("go");
    lint.args(["tool", "actionlint", "-no-color"]).current_dir(folder().join("go/actionlint")).env("GOWORK", "off");
    assert!(!lint.arg(&broken).output().unwrap().status.success());
}

#[test]
fn the_notes_are_the_versions_section() {
    let notes = run(".ci/changelog", &["Unreleased"]);
    let text = String::from_utf8(notes.stdout).unwrap();
    assert!(notes.status.success() && text.contains("### Commands") && !text.contains("# Changelog"), "{text}");
    assert!(!run(".ci/changelog", &["0.0.0"]).status.success());
}

#[test]
fn krews_manifest_has_the_checksums() {
    let place = tempfile::tempdir().unwrap();
    let sums = place.path().join("checksums.txt");
    fs::write(&sums, "aa11  gwmon-linux-amd64.tar.gz\nbb22  gwmon-linux-arm64.tar.gz\n").unwrap();
    let made = run(".ci/krew", &["1.2.3", "https://example.com/v1.2.3", sums.to_str().unwrap()]);
    let manifest: Value = serde_saphyr::from_str(&String::from_utf8(made.stdout).unwrap()).unwrap();
    assert_eq!(manifest["spec"]["version"], "v1.2.3");
    assert_eq!(manifest["spec"]["platforms"][1]["sha256"], "bb22");
    assert_eq!(manifest["spec"]["platforms"][0]["uri"], "https://example.com/v1.2.3/gwmon-linux-amd64.tar.gz");
    fs::write(&sums, "aa11  gwmon-linux-amd64.tar.gz\n").unwrap();
    assert!(!run(".ci/krew", &["1.2.3", "https://example.com", sums.to_str().unwrap()]).status.success());
}

#[test]
fn an_image_of_the_same_binary_is_the_same() {
    let place = tempfile::tempdir().unwrap();
    let image = |name: &str| {
        let archive = place.path().join(name);
        write_static_image(&archive, "gwmon:0.1.0", Path::new(env!("CARGO_BIN_EXE_gwmon")), "arm64").unwrap();
        fs::read(archive).unwrap()
    };
    assert!(image("one.tar") == image("two.tar"));
    let manifest = run("tar", &["-xOf", place.path().join("one.tar").to_str().unwrap(), "manifest.json"]);
    let manifest: Value = serde_json::from_slice(&manifest.stdout).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    let config = run("tar", &["-xOf", place.path().join("one.tar").to_str().unwrap(), config]);
    let config: Value = serde_json::from_slice(&config.stdout).unwrap();
    assert_eq!((&config["architecture"], &config["config"]["User"]), (&json!("arm64"), &json!("65534")));
}
