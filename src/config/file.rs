//! The configuration file: YAML, every field of which but apiVersion and kind may be left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::str::FromStr;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::{Image, Interval, Names, PullPolicy};
use crate::annotations::{Mode, PREFIX, PartialResources, Target};
use crate::kubernetes::labels::{self, Labels};

/// The file with all defaults, and what each field means.
pub const DEFAULT: &str = include_str!("default.yaml");

/// The configuration of `gwmon serve` and `gwmon preview`. Flags override it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Configuration")]
pub struct ConfigFile {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// The kind of this file.
    pub kind: Kind,
    /// The statsd_exporter sidecar.
    #[serde(default)]
    pub exporter: ExporterFields,
    /// The gateways.
    #[serde(default)]
    pub gateways: GatewayFields,
    /// The ServiceMonitors.
    #[serde(default)]
    pub monitors: MonitorFields,
}

/// The version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first.
    #[default]
    #[serde(rename = "gwmon.io/v1alpha1")]
    V1Alpha1,
}

/// The kind of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Kind {
    /// The only one.
    #[default]
    Configuration,
}

/// The statsd_exporter sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExporterFields {
    /// The image; set it if the cluster pulls through a mirror.
    #[serde(deserialize_with = "from_text")]
    #[schemars(with = "Option<String>")]
    pub image: Option<Image>,
    /// When the kubelet pulls the image. Without it, Kubernetes decides by the image's tag.
    pub image_pull_policy: Option<PullPolicy>,
    /// Names of Secrets with a registry's password in the gateway's own namespace; they are added to those of the pod.
    #[serde(deserialize_with = "object_names")]
    pub image_pull_secrets: Vec<String>,
    /// Requests and limits. What is left out keeps its default.
    #[schemars(with = "RequirementFields")]
    pub resources: PartialResources,
    /// The kind of the container.
    pub sidecar: Option<SidecarKind>,
}

/// Requests and limits, as a container has them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RequirementFields {
    /// `cpu` and `memory`.
    requests: BTreeMap<String, String>,
    /// `cpu` and `memory`.
    limits: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for PartialResources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RequirementFields { requests, limits } = RequirementFields::deserialize(deserializer)?;
        Self::of(&requests, &limits).map_err(D::Error::custom)
    }
}

/// The gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayFields {
    /// The mode of a gateway that chooses none by gwmon.io/mode: statsd, scrape, or auto for what suits it.
    pub mode: Option<ModeWord>,
    /// The namespaces in which pods may be injected; `*` is any.
    #[serde(deserialize_with = "namespaces")]
    #[schemars(with = "Option<Vec<String>>")]
    pub namespaces: Option<Names>,
    /// The gateways in one namespace that get a Service and a ServiceMonitor.
    pub max_per_namespace: Option<usize>,
}

/// A mode, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModeWord {
    /// What suits the gateway.
    Auto,
    /// By statsd to the exporter.
    Statsd,
    /// At its own endpoint.
    Scrape,
}

impl From<ModeWord> for Option<Mode> {
    fn from(word: ModeWord) -> Self {
        match word {
            ModeWord::Auto => None,
            ModeWord::Statsd => Some(Mode::Statsd),
            ModeWord::Scrape => Some(Mode::Scrape),
        }
    }
}

/// The kind of container that the sidecar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SidecarKind {
    /// A native sidecar if the cluster's version has them.
    Auto,
    /// An init container with restartPolicy Always.
    Native,
    /// A regular container.
    Regular,
}

/// The ServiceMonitors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MonitorFields {
    /// The Prometheus, PrometheusAgent or other scrapers to use unless an annotation names another, as namespace/name.
    #[serde(deserialize_with = "scrapers")]
    #[schemars(with = "Vec<String>")]
    pub prometheus: Vec<(String, String)>,
    /// Labels for every ServiceMonitor, for scrapers that no Kubernetes object configures, such as Grafana Alloy.
    #[serde(deserialize_with = "label_map")]
    pub labels: Labels,
    /// The label keys that gwmon.io/monitor-labels may set; `*` is any.
    #[serde(deserialize_with = "label_keys")]
    #[schemars(with = "Option<Vec<String>>")]
    pub allowed_labels: Option<Names>,
    /// The shortest interval that gwmon.io/interval may set.
    #[serde(deserialize_with = "from_text")]
    #[schemars(with = "Option<String>")]
    pub min_interval: Option<Interval>,
    /// The longest.
    #[serde(deserialize_with = "from_text")]
    #[schemars(with = "Option<String>")]
    pub max_interval: Option<Interval>,
    /// The namespaces whose gateways may have their ServiceMonitor in the namespace of a Prometheus that reads no other; `*` is any.
    #[serde(deserialize_with = "namespaces")]
    #[schemars(with = "Option<Vec<String>>")]
    pub cross_namespace: Option<Names>,
}

