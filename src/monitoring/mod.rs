//! What makes Prometheus scrape a gateway: the metrics Service and the ServiceMonitor. Pure.

pub mod consumer;
pub mod network;
pub mod objects;
pub mod operator;
pub mod predicate;
pub mod selection;
pub mod selector;

use serde_json::Value;

use crate::annotations::PROMETHEUS;
use crate::labels::Labels;
use crate::policy::Bounds;
use crate::reason::{Finding, Reason};
pub use consumer::Consumer;
pub use objects::{Gateway, Owner, Source};
pub use operator::Operator;
pub use predicate::Cluster;
pub use selection::Selection;
use selection::{Placement, Wish};

/// The objects of one gateway.
#[derive(Debug)]
pub struct Plan<'c> {
    /// The metrics Service, in the workload's namespace, where one is to be made.
    pub service: Option<Value>,
    /// The ServiceMonitors, or why none would be selected.
    pub monitors: Result<Vec<Value>, Finding>,
    /// What should be known, though the monitors are made.
    pub warnings: Vec<Finding>,
    /// Why the monitors look as they do, for a person.
    pub why: String,
    /// Who is to read the monitors.
    pub readers: Vec<&'c Consumer>,
}

/// What else there is where a gateway's objects are to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// The labels of other people's monitors in the gateway's namespace.
    pub neighbours: &'a [Labels],
    /// Whom the gateway's monitor was made for before, as `namespace/name`.
    pub reader: Option<&'a str>,
    /// Whether that one is gone, and not for long: an upgrade may be making it anew.
    pub is_reader_awaited: bool,
}

/// Plans the objects of one gateway for what is known of the cluster's monitoring, within what the operator of gwmon allows.
///
/// Where nobody is known to read ServiceMonitors, one is planned with no labels but the user's: Grafana Alloy, for one,
/// is configured by no object and takes every monitor by default.
#[must_use]
pub fn plan<'c>(gateway: &Gateway, cluster: &'c Cluster, bounds: &Bounds, beside: &Beside) -> Plan<'c> {
    if let (true, Some(reader)) = (beside.is_reader_awaited, beside.reader) {
        let detail = format!(
            "{reader}, which read this gateway, is gone; should it come back, its monitor stays as it is for some minutes; {PROMETHEUS} names another at once"
        );
        let finding = Finding::new(Reason::PrometheusNotFound, detail);
        let why = finding.to_string();
        let service = gateway.service(beside.reader);
        return Plan { service, monitors: Err(finding), warnings: gateway.notes.clone(), why, readers: vec![] };
    }
    let (hard, soft) = (gateway.hard_labels(), Gateway::soft_labels());
    let wish = Wish {
        namespace: &gateway.namespace,
        target: &gateway.target,
        hard: &hard,
        soft: &soft,
        neighbours: beside.neighbours,
        reader: beside.reader,
        bounds,
    };
    match cluster.select(&wish) {
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
            let labels = soft.into_iter().chain(hard).collect();
            let place = Placement { namespace: gateway.namespace.clone(), labels, suffix: String::new() };
            let why = finding.detail.clone();
            let monitors = Ok(vec![gateway.service_monitor(&place)]);
            let warnings = gateway.notes.iter().cloned().chain([finding]).collect();
            Plan { service: gateway.service(beside.reader), monitors, warnings, why, readers: vec![] }
        }
        Err(finding) => {
            let (service, warnings) = (gateway.service(beside.reader), gateway.notes.clone());
            Plan { service, why: finding.to_string(), monitors: Err(finding), warnings, readers: vec![] }
        }
    }
}
