//! Objects that configure a Prometheus: they are read or refused, and a monitor that is placed for one is selected by it.
#![no_main]

use std::collections::BTreeMap;

use gwmon::annotations::Target;
use gwmon::kubernetes::labels::Labels;
use gwmon::monitoring::selection::SelectionRequest;
use gwmon::monitoring::{Cluster, Scraper, Operator};
use gwmon::config::Bounds;
use gwmon::reason::Reason;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut cluster = Cluster { namespaces: BTreeMap::from([("edge".to_owned(), Labels::new())]), ..Cluster::default() };
    for line in text.lines() {
        cluster.scrapers.extend(Scraper::parse(line).ok().flatten());
        cluster.operators.extend(Operator::parse(line).ok().flatten());
    }
    let bounds = Bounds::default();
    for target in [Target::Best, Target::All] {
        let (required, defaults) = (Labels::new(), Labels::from([("a".to_owned(), "b".to_owned())]));
        let request = SelectionRequest {
            namespace: "edge",
            target: &target,
            required: &required,
            defaults: &defaults,
            existing_monitors: &[],
            reader: None,
            bounds: &bounds,
        };
        let Ok(selection) = cluster.select(&request) else { continue };
        let is_paused = selection.warnings.iter().any(|warning| warning.reason == Reason::PrometheusPaused);
        for reader in &selection.readers {
            let mut tried = selection.placements.iter().map(|place| cluster.selects(reader, &place.namespace, &place.labels));
            assert!(tried.any(|selected| selected.is_ok()) || is_paused, "{reader}");
        }
    }
});
