//! The Prometheus text format, as far as two expositions have to be compared.

use std::collections::BTreeMap;
use std::fmt;

/// One series, or one histogram with all its series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        write!(f, "{}{{{}}}", self.name, labels.join(","))
    }
}

/// What a series says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Of a counter or a gauge.
    pub(crate) value: f64,
    pub(crate) count: f64,
    pub(crate) sum: f64,
    /// Upper bound and cumulative count, in the order of the bounds.
    pub(crate) buckets: Vec<(f64, f64)>,
}

pub(crate) type Exposition = BTreeMap<Series, Sample>;

/// Reads an exposition. A label without a value is none, as Prometheus takes it.
pub(crate) fn parse(text: &str) -> Exposition {
    let kinds: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut exposition = Exposition::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some((head, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        let mut labels = self::labels(labels);
        let histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| {
            let family = name.strip_suffix(suffix)?;
            (kinds.get(family) == Some(&"histogram")).then_some((family, suffix))
        });
        let bound = histogram.and_then(|_| labels.remove("le")).and_then(|bound| bound.parse().ok());
        let (name, suffix) = histogram.unwrap_or((name, ""));
        let kind = kinds.get(name).copied().unwrap_or("untyped").to_owned();
        let sample = exposition.entry(Series { kind, name: name.to_owned(), labels }).or_default();
        match (suffix, bound) {
            ("_bucket", Some(bound)) => sample.buckets.push((bound, value)),
            ("_sum", _) => sample.sum = value,
            ("_count", _) => sample.count = value,
            _ => sample.value = value,
        }
    }
    for sample in exposition.values_mut() {
        sample.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    exposition
}

fn labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut rest = rest.char_indices();
        let mut end = text.len();
        while let Some((at, c)) = rest.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => value.extend(rest.next().map(|(_, c)| if c == 'n' { '\n' } else { c })),
                c => value.push(c),
            }
        }
        if !value.is_empty() {
            labels.insert(name.trim_start_matches([',', ' ']).to_owned(), value);
        }
        text = text.get(name.len() + 2 + end..).unwrap_or_default();
    }
    labels
}
