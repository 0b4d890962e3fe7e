//! Plans and applies the objects of one gateway, and publishes the findings.

use std::time::Instant;

use anyhow::Result;
use kube::ResourceExt;

use super::apply::place_of;
use super::reconcile::{Context, GatewayState, READER_AWAITED};
use crate::annotations::{PROMETHEUS, Target};
use crate::cluster::object::{GatewayKey, NamespacedName, place};
use crate::diagnosis::binding::Binding;
use crate::kubernetes::labels::Labels;
use crate::monitoring::objects::{MONITOR, SERVICE};
use crate::monitoring::predicate::Condition;
use crate::monitoring::{Cluster, CurrentState, Owner, Plan, ScrapeTarget, Scraper, plan};
use crate::reason::{Finding, Reason};

impl Context {
    /// Plans a gateway's objects for the cluster as it is.
    pub(super) async fn plan<'c>(
        &self,
        key: &GatewayKey,
        target: &ScrapeTarget,
        cluster: &'c Cluster,
        state: &mut GatewayState,
    ) -> Result<Plan<'c>> {
        let before = self.cache.object(SERVICE.1, key, &(key.namespace.clone(), key.monitor.clone()));
        let reader = before.as_ref().and_then(|service| service.annotations().get(PROMETHEUS)).map(String::as_str);
        let is_there = |reader: &str| {
            cluster.scrapers.iter().any(|scraper| scraper.place() == reader && !scraper.is_being_deleted())
        };
        let is_gone = target.target == Target::Best && reader.is_some_and(|reader| !is_there(reader));
        state.reader_gone = is_gone.then(|| state.reader_gone.unwrap_or_else(Instant::now));
        let is_reader_awaited = state.reader_gone.is_some_and(|since| since.elapsed() < READER_AWAITED);
        let current = CurrentState { existing_monitors: &[], reader, is_reader_awaited };
        let plan = plan(target, cluster, &self.config.bounds, &current);
        if plan.warnings.iter().all(|warning| warning.reason != Reason::AmbiguousPrometheus) {
            return Ok(plan);
        }
        let existing_monitors = self.existing_monitors(&key.namespace).await?;
        let current = CurrentState { existing_monitors: &existing_monitors, ..current };
        Ok(crate::monitoring::plan(target, cluster, &self.config.bounds, &current))
    }

    /// Returns true if every planned object stands as it was last applied.
    pub(super) fn is_applied(&self, key: &GatewayKey, plan: &Plan, state: &GatewayState) -> bool {
        let mut planned = plan.service.iter().chain(plan.monitors.iter().flatten());
        planned.all(|object| self.writer(key).up_to_date(object, &state.written).is_some())
    }

    /// Applies what is planned, and publishes the findings. Unchanged objects are not written.
    pub(super) async fn apply_plan(
        &self,
        key: &GatewayKey,
        target: &ScrapeTarget,
        cluster: &Cluster,
        plan: Plan<'_>,
        state: &mut GatewayState,
    ) -> Result<()> {
        let Some(owner) = &target.owner else { return Ok(()) };
        let mut findings = Vec::new();
        findings.extend(self.prerequisites.missing(&target.kind, target.version).await);
        let outcome = self.apply(key, owner, cluster, plan, state, &mut findings).await;
        self.events.publish_new(&key.namespace, owner, findings, &mut state.published).await;
        outcome
    }

    /// Applies each object independently: a name conflict of one does not block the other.
    async fn apply(
        &self,
        key: &GatewayKey,
        owner: &Owner,
        cluster: &Cluster,
        plan: Plan<'_>,
        state: &mut GatewayState,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let Plan { service, monitors, warnings, why, readers } = plan;
        findings.extend(warnings);
        let writer = self.writer(key);
        let mut first_error = None;
        let mut failed = |error: anyhow::Error, findings: &mut Vec<Finding>| {
            findings.extend(error.downcast_ref::<Finding>().cloned());
            first_error.get_or_insert(error);
        };
        if let Some(service) = &service {
            match writer.apply(service, owner, &mut state.written).await {
                Ok(applied) => state.is_news |= applied.changed,
                Err(error) => failed(error, findings),
            }
        }
        let mut planned: Vec<NamespacedName> = Vec::new();
        match monitors {
            // Existing ServiceMonitors stay: they may be selected again.
            Err(finding) => findings.push(finding),
            Ok(monitors) => {
                let mut complete = true;
                for monitor in &monitors {
                    let place = place_of(monitor);
                    match writer.apply(monitor, owner, &mut state.written).await {
                        Ok(applied) => {
                            state.is_news |= applied.changed;
                            findings.extend(unselected(cluster, &readers, &place, &applied.labels, monitors.len()));
                        }
                        Err(error) => {
                            complete = false;
                            failed(error, findings);
                        }
                    }
                    planned.push(place);
                }
                // The old ones are deleted after the new ones exist.
                if complete {
                    for old in self.cache.monitors(key) {
                        let place = place(&old);
                        if !planned.contains(&place) {
                            writer.delete(MONITOR, &old).await?;
                            state.written.remove(&(MONITOR.1, place));
                        }
                    }
                }
            }
        }
        let mut is_scraped = false;
        for reader in &readers {
            let lacking = self.access.missing_permission(reader, &key.namespace).await;
            let mut scrapes = lacking.is_none() && cluster.outage(reader).is_none();
            findings.extend(lacking);
            if let ([place], true) = (&planned[..], cluster.writes_bindings(reader)) {
                let version = self.cache.object(MONITOR.1, key, place).and_then(|monitor| monitor.resource_version());
                match state.bindings.read(&self.client, reader, place, version).await {
                    Ok(Binding::Accepted) => {}
                    Ok(Binding::Awaited) => scrapes = false,
                    Ok(Binding::Rejected(finding)) => findings.push(finding),
                    Err(error) => {
                        scrapes = false;
                        first_error.get_or_insert(error);
                    }
                }
            }
            is_scraped |= scrapes;
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        // Each of several scrapers must select it.
        let stands_against =
            |finding: &Finding| matches!(finding.reason, Reason::NotSelected | Reason::MonitorRejected);
        if state.is_news && is_scraped && !findings.iter().any(stands_against) {
            self.events.publish(&key.namespace, owner, &Finding::new(Reason::Monitored, why)).await;
            state.is_news = false;
        }
        Ok(())
    }
}

/// Labels of other field managers on a monitor can keep a Prometheus from selecting it.
fn unselected(
    cluster: &Cluster,
    readers: &[&Scraper],
    (namespace, name): &NamespacedName,
    labels: &Labels,
    monitors: usize,
) -> Option<Finding> {
    // Each scraper needs only one of several ServiceMonitors.
    let [reader] = readers else { return None };
    let unmet = cluster.selects(reader, namespace, labels).err();
    let unmet = unmet.filter(|unmet| monitors == 1 && unmet.condition == Condition::Labels)?;
    let detail = format!("{reader} does not select ServiceMonitor {namespace}/{name} with the labels it has: {unmet}");
    Some(Finding::new(Reason::NotSelected, detail))
}
