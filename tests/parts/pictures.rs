//! Pictures of the dashboards, drawn by Grafana's published components (`tests/pictures`) with data of a real Envoy. Needs Node 20
//! and Chromium, so it is run when asked for: `cargo test --test parts pictures -- --ignored`, and with `GWMON_BLESS=1` it writes
//! those in docs/pictures anew.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::dashboards::scraped;

/// The dashboards of which all that is asked for is there.
const DRAWN: [&str; 3] =
    ["gateways?var-workload=statsd-gwmon", "gateway?var-namespace=edge&var-workload=statsd-gwmon", "gwmon"];
/// Panels that are empty here, for the reasons of `dashboards/absent.yaml`.
const EMPTY: [&str; 1] = ["Handshakes that failed"];

#[test]
#[ignore = "needs Node and Chromium"]
fn grafanas_components_draw_the_dashboards() {
    let tool = std::path::absolute("tests/pictures").unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(&tool).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install Node 20 or newer"));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    run("npm", &["ci", "--no-audit", "--no-fund"]);
    run("node", &["build.mjs"]);

    let folder = TempDir::new().unwrap();
    let (_rich, _gwmon, prometheus) = scraped(&folder, Duration::from_mins(4));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let is_blessing = std::env::var_os("GWMON_BLESS").is_some();
    let pictures = if is_blessing { PathBuf::from("docs/pictures") } else { folder.path().join("pictures") };
    std::fs::create_dir_all(&pictures).unwrap();
    let pictures = std::path::absolute(pictures).unwrap();
    let (address, from, to) =
        (format!("http://127.0.0.1:{}", prometheus.port), (now - 210).to_string(), now.to_string());
    let place = pictures.to_str().unwrap();
    let said = run("node", &[&["shoot.mjs", &address, &from, &to, place][..], &DRAWN].concat());
    // As `cargo demo -- --keep --dashboards` serves them.
    let mut live =
        Command::new("node").args(["live.mjs", &address]).current_dir(&tool).stdout(Stdio::piped()).spawn().unwrap();
    let mut served = String::new();
    BufReader::new(live.stdout.take().unwrap()).read_line(&mut served).unwrap();
    println!("{}", run("node", &["look.mjs", served.trim()]));
    live.kill().unwrap();
    live.wait().unwrap();

    let drawn: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(drawn.len(), 2 * DRAWN.len(), "{said}");
    for picture in drawn {
        let empty: Vec<_> = picture["empty"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(picture["errors"].as_array().unwrap().is_empty(), "{picture}");
        assert!(picture["panels"].as_u64().unwrap() >= 10, "{picture}");
        assert!(empty.iter().all(|title| EMPTY.contains(title)), "{picture}");
    }
}
