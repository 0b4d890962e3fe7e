//! `tests/cases/*.yaml` through the real binary: what `gwmon preview -o yaml` prints for each stands beside it, in
//! `*.out`. `GWMON_BLESS=1 cargo test --test golden` writes them anew; read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use similar::TextDiff;

/// The output with one line for the many rules of a mapping for plain statsd.
fn without_rules(text: &str) -> String {
    let is_rule = |line: &str| line.trim_start().starts_with("- {match: '^envoy");
    let lines: Vec<_> = text.lines().collect();
    let runs = lines.chunk_by(|a, b| is_rule(a) && is_rule(b));
    let shown = runs.map(|run| match run {
        [first, _, ..] => format!("{first}\n# and {} rules more\n", run.len() - 1),
        _ => run.concat() + "\n",
    });
    shown.collect()
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn main() -> ExitCode {
    let mut names: Vec<_> = fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|e| e == "yaml") && path.file_stem().unwrap() != "prometheus");
    names.sort();
    assert!(names.len() >= 5, "the cases are gone");
    let trial = |case: PathBuf| {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        Trial::test(name, move || previews_as_it_did(&case).map_err(Failed::from))
    };
    let mut trials: Vec<_> = names.into_iter().map(trial).collect();
    // Blessed files are read when all are written.
    let is_blessing = std::env::var_os("GWMON_BLESS").is_some();
    if !is_blessing {
        trials.push(Trial::test("every_injected_pod_is_believed", || {
            every_injected_pod_is_believed();
            Ok(())
        }));
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    if is_blessing {
        every_injected_pod_is_believed();
    }
    conclusion.exit_code()
}

/// Compares with the output beside the case; what differs is shown line by line.
fn previews_as_it_did(case: &Path) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_gwmon"))
        .args(["preview", "-o", "yaml", "-f"])
        .arg(case)
        .arg("--prometheus")
        .arg(cases().join("prometheus.yaml"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let actual = format!(
        "# exit code {}\n# {}\n{}",
        output.status.code().unwrap(),
        text(&output.stderr).trim_end().replace('\n', "\n# "),
        without_rules(&text(&output.stdout))
    );
    let golden = case.with_extension("out");
    if std::env::var_os("GWMON_BLESS").is_some() {
        fs::write(&golden, &actual).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    if actual == expected {
        return Ok(());
    }
    let diff = TextDiff::from_lines(&expected, &actual);
    Err(diff.unified_diff().header(&golden.to_string_lossy(), "now").to_string())
}

/// The controller believes a pod only what gwmon would have done to it: what it did to each of these.
fn every_injected_pod_is_believed() {
    let mut confirmed = 0;
    for entry in fs::read_dir(cases()).unwrap() {
        let case = entry.unwrap().path();
        if case.extension().is_none_or(|extension| extension != "out") {
            continue;
        }
        let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&case).unwrap()).unwrap_or_default();
        for object in objects {
            let pod = if object["kind"] == "Pod" { &object } else { &object["spec"]["template"] };
            if pod["metadata"]["labels"]["gwmon.io/monitored-by"].is_string() {
                assert_eq!(gwmon::injection::confirm(&pod.to_string()), Ok(()), "{}", case.display());
                confirmed += 1;
            }
        }
    }
    assert!(confirmed >= 40, "only {confirmed} injected pods");
}
