//! The same names, labels and values as Envoy's own: a rich configuration, real traffic, and two ways to read what came
//! of it. `differences.yaml` lists what differs and why.

mod exposition;
pub(crate) mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use exposition::{Exposition, Sample, Series};
use gwmon_cluster::local::{LocalEnvoy, LocalGateway, datagrams_lost, free_ports, get};
use regex::Regex;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_newest_envoy_by_dog_statsd() {
    compare("envoy", "1.40", "dog_statsd");
}

#[test]
fn the_newest_envoy_by_plain_statsd() {
    compare("envoy", "1.40", "statsd");
}

#[test]
fn one_between_by_dog_statsd() {
    compare("envoy-middle", "1.38", "dog_statsd");
}

#[test]
fn one_between_by_plain_statsd() {
    compare("envoy-middle", "1.38", "statsd");
}

#[test]
fn the_oldest_envoy_by_dog_statsd() {
    compare("envoy-oldest", "1.36", "dog_statsd");
}

#[test]
fn the_oldest_envoy_by_plain_statsd() {
    compare("envoy-oldest", "1.36", "statsd");
}

/// One line of `differences.yaml`.
#[derive(Deserialize)]
struct Known {
    difference: String,
    sink: Option<String>,
    series: String,
    #[serde(rename = "because")]
    _because: String,
}

/// Compares; and once more where the kernel has lost datagrams, which is no difference of names or values. How many are
/// lost in earnest is what `cargo bench --bench loss` measures.
fn compare(program: &str, version: &str, sink: &str) {
    gwmon_cluster::build().unwrap();
    for attempt in 1.. {
        let lost = datagrams_lost().unwrap();
        let unknown = attempt_to_compare(program, version, sink);
        let lost = datagrams_lost().unwrap() - lost;
        if lost == 0 || unknown.is_empty() || attempt == 3 {
            let hint = if lost == 0 { "" } else { " (the kernel lost datagrams: net.core.rmem_max is small here)" };
            let text = unknown.join("\n");
            assert!(unknown.is_empty(), "{} differences that nobody has explained{hint}:\n{text}", unknown.len());
            return;
        }
    }
}

/// An Envoy with the rich configuration, and its exporter.
pub(crate) struct Rich {
    pub(crate) gateway: LocalGateway,
    /// By their names in the configuration.
    pub(crate) ports: BTreeMap<&'static str, u16>,
    /// The exporter's.
    pub(crate) metrics: u16,
}

/// Starts them.
pub(crate) fn start(program: &str, version: &str, sink: &str, folder: &Path) -> Rich {
    let names = ports_named();
    let free: [u16; 16] = free_ports().unwrap();
    let ports: BTreeMap<&'static str, u16> = names.into_iter().zip(free).collect();
    let [statsd, metrics, ..] = free[ports.len()..] else { panic!("too few ports") };
    let configuration = render(folder, &ports);

    let mut args = vec!["-c".to_owned(), "/etc/envoy/envoy.yaml".to_owned()];
    if sink == "statsd" {
        // Of its own accord gwmon would choose the other: here is a gateway that sends this already.
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": statsd}});
        let own = json!({"stats_sinks": [{"name": "own", "typed_config": {"@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink", "address": address}}]});
        args.extend(["--config-yaml".to_owned(), own.to_string()]);
    }
    let annotations = [
        ("statsd-port", statsd.to_string()),
        ("metrics-port", metrics.to_string()),
        ("envoy-version", version.to_owned()),
    ];
    let pod = crate::pods::injected(&json!({"name": "envoy", "image": "envoyproxy/envoy", "args": args}), &annotations);
    let admin = ports["PORT_ADMIN"];
    traffic::serve_redis(ports["PORT_REDIS_BACKEND"]);
    let envoy = LocalEnvoy { program, configuration: &configuration, ready: (admin, "/ready") };
    let gateway = LocalGateway::start(&pod, &envoy, folder).unwrap();
    Rich { gateway, ports, metrics }
}

fn attempt_to_compare(program: &str, version: &str, sink: &str) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let Rich { gateway, ports, .. } = start(program, version, sink, folder.path());
    let admin = ports["PORT_ADMIN"];
    let native = || exposition::parse(&get(admin, "/stats/prometheus?usedonly").unwrap());

    for _ in 0..2 {
        traffic::drive(&ports);
    }
    // Envoy merges its histograms when it flushes, every second, and sends then; the exporter keeps up within one more.
    sleep(3 * SECOND);
    let before = native();
    sleep(2 * SECOND);
    let text = gateway.metrics().unwrap();
    sleep(2 * SECOND);
    let after = native();

    for broken in ["sample_errors_total", "tag_errors_total", "events_conflict_total", "udp_packet_drops_total"] {
        let found =
            text.lines().find(|line| line.starts_with(&format!("statsd_exporter_{broken}")) && !line.ends_with(" 0"));
        assert_eq!(found, None);
    }
    let is_envoys =
        |series: &Series| !["statsd_", "go_", "process_", "promhttp_"].iter().any(|own| series.name.starts_with(own));
    let mut exported = exposition::parse(&text);
    exported.retain(|series, _| is_envoys(series));
    for kind in ["counter", "gauge", "histogram"] {
        let of_kind = |exposition: &Exposition| exposition.keys().filter(|series| series.kind == kind).count();
        println!("{kind}: Envoy {}, exporter {}", of_kind(&after), of_kind(&exported));
        assert!(of_kind(&after) > 80, "the configuration has lost its {kind}s");
    }

    let known: Vec<Known> = serde_saphyr::from_str(include_str!("parity/differences.yaml")).unwrap();
    let known: Vec<_> = known.iter().filter(|known| known.sink.as_deref().is_none_or(|of| of == sink)).collect();
    let lost: BTreeSet<_> =
        known.iter().filter(|known| known.difference == "label").map(|known| &known.series).collect();
    let without = |exposition: Exposition| -> Exposition {
        let strip = |(mut series, sample): (Series, Sample)| {
            series.labels.retain(|label, _| !lost.contains(label));
            (series, sample)
        };
        exposition.into_iter().map(strip).collect()
    };
    let known: Vec<_> = known.iter().map(|known| (&known.difference, Regex::new(&known.series).unwrap())).collect();
    let found = differences(&without(before), &exported, &without(after));
    found
        .iter()
        .filter(|(difference, series, _)| !known.iter().any(|(of, regex)| of == difference && regex.is_match(series)))
        .map(|(difference, series, what)| format!("{difference}: {series} {what}"))
        .collect()
}

