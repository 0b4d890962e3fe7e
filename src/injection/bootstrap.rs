//! Envoy's statsd sink, in the configuration language of each version, alone or merged into an existing
//! configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::yaml_insert::insert_first;
use crate::annotations::ENVOY_VERSION;
use crate::kubernetes::Version;
use crate::kubernetes::bounded::{TOO_LARGE, YAML_BYTES};
use crate::reason::{Finding, Reason};

/// `--config-yaml` (Envoy 1.7.0's release notes).
const OVERLAY_SINCE: Version = Version(1, 7);
/// `typed_config` with the v3 API. Before, `config`.
const V3_SINCE: Version = Version(1, 14);
/// `max_bytes_per_datagram` on the `dog_statsd` sink: the newest field that gwmon writes.
pub(crate) const BATCHES_SINCE: Version = Version(1, 16);

/// The statsd dialect that a gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Names as Envoy shows them to Prometheus, labels as tags.
    DogStatsd,
    /// Names with the labels' values in them.
    Statsd,
}

/// The sink, as that version reads it; an unknown version counts as new.
///
/// `max_bytes_per_datagram` batches counters and gauges; Envoy sends histograms one by one whatever it says.
///
/// # Errors
/// [`Reason::UnsupportedVersion`].
pub fn sink(version: Option<Version>, dialect: Dialect, port: u16) -> Result<String, Finding> {
    let address =
        format!(r#""address":{{"socket_address":{{"protocol":"UDP","address":"127.0.0.1","port_value":{port}}}}}"#);
    let (name, kind) = match dialect {
        Dialect::DogStatsd => ("dog_statsd", "DogStatsdSink"),
        Dialect::Statsd => ("statsd", "StatsdSink"),
    };
    let version = version.unwrap_or(Version(u32::MAX, 0));
    if version < OVERLAY_SINCE {
        let detail = format!(
            "Envoy {version} is older than {OVERLAY_SINCE} and reads its file only; if the image tag misleads, set {ENVOY_VERSION}"
        );
        return Err(Finding::new(Reason::UnsupportedVersion, detail));
    }
    if version < V3_SINCE {
        return Ok(format!(r#"{{"name":"envoy.{name}","config":{{{address}}}}}"#));
    }
    let batches = version >= BATCHES_SINCE && dialect == Dialect::DogStatsd;
    let batches = if batches { r#","max_bytes_per_datagram":1400"# } else { "" };
    Ok(format!(
        r#"{{"name":"envoy.stat_sinks.{name}","typed_config":{{"@type":"type.googleapis.com/envoy.config.metrics.v3.{kind}",{address}{batches}}}}}"#
    ))
}

/// A configuration with nothing but the sink, for Envoy to merge with another: its lists append. JSON, every string
/// quoted, since YAML 1.1 would read some as something else. The flush interval is not set: Envoy ends when
/// `stats_flush_on_admin` is set beside it.
#[must_use]
pub fn overlay(sink: &str) -> String {
    format!(r#"{{"stats_sinks":[{sink}]}}"#)
}

/// A sink that a configuration has, as far as it matters here. Envoy reads protobuf's JSON, which takes a field by both
/// of its names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sink {
    name: String,
    #[serde(alias = "typedConfig", alias = "config")]
    typed_config: SinkConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SinkConfig {
    #[serde(rename = "@type")]
    kind: String,
    address: Address,
    prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(alias = "socketAddress")]
    socket_address: SocketAddress,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SocketAddress {
    address: String,
    #[serde(alias = "portValue")]
    port_value: Value,
}

/// A sink that sends to the pod itself already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSink {
    /// The UDP port.
    pub port: u16,
    /// The dialect.
    pub dialect: Dialect,
}

/// The first sink of a configuration that sends to 127.0.0.1.
///
/// # Errors
/// [`Reason::UnreadableConfiguration`] for what is no YAML map, [`Reason::ExistingStatsd`] for such a sink whose prefix
/// changes every metric's name.
pub fn local_sink(yaml: &str) -> Result<Option<LocalSink>, Finding> {
    let root = read(yaml)?;
    for sink in SINKS.iter().filter_map(|key| root.get(*key)?.as_array()).flatten() {
        // Sinks of other kinds have other fields, which may be of another shape.
        let Ok(Sink { name, typed_config: SinkConfig { kind, address, prefix } }) = Sink::deserialize(sink) else {
            continue;
        };
        let dialect = match kind.rsplit('.').next().filter(|kind| !kind.is_empty()).unwrap_or(&name) {
            "DogStatsdSink" | "envoy.dog_statsd" | "envoy.stat_sinks.dog_statsd" => Dialect::DogStatsd,
            "StatsdSink" | "envoy.statsd" | "envoy.stat_sinks.statsd" => Dialect::Statsd,
            _ => continue,
        };
        let SocketAddress { address, port_value } = address.socket_address;
        let port = port_value.as_u64().or_else(|| port_value.as_str()?.parse().ok());
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()).filter(|_| address == "127.0.0.1") else {
            continue;
        };
        if prefix.is_some_and(|prefix| !matches!(prefix.as_str(), "" | "envoy")) {
            let detail = format!("its statsd sink to port {port} sets prefix, which renames every metric; remove that");
            return Err(Finding::new(Reason::ExistingStatsd, detail));
        }
        return Ok(Some(LocalSink { port, dialect }));
    }
    Ok(None)
}

const SINKS: [&str; 2] = ["stats_sinks", "statsSinks"];

fn read(yaml: &str) -> Result<BTreeMap<String, Value>, Finding> {
    if yaml.len() > YAML_BYTES {
        return Err(Finding::new(Reason::TooLarge, format!("it has over {} KiB, {TOO_LARGE}", YAML_BYTES >> 10)));
    }
    let root: Option<BTreeMap<String, Value>> = serde_saphyr::from_str(yaml).map_err(|error| {
        let error = error.to_string();
        unreadable(error.lines().next().unwrap_or_default())
    })?;
    Ok(root.unwrap_or_default())
}

fn unreadable(why: &str) -> Finding {
    Finding::new(Reason::UnreadableConfiguration, why)
}

/// The configuration with one sink more. Every character of it stays, comments and Kubernetes' `$(VARIABLES)` included,
/// and Envoy's reading of each: only what is inserted is gwmon's.
///
/// # Errors
/// [`Reason::UnreadableConfiguration`].
pub fn with_sink(yaml: &str, sink: &str) -> Result<String, Finding> {
    let mut expected = json!(read(yaml)?);
    let list = SINKS.into_iter().find(|key| expected.get(key).is_some()).unwrap_or(SINKS[0]);
    let is_there = expected.get(list).is_some();
    let Some(merged) = insert_first(yaml, list, is_there, sink).map_err(|why| unreadable(&why))? else {
        return Ok(overlay(sink));
    };
    // A gateway that cannot read its configuration does not start: so the result is checked.
    let added = serde_json::from_str(sink).unwrap_or_default();
    match expected[list].as_array_mut() {
        Some(sinks) => sinks.insert(0, added),
        None => expected[list] = json!([added]),
    }
    if json!(read(&merged)?) == expected { Ok(merged) } else { Err(unreadable("unsupported YAML layout")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINK: &str = r#"{"name":"ours"}"#;

    #[test]
    fn a_sink_is_inserted_wherever_the_list_stands_and_nothing_else_changes() {
        for (before, after) in [
            ("", r#"{"stats_sinks":[{"name":"ours"}]}"#),
            ("# nothing\n", r#"{"stats_sinks":[{"name":"ours"}]}"#),
            ("{}", r#"{"stats_sinks": [{"name":"ours"}]}"#),
            (r#"{"admin": {}}"#, r#"{"stats_sinks": [{"name":"ours"}], "admin": {}}"#),
            ("admin: {}", "stats_sinks: [{\"name\":\"ours\"}]\nadmin: {}"),
            (
                "---\n  # why\n  a: 1 # on\n  b: $(B)\n",
                "---\n  # why\n  stats_sinks: [{\"name\":\"ours\"}]\n  a: 1 # on\n  b: $(B)\n",
            ),
            ("a: 1\nstats_sinks: []\n", "a: 1\nstats_sinks: [{\"name\":\"ours\"}]\n"),
            ("stats_sinks: [{name: x}]", "stats_sinks: [{\"name\":\"ours\"}, {name: x}]"),
            ("stats_sinks:\n- name: x\n  y: z\nb: 1", "stats_sinks:\n- {\"name\":\"ours\"}\n- name: x\n  y: z\nb: 1"),
            (
                "b: {stats_sinks: []}\nstatsSinks:\n  - name: x",
                "b: {stats_sinks: []}\nstatsSinks:\n  - {\"name\":\"ours\"}\n  - name: x",
            ),
            (
                "\"stats_sinks\":\n  [\n  ]\na: |\n  stats_sinks: []",
                "\"stats_sinks\":\n  [{\"name\":\"ours\"}\n  ]\na: |\n  stats_sinks: []",
            ),
            ("a: &x {b: [1, {c: 2}]}\nd: *x", "stats_sinks: [{\"name\":\"ours\"}]\na: &x {b: [1, {c: 2}]}\nd: *x"),
        ] {
            assert_eq!(with_sink(before, SINK).as_deref(), Ok(after), "{before}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_not_touched() {
        for yaml in ["- a", "a: [", "a: 1\n---\nb: 2", "stats_sinks: 7", "just text", "stats_sinks: {}", "\t- x: }"] {
            let refusal = with_sink(yaml, SINK).unwrap_err();
            assert_eq!(refusal.reason, Reason::UnreadableConfiguration, "{yaml}");
        }
    }

    #[test]
    fn every_version_has_its_own_shape() {
        let shape = |version, dialect| sink(version, dialect, 9125);
        let new = shape(None, Dialect::DogStatsd).unwrap();
        assert_eq!(shape(Some(Version(1, 16)), Dialect::DogStatsd).unwrap(), new);
        assert!(new.contains("max_bytes_per_datagram") && new.contains("v3.DogStatsdSink"));
        assert!(!shape(Some(Version(1, 15)), Dialect::DogStatsd).unwrap().contains("max_bytes"));
        assert!(!shape(None, Dialect::Statsd).unwrap().contains("max_bytes"));
        let old = shape(Some(Version(1, 13)), Dialect::DogStatsd).unwrap();
        assert!(old.starts_with(r#"{"name":"envoy.dog_statsd","config":{"address""#), "{old}");
        assert_eq!(shape(Some(Version(1, 6)), Dialect::Statsd).unwrap_err().reason, Reason::UnsupportedVersion);
        for version in [Version(1, 7), Version(1, 14), Version(1, 40)] {
            for dialect in [Dialect::DogStatsd, Dialect::Statsd] {
                let overlay = overlay(&sink(Some(version), dialect, 8125).unwrap());
                assert_eq!(local_sink(&overlay), Ok(Some(LocalSink { port: 8125, dialect })), "{overlay}");
            }
        }
    }

    #[test]
    fn only_a_sink_to_this_very_pod_is_local() {
        let with = |address: &str, rest: &str| {
            local_sink(&format!(
                "statsSinks: [{{name: envoy.stat_sinks.metrics_service, typed_config: {{address: 7}}}}, {{name: x, typedConfig: {{'@type': a.b/c.StatsdSink, address: {{socketAddress: {{address: {address}, portValue: \"8125\"}}}}{rest}}}}}]"
            ))
        };
        assert_eq!(with("127.0.0.1", ""), Ok(Some(LocalSink { port: 8125, dialect: Dialect::Statsd })));
        assert_eq!(with("127.0.0.1", ", prefix: envoy"), with("127.0.0.1", ""));
        assert_eq!(with("10.0.0.1", ""), Ok(None));
        assert_eq!(with("127.0.0.1", ", prefix: edge").unwrap_err().reason, Reason::ExistingStatsd);
        assert_eq!(local_sink("admin: {}"), Ok(None));
    }
}
