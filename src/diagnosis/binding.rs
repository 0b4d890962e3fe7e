//! A Prometheus Operator's `Accepted` condition on a ServiceMonitor, in the monitor's `status.bindings` (feature gate
//! `StatusForConfigurationResources`). It is the one proof that gwmon can read without new rights.

use serde_json::Value;

use crate::monitoring::Scraper;
use crate::reason::{Finding, Reason};

/// The operator's condition on one monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It has taken the monitor into the configuration.
    Accepted,
    /// It has not looked at the monitor yet.
    Awaited,
    /// It has refused the monitor.
    Rejected(Finding),
}

/// The operator's condition on a monitor of this generation. A condition of an older generation does not count.
#[must_use]
pub fn binding(monitor: &Value, generation: i64, reader: &Scraper, (namespace, name): (&str, &str)) -> Binding {
    let is_readers = |binding: &&Value| {
        (binding["namespace"].as_str(), binding["name"].as_str()) == {
            let (namespace, name) = reader.key();
            (Some(namespace), Some(name))
        }
    };
    let bindings = monitor.pointer("/status/bindings").and_then(Value::as_array);
    let found = bindings.into_iter().flatten().find(is_readers);
    let conditions = found.and_then(|binding| binding["conditions"].as_array());
    let Some(accepted) = conditions.into_iter().flatten().find(|condition| condition["type"] == "Accepted") else {
        return Binding::Awaited;
    };
    // A condition of an older generation does not count.
    if accepted["observedGeneration"].as_i64().is_some_and(|observed| observed < generation) {
        return Binding::Awaited;
    }
    if accepted["status"] == "True" {
        return Binding::Accepted;
    }
    let text = |field: &str| accepted[field].as_str().unwrap_or_default();
    let detail = format!(
        "the operator of {reader} does not accept ServiceMonitor {namespace}/{name}: {} ({})",
        text("message"),
        text("reason")
    );
    Binding::Rejected(Finding::new(Reason::MonitorRejected, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_word_of_the_readers_own_operator_counts() {
        let reader = json!({"kind": "Prometheus", "metadata": {"namespace": "monitoring", "name": "kps"}, "spec": {}});
        let reader = Scraper::parse(&reader.to_string()).unwrap().unwrap();
        let place = ("edge", "edge-gwmon");
        let said = |name: &str, status: &str| {
            let accepted = json!({"type": "Accepted", "status": status, "observedGeneration": 2, "reason": "InvalidConfiguration", "message": "scrapeTimeout"});
            let bindings = json!([{"resource": "prometheuses", "namespace": "monitoring", "name": name, "conditions": [accepted]}]);
            let monitor = json!({"status": {"bindings": bindings}});
            assert_eq!(binding(&monitor, 3, &reader, place), Binding::Awaited);
            binding(&monitor, 2, &reader, place)
        };
        assert_eq!(said("kps", "True"), Binding::Accepted);
        assert_eq!(said("other", "True"), Binding::Awaited);
        assert_eq!(binding(&json!({}), 1, &reader, place), Binding::Awaited);
        let Binding::Rejected(finding) = said("kps", "False") else { panic!() };
        assert!(
            finding.detail.ends_with("ServiceMonitor edge/edge-gwmon: scrapeTimeout (InvalidConfiguration)"),
            "{finding}"
        );
    }
}
