//! The generated parts of the Markdown files agree with the code, and every link between the files leads somewhere.
//! `GWMON_BLESS=1 cargo test --test offline docs` writes the parts anew; each stands between `<!-- generated: NAME -->` and `<!-- end -->`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use gwmon::annotations::VOCABULARY;
use gwmon::cli::Cli;
use gwmon::metrics::Metrics;
use gwmon::reason::{Reason, Severity};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files in a folder and below it, without those that are hidden or built.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy();
            if !path.is_dir() {
                files.push(path);
            } else if !name.starts_with('.') && !["target", "node_modules"].contains(&&*name) {
                folders.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The project's Markdown files.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(root());
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages
}

fn generate(name: &str) -> String {
    match name {
        "annotations" => annotations(),
        "reasons" => reasons(),
        "metrics" => metrics(),
        "rbac" => rbac(),
        "chart values" => {
            let schema = fs::read_to_string(root().join("deploy/chart/values.schema.json")).unwrap();
            let mut rows = Vec::new();
            values("", &serde_json::from_str(&schema).unwrap(), &mut rows);
            table(&["value", "default", "meaning"], rows)
        }
        "configuration" => format!("```yaml\n{}```", gwmon::config::DEFAULT),
        other if let Some(command) = other.strip_prefix("flags of ") => flags(command),
        other => panic!("nothing generates {other}"),
    }
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn annotations() -> String {
    let row =
        |key: &gwmon::annotations::Key| vec![format!("`{}`", key.name), key.allowed.to_owned(), key.meaning.to_owned()];
    table(&["annotation", "value", "meaning"], VOCABULARY.iter().map(row))
}

fn reasons() -> String {
    let mut all = Reason::ALL.to_vec();
    all.sort_by_key(|reason| reason.as_str());
    let mut text = String::new();
    for reason in all {
        let severity = match reason.severity() {
            Severity::Info => "Information",
            Severity::Warning => "Warning",
            Severity::Error => "Error",
        };
        let (meaning, remedy) = (reason.meaning(), reason.remedy());
        let _ = write!(text, "### {reason}\n\n{severity}. {meaning}\n\n");
        if remedy != "Nothing." {
            let _ = write!(text, "{remedy}\n\n");
        }
    }
    text
}

fn flags(command: &str) -> String {
    let cli = Cli::command();
    // Those of the cluster are alike for all.
    let (of_cluster, command) = if command == "a cluster" { (true, "doctor") } else { (false, command) };
    let command = command.split(' ').fold(&cli, |command, name| command.find_subcommand(name).unwrap());
    let is_shown = |argument: &&clap::Arg| {
        let is_clusters = argument.get_help_heading() == Some("Cluster");
        argument.get_id() != "help" && !argument.is_positional() && is_clusters == of_cluster
    };
    let rows = command.get_arguments().filter(is_shown).map(|argument| {
        let names = argument.get_value_names().unwrap_or_default();
        let takes = argument.get_action().takes_values();
        let value = names.first().filter(|_| takes).map(|name| format!(" {name}")).unwrap_or_default();
        let short = argument.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let name = format!("{short}`--{}{value}`", argument.get_long().unwrap());
        let env = argument.get_env().map(|env| format!("`{}`", env.to_string_lossy())).unwrap_or_default();
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = defaults.join(",");
        let default = if default.is_empty() || !takes { default } else { format!("`{default}`") };
        let choices = argument.get_possible_values();
        let choices: Vec<_> =
            choices.iter().filter(|_| takes).map(|choice| format!("`{}`", choice.get_name())).collect();
        let mut help = argument.get_help().unwrap().to_string();
        if choices.len() > 1 && !choices.contains(&"`true`".to_owned()) {
            let _ = write!(help, ": {}", choices.join(", "));
        }
        vec![name, env, default, help]
    });
    table(&["flag", "environment", "default", "meaning"], rows)
}

fn metrics() -> String {
    let (metrics, registry) = Metrics::new();
    metrics.reviewed("pods", gwmon::metrics::Outcome::unchanged, Some(Reason::NotRequested), std::time::Duration::ZERO);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let type_of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        line.unwrap_or_default().to_owned()
    };
    let rows = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let rows = rows.map(|(name, help)| {
        let type_ = type_of(name);
        let suffix = match type_.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        vec![format!("`{name}{suffix}`"), type_, help.trim_end_matches('.').to_owned()]
    });
    table(&["metric", "type", "meaning"], rows)
}

