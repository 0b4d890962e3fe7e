//! Label selectors: what they ask for, whether labels meet it, and which labels would.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::kubernetes::labels::{Labels, is_key, is_value};

/// The operator of a requirement, with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelOperator {
    In(BTreeSet<String>),
    /// Also met where the key is absent, as Kubernetes has it.
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    /// Compared as numbers; on command lines only.
    Above(i64),
    Below(i64),
}

impl LabelOperator {
    fn is_met(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::Above(bound) => value.and_then(|value| value.parse::<i64>().ok()).is_some_and(|value| value > *bound),
            Self::Below(bound) => value.and_then(|value| value.parse::<i64>().ok()).is_some_and(|value| value < *bound),
        }
    }
}

/// One requirement of a selector. Displayed as kubectl takes it after `-l`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: LabelOperator,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let key = &self.key;
        match &self.operator {
            LabelOperator::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            LabelOperator::In(values) => write!(f, "{key} in ({})", list(values)),
            LabelOperator::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            LabelOperator::Exists => f.write_str(key),
            LabelOperator::DoesNotExist => write!(f, "!{key}"),
            LabelOperator::Above(bound) => write!(f, "{key}>{bound}"),
            LabelOperator::Below(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

/// A label selector that Kubernetes would accept: all its conditions must hold. Empty, it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// Both sides of a condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    needs: String,
    has: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {}, has {}", self.needs, self.has)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

impl Selector {
    /// Reads a `metav1.LabelSelector` by the rules of apimachinery's `LabelSelectorAsSelector`.
    ///
    /// # Errors
    /// The field and what is wrong with it. Nothing at all is selected by a selector that Kubernetes cannot read.
    pub fn parse(selector: &LabelSelector) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let operator = LabelOperator::In(BTreeSet::from([value.clone()]));
            requirements.push(checked(key, operator).map_err(|why| format!("matchLabels: {why}"))?);
        }
        for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let values = || expression.values.iter().flatten().cloned().collect::<BTreeSet<_>>();
            let operator = match expression.operator.as_str() {
                "In" => LabelOperator::In(values()),
                "NotIn" => LabelOperator::NotIn(values()),
                "Exists" | "DoesNotExist" if !values().is_empty() => {
                    return Err(format!("matchExpressions[{i}]: {} takes no values", expression.operator));
                }
                "Exists" => LabelOperator::Exists,
                "DoesNotExist" => LabelOperator::DoesNotExist,
                other => {
                    return Err(format!(
                        "matchExpressions[{i}]: operator {other:?} is none of In, NotIn, Exists, DoesNotExist"
                    ));
                }
            };
            requirements
                .push(checked(&expression.key, operator).map_err(|why| format!("matchExpressions[{i}]: {why}"))?);
        }
        Ok(Self(requirements))
    }

    /// Reads a selector as it is written on a command line: `a=b,c!=d,e in (f,g),h,!i`.
    ///
    /// # Errors
    /// The part that is none.
    pub fn parse_text(text: &str) -> Result<Self, String> {
        let mut depth = 0_usize;
        let parts = text.split(|c| {
            depth = match c {
                '(' => depth + 1,
                ')' => depth.saturating_sub(1),
                _ => depth,
            };
            c == ',' && depth == 0
        });
        let parse = |part: &str| {
            let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
            let many = |list: &str| -> Option<BTreeSet<String>> {
                let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
                Some(list.split(',').map(|value| value.trim().to_owned()).collect())
            };
            if let Some(key) = part.strip_prefix('!') {
                return checked(key.trim(), LabelOperator::DoesNotExist);
            }
            let end = part.find(|c: char| c.is_whitespace() || "!=<>(".contains(c)).unwrap_or(part.len());
            let (key, rest) = (&part[..end], part[end..].trim());
            let list = |rest: &str| many(rest).ok_or_else(|| format!("{part:?} lacks its list in parentheses"));
            let number = |text: &str| text.trim().parse().map_err(|_| format!("{part:?} needs a whole number"));
            let operator = if rest.is_empty() {
                LabelOperator::Exists
            } else if let Some(value) = rest.strip_prefix("!=") {
                LabelOperator::NotIn(one(value))
            } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
                LabelOperator::In(one(value))
            } else if let Some(value) = rest.strip_prefix('>') {
                LabelOperator::Above(number(value)?)
            } else if let Some(value) = rest.strip_prefix('<') {
                LabelOperator::Below(number(value)?)
            } else if let Some(values) = rest.strip_prefix("notin") {
                LabelOperator::NotIn(list(values)?)
            } else if let Some(values) = rest.strip_prefix("in") {
                LabelOperator::In(list(values)?)
            } else {
                return Err(format!("{part:?} is no condition on a label"));
            };
            checked(key, operator)
        };
        parts.map(str::trim).filter(|part| !part.is_empty()).map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Returns true if there is no condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that the selector speaks of.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|requirement| requirement.key.as_str())
    }

    /// Checks that the labels meet every condition.
    ///
    /// # Errors
    /// The first condition that does not hold, with both sides.
    pub fn check(&self, labels: &Labels) -> Result<(), Mismatch> {
        let unmet = self.0.iter().find(|r| !r.operator.is_met(labels.get(&r.key).map(String::as_str)));
        unmet.map_or(Ok(()), |requirement| {
            let has =
                labels.get(&requirement.key).map_or_else(|| "none".to_owned(), |v| format!("{}={v}", requirement.key));
            Err(Mismatch { needs: requirement.to_string(), has })
        })
    }

    /// Returns true if the labels meet every condition.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.check(labels).is_ok()
    }
}

