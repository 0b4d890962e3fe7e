//! The dashboards and rules that are shipped are those that gwmon writes, and keep to what the field agrees on (the rules of
//! Grafana's dashboard-linter). `GWMON_BLESS=1 cargo test --test offline dashboards` writes them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use gwmon::dashboards::{self, alerts::alerts, rules};
use regex::Regex;
use serde_json::Value;

fn gwmon(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gwmon")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn names(folder: &str, ending: &str) -> BTreeSet<String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter(|name| name.ends_with(ending)).collect()
}

#[test]
fn what_is_shipped_is_what_gwmon_writes() {
    let folder = "deploy/dashboards";
    let written = tempfile::tempdir().unwrap();
    let (code, ..) = gwmon(&["dashboards", "-o", "json", "--dir", written.path().to_str().unwrap()]);
    assert_eq!(code, 0);
    fs::write(written.path().join("rules.yaml"), gwmon(&["rules"]).1).unwrap();
    if std::env::var_os("GWMON_BLESS").is_some() {
        for name in names(folder, ".json") {
            fs::remove_file(Path::new(folder).join(name)).unwrap();
        }
        for entry in fs::read_dir(written.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), Path::new(folder).join(entry.file_name())).unwrap();
        }
    }
    for ending in [".json", "rules.yaml"] {
        let shipped = names(folder, ending);
        assert_eq!(
            shipped,
            names(written.path().to_str().unwrap(), ending),
            "GWMON_BLESS=1 cargo test --test offline dashboards"
        );
        for name in shipped {
            let read = |folder: &Path| fs::read_to_string(folder.join(&name)).unwrap();
            let is_same = read(Path::new(folder)) == read(written.path());
            assert!(is_same, "{name} is not up to date: GWMON_BLESS=1 cargo test --test offline dashboards");
        }
    }
}

#[test]
fn arguments_that_are_wrong_are_told() {
    for (arguments, words) in [
        (&["dashboards", "edge"][..], "there is no dashboard edge; there are gateways, gateway, kong"),
        (&["dashboards", "-o", "json"], "several dashboards are no one JSON document"),
        (&["dashboards", "--label", "a=b,c=d"], "it must be one label"),
        (&["dashboards", "--dir", "/dev/null/x"], "cannot make the folder /dev/null/x"),
        (&["dashboards", "kong", "-o", "json", "-n", "monitoring"], "are of ConfigMaps"),
        (&["dashboards", "-o", "names", "--dir", "/tmp/x"], "names are no files"),
        (&["dashboards", "-n", "Bad NS"], "invalid value 'Bad NS'"),
        (&["rules", "--name", "Bad name"], "invalid value 'Bad name'"),
        (&["rules", "--runbooks", ""], "it must begin with https://"),
        (&["rules", "--latency", "7"], "it must be one of 1, 5, 10"),
        (&["rules", "--prometheus", "/nowhere"], "/nowhere"),
        (&["rules", "--context", "x"], "the flags of a cluster take effect with --cluster only"),
    ] {
        let (code, out, said) = gwmon(arguments);
        assert!(code == 2 && out.is_empty() && said.contains(words), "{arguments:?}: {code} {said}");
    }
    let (_, list, _) = gwmon(&["dashboards", "-o", "names"]);
    assert_eq!(list.lines().count(), dashboards::all().len());
    let (_, one, _) = gwmon(&["dashboards", "kong", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap()["uid"], "gwmon-kong");
    let (_, map, _) = gwmon(&["dashboards", "kong", "-n", "monitoring", "--label", "board=yes", "--folder", "Edge"]);
    let map: Value = serde_saphyr::from_str(&map).unwrap();
    assert_eq!(map["metadata"]["labels"]["board"], "yes");
    assert_eq!(
        (&map["metadata"]["namespace"], &map["metadata"]["annotations"]["grafana_folder"]),
        (&"monitoring".into(), &"Edge".into())
    );
    assert_eq!(map["data"]["gwmon-kong.json"], one);
}

#[test]
fn rules_get_the_labels_that_the_prometheus_asks_for_or_none_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.yaml");
    let rules = |spec: &str| {
        let prometheus = format!(
            "apiVersion: monitoring.coreos.com/v1\nkind: Prometheus\nmetadata: {{name: kps, namespace: monitoring}}\nspec: {spec}\n"
        );
        fs::write(&file, prometheus).unwrap();
        gwmon(&["rules", "--labels", "team=edge", "--latency", "5", "--prometheus", file.to_str().unwrap()])
    };
    let (code, out, said) = rules("{ruleSelector: {matchLabels: {release: kps}}, ruleNamespaceSelector: {}}");
    let rule: Value = serde_saphyr::from_str(&out).unwrap();
    let labels = &rule["metadata"]["labels"];
    assert!(code == 0 && labels["release"] == "kps" && labels["team"] == "edge", "{labels} {said}");
    assert_eq!(rule["metadata"]["namespace"], "gwmon");
    assert!(said.contains("Prometheus monitoring/kps loads it by spec.ruleSelector"), "{said}");
    assert!(
        out.contains("GatewayLatencyAboveThreshold") && !gwmon(&["rules"]).1.contains("GatewayLatencyAboveThreshold")
    );
    for (spec, words) in
        [("{}", "it has no spec.ruleSelector"), ("{ruleSelector: {matchLabels: {team: shop}}}", "spec.ruleSelector")]
    {
        let (code, out, said) = rules(spec);
        assert!(code == 1 && out.is_empty() && said.contains(words), "{spec}: {code} {said}");
    }
}

