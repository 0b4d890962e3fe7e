//! The inverse of the predicate: which Prometheus scrapes a gateway, and the namespace and labels that its
//! ServiceMonitor needs for that.

use std::cmp::Reverse;

use super::predicate::{Cluster, Condition, NAMESPACE_NAME, Outage};
use super::scraper::{NamespaceScope, Scraper};
use super::selector::{Selector, solve};
use crate::annotations::Target;
use crate::config::Bounds;
use crate::kubernetes::labels::Labels;
use crate::reason::{Finding, Reason};

/// Monitors of one gateway, each for Prometheuses that cannot share one.
const MOST_MONITORS: usize = 8;

/// A request for the monitors of a gateway.
#[derive(Clone, Copy, Debug)]
pub struct SelectionRequest<'a> {
    /// The gateway's namespace.
    pub namespace: &'a str,
    /// The Prometheus to select it.
    pub target: &'a Target,
    /// Labels that must stay as they are: gwmon's own and the user's.
    pub required: &'a Labels,
    /// Labels that may give way.
    pub defaults: &'a Labels,
    /// The labels of other people's monitors in the gateway's namespace: who reads those is preferred.
    pub existing_monitors: &'a [Labels],
    /// Whom the gateway's monitor was made for before, as `namespace/name`: as long as that can read it, another Prometheus
    /// that somebody creates does not take it away.
    pub reader: Option<&'a str>,
    /// The limits of gwmon's configuration.
    pub bounds: &'a Bounds,
}

/// One monitor: where it lives and what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The monitor's namespace.
    pub namespace: String,
    /// All of its labels.
    pub labels: Labels,
    /// Tells monitors of one gateway in one namespace apart; empty for the first.
    pub suffix: String,
}

/// The monitors of one gateway.
#[derive(Clone, Debug, Default)]
pub struct Selection<'c> {
    /// One, where a single Prometheus is asked for or all of them can agree.
    pub placements: Vec<Placement>,
    /// The selector that requires the labels, and its field, for a person.
    pub why: String,
    /// Warnings; the selection holds all the same.
    pub warnings: Vec<Finding>,
    /// The scrapers that select the monitors.
    pub readers: Vec<&'c Scraper>,
}

/// A scraper that could be satisfied, and how.
struct Candidate<'c> {
    scraper: &'c Scraper,
    namespace: String,
    labels: Labels,
    why: String,
}