impl FromStr for ConfigFile {
    type Err = InvalidFile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let file: Self = serde_saphyr::from_str(text).map_err(|error| InvalidFile::new(text, &error))?;
        let MonitorFields { min_interval, max_interval, .. } = &file.monitors;
        if let (Some(least), Some(most)) = (min_interval, max_interval)
            && least.is_above(most.as_str())
        {
            let why = format!("monitors.minInterval is {least}, longer than monitors.maxInterval, which is {most}");
            return Err(InvalidFile { place: None, why, line: String::new() });
        }
        Ok(file)
    }
}

/// Why a text is no configuration: `LINE:COLUMN: why`, and in the lines below that line with a caret at the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidFile {
    place: Option<(usize, usize)>,
    why: String,
    line: String,
}

impl InvalidFile {
    fn new(text: &str, error: &serde_saphyr::Error) -> Self {
        let place = error.location().and_then(|location| {
            let number = |number: u64| usize::try_from(number).ok().filter(|number| *number > 0);
            Some((number(location.line())?, number(location.column())?))
        });
        let why = error.without_snippet().to_string();
        // The place stands in front.
        let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why).to_owned();
        let line = place.and_then(|(line, _)| text.lines().nth(line - 1)).unwrap_or_default().to_owned();
        Self { place, why, line }
    }
}

impl fmt::Display for InvalidFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((line, column)) = self.place else { return write!(f, " {}", self.why) };
        writeln!(f, "{line}:{column}: {}", self.why)?;
        writeln!(f, "  {}", self.line)?;
        write!(f, "  {:>column$}", "^")
    }
}

/// The JSON schema of the file, of the draft that Helm and editors read.
#[must_use]
pub fn schema() -> Schema {
    SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<ConfigFile>()
}

fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    Option::<String>::deserialize(deserializer)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

/// A list of names, each of which passes `is_valid`, or `*` alone.
fn names<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &str,
    is_valid: fn(&str) -> bool,
) -> Result<Option<Names>, D::Error> {
    let Some(list) = Option::<BTreeSet<String>>::deserialize(deserializer)? else { return Ok(None) };
    if list.iter().any(|name| name == "*") {
        return if list.len() == 1 {
            Ok(Some(Names::Any))
        } else {
            Err(D::Error::custom("\"*\" is any; leave the others out"))
        };
    }
    match list.iter().find(|name| !is_valid(name)) {
        Some(wrong) => Err(D::Error::custom(format_args!("{wrong:?} is not a valid {what}"))),
        None => Ok(Some(Names::Only(list))),
    }
}

fn namespaces<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Names>, D::Error> {
    names(deserializer, "namespace", labels::is_dns_part)
}

fn label_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Names>, D::Error> {
    names(deserializer, "label key", labels::is_key)
}

fn object_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut names = Vec::<String>::deserialize(deserializer)?;
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    match names.iter().find(|name| !labels::is_dns_subdomain(name)) {
        Some(wrong) => Err(D::Error::custom(format_args!("{wrong:?} is not a valid name of a Secret"))),
        None => Ok(names),
    }
}

fn label_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    let labels = Labels::deserialize(deserializer)?;
    if let Some(key) = labels.keys().find(|key| key.starts_with(PREFIX)) {
        return Err(D::Error::custom(format_args!("the label {key} is gwmon's own")));
    }
    match labels.iter().find(|(key, value)| !labels::is_key(key) || !labels::is_value(value)) {
        Some((key, value)) => Err(D::Error::custom(format_args!("{key}: {value:?} is not a valid label"))),
        None => Ok(labels),
    }
}

fn scrapers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let named = |text: String| match text.parse() {
        Ok(Target::Named { namespace, name }) => Ok((namespace, name)),
        _ => Err(D::Error::custom(format_args!("{text:?} names no Prometheus; use namespace/name"))),
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(named).collect()
}
