//! The predicate by which a Prometheus selects a ServiceMonitor, as in prometheus-operator 0.93
//! (`pkg/prometheus/resource_selector.go`, `pkg/operator/operator.go`).

use std::collections::BTreeMap;
use std::fmt;

use super::operator::{Instance, Operator, Running};
use super::scraper::{Kind, NamespaceScope, Scraper};
use crate::kubernetes::labels::Labels;
use crate::reason::{Finding, Reason};

pub(super) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The objects that configure monitoring in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Everything that reads ServiceMonitors.
    pub scrapers: Vec<Scraper>,
    /// The Prometheus Operators that were found. Where none was, one without restrictions is assumed.
    pub operators: Vec<Operator>,
    /// The labels of every namespace.
    pub namespaces: BTreeMap<String, Labels>,
}

/// A condition of the predicate, in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// An operator runs the scraper, and it reads ServiceMonitors at all.
    Handled,
    /// That operator sees the monitor's namespace.
    Watched,
    /// The namespace selector matches.
    Namespace,
    /// The label selector matches.
    Labels,
}

/// The first condition that fails, with both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The condition.
    pub condition: Condition,
    /// The requirement, and what was found.
    pub detail: String,
}

impl Unmet {
    fn new(condition: Condition, detail: impl Into<String>) -> Self {
        Self { condition, detail: detail.into() }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// The reason why a scraper does not scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// For a person.
    pub finding: Finding,
    /// True if it also happens briefly whenever pods are replaced; then it is not reported.
    pub is_passing: bool,
}

impl Cluster {
    /// Puts the objects in one order, and each there once: an operator may carry both labels by which it is found.
    pub fn normalize(&mut self) {
        self.scrapers.sort_by(|a, b| a.key().cmp(&b.key()).then_with(|| a.to_string().cmp(&b.to_string())));
        self.operators.sort_by(|a, b| a.name.cmp(&b.name));
        self.operators.dedup();
    }

    /// The predicate: whether this scraper selects a monitor with these labels in this namespace.
    ///
    /// # Errors
    /// The first condition that fails.
    pub fn selects(&self, scraper: &Scraper, namespace: &str, labels: &Labels) -> Result<(), Unmet> {
        if scraper.paused {
            return Err(Unmet::new(
                Condition::Handled,
                "is paused (spec.paused), so its configuration stays as it was",
            ));
        }
        if let (None, Err(why)) = (&scraper.obstacle, self.handlers(scraper)) {
            return Err(Unmet::new(Condition::Handled, why));
        }
        self.would_select(scraper, namespace, labels)
    }

    /// The same as [`Self::selects`], assuming that an operator handles it and it runs.
    ///
    /// # Errors
    /// The first condition that fails.
    pub fn would_select(&self, scraper: &Scraper, namespace: &str, labels: &Labels) -> Result<(), Unmet> {
        if let Some(obstacle) = &scraper.obstacle {
            return Err(Unmet::new(Condition::Handled, obstacle));
        }
        self.reads(scraper, namespace)?;
        let field = scraper.selector_field;
        let unmet = |mismatch| Unmet::new(Condition::Labels, format!("{field} {mismatch}"));
        scraper.selector.check(labels).map_err(unmet)
    }

    /// Whether this scraper loads a PrometheusRule with these labels in this namespace.
    ///
    /// # Errors
    /// The first condition that fails, with both sides.
    pub fn loads_rule(&self, scraper: &Scraper, namespace: &str, labels: &Labels) -> Result<(), String> {
        let Some((selector, scope)) = &scraper.rules else {
            return Err("loads no rules: it has no spec.ruleSelector".to_owned());
        };
        match scope {
            NamespaceScope::Own if namespace != scraper.namespace => {
                return Err(format!(
                    "spec.ruleNamespaceSelector is absent, which needs namespace {}",
                    scraper.namespace
                ));
            }
            NamespaceScope::Own => {}
            NamespaceScope::Matching(namespaces) => namespaces
                .check(&self.namespace_labels(namespace))
                .map_err(|mismatch| format!("spec.ruleNamespaceSelector {mismatch} on namespace {namespace}"))?,
        }
        selector.check(labels).map_err(|mismatch| format!("spec.ruleSelector {mismatch}"))
    }

