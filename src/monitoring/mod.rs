//! The objects that make Prometheus scrape a gateway: the metrics Service and the ServiceMonitor.

pub mod network;
pub mod objects;
pub mod operator;
pub mod predicate;
pub mod rules;
pub mod scraper;
pub mod selection;
pub mod selector;

use serde_json::Value;

use crate::annotations::PROMETHEUS;
use crate::config::Bounds;
use crate::kubernetes::labels::Labels;
use crate::reason::{Finding, Reason};
pub use objects::{Owner, ScrapeTarget, Source};
pub use operator::Operator;
pub use predicate::Cluster;
pub use scraper::Scraper;
pub use selection::Selection;
use selection::{Placement, SelectionRequest};

/// The objects of one gateway.
#[derive(Debug)]
pub struct Plan<'c> {
    /// The metrics Service, in the workload's namespace, where one is to be made.
    pub service: Option<Value>,
    /// The ServiceMonitors, or why none would be selected.
    pub monitors: Result<Vec<Value>, Finding>,
    /// Warnings; the monitors are made all the same.
    pub warnings: Vec<Finding>,
    /// The cause of the monitors' labels and place, for a person.
    pub why: String,
    /// The scrapers that select the monitors.
    pub readers: Vec<&'c Scraper>,
}

/// The state of the cluster around a gateway's objects.
#[derive(Clone, Copy, Debug, Default)]
pub struct CurrentState<'a> {
    /// The labels of other people's monitors in the gateway's namespace.
    pub existing_monitors: &'a [Labels],
    /// The scraper for which the monitor was made, as `namespace/name`.
    pub reader: Option<&'a str>,
    /// True if that scraper was deleted a short time ago: an upgrade may recreate it.
    pub is_reader_awaited: bool,
}

/// Plans the objects of one gateway for what is known of the cluster's monitoring, within what gwmon's flags allow.
///
/// Where nobody is known to read ServiceMonitors, one is planned with no labels but the user's: Grafana Alloy, for one,
/// is configured by no object and takes every monitor by default.
#[must_use]
pub fn plan<'c>(gateway: &ScrapeTarget, cluster: &'c Cluster, bounds: &Bounds, current: &CurrentState) -> Plan<'c> {
    if let (true, Some(reader)) = (current.is_reader_awaited, current.reader) {
        let detail = format!(
            "{reader}, which read this gateway, is gone; should it come back, its monitor stays as it is for some minutes; {PROMETHEUS} names another at once"
        );
        let finding = Finding::new(Reason::PrometheusNotFound, detail);
        let why = finding.to_string();
        let service = gateway.service(current.reader);
        return Plan { service, monitors: Err(finding), warnings: gateway.notes.clone(), why, readers: vec![] };
    }
    let (required, defaults) = (gateway.required_labels(), ScrapeTarget::default_labels());
    let request = SelectionRequest {
        namespace: &gateway.namespace,
        target: &gateway.target,
        required: &required,
        defaults: &defaults,
        existing_monitors: current.existing_monitors,
        reader: current.reader,
        bounds,
    };
    match cluster.select(&request) {
        Ok(Selection { placements, why, mut warnings, readers }) => {
            warnings.extend(gateway.notes.iter().cloned());
            let reader = match readers.as_slice() {
                [only] => Some(only.place()),
                _ => None,
            };
            let service = gateway.service(reader.as_deref());
            let monitors: Vec<_> = placements.iter().map(|place| gateway.service_monitor(place)).collect();
            let rejected = readers.iter().find_map(|reader| {
                let why = monitors.iter().find_map(|monitor| reader.rejects(monitor))?;
                Some(Finding::new(
                    Reason::MonitorRejected,
                    format!("{reader}'s operator would reject the monitor: {why}"),
                ))
            });
            Plan { service, monitors: rejected.map_or(Ok(monitors), Err), warnings, why, readers }
        }
        Err(finding) if finding.reason == Reason::NoPrometheus => {
            let labels = defaults.into_iter().chain(required).collect();
            let place = Placement { namespace: gateway.namespace.clone(), labels, suffix: String::new() };
            let why = finding.detail.clone();
            let monitors = Ok(vec![gateway.service_monitor(&place)]);
            let warnings = gateway.notes.iter().cloned().chain([finding]).collect();
            Plan { service: gateway.service(current.reader), monitors, warnings, why, readers: vec![] }
        }
        Err(finding) => {
            let (service, warnings) = (gateway.service(current.reader), gateway.notes.clone());
            Plan { service, why: finding.to_string(), monitors: Err(finding), warnings, readers: vec![] }
        }
    }
}
