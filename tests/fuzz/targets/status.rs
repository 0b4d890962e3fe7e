//! A pod that says it is injected: it is believed or not, and what is believed gives objects.
#![no_main]

use gwmon::injection::confirm;
use gwmon::kubernetes::pod::Pod;
use gwmon::monitoring::{CurrentState, Cluster, ScrapeTarget, plan};
use gwmon::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pod: &str| {
    if confirm(pod).is_err() {
        return;
    }
    let read = Pod::parse(pod).expect("a pod that was confirmed");
    let annotations = read.metadata.annotations.unwrap_or_default();
    let config = Config::default();
    if let Ok(gateway) = ScrapeTarget::of_pod(&config, "edge", "edge-gwmon", &annotations, None) {
        let cluster = Cluster::default();
        let plan = plan(&gateway, &cluster, &config.bounds, &CurrentState::default());
        let path = plan.monitors.expect("a monitor")[0]["spec"]["endpoints"][0]["path"].clone();
        assert!(path.as_str().is_some_and(|path| path.starts_with('/')), "{path}");
    }
});