    /// Condition 1: the operators that handle this scraper; where some of them have been seen to run, only those, since
    /// anybody can make a Deployment that looks like one. Empty where none is known.
    ///
    /// # Errors
    /// Why none of the operators that are known does. Another one, not known, may.
    pub(super) fn handlers(&self, scraper: &Scraper) -> Result<Vec<&Operator>, String> {
        if !scraper.kind.is_operated() || self.operators.is_empty() {
            return Ok(vec![]);
        }
        let instance =
            Instance { namespace: &scraper.namespace, labels: &scraper.labels, controller_id: &scraper.controller_id };
        let mut refusals = Vec::new();
        let mut found = Vec::new();
        for operator in &self.operators {
            match operator.handles(&instance) {
                Ok(()) => found.push(operator),
                Err(why) => refusals.push(why),
            }
        }
        if found.is_empty() {
            return Err(refusals.join(" and "));
        }
        if found.iter().any(|operator| operator.running != Running::Never) {
            found.retain(|operator| operator.running != Running::Never);
        }
        Ok(found)
    }

    /// The reason why this scraper does not scrape what it selects, as far as the cluster's objects show. `None` if it
    /// runs.
    #[must_use]
    pub fn outage(&self, scraper: &Scraper) -> Option<Outage> {
        let outage = |reason, is_passing, detail: &str| {
            Some(Outage { finding: Finding::new(reason, format!("{scraper} {detail}")), is_passing })
        };
        if scraper.paused {
            let detail = "is paused (spec.paused) and selects no new monitor before it is resumed";
            return outage(Reason::PrometheusPaused, false, detail);
        }
        if scraper.health.has_no_replica {
            return outage(Reason::PrometheusNotRunning, false, "has no replica (spec.replicas is 0)");
        }
        let handlers = self.handlers(scraper).unwrap_or_default();
        let best = handlers.iter().max_by_key(|operator| operator.running);
        if let Some(operator) = best.filter(|operator| operator.running != Running::Now) {
            let detail = format!("selects no new monitor: its operator {} has no ready pod", operator.name);
            return outage(Reason::PrometheusNotRunning, operator.running == Running::NotNow, &detail);
        }
        match &scraper.health.reconciled {
            Some(Err(why)) => {
                let detail = format!("selects no new monitor: its condition Reconciled is False ({why})");
                return outage(Reason::PrometheusNotRunning, false, &detail);
            }
            None if scraper.kind.is_operated() && handlers.is_empty() => {
                // The selection reports this, with the assumption.
                return outage(Reason::OperatorUnknown, true, "has no operator that is known");
            }
            None if handlers.iter().any(|operator| operator.writes_conditions) => {
                return outage(Reason::PrometheusNotRunning, true, "has not been reconciled by its operator yet");
            }
            _ => {}
        }
        if scraper.health.is_unavailable {
            let detail = "has no ready pod: its condition Available is False";
            return outage(Reason::PrometheusNotRunning, true, detail);
        }
        None
    }

    /// Returns true if its operator writes on a monitor that it accepted it. Operator 0.93 does not for a
    /// `PrometheusAgent`.
    #[must_use]
    pub fn writes_bindings(&self, scraper: &Scraper) -> bool {
        let handlers = self.handlers(scraper).unwrap_or_default();
        scraper.kind == Kind::Prometheus && handlers.iter().any(|operator| operator.writes_bindings)
    }

    /// Conditions 2 and 3: monitors in this namespace are seen.
    pub(super) fn reads(&self, scraper: &Scraper, namespace: &str) -> Result<(), Unmet> {
        let handlers = self.handlers(scraper).unwrap_or_default();
        if let Some(operator) = handlers.first()
            && !handlers.iter().any(|operator| {
                operator.watches(namespace) && (scraper.scope == NamespaceScope::Own || operator.knows(namespace))
            })
        {
            let detail = format!(
                "operator {} does not watch {namespace} (its --namespaces or --deny-namespaces)",
                operator.name
            );
            return Err(Unmet::new(Condition::Watched, detail));
        }
        if scraper.allowed.as_ref().is_some_and(|names| !names.contains(namespace))
            || scraper.denied.contains(namespace)
        {
            let detail = format!("does not watch {namespace} (its allowNamespaces or denyNamespaces)");
            return Err(Unmet::new(Condition::Watched, detail));
        }
        let field = scraper.scope_field;
        match &scraper.scope {
            NamespaceScope::Own if namespace == scraper.namespace => Ok(()),
            NamespaceScope::Own => {
                let detail = format!(
                    "{field} is absent, which needs namespace {}, the monitor is in {namespace}",
                    scraper.namespace
                );
                Err(Unmet::new(Condition::Namespace, detail))
            }
            NamespaceScope::Matching(selector) => {
                selector.check(&self.namespace_labels(namespace)).map_err(|mismatch| {
                    Unmet::new(Condition::Namespace, format!("{field} {mismatch} on namespace {namespace}"))
                })
            }
        }
    }

    /// The labels of a namespace. One that was not told of, as in a preview, has at least the label that all have since Kubernetes 1.22.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Labels {
        let known = self.namespaces.get(namespace).cloned();
        known.unwrap_or_else(|| Labels::from([(NAMESPACE_NAME.to_owned(), namespace.to_owned())]))
    }
}