fn rbac() -> String {
    let manifest = fs::read_to_string(root().join("deploy/base/rbac.yaml")).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&manifest).unwrap();
    let words = |list: &Value| {
        let words: Vec<_> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        words.join(", ")
    };
    let rules = objects.iter().flat_map(|object| {
        object["rules"].as_array().into_iter().flatten().map(move |rule| {
            let group = words(&rule["apiGroups"]);
            let names = words(&rule["resourceNames"]);
            let resources = words(&rule["resources"]);
            let resources = if names.is_empty() { resources } else { format!("{resources} named {names}") };
            let group = if group.is_empty() { "core".to_owned() } else { group };
            vec![object["kind"].as_str().unwrap().to_owned(), group, resources, words(&rule["verbs"])]
        })
    });
    table(&["granted by", "API group", "resources", "verbs"], rules)
}

/// A row for each value of a schema. One whose default is an object is one value.
fn values(path: &str, schema: &Value, rows: &mut Vec<Vec<String>>) {
    if let (Some(properties), None) = (schema["properties"].as_object(), schema.get("default")) {
        for (key, value) in properties {
            values(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, rows);
        }
        return;
    }
    let default = match &schema["default"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let default = if default.is_empty() { default } else { format!("`{default}`") };
    let choices = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let choices: Vec<_> = choices.filter(|choice| !choice.is_empty()).map(|choice| format!("`{choice}`")).collect();
    let meaning = schema["description"].as_str().unwrap_or_default();
    let meaning = if choices.is_empty() { meaning.to_owned() } else { format!("{meaning}: {}", choices.join(", ")) };
    rows.push(vec![format!("`{path}`"), default, meaning]);
}

/// The page with its generated parts written anew.
fn renewed(page: &str) -> String {
    let (open, close, end) = ("<!-- generated: ", " -->\n", "<!-- end -->");
    let mut pieces = page.split(open);
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(close).unwrap();
        let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("{name} has no {end}"));
        let _ = write!(text, "{open}{name}{close}\n{}\n{end}{after}", generate(name).trim_end());
    }
    text
}

#[test]
fn generated_parts_agree_with_the_code() {
    for page in pages() {
        let now = fs::read_to_string(&page).unwrap();
        let renewed = renewed(&now);
        if std::env::var_os("GWMON_BLESS").is_some() && renewed != now {
            fs::write(&page, &renewed).unwrap();
            continue;
        }
        assert!(renewed == now, "{} is not up to date: GWMON_BLESS=1 cargo test --test offline docs", page.display());
    }
}

/// A file that is generated as a whole, or one part of it.
fn assert_current(file: &str, now: &str, renewed: &str) {
    if std::env::var_os("GWMON_BLESS").is_some() && renewed != now {
        fs::write(root().join(file), renewed).unwrap();
        return;
    }
    assert!(renewed == now, "{file} is not up to date: GWMON_BLESS=1 cargo test --test offline generated");
}

#[test]
fn generated_schemas_agree_with_the_code() {
    let schema = serde_json::to_value(gwmon::config::schema()).unwrap();
    let file = "docs/reference/config.schema.json";
    let now = fs::read_to_string(root().join(file)).unwrap_or_default();
    assert_current(file, &now, &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));

    // The chart's value `config` has the same fields, without what is always the same.
    let file = "deploy/chart/values.schema.json";
    let now = fs::read_to_string(root().join(file)).unwrap();
    let (open, close) = ("    \"config\": {\n", "\n    },\n");
    let (before, rest) = now.split_once(open).unwrap();
    let (_, after) = rest.split_once(close).unwrap();
    let mut fields = schema["properties"].clone();
    fields.as_object_mut().unwrap().retain(|name, _| !["apiVersion", "kind"].contains(&name.as_str()));
    let config = serde_json::json!({
        "description": "The configuration file, which gwmon reads again when it changes: the fields of `gwmon config default`. The flags below override it. Without apiVersion and kind",
        "type": "object", "additionalProperties": false, "properties": fields, "default": {},
    });
    let config = serde_json::to_string_pretty(&config).unwrap().replace('\n', "\n    ");
    let config = config.trim_start_matches("{\n").trim_end_matches("\n    }");
    assert_current(file, &now, &format!("{before}{open}{config}{close}{after}"));
}

