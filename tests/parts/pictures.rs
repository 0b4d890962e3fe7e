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

/// Runs one of the programs in `tests/pictures`; returns whether it succeeded, and what it said.
fn try_run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).current_dir("tests/pictures").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install Node 20 or newer"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn run(program: &str, arguments: &[&str]) -> String {
    let (has_succeeded, said) = try_run(program, arguments);
    assert!(has_succeeded, "{program} {arguments:?}: {said}");
    said
}

/// Grafana's published TypeScript types, which name the values of enums and the options of panels.
#[test]
#[ignore = "needs Node"]
fn pictures_have_panels_that_grafana_knows() {
    run("npm", &["ci", "--no-audit", "--no-fund"]);
    run("node", &["check.mjs", "../../deploy/dashboards"]);

    let folder = TempDir::new().unwrap();
    let shipped = std::fs::read_to_string("deploy/dashboards/gwmon-kong.json").unwrap();
    for (right, wrong) in [("palette-classic", "palette-clasic"), ("lineWidth", "lineWidht"), ("\"stat\"", "\"state\"")]
    {
        let file = if shipped.contains(right) {
            shipped.clone()
        } else {
            std::fs::read_to_string("deploy/dashboards/gwmon-gwmon.json").unwrap()
        };
        std::fs::write(folder.path().join("wrong.json"), file.replace(right, wrong)).unwrap();
        let (is_taken, said) = try_run("node", &["check.mjs", folder.path().to_str().unwrap()]);
        assert!(!is_taken, "{wrong}: {said}");
    }
}

#[test]
#[ignore = "needs Node and Chromium"]
fn pictures_are_drawn_by_grafanas_components() {
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
    let mut live = Command::new("node")
        .args(["live.mjs", &address])
        .current_dir("tests/pictures")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut served = String::new();
    BufReader::new(live.stdout.take().unwrap()).read_line(&mut served).unwrap();
    println!("{}", run("node", &["look.mjs", served.trim()]));
    live.kill().unwrap();
    live.wait().unwrap();

    let drawn: Vec<Value> =
        said.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(drawn.len(), 2 * DRAWN.len(), "{said}");
    for picture in drawn {
        let empty: Vec<_> = picture["empty"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(picture["errors"].as_array().unwrap().is_empty(), "{picture}");
        assert!(picture["panels"].as_u64().unwrap() >= 10, "{picture}");
        assert!(empty.iter().all(|title| EMPTY.contains(title)), "{picture}");
    }
}