/// Every difference: what, of which series, and the numbers. Envoy's readings stand around the exporter's, so that what
/// moves meanwhile must lie between them.
fn differences(before: &Exposition, exported: &Exposition, after: &Exposition) -> Vec<(&'static str, String, String)> {
    let none = Sample::default();
    let mut found = Vec::new();
    for series in after.keys().chain(exported.keys()).collect::<BTreeSet<_>>() {
        let mut differ = |what, numbers: String| found.push((what, series.to_string(), numbers));
        let earlier = before.get(series);
        let (Some(later), Some(ours)) = (after.get(series), exported.get(series)) else {
            let what = match (after.get(series), earlier) {
                (None, _) => "extra",
                (_, None) => "late",
                _ => "absent",
            };
            differ(what, String::new());
            continue;
        };
        let first = earlier.unwrap_or(&none);
        let between = |low: f64, value: f64, high: f64| low <= value && value <= high;
        let numbers = |low: f64, value: f64, high: f64| format!("Envoy {low} to {high}, exporter {value}");
        match series.kind.as_str() {
            "counter" if !between(first.value, ours.value, later.value) => {
                differ("counter", numbers(first.value, ours.value, later.value));
            }
            "gauge" if ![Some(later), earlier].iter().flatten().any(|own| own.value.total_cmp(&ours.value).is_eq()) => {
                differ("gauge", numbers(first.value, ours.value, later.value));
            }
            "histogram" => {
                if !between(first.count, ours.count, later.count) {
                    differ("count", numbers(first.count, ours.count, later.count));
                }
                if !between(first.sum, ours.sum, later.sum) {
                    let is_estimate = between(first.sum * 0.95, ours.sum * 1.0001, later.sum * 1.05);
                    differ(if is_estimate { "sum" } else { "wrong sum" }, numbers(first.sum, ours.sum, later.sum));
                }
                let bounds = |sample: &Sample| sample.buckets.iter().map(|(bound, _)| *bound).collect::<Vec<_>>();
                if bounds(later) != bounds(ours) {
                    differ("bounds", format!("Envoy {:?}, exporter {:?}", bounds(later), bounds(ours)));
                    continue;
                }
                for (i, (bound, value)) in ours.buckets.iter().enumerate() {
                    let (low, high) = (first.buckets.get(i).map_or(0., |b| b.1), later.buckets[i].1);
                    if between(low, *value, high) {
                        continue;
                    }
                    let below = if i == 0 { 0. } else { ours.buckets[i - 1].1 };
                    let above = ours.buckets.get(i + 1).map_or(ours.count, |b| b.1);
                    let is_estimate = below <= high && low <= above;
                    differ(
                        if is_estimate { "bucket" } else { "wrong bucket" },
                        format!("le={bound} {}", numbers(low, *value, high)),
                    );
                }
            }
            _ => {}
        }
    }
    found
}

const FILES: [(&str, &str); 4] = [
    ("envoy.yaml", include_str!("parity/envoy.yaml")),
    ("cds.yaml", include_str!("parity/cds.yaml")),
    ("rds.yaml", include_str!("parity/rds.yaml")),
    ("sds.yaml", include_str!("parity/sds.yaml")),
];

fn port_names() -> Regex {
    Regex::new("PORT_[A-Z0-9_]+").unwrap()
}

/// Every port that the configuration names.
fn ports_named() -> BTreeSet<&'static str> {
    let names = port_names();
    FILES.iter().flat_map(|(_, text)| names.find_iter(text)).map(|name| name.as_str()).collect()
}

/// Writes what Envoy reads from files into a folder, and a certificate; returns its first file.
fn render(folder: &Path, ports: &BTreeMap<&str, u16>) -> String {
    let names = port_names();
    for (name, text) in FILES {
        let text = names.replace_all(text, |found: &regex::Captures| ports[&found[0]].to_string());
        fs::write(folder.join(name), text.replace("DIR_CONF", &folder.to_string_lossy())).unwrap();
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let mut certificate = rcgen::CertificateParams::new(vec!["origin.test".to_owned()]).unwrap();
    certificate.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(folder.join("tls.crt"), certificate.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::read_to_string(folder.join("envoy.yaml")).unwrap()
}