#[test]
fn every_alert_has_its_runbook() {
    let alerts = alerts(Some(5));
    let expected: BTreeSet<_> = alerts.iter().map(|alert| format!("{}.md", alert.name)).collect();
    assert_eq!(names(rules::RUNBOOKS, ".md"), expected);
    for alert in alerts {
        let text = fs::read_to_string(format!("{}/{}.md", rules::RUNBOOKS, alert.name)).unwrap();
        assert!(text.starts_with(&format!("# {}\n", alert.name)), "{}", alert.name);
        for heading in ["## Meaning", "## What it costs", "## What to look at", "## What to do"] {
            assert!(text.contains(&format!("\n{heading}\n")), "{}: {heading}", alert.name);
        }
        assert!(alert.summary.ends_with('.') && alert.summary.contains(' '), "{}", alert.name);
    }
}

/// The panels that are no titles of rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn dashboards_keep_to_the_rules_of_the_field() {
    let selector = Regex::new(r"([a-z_]+)\{([^{}]*)\}").unwrap();
    let grouping = Regex::new(r"\b(by|on) \([^()]*\)").unwrap();
    let word = Regex::new(r"\b([a-z]+_[a-z_:]+|up)\b").unwrap();
    let range = Regex::new(r"\[([^\]]*)\]").unwrap();
    let mut uids = BTreeSet::new();
    for dashboard in dashboards::all() {
        let json = dashboard.to_json();
        let name = dashboard.name;
        let uid = json["uid"].as_str().unwrap().to_owned();
        assert!(uid.len() <= 40 && uids.insert(uid), "{name}");
        assert_eq!((&json["editable"], &json["tags"][0]), (&false.into(), &"gwmon".into()), "{name}");
        assert!(json["description"].as_str().unwrap().ends_with('.'), "{name}");
        let variables = json["templating"]["list"].as_array().unwrap();
        assert_eq!(
            (&variables[0]["name"], &variables[0]["type"]),
            (&"datasource".into(), &"datasource".into()),
            "{name}"
        );
        for variable in &variables[1..] {
            // Looked up again when the time range changes.
            assert_eq!(
                (&variable["refresh"], &variable["datasource"]["uid"]),
                (&2.into(), &"${datasource}".into()),
                "{name}"
            );
        }
        let mut ids = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for panel in json["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: an id twice");
            let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(place("x") + place("w") <= 24, "{name}: {}", panel["title"]);
            for (x, y) in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
                assert!(cells.insert((place("x") + x, place("y") + y)), "{name}: {} lies over another", panel["title"]);
            }
        }
        for panel in panels(&json) {
            let title = panel["title"].as_str().unwrap();
            let place = format!("{name}: {title}");
            assert!(!title.is_empty() && panel["description"].as_str().unwrap().ends_with('.'), "{place}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{place}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{place}");
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
                assert!(panel["type"] == "table" || !target["legendFormat"].as_str().unwrap().is_empty(), "{place}");
                let expr = target["expr"].as_str().unwrap();
                // Without selectors and groupings, no metric is left.
                let rest = selector.replace_all(expr, "").into_owned();
                let rest = grouping.replace_all(&rest, "").into_owned();
                let bare = word.find_iter(&rest).find(|word| word.as_str() != "histogram_quantile");
                assert!(bare.is_none(), "{place}: {bare:?} has no matchers");
                assert!(selector.is_match(expr), "{place}");
                for found in selector.captures_iter(expr) {
                    for matcher in [r#"cluster=~"$cluster""#, r#"namespace=~"$namespace""#, r#"job=~"$workload""#] {
                        assert!(found[2].contains(matcher), "{place}: {} lacks {matcher}", &found[0]);
                    }
                    assert!(name != "gateway" || found[2].contains(r#"pod=~"$pod""#), "{place}");
                }
                for found in range.captures_iter(expr) {
                    assert_eq!(&found[1], "$__rate_interval", "{place}");
                }
                assert!(!expr.contains("histogram_quantile") || expr.contains("le)"), "{place}");
            }
        }
    }
}
