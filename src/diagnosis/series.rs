//! What a Prometheus has scraped of the gateways, by the answers to a few queries that cover all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::injection::exporter::PORT_NAME;
use crate::kubernetes::labels::Labels;

/// A gateway's namespace and the name of its Service, which its targets carry as labels.
pub type Key = (String, String);

/// A pod's namespace and name.
pub type PodKey = (String, String);

/// The time over which rates are taken, in seconds.
pub const WINDOW: u32 = 300;

/// A question about all gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Whether the last scrape of each target succeeded.
    Up,
    /// Samples a second.
    Samples,
    /// Lines that the exporters have received.
    Lines,
    /// What the exporters have dropped or rejected.
    Lost,
    /// Summaries, where histograms should be.
    Summaries,
    /// Labels that Prometheus renamed.
    Renamed,
    /// Targets at an address that is scraped more than once.
    Twice,
}

impl Query {
    /// Those for one line about each gateway.
    pub const SUMMARY: [Self; 2] = [Self::Up, Self::Samples];
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Up, Self::Samples, Self::Lines, Self::Lost, Self::Summaries, Self::Renamed, Self::Twice];

    /// The query, in PromQL. `statsd_exporter` 0.30 counts what it loses under these names.
    #[must_use]
    pub fn promql(self) -> String {
        let ours = format!("endpoint=\"{PORT_NAME}\"");
        let by = "sum by (namespace, service)";
        // Pods that are gone count for a while; whoever asks knows which are there.
        let by_pod = "by (namespace, service, pod)";
        match self {
            Self::Up => format!("up{{{ours}}}"),
            Self::Samples => {
                format!("{by} (sum_over_time(scrape_samples_post_metric_relabeling{{{ours}}}[{WINDOW}s])) / {WINDOW}")
            }
            Self::Lines => format!("sum {by_pod} (increase(statsd_exporter_lines_total{{{ours}}}[{WINDOW}s]))"),
            Self::Lost => {
                let lost = [
                    "sample_errors_total",
                    "events_error_total",
                    "events_conflict_total",
                    "tag_errors_total",
                    "udp_packet_drops_total",
                ];
                // `increase` drops the name, so each keeps it in a label of its own.
                let each = lost.map(|name| {
                    format!("label_replace(sum by (namespace, service, pod, reason) (increase(statsd_exporter_{name}{{{ours}}}[{WINDOW}s])) > 0, \"lost\", \"{name}\", \"\", \"\")")
                });
                each.join(" or ")
            }
            Self::Summaries => {
                format!("count {by_pod} ({{{ours}, quantile!=\"\", __name__=~\"envoy_.+\"}})")
            }
            Self::Renamed => {
                let each = ["namespace", "pod", "service", "container", "endpoint", "instance", "job"].map(|label| {
                    format!("label_replace(count {by_pod} ({{{ours}, exported_{label}!=\"\"}}), \"renamed\", \"{label}\", \"\", \"\")")
                });
                each.join(" or ")
            }
            Self::Twice => {
                format!(
                    "up * on (instance) group_left () (count by (instance) (up) > 1 and on (instance) up{{{ours}}})"
                )
            }
        }
    }
}

/// One sample of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

impl Sample {
    fn label(&self, name: &str) -> String {
        self.labels.get(name).cloned().unwrap_or_default()
    }

    fn key(&self) -> Key {
        (self.label("namespace"), self.label("service"))
    }

    fn pod(&self) -> PodKey {
        (self.label("namespace"), self.label("pod"))
    }
}

/// Reads the samples of an answer of `/api/v1/query`.
///
/// # Errors
/// What Prometheus says, or that it says something else.
pub fn samples(json: &str) -> Result<Vec<Sample>, String> {
    #[derive(Deserialize)]
    struct Answer {
        data: Option<Data>,
        error: Option<String>,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(default)]
        result: Vec<Series>,
    }
    #[derive(Deserialize)]
    struct Series {
        metric: Labels,
        value: (f64, String),
    }
    let answer: Answer = serde_json::from_str(json).map_err(|_| "it does not answer as Prometheus does".to_owned())?;
    let Some(data) = answer.data else { return Err(answer.error.unwrap_or_default()) };
    let sample = |series: Series| Some(Sample { labels: series.metric, value: series.value.1.parse().ok()? });
    Ok(data.result.into_iter().filter_map(sample).collect())
}

/// A target of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its pod.
    pub pod: String,
    /// Its address.
    pub instance: String,
    /// True if the last scrape succeeded.
    pub is_up: bool,
    /// The error of the last scrape, where it is known.
    pub error: Option<String>,
}

/// What one Prometheus has scraped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// The targets of each gateway.
    pub targets: BTreeMap<Key, Vec<Target>>,
    /// Samples a second.
    pub samples: BTreeMap<Key, f64>,
    /// Lines that each pod's exporter has received within [`WINDOW`].
    pub lines: BTreeMap<PodKey, f64>,
    /// What it has lost within [`WINDOW`], by the name of the counter and its reason.
    pub lost: BTreeMap<PodKey, Vec<(String, f64)>>,
    /// Pods with summaries.
    pub summaries: BTreeSet<PodKey>,
    /// The labels that Prometheus renamed to `exported_…`.
    pub renamed: BTreeMap<PodKey, Vec<String>>,
    /// The scrape jobs of addresses that are scraped more than once, by address.
    pub twice: BTreeMap<String, Vec<String>>,
    /// True if it could not load its newest configuration.
    pub is_reload_failing: bool,
}

impl Series {
    /// Takes in the answer to a query.
    pub fn take(&mut self, query: Query, samples: Vec<Sample>) {
        for sample in samples {
            let key = sample.key();
            match query {
                Query::Up => self.targets.entry(key).or_default().push(Target {
                    pod: sample.label("pod"),
                    instance: sample.label("instance"),
                    is_up: sample.value > 0.,
                    error: None,
                }),
                Query::Samples => drop(self.samples.insert(key, sample.value)),
                Query::Lines => drop(self.lines.insert(sample.pod(), sample.value)),
                Query::Lost => {
                    let what = [sample.label("lost"), sample.label("reason")];
                    let what: Vec<_> = what.into_iter().filter(|word| !word.is_empty()).collect();
                    self.lost.entry(sample.pod()).or_default().push((what.join(" "), sample.value));
                }
                Query::Summaries => drop(self.summaries.insert(sample.pod())),
                Query::Renamed => self.renamed.entry(sample.pod()).or_default().push(sample.label("renamed")),
                Query::Twice => {
                    let job = format!("{} in {}", sample.label("job"), sample.label("namespace"));
                    self.twice.entry(sample.label("instance")).or_default().push(job);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_an_error_is_told() {
        let answer = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"namespace":"edge","service":"edge-gwmon","pod":"p","instance":"10.0.0.1:9102"},"value":[1.5,"1"]},
            {"metric":{"namespace":"edge","service":"edge-gwmon","pod":"q"},"value":[1.5,"0"]}]}}"#;
        let mut series = Series::default();
        series.take(Query::Up, samples(answer).unwrap());
        let targets = &series.targets[&("edge".to_owned(), "edge-gwmon".to_owned())];
        assert_eq!(targets.iter().map(|target| target.is_up).collect::<Vec<_>>(), [true, false]);
        let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert_eq!(samples(refused).unwrap_err(), "parse error");
        assert!(samples("<html>").is_err());
    }
}
