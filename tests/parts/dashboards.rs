//! Every query of every panel and rule, by a real Prometheus with the series of a real Envoy: by statsd and gwmon's exporter, and
//! scraped at Envoy's own endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gwmon::dashboards::{alerts::alerts, rules};
use gwmon_cluster::local::{free_ports, get};
use gwmon_cluster::{Prometheus as Api, escape, program, wait_for};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::parity::{Rich, start, traffic};
use crate::support::boards::queries;
use crate::support::{Gwmon, pod_review};

/// The job that the exporter's series have, and the one of Envoy's own.
const WAYS: [&str; 2] = ["statsd-gwmon", "scrape-gwmon"];

/// A query that has no data here.
#[derive(Deserialize)]
struct Absent {
    /// A regular expression over the dashboard and its panel, or over the alert.
    place: String,
    /// A regular expression over the query; any where absent.
    #[serde(default)]
    query: String,
    /// The one job that lacks it; both where absent.
    job: Option<String>,
    #[serde(rename = "because")]
    _because: String,
}

/// Every rule, as Prometheus reads them from a file.
fn groups() -> Value {
    let options = rules::Options { latency: Some(5), runbooks: None };
    rules::prometheus_rule("gwmon", None, &[].into(), &options)["spec"]["groups"].clone()
}

/// A Prometheus; it ends with the value.
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) port: u16,
}