/// The anchor that a heading gets: lower case, no punctuation, spaces as hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let link = regex::Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if target.contains("://") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(file.exists(), "{} links to {target}", page.display());
            if !section.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let is_there = headings.any(|heading| anchor(heading.trim_start_matches('#')) == section);
                assert!(is_there, "{} links to {target}", page.display());
            }
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} links");
}

/// A file of the project that a page or a comment names exists.
#[test]
fn every_file_that_is_named_exists() {
    let path =
        regex::Regex::new(r"\b(?:src|tests|benches|deploy|docs|certs)/[A-Za-z0-9_/-]+\.(?:rs|md|yaml|sh|py|go)\b")
            .unwrap();
    let is_text = |file: &PathBuf| {
        let kind = file.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        matches!(kind, "rs" | "md" | "yaml" | "sh" | "py" | "go" | "toml")
    };
    let mut count = 0;
    for file in files(root()).into_iter().filter(is_text) {
        // Some of the cases are in other encodings.
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        for named in path.find_iter(&text) {
            assert!(root().join(named.as_str()).exists(), "{} names {}", file.display(), named.as_str());
            count += 1;
        }
    }
    assert!(count >= 60, "only {count} files are named");
}

/// Each reason of a warning or an Event has a section that can be linked to.
#[test]
fn every_reason_has_its_section() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    for reason in Reason::ALL {
        assert!(page.contains(&format!("\n### {reason}\n")), "{reason}");
    }
}

#[test]
fn the_picture_is_what_its_script_draws() {
    let drawn = std::process::Command::new("python3").arg(root().join("docs/concepts.py")).output().unwrap();
    let drawn = String::from_utf8(drawn.stdout).unwrap();
    let picture = root().join("docs/concepts.svg");
    if std::env::var_os("GWMON_BLESS").is_some() {
        fs::write(&picture, &drawn).unwrap();
    }
    assert!(!drawn.is_empty() && drawn == fs::read_to_string(&picture).unwrap());
}

/// A comment that cites a lesson leads to it.
#[test]
fn every_lesson_that_is_cited_is_listed() {
    let listed = fs::read_to_string(root().join("docs/design/lessons.md")).unwrap();
    let number = regex::Regex::new(r"\bR\d+\b").unwrap();
    let listed: Vec<_> = number.find_iter(&listed).map(|found| found.as_str()).collect();
    let mut cited = 0;
    for path in ["src", "deploy"].into_iter().flat_map(|folder| files(&root().join(folder))) {
        let text = fs::read_to_string(&path).unwrap();
        let comments = text.lines().filter(|line| line.trim_start().starts_with(['/', '#']));
        for found in comments.flat_map(|line| number.find_iter(line)) {
            assert!(listed.contains(&found.as_str()), "{} cites {}", path.display(), found.as_str());
            cited += 1;
        }
    }
    assert!(cited >= 10, "only {cited} are cited");
}

#[test]
fn every_command_is_run_by_a_test_or_says_why_not() {
    let mut blocks = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let mut is_inside = false;
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.trim_start().starts_with("```")) {
            is_inside = !is_inside;
            if !is_inside {
                continue;
            }
            let place = format!("{}:{}", page.display(), at + 1);
            assert_ne!(line.trim(), "```", "{place}: name the language");
            if line.trim() != "```sh" {
                continue;
            }
            blocks += 1;
            let marker = lines[at - 1].strip_prefix("<!-- ").and_then(|marker| marker.strip_suffix(" -->"));
            let marker = marker.unwrap_or_else(|| panic!("{place}: say above it which test runs it, or why none does"));
            if marker.strip_prefix("not run: ").is_some_and(|why| !why.is_empty()) {
                continue;
            }
            let run = marker.strip_prefix("run: ").unwrap_or_else(|| panic!("{place}: {marker}"));
            let (file, name) = run.split_once(' ').unwrap_or((run, ""));
            let test = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{place}: {file}: {error}"));
            let runs = if name.is_empty() {
                let commands = lines[at + 1..].iter().take_while(|line| !line.starts_with("```"));
                commands.map(|line| line.split("  #").next().unwrap().trim().to_owned()).collect()
            } else {
                vec![format!("\"{name}\"")]
            };
            for run in runs {
                assert!(test.contains(&run), "{place}: {file} does not run {run}");
            }
        }
    }
    assert!(blocks >= 6, "{blocks}");
}
