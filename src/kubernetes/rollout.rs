//! Whether a workload has been rolled out, as `kubectl rollout status` tells.

use serde_json::Value;

/// The state of a roll-out.
#[derive(Debug, PartialEq, Eq)]
pub enum Rollout {
    /// Every pod is of the newest template and available.
    Done,
    /// It goes on.
    Going,
    /// Nobody replaces the pods by themselves, for this reason.
    Waits(&'static str),
}

/// The state of a Deployment's, StatefulSet's or DaemonSet's roll-out.
#[must_use]
pub fn rollout(kind: &str, workload: &Value) -> Rollout {
    let (spec, status) = (&workload["spec"], &workload["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    if spec["paused"] == true {
        return Rollout::Waits("it is paused");
    }
    if spec["updateStrategy"]["type"] == "OnDelete" {
        return Rollout::Waits("its updateStrategy is OnDelete");
    }
    if number(&spec["updateStrategy"]["rollingUpdate"]["partition"]) > 0 {
        return Rollout::Waits("its updateStrategy has a partition");
    }
    if number(&status["observedGeneration"]) < number(&workload["metadata"]["generation"]) {
        return Rollout::Going;
    }
    let (wanted, updated, there, available) = if kind == "DaemonSet" {
        let wanted = number(&status["desiredNumberScheduled"]);
        (wanted, &status["updatedNumberScheduled"], wanted, &status["numberAvailable"])
    } else {
        let wanted = spec["replicas"].as_i64().unwrap_or(1);
        (wanted, &status["updatedReplicas"], number(&status["replicas"]), &status["availableReplicas"])
    };
    let is_done = number(updated) >= wanted && there <= wanted && number(available) >= wanted;
    if is_done { Rollout::Done } else { Rollout::Going }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_roll_out_is_done_when_only_new_pods_are_left_and_all_are_available() {
        let deployment = |status: Value| {
            rollout("Deployment", &json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}))
        };
        let done = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert_eq!(deployment(done.clone()), Rollout::Done);
        for (field, value) in
            [("observedGeneration", 1), ("replicas", 3), ("updatedReplicas", 1), ("availableReplicas", 1)]
        {
            let mut status = done.clone();
            status[field] = json!(value);
            assert_eq!(deployment(status), Rollout::Going, "{field}");
        }
        let daemon_set =
            json!({"status": {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}});
        assert_eq!(rollout("DaemonSet", &daemon_set), Rollout::Going);
        assert_eq!(rollout("Deployment", &json!({"spec": {"replicas": 0}, "status": {}})), Rollout::Done);
        for spec in [
            json!({"paused": true}),
            json!({"updateStrategy": {"type": "OnDelete"}}),
            json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}),
        ] {
            assert!(matches!(rollout("StatefulSet", &json!({"spec": spec})), Rollout::Waits(_)));
        }
    }
}
