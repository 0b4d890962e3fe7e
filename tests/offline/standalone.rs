//! `gwmon serve --standalone` over real TLS: trust, readiness, metrics, a graceful end, and what a user gets wrong.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Gwmon, Https, pod_review};
use gwmon_cluster::local;
use serde_json::Value;

#[tokio::test]
async fn it_answers_whoever_trusts_its_authority() {
    let gwmon = Gwmon::standalone();
    for name in ["localhost", "127.0.0.1"] {
        let mut client = gwmon.connect(name).await.unwrap();
        let (status, body) = client.post("/mutate/pods", pod_review().to_string().as_bytes()).await.unwrap();
        let reply: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &reply["response"]["patchType"]), (200, &Value::from("JSONPatch")));
    }
    assert!(gwmon.connect("example.com").await.is_err(), "the certificate is for localhost only");
    let other = Gwmon::standalone();
    let foreign = std::fs::read(other.authority()).unwrap();
    assert!(Https::connect(gwmon.webhook, "localhost", &foreign).await.is_err(), "each start has its own authority");

    let metrics = local::get(gwmon.admin, "/metrics").unwrap();
    assert!(metrics.contains("application/openmetrics-text"));
    assert!((gwmon.metric(r#"gwmon_reviews_total{route="pods",outcome="patched""#) - 2.).abs() < 0.1, "{metrics}");
    for known in [
        "gwmon_review_duration_seconds_count 2",
        "gwmon_certificate_expiry_timestamp_seconds",
        "gwmon_build_info{version=",
    ] {
        assert!(metrics.contains(known), "{metrics}");
    }
    assert!(local::get(gwmon.admin, "/livez").unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn sigterm_ends_it_gracefully_with_a_connection_open() {
    let mut gwmon = Gwmon::standalone();
    let mut client = gwmon.connect("localhost").await.unwrap();
    client.post("/mutate/pods", b"{}").await.unwrap();
    let started = Instant::now();
    gwmon.signal("TERM");
    assert_eq!(gwmon.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(9), "an idle connection is closed, not waited for");
    assert!(client.post("/mutate/pods", b"{}").await.is_err());
}

#[test]
fn log_lines_are_json_where_asked() {
    let gwmon = Gwmon::start(|command, _| command.args(["--standalone", "--log-format", "json"]));
    gwmon.wait_ready();
    let log = gwmon.log();
    assert!(log.lines().count() >= 1);
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).unwrap()["timestamp"].is_string(), "{line}");
    }
}

/// Exit code and standard error of a `gwmon serve` that cannot start.
fn fails(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gwmon"))
        .arg("serve")
        .args(arguments)
        .env_remove("KUBECONFIG")
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_cannot_be_started_says_which_flag() {
    let gwmon = Gwmon::standalone();
    let taken = format!("127.0.0.1:{}", gwmon.webhook);
    let [free, admin] = local::free_ports::<2>().unwrap().map(|port| format!("127.0.0.1:{port}"));
    for (arguments, said) in [
        (vec!["--standalone", "--bind", &taken], "(--bind)"),
        (vec!["--standalone", "--bind", &free, "--admin-bind", &taken], "(--admin-bind)"),
        (
            vec!["--standalone", "--bind", &free, "--admin-bind", &admin, "--ca-out", "/nowhere/ca.crt"],
            "--ca-out /nowhere/ca.crt",
        ),
        (vec!["--standalone", "--bind", "localhost"], "--bind"),
        (vec!["--ca-out", "x"], "--standalone"),
        (vec!["--standalone", "--log", "gwmon=loud"], "--log"),
        (vec!["--standalone", "--exporter-image", "two words"], "--exporter-image"),
    ] {
        let (code, stderr) = fails(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_documented_commands_work_as_they_stand() {
    let gwmon = Gwmon::standalone();
    let commands = gwmon_cluster::scenario::commands("docs/concepts.md", "standalone").unwrap();
    // A test chooses its ports, and has the program built.
    assert_eq!(commands[0], "cargo run --release -- serve --standalone --ca-out ca.crt &");
    let output = |command: &String| {
        let command = command
            .replace("ca.crt", &gwmon.authority().display().to_string())
            .replace(":8443", &format!(":{}", gwmon.webhook))
            .replace(":8080", &format!(":{}", gwmon.admin));
        let output = Command::new("bash").args(["-c", &format!("{command} --fail")]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(output(&commands[1]).contains("\"patchType\":\"JSONPatch\""));
    assert!(output(&commands[2]).contains("gwmon_reviews_total"));
}
