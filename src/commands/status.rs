//! `gwmon status`: one line about each gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::connection::Connection;
use super::diagnose::Progress;
use super::installation;
use super::output::{self, Row, structured};
use crate::annotations::{INJECT, PROMETHEUS};
use crate::cli::{Status, StatusOutput, Structured};
use crate::cluster::observe::{Depth, Observation, Scope, observe};
use crate::cluster::prometheus::PrometheusApi;
use crate::diagnosis::check::Verdict;
use crate::diagnosis::gateway::{Event, Gateway};
use crate::diagnosis::path::{Probes, outdated};
use crate::diagnosis::series::{Query, Series, Target};
use crate::diagnosis::workload::Workload;
use crate::injection::StatusMode;
use crate::monitoring::Scraper;
use crate::monitoring::scraper::Kind;
use crate::reason::{Reason, Severity};

/// The pause between two tables of `--watch`.
const EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// One gateway.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: String,
    /// As kubectl takes it.
    workload: String,
    health: Verdict,
    gateway: Option<String>,
    version: Option<String>,
    mode: Option<&'static str>,
    pods_injected: usize,
    pods: usize,
    /// Whether new pods would get the same.
    template: &'static str,
    service_monitor: Option<String>,
    prometheus: Option<String>,
    targets_up: Option<usize>,
    targets: Option<usize>,
    samples_per_second: Option<f64>,
    /// gwmon's last word on the workload.
    reason: Option<String>,
    message: Option<String>,
    /// The version of gwmon that injected its pods.
    injected_by: Option<String>,
}

/// A gateway that nobody has annotated.
#[derive(Debug, Serialize)]
struct Unmonitored {
    namespace: String,
    workload: String,
    gateway: String,
    command: String,
}

/// Prints the table.
///
/// # Errors
/// An API server that does not answer.
pub fn run(args: &Status) -> Result<ExitCode> {
    let connection = Connection::open(&args.cluster)?;
    let own = args.namespace.clone().unwrap_or_else(|| connection.namespace.clone());
    let namespace = (!args.all_namespaces).then_some(own.as_str());
    let scope = Scope { namespace, selector: args.selector.as_deref() };
    let progress = Progress::new();
    progress.says("reading the gateways");
    let first = connection.run(read(&connection, scope, args.all))?;
    drop(progress);
    show(args, &first, namespace)?;
    if !args.watch {
        return Ok(ExitCode::SUCCESS);
    }
    let mut pause = EVERY;
    loop {
        std::thread::sleep(pause);
        let started = Instant::now();
        let next = match connection.run(read(&connection, scope, args.all)) {
            Ok(next) => next,
            // An API server that is busy, or is being upgraded, is there again soon.
            Err(error) => {
                anstream::eprintln!("{error:#}");
                continue;
            }
        };
        // A large cluster is asked for at most half of the time.
        pause = EVERY.max(started.elapsed());
        let clear = if stdout().is_terminal() { CLEAR } else { "\n" };
        if !output::print_open(clear)? {
            return Ok(ExitCode::SUCCESS);
        }
        show(args, &next, namespace)?;
    }
}

/// What is shown.
struct Table {
    lines: Vec<Line>,
    unmonitored: Vec<Unmonitored>,
    notes: Vec<String>,
}

