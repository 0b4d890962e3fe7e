//! The last steps, by what Prometheus itself says.

use std::collections::{BTreeMap, BTreeSet};

use super::Way;
use crate::diagnosis::check::{Check, Step, Verdict};
use crate::diagnosis::series::{Key, Series, Target, WINDOW};
use crate::monitoring::Scraper;
use crate::monitoring::scraper::Kind;
use crate::reason::{Finding, Reason};

/// Gateways that send statsd when they are asked for something, and nothing in between.
const ON_REQUEST: [&str; 4] = ["haproxy", "kong", "nginx", "traefik"];

impl Way<'_> {
    /// Checks what each of these scrapers has scraped.
    pub(super) fn series(&self, readers: &[&Scraper], checks: &mut Vec<Check>) {
        let key = (self.namespace.to_owned(), self.monitor.to_owned());
        for reader in readers {
            let object = reader.resource();
            match self.around.probes.series.get(&reader.place()) {
                Some(Ok(series)) => self.scraped(&object, &key, series, checks),
                Some(Err(why)) => checks.push(Check::skip(Step::Target, object, why.clone())),
                None if reader.kind() != Kind::Prometheus => {
                    let why = format!("a {} cannot be queried", reader.kind().as_str());
                    checks.push(Check::skip(Step::Target, object, why));
                }
                None => checks.push(Check::skip(Step::Target, object, "it was not asked")),
            }
        }
    }

    fn scraped(&self, object: &str, key: &Key, series: &Series, checks: &mut Vec<Check>) {
        let found = |step, reason, detail: String| Check::found(step, object, Finding::new(reason, detail));
        if series.is_reload_failing {
            let detail = "it cannot load its newest configuration, so a new target may be missing";
            checks.push(found(Step::Prometheus, Reason::PrometheusNotReloaded, detail.to_owned()));
        }
        let live: Vec<_> = self.gateway.live().map(|pod| pod.name.as_str()).collect();
        // A pod that has just gone stays a target for a while.
        let targets = series.targets.get(key).into_iter().flatten();
        let targets: Vec<&Target> = targets.filter(|target| live.contains(&target.pod.as_str())).collect();
        if targets.is_empty() {
            if !live.is_empty() {
                let detail = format!("it has no target of service/{} -n {}", self.monitor, self.namespace);
                checks.push(found(Step::Target, Reason::NoTarget, detail));
            }
            return;
        }
        let down: Vec<_> = targets.iter().filter(|target| !target.is_up).collect();
        if let Some(first) = down.first() {
            let error = first.error.as_deref().unwrap_or("see Status → Target health there");
            let detail = format!("{} of {} targets are down: {}: {error}", down.len(), targets.len(), first.instance);
            checks.push(found(Step::Target, Reason::TargetDown, detail));
            return;
        }
        let up = targets.iter().filter(|target| target.is_up).count();
        checks.push(Check::ok(Step::Target, object, format!("{up} of {} targets are up", targets.len())));
        self.samples(object, key, series, &targets, checks);
    }

    fn samples(&self, object: &str, key: &Key, series: &Series, targets: &[&Target], checks: &mut Vec<Check>) {
        let step = Step::Samples;
        let found = |reason, detail: String| Check::found(step, object, Finding::new(reason, detail));
        let status = self.gateway.revision.as_ref().and_then(|revision| revision.status.as_ref());
        let has_exporter = status.is_some_and(|status| status.statsd_port.is_some());
        let pods: Vec<_> = self.gateway.live().map(|pod| (self.namespace.to_owned(), pod.name.clone())).collect();
        // A pod that was scraped only once has no increase yet.
        let lines: Vec<f64> = pods.iter().filter_map(|pod| series.lines.get(pod)).copied().collect();
        let received: f64 = lines.iter().sum();
        if has_exporter && !lines.is_empty() && received <= 0. {
            let detail = format!("the exporters have received nothing from the gateway for {} minutes", WINDOW / 60);
            let check = found(Reason::NoSamples, detail);
            // Envoy flushes every few seconds, these with each request.
            let is_idle = status.is_some_and(|status| ON_REQUEST.contains(&status.gateway.as_str()));
            checks.push(if is_idle { Check { verdict: Verdict::Warn, ..check } } else { check });
        } else {
            let rate = series.samples.get(key).copied().unwrap_or_default();
            let minutes = WINDOW / 60;
            let lines = format!("; the exporters received {received:.0} lines in {minutes} minutes");
            let lines = if has_exporter { lines } else { String::new() };
            checks.push(Check::ok(step, object, format!("{rate:.0} samples a second{lines}")));
        }
        let mut lost: BTreeMap<&str, f64> = BTreeMap::new();
        for (what, count) in pods.iter().filter_map(|pod| series.lost.get(pod)).flatten() {
            *lost.entry(what).or_default() += count;
        }
        if !lost.is_empty() {
            let lost: Vec<_> = lost.iter().map(|(what, count)| format!("{what} {count:.0}")).collect();
            let detail = format!("in {} minutes the exporters lost: {}", WINDOW / 60, lost.join(", "));
            checks.push(found(Reason::SamplesLost, detail));
        }
        if pods.iter().any(|pod| series.summaries.contains(pod)) {
            let detail = "metrics of Envoy have the label quantile: the exporter's mapping is not gwmon's".to_owned();
            checks.push(found(Reason::SummariesExported, detail));
        }
        let renamed: BTreeSet<_> = pods.iter().filter_map(|pod| series.renamed.get(pod)).flatten().collect();
        if !renamed.is_empty() {
            let labels: Vec<_> = renamed.iter().map(|label| format!("exported_{label}")).collect();
            let detail = format!("labels of the gateway's metrics are renamed to {}", labels.join(", "));
            checks.push(found(Reason::LabelsRenamed, detail));
        }
        let twice = targets.iter().find_map(|target| Some((&target.instance, series.twice.get(&target.instance)?)));
        if let Some((instance, jobs)) = twice {
            let detail = format!("{instance} is scraped by {} jobs: {}", jobs.len(), jobs.join(", "));
            checks.push(found(Reason::SelectedTwice, detail));
        }
    }
}