impl Cluster {
    /// Chooses the scrapers, and the monitors that they select.
    ///
    /// # Errors
    /// [`Reason::NoPrometheus`] where there is no reader at all, [`Reason::PrometheusNotFound`] where the one that is
    /// asked for is not there, [`Reason::NotSelected`] with the condition that cannot be met on each.
    pub fn select<'c>(&'c self, request: &SelectionRequest) -> Result<Selection<'c>, Finding> {
        let asked = self.asked_for(request)?;
        let mut candidates = Vec::new();
        let mut obstacles = Vec::new();
        for &scraper in &asked {
            match self.candidate(scraper, request) {
                Ok(candidate) => candidates.push(candidate),
                Err(why) => obstacles.push(Finding::new(Reason::NotSelected, format!("{scraper} {why}"))),
            }
        }
        if candidates.is_empty() {
            let all: Vec<_> = obstacles.into_iter().map(|obstacle| obstacle.detail).collect();
            return Err(Finding::new(Reason::NotSelected, all.join("; ")));
        }
        let rank = |candidate: &Candidate| {
            let reads = |labels: &Labels| self.selects(candidate.scraper, request.namespace, labels).is_ok();
            (
                Reverse(request.reader == Some(candidate.scraper.place().as_str())),
                Reverse(candidate.namespace == request.namespace),
                Reverse(self.outage(candidate.scraper).is_none()),
                Reverse(request.existing_monitors.iter().any(reads)),
                candidate.scraper.kind,
            )
        };
        candidates.sort_by_cached_key(|candidate| {
            let (namespace, name) = candidate.scraper.key();
            (rank(candidate), namespace.to_owned(), name.to_owned())
        });
        let mut warnings = Vec::new();
        if *request.target == Target::All {
            warnings = obstacles;
        } else {
            let best = rank(&candidates[0]);
            let tied: Vec<_> = candidates.iter().filter(|c| rank(c) == best).map(|c| c.scraper.to_string()).collect();
            if tied.len() > 1 {
                let detail = format!(
                    "{} match equally; using the first; choose with {}",
                    tied.join(", "),
                    crate::annotations::PROMETHEUS
                );
                warnings.push(Finding::new(Reason::AmbiguousPrometheus, detail));
            }
            candidates.truncate(1);
        }

        let mut placements = partition(&candidates, request);
        self.check(&candidates, &placements)?;
        if placements.len() > MOST_MONITORS {
            let detail = format!(
                "{} monitors would be made, of which gwmon makes {MOST_MONITORS} for a gateway: the other readers go without",
                placements.len()
            );
            warnings.push(Finding::new(Reason::TooManyObjects, detail));
            placements.truncate(MOST_MONITORS);
        }
        for candidate in &candidates {
            self.warn(candidate.scraper, &mut warnings);
        }
        warn_ownership(&placements, request, &mut warnings);
        let readers: Vec<_> = candidates.iter().map(|candidate| candidate.scraper).collect();
        self.warn_collateral(&readers, &placements, &mut warnings);
        Ok(Selection {
            placements,
            why: candidates.iter().map(|candidate| candidate.why.as_str()).collect::<Vec<_>>().join("; "),
            warnings,
            readers,
        })
    }

    fn asked_for(&self, request: &SelectionRequest) -> Result<Vec<&Scraper>, Finding> {
        if self.scrapers.is_empty() {
            return Err(Finding::new(
                Reason::NoPrometheus,
                "the cluster has no Prometheus or other object that reads ServiceMonitors",
            ));
        }
        let (who, names) = match request.target {
            Target::Named { namespace, name } => {
                (crate::annotations::PROMETHEUS, &[(namespace.clone(), name.clone())][..])
            }
            Target::Best | Target::All if request.bounds.readers.is_empty() => {
                return Ok(self.scrapers.iter().collect());
            }
            Target::Best | Target::All => {
                ("gwmon's configuration, monitors.prometheus", request.bounds.readers.as_slice())
            }
        };
        let is_named = |scraper: &&Scraper| {
            let (namespace, name) = scraper.key();
            names.iter().any(|named| named.0 == namespace && named.1 == name)
        };
        let named: Vec<_> = self.scrapers.iter().filter(is_named).collect();
        if named.is_empty() {
            let asked: Vec<_> = names.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
            let there: Vec<_> = self.scrapers.iter().map(ToString::to_string).collect();
            let detail = format!("{who}: {} names none of the cluster's: {}", asked.join(", "), there.join(", "));
            return Err(Finding::new(Reason::PrometheusNotFound, detail));
        }
        Ok(named)
    }

    /// The namespace and labels with which this scraper selects a monitor and reaches the gateway's pods.
    fn candidate<'c>(&self, scraper: &'c Scraper, request: &SelectionRequest) -> Result<Candidate<'c>, String> {
        if let Some(obstacle) = &scraper.obstacle {
            return Err(obstacle.clone());
        }
        let (home, own) = (request.namespace, scraper.namespace.as_str());
        let (namespace, reason) = match self.reads(scraper, home) {
            Ok(()) => (home, "and reads this namespace".to_owned()),
            Err(here) => {
                // Only the monitor's own namespace has to be watched; the targets are for Prometheus to discover.
                let is_labelled = here.condition == Condition::Namespace;
                let advice = if is_labelled { self.advice(scraper, home) } else { String::new() };
                if self.reads(scraper, own).is_err() {
                    return Err(format!("{here}{advice}"));
                }
                if scraper.ignore_namespace_selectors {
                    return Err(format!(
                        "{here}, and a monitor in {own} would not reach {home} (spec.ignoreNamespaceSelectors){advice}"
                    ));
                }
                if !request.bounds.cross_namespace.contains(home) {
                    return Err(format!(
                        "{here}, and gwmon may make no monitor in {own} for gateways in {home} (gwmon's configuration, monitors.crossNamespace){advice}"
                    ));
                }
                // Its series would carry the monitor's namespace, and pass for those of other people's pods.
                if let Some(label) = &scraper.enforced_namespace_label {
                    return Err(format!(
                        "{here}, and would set {label}={own} on the series of a monitor in {own} (spec.enforcedNamespaceLabel){advice}"
                    ));
                }
                (own, format!("and reads its own namespace, not {home} ({here}){advice}"))
            }
        };
        let labels = solve(&[&scraper.selector], request.required, request.defaults)
            .map_err(|why| format!("{}: {why}", scraper.selector_field))?;
        let asks = scraper.asks();
        let limits = if scraper.limits.is_empty() {
            String::new()
        } else {
            format!("; a scrape beyond its limits is lost whole ({})", scraper.limits.join(", "))
        };
        let why = format!("{scraper} {asks} {reason}{limits}");
        Ok(Candidate { scraper, namespace: namespace.to_owned(), labels, why })
    }

    /// Advice on including the gateway's namespace. gwmon itself labels no namespace.
    fn advice(&self, scraper: &Scraper, namespace: &str) -> String {
        let NamespaceScope::Matching(selector) = &scraper.scope else { return String::new() };
        let has = self.namespace_labels(namespace);
        let Ok(needed) = solve(&[selector], &Labels::new(), &has) else { return String::new() };
        if needed.get(NAMESPACE_NAME) != has.get(NAMESPACE_NAME) {
            return String::new();
        }
        let change: Vec<_> = needed
            .iter()
            .filter(|(key, value)| has.get(*key) != Some(value))
            .map(|(key, value)| format!("{key}={value}"))
            .chain(has.keys().filter(|key| !needed.contains_key(*key)).map(|key| format!("{key}-")))
            .collect();
        if change.is_empty() {
            return String::new();
        }
        format!("; to have it read, kubectl label namespace {namespace} {}", change.join(" "))
    }

    /// Checks that each scraper selects its monitor.
    fn check(&self, candidates: &[Candidate], placements: &[Placement]) -> Result<(), Finding> {
        for Candidate { scraper, .. } in candidates {
            let mut tried = placements.iter().map(|p| self.would_select(scraper, &p.namespace, &p.labels));
            if !tried.any(|selected| selected.is_ok()) {
                return Err(Finding::new(
                    Reason::NotSelected,
                    format!("{scraper} would not select what was planned for it"),
                ));
            }
        }
        Ok(())
    }

    /// Warns of settings that change what a person would expect.
    fn warn(&self, scraper: &Scraper, warnings: &mut Vec<Finding>) {
        let mut warn = |reason, detail| warnings.push(Finding::new(reason, detail));
        if let Some((class, effects)) = &scraper.default_class {
            let detail = format!(
                "{scraper} applies {} of its default scrape class {class} to this gateway (spec.scrapeClasses); check that its series are stored",
                effects.join(", ")
            );
            warn(Reason::ScrapeClassApplies, detail);
        }
        let handlers = self.handlers(scraper);
        if let Some(Outage { finding, is_passing: false }) = self.outage(scraper) {
            warn(finding.reason, finding.detail);
        }
        if !scraper.kind.is_operated() {
            return;
        }
        match &handlers {
            Ok(known) if known.is_empty() => {
                let detail = format!("the operator of {scraper} was not found; it is taken to watch every namespace");
                warn(Reason::OperatorUnknown, detail);
            }
            Err(why) => {
                let detail = format!(
                    "no operator that was found runs {scraper} ({why}); it is scraped only if another one does"
                );
                warn(Reason::OperatorUnknown, detail);
            }
            Ok(_) => {}
        }
        for flag in handlers.iter().flatten().flat_map(|operator| &operator.unread) {
            warn(
                Reason::OperatorUnknown,
                format!("a flag of the operator cannot be read and is taken as absent: {flag}"),
            );
        }
    }

    /// Warns of other scrapers that select the monitors, and of duplicate scrapes.
    fn warn_collateral(&self, readers: &[&Scraper], placements: &[Placement], warnings: &mut Vec<Finding>) {
        for scraper in &self.scrapers {
            let selected = placements.iter().filter(|p| self.selects(scraper, &p.namespace, &p.labels).is_ok()).count();
            let asked = readers.iter().any(|reader| std::ptr::eq(*reader, scraper));
            if selected > usize::from(asked) {
                let detail = if asked {
                    format!("{scraper} selects {selected} monitors of this gateway and scrapes it as often")
                } else {
                    format!("{scraper} selects this gateway's monitor as well, so its series are stored there too")
                };
                warnings.push(Finding::new(Reason::SelectedTwice, detail));
            }
        }
    }
}