async fn read(connection: &Connection, scope: Scope<'_>, lists_others: bool) -> Result<Table> {
    let client = &connection.client;
    let found = installation::find(client).await?;
    let mut observation = observe(client, &found.installation, scope, Depth::Summary).await?;
    observation.adopt_labelled();
    let kubernetes = observation.snapshot.kubernetes;
    let (config, note) = installation::config(client, &found.installation, kubernetes).await;
    let mut notes: Vec<_> =
        observation.unread.0.keys().filter_map(|resource| observation.unread.why(resource)).collect();
    // Kinds of operators that the cluster does not have are no news.
    notes.retain(|note| !note.starts_with("the cluster does not serve"));
    let is_config_known = note.is_none();
    notes.extend(note);
    let series = scraped(connection, &observation, &mut notes).await;
    let probes = Probes::default();
    let around = observation.surroundings(&config, is_config_known, &probes);
    let lines = observation.gateways.iter().map(|(key, gateway)| {
        let outdated = outdated((&key.0, &key.1), gateway, &around);
        line(key, gateway, outdated, &series)
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort_by(|a, b| {
        let key = |line: &Line| (std::cmp::Reverse(line.health), line.namespace.clone(), line.workload.clone());
        key(a).cmp(&key(b))
    });
    let unmonitored = observation.others.iter().filter(|_| lists_others).filter_map(unmonitored).collect();
    Ok(Table { lines, unmonitored, notes })
}

/// What each Prometheus that reads one of the gateways has scraped, by its `namespace/name`.
async fn scraped(
    connection: &Connection,
    observation: &Observation,
    notes: &mut Vec<String>,
) -> BTreeMap<String, Series> {
    let named: BTreeSet<_> = observation.gateways.values().filter_map(reader).collect();
    let scrapers = &observation.snapshot.monitoring.scrapers;
    let prometheuses: Vec<_> = scrapers.iter().filter(|scraper| scraper.kind() == Kind::Prometheus).collect();
    let mut found = BTreeMap::new();
    for scraper in prometheuses.iter().filter(|scraper| named.contains(scraper.place().as_str())) {
        let others: Vec<_> =
            prometheuses.iter().filter(|other| other.key().0 == scraper.key().0).map(|other| other.key().1).collect();
        match ask(connection, scraper, &others).await {
            Ok(series) => drop(found.insert(scraper.place(), series)),
            Err(why) => notes.push(format!("{scraper}: {why}")),
        }
    }
    found
}

async fn ask(connection: &Connection, scraper: &Scraper, others: &[&str]) -> Result<Series, String> {
    PrometheusApi::of(&connection.client, scraper, others).await?.ask(&Query::SUMMARY).await
}

/// The Prometheus that reads a gateway, as its Service notes.
fn reader(gateway: &Gateway) -> Option<&str> {
    gateway.service.as_ref()?["metadata"]["annotations"][PROMETHEUS].as_str()
}

fn line(key: &(String, String), gateway: &Gateway, outdated: Option<usize>, series: &BTreeMap<String, Series>) -> Line {
    let status = gateway.revision.as_ref().and_then(|revision| revision.status.as_ref());
    let (injected, pods) = (gateway.live().count(), gateway.total());
    let prometheus = reader(gateway);
    let scraped = prometheus.and_then(|reader| series.get(reader));
    // A pod that has just gone stays a target for a while.
    let is_live = |target: &&Target| gateway.live().any(|pod| pod.name == target.pod);
    let targets =
        scraped.map(|series| series.targets.get(key).into_iter().flatten().filter(is_live).collect::<Vec<_>>());
    let up = targets.as_ref().map(|targets| targets.iter().filter(|target| target.is_up).count());
    let monitor = gateway.monitors.first().map(|monitor| {
        let text = |field: &str| monitor["metadata"][field].as_str().unwrap_or_default();
        if text("namespace") == key.0 {
            text("name").to_owned()
        } else {
            format!("{}/{}", text("namespace"), text("name"))
        }
    });
    let is_rolling = gateway.workload.as_ref().is_some_and(|workload| workload.is_rolling);
    let health = match (&targets, up) {
        _ if gateway.suspended.is_some() || (gateway.missed() > 0 && !is_rolling) => Verdict::Fail,
        _ if pods == 0 || is_rolling => Verdict::Skip,
        (Some(targets), Some(up)) if targets.is_empty() || up == 0 => Verdict::Fail,
        (Some(targets), Some(up)) if up < targets.len() => Verdict::Warn,
        _ if outdated.is_some_and(|outdated| outdated > 0) => Verdict::Warn,
        (None, _) => Verdict::Skip,
        _ => Verdict::Ok,
    };
    let suspended = gateway.suspended.as_ref().map(|finding| (finding.reason.to_string(), finding.detail.clone()));
    // Of a fault that has been mended there is no second Event.
    let is_news = |event: &&Event| health != Verdict::Ok || !is_fault(&event.reason);
    let event = gateway.event.as_ref().filter(is_news).map(|event| (event.reason.clone(), event.message.clone()));
    let (reason, message) = suspended.or(event).unzip();
    Line {
        namespace: key.0.clone(),
        workload: gateway.resource(),
        health,
        gateway: status.map(|status| status.gateway.clone()),
        version: status.and_then(|status| status.image_version.clone()),
        mode: status.map(|status| match status.mode {
            StatusMode::Statsd => "statsd",
            StatusMode::Scrape => "scrape",
            StatusMode::Existing => "existing",
            StatusMode::Unknown => "unknown",
        }),
        pods_injected: injected,
        pods,
        template: match outdated {
            Some(0) => "current",
            Some(_) => "old",
            None => "unknown",
        },
        service_monitor: monitor,
        prometheus: prometheus.map(str::to_owned),
        targets_up: up,
        targets: targets.map(|targets| targets.len()),
        samples_per_second: scraped.and_then(|series| series.samples.get(key)).copied(),
        reason,
        message,
        injected_by: gateway.live().find_map(|pod| pod.injected.as_ref()).map(|(version, _)| version.clone()),
    }
}

/// Returns true for a reason that somebody has to act on.
fn is_fault(reason: &str) -> bool {
    let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
    known.is_some_and(|known| known.severity() > Severity::Info)
}

fn unmonitored(workload: &Workload) -> Option<Unmonitored> {
    let gateway = workload.gateway.clone()?;
    let (resource, namespace) = (workload.resource(), &workload.namespace);
    let command = match (&workload.controller, &workload.inject) {
        (Some(controller), _) => format!("{controller} makes it: set {INJECT}: \"true\" there"),
        (None, Some(value)) if value == "false" => format!("none: it has {INJECT}: \"false\""),
        (None, _) => format!("kubectl annotate {resource} -n {namespace} {INJECT}=true"),
    };
    Some(Unmonitored { namespace: namespace.clone(), workload: resource, gateway, command })
}

fn show(args: &Status, table: &Table, namespace: Option<&str>) -> Result<()> {
    let Table { lines, unmonitored, notes } = table;
    match args.output {
        Some(StatusOutput::Json | StatusOutput::Yaml) => {
            let format = if args.output == Some(StatusOutput::Json) { Structured::Json } else { Structured::Yaml };
            let report = json!({"gateways": lines, "unmonitored": unmonitored, "notes": notes});
            return output::print(&structured(format, &report)?);
        }
        Some(StatusOutput::Name) => {
            let names = lines.iter().map(|line| &line.workload).chain(unmonitored.iter().map(|other| &other.workload));
            return output::print(&names.fold(String::new(), |text, name| text + name + "\n"));
        }
        Some(StatusOutput::Wide) | None => {}
    }
    if !lines.is_empty() {
        output::print(&gateways(lines, namespace.is_none(), args.output.is_some()))?;
    }
    if !unmonitored.is_empty() {
        let rows = unmonitored.iter().map(|other| {
            let Unmonitored { namespace, workload, gateway, command } = other;
            (Verdict::Skip, [namespace, workload, gateway, command].map(String::clone).to_vec())
        });
        let before = if lines.is_empty() { "" } else { "\n" };
        let rows =
            output::table(&["NAMESPACE", "NOT MONITORED", "GATEWAY", "TO MONITOR IT"], &rows.collect::<Vec<_>>());
        output::print(&format!("{before}{rows}"))?;
    }
    if lines.is_empty() && unmonitored.is_empty() {
        let place =
            namespace.map_or_else(|| "in the cluster".to_owned(), |namespace| format!("in namespace {namespace}"));
        let hint = if args.all { "" } else { "; --all lists those that nobody has annotated" };
        anstream::eprintln!("No monitored gateways {place}{hint}.");
    }
    for note in notes {
        anstream::eprintln!("{note}");
    }
    Ok(())
}

fn gateways(lines: &[Line], shows_namespace: bool, is_wide: bool) -> String {
    let mut head =
        vec!["NAME", "GATEWAY", "MODE", "PODS", "TEMPLATE", "MONITOR", "PROMETHEUS", "TARGETS", "SAMPLES/S", "REASON"];
    if shows_namespace {
        head.insert(0, "NAMESPACE");
    }
    if is_wide {
        head.extend(["INJECTED BY", "MESSAGE"]);
    }
    let none = || "<none>".to_owned();
    let rows: Vec<Row> = lines
        .iter()
        .map(|line| {
            let mut gateway = line.gateway.clone().unwrap_or_else(none);
            if let Some(version) = &line.version {
                let _ = write!(gateway, " {version}");
            }
            let targets = line.targets_up.zip(line.targets).map(|(up, all)| format!("{up}/{all}"));
            let unknown = || "?".to_owned();
            let mut cells = vec![
                line.workload.clone(),
                gateway,
                line.mode.unwrap_or("<none>").to_owned(),
                format!("{}/{}", line.pods_injected, line.pods),
                line.template.to_owned(),
                line.service_monitor.clone().unwrap_or_else(none),
                line.prometheus.clone().unwrap_or_else(none),
                targets.unwrap_or_else(unknown),
                line.samples_per_second.map_or_else(unknown, |rate| format!("{rate:.0}")),
                line.reason.clone().unwrap_or_else(none),
            ];
            if shows_namespace {
                cells.insert(0, line.namespace.clone());
            }
            if is_wide {
                cells.push(line.injected_by.clone().unwrap_or_else(none));
                cells.push(line.message.clone().unwrap_or_else(none));
            }
            (line.health, cells)
        })
        .collect();
    output::table(&head, &rows)
}
