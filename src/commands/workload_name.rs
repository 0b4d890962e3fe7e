//! A workload as it is named on the command line.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// How alike two names must be for one to be offered for the other, from 0 to 1.
const ALIKE: f64 = 0.8;
/// The kinds by the names that kubectl takes.
const KINDS: [(&str, &[&str]); 3] = [
    ("Deployment", &["deployment", "deployments", "deploy"]),
    ("StatefulSet", &["statefulset", "statefulsets", "sts"]),
    ("DaemonSet", &["daemonset", "daemonsets", "ds"]),
];

/// A name, with a kind or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkloadName {
    kind: Option<String>,
    name: String,
}

impl FromStr for WorkloadName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (Some(kind), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || kind == Some("") {
            bail!("{text:?} names no workload; write KIND/NAME, such as deployment/edge");
        }
        let kind = kind.map(|kind| {
            // `deployments.apps`, `deployments.v1.apps`.
            let word = kind.split('.').next().unwrap_or(kind).to_lowercase();
            let known = KINDS.iter().find(|(_, words)| words.contains(&word.as_str()));
            known.map_or_else(|| word.clone(), |(kind, _)| (*kind).to_owned())
        });
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl WorkloadName {
    /// Returns true if this names an object of that kind and name.
    pub(super) fn is(&self, kind: &str, name: &str) -> bool {
        let is_kind = |own: &String| {
            own.eq_ignore_ascii_case(kind) || own.strip_suffix('s').is_some_and(|one| one.eq_ignore_ascii_case(kind))
        };
        self.name == name && self.kind.as_ref().is_none_or(is_kind)
    }

    /// The name among these, such as `deployment.apps/edge`, that was probably meant.
    pub(super) fn nearest<'a>(&self, known: &'a [String]) -> Option<&'a str> {
        let likeness = |resource: &str| {
            let name = resource.split_once('/').map_or(resource, |(_, name)| name);
            strsim::jaro_winkler(&self.name, name)
        };
        let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(best) >= ALIKE).then_some(best)
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Some(kind) => write!(f, "{kind} {}", self.name),
            None => write!(f, "workload {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_kubectl_takes_them() {
        for text in ["edge", "deploy/edge", "deployment/edge", "Deployments.apps/edge", "deployment.v1.apps/edge"] {
            assert!(text.parse::<WorkloadName>().unwrap().is("Deployment", "edge"), "{text}");
        }
        assert!(!"sts/edge".parse::<WorkloadName>().unwrap().is("Deployment", "edge"));
        assert!("rollouts/edge".parse::<WorkloadName>().unwrap().is("Rollout", "edge"));
        for text in ["", "/", "deploy/", "/edge", "a/b/c"] {
            assert!(text.parse::<WorkloadName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistyped_name_is_found() {
        let known = ["deployment.apps/edge".to_owned(), "deployment.apps/shop".to_owned()];
        assert_eq!("egde".parse::<WorkloadName>().unwrap().nearest(&known), Some("deployment.apps/edge"));
        assert_eq!("billing".parse::<WorkloadName>().unwrap().nearest(&known), None);
    }
}
