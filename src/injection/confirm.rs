//! Checks that gwmon may have written a pod's `gwmon.io/status`: whoever creates pods can write it.

use super::detect::{MetricsSource, gateway_of};
use super::exporter;
use super::status::{METRICS_PATH, Status, StatusMode};
use crate::annotations::{Mode, STATUS, Settings};
use crate::kubernetes::pod::Pod;
use crate::reason::{Finding, Reason, shown};

/// The longest path that is scraped, in bytes.
const LONGEST_PATH: usize = 256;

/// Checks what a pod's [`STATUS`] says against the pod: that its exporter is there and declares that port, or that gwmon would
/// scrape just this port and path of it.
///
/// # Errors
/// [`Reason::StatusMismatch`], or what keeps the pod or its annotations from being read.
pub fn confirm(pod: &str) -> Result<(), Finding> {
    let pod = Pod::parse(pod)?;
    let unconfirmed = |why: &str| {
        let name = shown(&pod.metadata.name);
        let detail =
            format!("annotation {STATUS} does not match pod {name}: {why}; delete the pod to have it injected anew");
        Err(Finding::new(Reason::StatusMismatch, detail))
    };
    let Some(status) = pod.metadata.annotation(STATUS) else { return unconfirmed("it is not there") };
    let Ok(status) = serde_json::from_str::<Status>(status) else { return unconfirmed("it cannot be read") };
    let Status { metrics_port: port, metrics_path: path, .. } = &status;
    let is_path = path.starts_with('/')
        && path.len() <= LONGEST_PATH
        && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
    if !is_path {
        return unconfirmed("its metricsPath is no path");
    }
    if status.statsd_port.is_some() {
        let Some(exporter) = pod.all_containers().find(|container| container.name == exporter::CONTAINER) else {
            return unconfirmed("the exporter is not there");
        };
        return if exporter.declares(*port, "TCP") && path == METRICS_PATH {
            Ok(())
        } else {
            unconfirmed("the exporter declares no such port, or serves no such path")
        };
    }
    let settings = Settings::parse(&pod.metadata.annotations.clone().unwrap_or_default())?;
    // The configuration may have had another default mode then.
    let mode = (status.mode == StatusMode::Scrape).then_some(Mode::Scrape);
    match gateway_of(&pod, &settings, mode).map(|gateway| (gateway.source.mode(), gateway.source)) {
        Ok((mode, MetricsSource::Scrape(endpoint) | MetricsSource::Existing(endpoint)))
            if mode == status.mode && endpoint.port == *port && endpoint.path == *path =>
        {
            Ok(())
        }
        Ok(_) => unconfirmed("it names another port or path than gwmon would"),
        Err(finding) => unconfirmed(&finding.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reason(status: &Value, container: &Value) -> Result<(), Reason> {
        let mut written = json!({
            "version": "0.1.0", "gateway": "envoy", "container": "envoy", "mode": "statsd", "statsdPort": 9125,
            "metricsPort": 9102, "added": [], "hash": "",
        });
        json_patch::merge(&mut written, status);
        let annotations = json!({"gwmon.io/inject": "true", "gwmon.io/status": written.to_string()});
        let pod = json!({"metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": [container]}});
        confirm(&pod.to_string()).map_err(|finding| finding.reason)
    }

    #[test]
    fn only_what_gwmon_would_have_written_is_believed() {
        let exporter = json!({"name": exporter::CONTAINER, "ports": [{"containerPort": 9102}]});
        let kong = json!({"name": "proxy", "image": "kong:3.9"});
        let scrape = json!({"mode": "scrape", "statsdPort": null, "metricsPort": 8100, "metricsPath": "/metrics"});
        assert_eq!(reason(&json!({}), &exporter), Ok(()));
        assert_eq!(reason(&scrape, &kong), Ok(()));
        for (status, container) in [
            (json!({"metricsPort": 6379}), &exporter),
            (json!({"metricsPath": "/admin"}), &exporter),
            (json!({"metricsPath": "/metrics?a=b"}), &exporter),
            (json!({}), &kong),
            (json!({"metricsPort": "x"}), &exporter),
            (json!({"mode": "scrape", "statsdPort": null, "metricsPort": 6379}), &kong),
            (json!({"mode": "scrape", "statsdPort": null, "metricsPort": 8100, "metricsPath": "/"}), &kong),
            (json!({"mode": "existing", "statsdPort": null, "metricsPort": 8100}), &kong),
        ] {
            assert_eq!(reason(&status, container), Err(Reason::StatusMismatch), "{status}");
        }
    }
}