/// Checks that key and values are valid: Kubernetes accepts no selector with others.
fn checked(key: &str, operator: LabelOperator) -> Result<Requirement, String> {
    if !is_key(key) {
        return Err(format!("{key:?} is not a valid label key"));
    }
    if let LabelOperator::In(values) | LabelOperator::NotIn(values) = &operator {
        if values.is_empty() {
            return Err(format!("{key} lacks the values to choose from"));
        }
        if let Some(bad) = values.iter().find(|value| !is_value(value)) {
            return Err(format!("{bad:?} is not a valid label value for {key}"));
        }
    }
    Ok(Requirement { key: key.to_owned(), operator })
}

/// Labels that meet all of these selectors at once. Required labels stay as they are; default labels stay unless something forbids
/// them, and give way where something does. No key is added that no selector asks for, and the same selectors always
/// give the same labels.
///
/// # Errors
/// The key for which there is no value, with every condition on it.
pub fn solve(selectors: &[&Selector], required: &Labels, defaults: &Labels) -> Result<Labels, String> {
    let mut demands: BTreeMap<&str, Vec<&Requirement>> = BTreeMap::new();
    for requirement in selectors.iter().flat_map(|selector| &selector.0) {
        demands.entry(&requirement.key).or_default().push(requirement);
    }
    let mut labels = defaults.clone();
    labels.extend(required.clone());
    for (key, requirements) in demands {
        let allowed = |value: Option<&str>| requirements.iter().all(|r| r.operator.is_met(value));
        if allowed(labels.get(key).map(String::as_str)) {
            continue;
        }
        let asked = || requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if let Some(value) = required.get(key) {
            return Err(format!("label {key}={value} is set, but {} is asked for", asked()));
        }
        if allowed(None) {
            labels.remove(key);
            continue;
        }
        let value =
            value_for(&requirements, allowed).ok_or_else(|| format!("no value of label {key} meets {}", asked()))?;
        labels.insert(key.to_owned(), value);
    }
    Ok(labels)
}

/// The smallest allowed value of the first `In`; without one, the first allowed of `true`, `gwmon`, `gwmon-N`.
fn value_for(requirements: &[&Requirement], allowed: impl Fn(Option<&str>) -> bool) -> Option<String> {
    let listed = requirements.iter().find_map(|requirement| match &requirement.operator {
        LabelOperator::In(values) => Some(values),
        _ => None,
    });
    if let Some(values) = listed {
        return values.iter().find(|value| allowed(Some(value))).cloned();
    }
    // Fewer values are forbidden than tried, so the search ends.
    let forbidden: usize = requirements
        .iter()
        .map(|requirement| match &requirement.operator {
            LabelOperator::NotIn(values) => values.len(),
            _ => 0,
        })
        .sum();
    let numbered = (1..=forbidden).map(|n| format!("gwmon-{n}"));
    ["true".to_owned(), "gwmon".to_owned()].into_iter().chain(numbered).find(|value| allowed(Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        Selector::parse_text(text).unwrap()
    }

    fn labels(text: &str) -> Labels {
        text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn a_selector_reads_as_kubectl_writes_it() {
        let text = "a=b,c notin (d,e),f in (g,h),i,!j,k/l=";
        assert_eq!(selector(text).to_string(), text);
        assert_eq!(selector(" a == b , c!=d ").to_string(), "a=b,c notin (d)");
        for wrong in ["a b", "a in b", "a=b c", "/a", "-a", "a.b./c", "!", "a=_"] {
            assert!(Selector::parse_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_malformed_selector_names_the_field() {
        for (json, field) in [
            (
                r#"{"matchLabels": {"release": "not a label"}}"#,
                "matchLabels: \"not a label\" is not a valid label value for release",
            ),
            (r#"{"matchLabels": {"a b": ""}}"#, "matchLabels: \"a b\" is not a valid label key"),
            (r#"{"matchExpressions": [{"key": "a", "operator": "Near"}]}"#, "matchExpressions[0]: operator \"Near\""),
            (r#"{"matchExpressions": [{"key": "a", "operator": "In"}]}"#, "matchExpressions[0]: a lacks the values"),
            (
                r#"{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}"#,
                "Exists takes no values",
            ),
        ] {
            let error = Selector::parse(&serde_json::from_str(json).unwrap()).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
        assert!(!is_value(&"v".repeat(64)) && is_value(&"v".repeat(63)) && is_value(""));
    }

    #[test]
    fn both_sides_of_a_mismatch_are_told() {
        let told = |text: &str, has: &str| selector(text).check(&labels(has)).unwrap_err().to_string();
        assert_eq!(told("release=kps", "app=edge"), "needs release=kps, has none");
        assert_eq!(told("app,release=kps", "app=edge,release=other"), "needs release=kps, has release=other");
        assert_eq!(told("!team", "team=a"), "needs !team, has team=a");
        assert!(selector("a notin (b)").matches(&labels("")), "absent is not in");
    }

    #[test]
    fn soft_labels_give_way_and_hard_ones_do_not() {
        let defaults = labels("by=gwmon");
        let solve = |text: &str, required: &str| solve(&[&selector(text)], &labels(required), &defaults);
        assert_eq!(solve("!by", "").unwrap(), labels(""));
        assert_eq!(solve("by in (helm,other)", "").unwrap(), labels("by=helm"));
        assert_eq!(solve("a in (x,y)", "a=y").unwrap(), labels("a=y,by=gwmon"));
        assert_eq!(solve("!a", "a=y").unwrap_err(), "label a=y is set, but !a is asked for");
        assert_eq!(solve("a,a notin (true,gwmon,gwmon-1)", "").unwrap(), labels("a=gwmon-2,by=gwmon"));
        assert_eq!(solve("a=b,a notin (b)", "").unwrap_err(), "no value of label a meets a=b and a notin (b)");
    }
}