impl Prometheus {
    /// Scrapes Envoy in both ways, and gwmon, every second.
    fn start(folder: &Path, targets: [(&str, u16, &str); 3]) -> Self {
        let [port] = free_ports().unwrap();
        let jobs = targets.map(|(job, port, path)| {
            // As the operator's configuration gives them to the target of a Service.
            let labels = json!({"cluster": "one", "namespace": "edge", "pod": format!("{job}-0"), "service": job, "endpoint": "gwmon-metrics", "container": "x"});
            let target = json!([{"targets": [format!("127.0.0.1:{port}")], "labels": labels}]);
            json!({"job_name": job, "metrics_path": path, "static_configs": target})
        });
        let mut groups = groups();
        for group in groups.as_array_mut().unwrap() {
            // As often as everything else here.
            group["interval"] = json!("1s");
        }
        let rules = json!({"groups": groups});
        fs::write(folder.join("rules.yaml"), rules.to_string()).unwrap();
        let interval = json!({"scrape_interval": "1s", "evaluation_interval": "1s"});
        let config = json!({"global": interval, "rule_files": ["rules.yaml"], "scrape_configs": jobs});
        let file = folder.join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let log = fs::File::create(folder.join("prometheus.log")).unwrap();
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Self { child, port };
        wait_for("Prometheus", Duration::from_secs(20), || {
            Ok(get(port, "/-/ready")?.starts_with("HTTP/1.1 200").then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", fs::read_to_string(folder.join("prometheus.log")).unwrap()));
        prometheus
    }

    /// The data of an answer of its API.
    fn ask(&self, path: &str, query: &str) -> Value {
        let path = format!("{path}?query={}", escape(query));
        Api::Local(self.port).ask(&path).unwrap_or_else(|error| panic!("{query}: {error:#}"))
    }

    /// The series that a query gives now.
    fn series(&self, query: &str) -> Vec<Value> {
        self.ask("query", query)["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The selectors of a query: name and matchers, as Prometheus' own parser reads them.
fn selectors(ast: &Value, found: &mut Vec<Value>) {
    match ast {
        Value::Object(node) => {
            if node.get("type").is_some_and(|kind| kind == "vectorSelector" || kind == "matrixSelector") {
                found.push(ast.clone());
            }
            node.values().for_each(|value| selectors(value, found));
        }
        Value::Array(nodes) => nodes.iter().for_each(|value| selectors(value, found)),
        _ => {}
    }
}

fn selector_text(selector: &Value) -> String {
    let matchers = selector["matchers"].as_array().unwrap().iter().filter(|matcher| matcher["name"] != "__name__").map(
        |matcher| {
            let text = |field: &str| matcher[field].as_str().unwrap().to_owned();
            format!("{}{}{:?}", text("name"), text("type"), text("value"))
        },
    );
    format!("{}{{{}}}", selector["name"].as_str().unwrap(), matchers.collect::<Vec<_>>().join(","))
}

/// Envoy with all its traffic, gwmon with some reviews, and a Prometheus that has seen them for a while.
pub(crate) fn scraped(folder: &TempDir, time: Duration) -> (Rich, Gwmon, Prometheus) {
    gwmon_cluster::build().unwrap();
    let rich = start("envoy", "1.40", "dog_statsd", folder.path());
    let gwmon = Gwmon::standalone();
    let exporter = (WAYS[0], rich.metrics, "/metrics");
    let envoy = (WAYS[1], rich.ports["PORT_ADMIN"], "/stats/prometheus");
    let prometheus = Prometheus::start(folder.path(), [exporter, envoy, ("gwmon", gwmon.admin, "/metrics")]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut review = pod_review();
    let started = Instant::now();
    while started.elapsed() < time {
        traffic::drive(&rich.ports);
        runtime.block_on(async {
            let mut connection = gwmon.connect("localhost").await.unwrap();
            for inject in ["true", "maybe"] {
                review["request"]["object"]["metadata"]["annotations"]["gwmon.io/inject"] = json!(inject);
                let (code, _) = connection.post("/mutate/pods", review.to_string().as_bytes()).await.unwrap();
                assert_eq!(code, 200);
            }
        });
    }
    (rich, gwmon, prometheus)
}

#[test]
fn every_query_has_data_in_both_ways() {
    let folder = TempDir::new().unwrap();
    let (_rich, _gwmon, prometheus) = scraped(&folder, Duration::from_secs(20));
    let absent: Vec<Absent> = serde_saphyr::from_str(include_str!("dashboards/absent.yaml")).unwrap();
    let regex = |text: &str| Regex::new(text).unwrap();
    let absent: Vec<_> =
        absent.iter().map(|absent| (regex(&absent.place), regex(&absent.query), absent.job.as_deref())).collect();
    let is_absent = |place: &str, query: &str, job: &str| {
        absent.iter().any(|(places, queries, only)| {
            places.is_match(place) && queries.is_match(query) && only.is_none_or(|only| only == job)
        })
    };
    let (mut problems, mut answered) = (Vec::new(), 0);
    let mut check = |place: &str, query: &str, job: &str, series: &[Value]| {
        let has_data = series.iter().any(|series| series["value"][1] != "NaN");
        match (has_data, is_absent(place, query, job)) {
            (true, false) => answered += 1,
            (false, true) => {}
            (true, true) => {
                problems.push(format!("{place}: {job}: is on the list of absent ones, and has data: {query}"));
            }
            (false, false) => problems.push(format!("{place}: {job}: no data: {query}")),
        }
    };
    for query in queries() {
        let place = format!("{}: {}", query.dashboard, query.panel);
        for job in if query.dashboard == "gwmon" { &["gwmon"][..] } else { &WAYS } {
            let series = prometheus.series(&query.filled("edge", job, "15s"));
            check(&place, &query.expr, job, &series);
            // A label of the legend that no series has would be shown as it is written.
            for (label, _) in query.legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")) {
                let is_there = series.iter().any(|series| series["metric"][label].is_string());
                assert!(series.is_empty() || is_there, "{place}: no label {label}");
            }
        }
    }
    // What a rule asks for is there; whether it fires is what promtool's tests tell.
    for alert in alerts(Some(5)) {
        let ast = prometheus.ask("parse_query", &alert.expr);
        let mut found = Vec::new();
        selectors(&ast, &mut found);
        assert!(!found.is_empty(), "{}", alert.name);
        for selector in found {
            let text = selector_text(&selector);
            let name = selector["name"].as_str().unwrap();
            for job in if name.starts_with("gwmon_") { &["gwmon"][..] } else { &WAYS } {
                let narrowed = if name.starts_with("gwmon_") {
                    text.clone()
                } else {
                    text.replace('}', &format!(",job=\"{job}\"}}"))
                };
                check(alert.name, &text, job, &prometheus.series(&narrowed.replace("{,", "{")));
            }
        }
    }
    let rules = prometheus.ask("rules", "");
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    for (name, _) in rules::recorded() {
        for job in WAYS {
            assert!(!prometheus.series(&format!("{name}{{job=\"{job}\"}}")).is_empty(), "{name} of {job}");
        }
    }
    println!("{answered} queries answered");
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n\n"));
}

/// Grafana's published types: fields that it does not know, or misses.
#[test]
fn grafanas_types_take_every_dashboard() {
    let check = |files: &[PathBuf]| {
        let mut check = Command::new("go");
        check.args(["run", "."]).args(files).current_dir(gwmon_cluster::folder().join("go/grafana"));
        let output = check.env("GOWORK", "off").env("CGO_ENABLED", "0").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let folder = std::path::absolute("deploy/dashboards").unwrap();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    assert!(files.len() >= 8);
    let (is_taken, said) = check(&files);
    assert!(is_taken, "{said}");

    let broken = TempDir::new().unwrap();
    let file = broken.path().join("broken.json");
    fs::write(&file, fs::read_to_string(&files[0]).unwrap().replace("\"expr\"", "\"exprs\"")).unwrap();
    let (is_taken, said) = check(&[file]);
    assert!(!is_taken && said.contains("exprs"), "{said}");
}

/// The kustomize component makes the same objects as the commands.
#[test]
fn the_component_makes_what_gwmon_prints() {
    let built = Command::new(program("kubectl")).args(["kustomize", "tests/parts/dashboards"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let sorted = |text: &str| {
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        objects.sort_by_key(|object| object["metadata"]["name"].to_string());
        objects
    };
    let print = |command: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_gwmon")).arg(command).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = format!("{}---\n{}", print("dashboards"), print("rules"));
    assert_eq!(sorted(&String::from_utf8(built.stdout).unwrap()), sorted(&printed));
}

/// One state of the world, in `dashboards/alerts.yaml`.
#[derive(Deserialize)]
struct World {
    /// What Prometheus has scraped, in promtool's notation, a value each minute.
    series: BTreeMap<String, String>,
    /// When; and what then fires: nothing else does.
    at: String,
    fires: Vec<Fires>,
}

#[derive(Deserialize)]
struct Fires {
    alert: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    summary: String,
}

/// `promtool check rules`, and `promtool test rules` with series as Envoy and the exporter name them: where everything is wrong each
/// alert fires, where all is well none does.
#[test]
fn promtool_passes_every_rule() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("rules.yaml"), json!({"groups": groups()}).to_string()).unwrap();
    let worlds: Vec<World> = serde_saphyr::from_str(include_str!("dashboards/alerts.yaml")).unwrap();
    let alerts = alerts(Some(5));
    let mut fired = BTreeSet::new();
    let tests = worlds.into_iter().map(|World { series, at, fires }| {
        let series: Vec<_> =
            series.iter().map(|(series, values)| json!({"series": series, "values": values})).collect();
        let expected = alerts.iter().map(|alert| {
            let fires = fires.iter().filter(|fires| fires.alert == alert.name).map(|fires| {
                fired.insert(alert.name);
                let mut labels = fires.labels.clone();
                labels.insert("severity".to_owned(), alert.severity.as_str().to_owned());
                let runbook = format!("docs/runbooks/{}.md", alert.name);
                json!({"exp_labels": labels, "exp_annotations": {"summary": fires.summary, "runbook": runbook}})
            });
            json!({"eval_time": at, "alertname": alert.name, "exp_alerts": fires.collect::<Vec<_>>()})
        });
        json!({"interval": "1m", "input_series": series, "alert_rule_test": expected.collect::<Vec<_>>()})
    });
    let tests = json!({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests.collect::<Vec<_>>()});
    fs::write(folder.path().join("alerts.yaml"), tests.to_string()).unwrap();
    assert_eq!(fired.len(), alerts.len(), "each alert fires in one of them: {fired:?}");
    let promtool = |arguments: &[&str]| {
        let output = Command::new(program("promtool")).args(arguments).current_dir(folder.path()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    };
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
    promtool(&["test", "rules", "alerts.yaml"]);
}