/// Partitions the scrapers into few monitors, greedily: those that read one namespace share one if some labels
/// satisfy all.
fn partition(candidates: &[Candidate], request: &SelectionRequest) -> Vec<Placement> {
    let mut placements: Vec<(Placement, Vec<&Selector>)> = Vec::new();
    for candidate in candidates {
        let shared = placements.iter_mut().filter(|(place, _)| place.namespace == candidate.namespace).find_map(
            |(place, selectors)| {
                let joint: Vec<_> = selectors.iter().copied().chain([&candidate.scraper.selector]).collect();
                place.labels = solve(&joint, request.required, request.defaults).ok()?;
                *selectors = joint;
                Some(())
            },
        );
        if shared.is_none() {
            let before = placements.iter().filter(|(place, _)| place.namespace == candidate.namespace).count();
            let place = Placement {
                namespace: candidate.namespace.clone(),
                labels: candidate.labels.clone(),
                suffix: if before == 0 { String::new() } else { format!("-{}", before + 1) },
            };
            placements.push((place, vec![&candidate.scraper.selector]));
        }
    }
    placements.into_iter().map(|(place, _)| place).collect()
}

/// Labels by which a GitOps tool takes an object for its own, and may remove it.
fn warn_ownership(placements: &[Placement], request: &SelectionRequest, warnings: &mut Vec<Finding>) {
    let is_ownership = |key: &str, value: &str| match key {
        "app.kubernetes.io/managed-by" => value == "Helm",
        "app.kubernetes.io/instance" | "argocd.argoproj.io/instance" => true,
        _ => key.starts_with("kustomize.toolkit.fluxcd.io/") || key.starts_with("helm.toolkit.fluxcd.io/"),
    };
    for (key, value) in placements.iter().flat_map(|place| &place.labels) {
        if is_ownership(key, value) && !request.required.contains_key(key) {
            let detail = format!(
                "the Prometheus asks for label {key}={value}, by which Argo CD, Flux or Helm may take the monitor for their own and remove it"
            );
            warnings.push(Finding::new(Reason::TrackingLabelRequired, detail));
        }
    }
}
