//! The state of a pod's exporter, read from the pod's status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::injection::exporter::CONTAINER;
use crate::reason::{Finding, Reason};

/// The read part of a pod's `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    conditions: Vec<Condition>,
    init_container_statuses: Vec<ContainerStatus>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    image: String,
    started: bool,
    state: State,
    last_state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<StateDetail>,
    running: Option<serde_json::Value>,
    terminated: Option<StateDetail>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StateDetail {
    reason: String,
    message: String,
    exit_code: i32,
}

impl PodStatus {
    /// Returns true if the pod has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Returns true if all containers are ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }

    /// The reason why the pod is not ready, if gwmon may have caused it; `gateway` is the container that sends to the
    /// exporter.
    #[must_use]
    pub fn failure(&self, gateway: &str) -> Option<Finding> {
        self.exporter_failure().or_else(|| self.gateway_failure(gateway))
    }

    /// Returns true if the exporter runs.
    #[must_use]
    pub fn exporter_runs(&self) -> bool {
        self.exporter().is_some_and(|(_, exporter)| exporter.state.running.is_some())
    }

    /// How the exporter's container ended before it ran again, if it did.
    #[must_use]
    pub fn exporters_last_end(&self) -> Option<String> {
        let ended = self.exporter()?.1.last_state.terminated.as_ref()?;
        Some(format!("its container {CONTAINER} was restarted: {}, code {}", ended.reason, ended.exit_code))
    }

    /// A gateway that has never been ready and ends again and again: it may refuse what gwmon has added to its
    /// configuration, or the exporter may have taken a port that it did not declare. One that has been ready did start
    /// with that, and fails for reasons of its own.
    fn gateway_failure(&self, gateway: &str) -> Option<Finding> {
        let ContainerStatus { state, last_state, .. } =
            self.container_statuses.iter().find(|status| status.name == gateway)?;
        let is_looping = state.waiting.as_ref().is_some_and(|waiting| waiting.reason == "CrashLoopBackOff");
        let ended = last_state.terminated.as_ref().filter(|_| is_looping && !self.has_been_ready())?;
        let detail = format!(
            "its container {gateway} ends at once, with code {}, perhaps because of what gwmon adds; see kubectl logs",
            ended.exit_code
        );
        Some(Finding::new(Reason::GatewayNotStarting, detail))
    }

    /// Returns true if the condition `Ready` changed after the pod was bound to its node, apart from a few seconds
    /// for the kubelet.
    fn has_been_ready(&self) -> bool {
        let changed = |kind: &str| {
            let condition = self.conditions.iter().find(|condition| condition.kind == kind)?;
            condition.last_transition_time.as_ref().map(|time| time.0.as_second())
        };
        changed("Ready").zip(changed("PodScheduled")).is_none_or(|(ready, scheduled)| ready - scheduled > 5)
    }

    /// The reason why the exporter, and so the pod, does not run.
    fn exporter_failure(&self) -> Option<Finding> {
        let is =
            |condition: &&Condition, kind: &str, status: &str| condition.kind == kind && condition.status == status;
        let unscheduled = self.conditions.iter().find(|condition| is(condition, "PodScheduled", "False"));
        if let Some(Condition { reason, message, .. }) = unscheduled {
            // Not for a taint, an affinity or a volume, which are the gateway's own.
            let is_full = ["Insufficient cpu", "Insufficient memory"].iter().any(|what| message.contains(what));
            let detail = format!("no node has room for it with the exporter: {message}");
            return (reason == "Unschedulable" && is_full).then(|| Finding::new(Reason::PodUnschedulable, detail));
        }
        // On a node that has just started, or has lost its network, nothing runs.
        if self.conditions.iter().any(|condition| is(&condition, "PodReadyToStartContainers", "False")) {
            return None;
        }
        let (index, exporter) = self.exporter()?;
        let State { waiting, running, terminated } = &exporter.state;
        if running.is_some() {
            return None;
        }
        if let Some(StateDetail { reason, message, exit_code }) = terminated {
            let detail = format!("its container {CONTAINER} has ended: {reason}, code {exit_code} {message}");
            return Some(Finding::new(Reason::ExporterNotRunning, detail.trim_end()));
        }
        let StateDetail { reason, message, .. } = waiting.as_ref()?;
        match reason.as_str() {
            // In the order in which the kubelet goes on: what stands before it must have started, and the pod's network
            // must be there, or it waits for something else.
            "PodInitializing" | "ContainerCreating" | "" => {
                let before = self.init_container_statuses.iter().take(index.unwrap_or_default());
                let is_next = index.is_some()
                    && before.clone().all(|earlier| earlier.started || earlier.state.terminated.is_some())
                    && self.conditions.iter().any(|c| is(&c, "PodReadyToStartContainers", "True"));
                let detail =
                    format!("the image of its container {CONTAINER}, {}, is still being pulled", exporter.image);
                is_next.then(|| Finding::new(Reason::ImagePullSlow, detail))
            }
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => {
                let detail = format!("the image of its container {CONTAINER} cannot be pulled: {reason}: {message}");
                Some(Finding::new(Reason::ImageNotPulled, detail))
            }
            _ => {
                let detail = format!("its container {CONTAINER} does not run: {reason}: {message}");
                Some(Finding::new(Reason::ExporterNotRunning, detail))
            }
        }
    }

    /// The exporter's status, and which of the init containers it is.
    fn exporter(&self) -> Option<(Option<usize>, &ContainerStatus)> {
        let of = |list: &'_ [ContainerStatus]| list.iter().position(|status| status.name == CONTAINER);
        match of(&self.init_container_statuses) {
            Some(index) => Some((Some(index), &self.init_container_statuses[index])),
            None => of(&self.container_statuses).map(|index| (None, &self.container_statuses[index])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(value: &Value) -> PodStatus {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn reason(value: &Value) -> Option<Reason> {
        status(value).failure("envoy").map(|finding| finding.reason)
    }

    fn init(state: &Value) -> Value {
        json!({"initContainerStatuses": [{"name": CONTAINER, "image": "x", "state": state}]})
    }

    #[test]
    fn an_exporter_that_runs_keeps_nothing() {
        let running = init(&json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}));
        assert_eq!(reason(&running), None);
        assert!(!status(&running).is_ready());
        assert!(status(&json!({"conditions": [{"type": "Ready", "status": "True"}]})).is_ready());
        assert_eq!(reason(&json!({})), None);
        let gateways =
            json!({"containerStatuses": [{"name": "envoy", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
        assert_eq!(reason(&gateways), None, "that is the gateway's own");
    }

    #[test]
    fn what_the_kubelet_says_of_the_exporter_has_its_reason() {
        for (word, expected) in [
            ("ImagePullBackOff", Reason::ImageNotPulled),
            ("ErrImagePull", Reason::ImageNotPulled),
            ("CrashLoopBackOff", Reason::ExporterNotRunning),
            ("RunContainerError", Reason::ExporterNotRunning),
            ("CreateContainerConfigError", Reason::ExporterNotRunning),
        ] {
            let waiting = json!({"waiting": {"reason": word, "message": "m"}});
            assert_eq!(reason(&init(&waiting)), Some(expected), "{word}");
            let plain = json!({"containerStatuses": [{"name": CONTAINER, "state": waiting}]});
            assert_eq!(reason(&plain), Some(expected), "{word}");
        }
        let ended = json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}});
        let finding = status(&init(&ended)).failure("envoy").unwrap();
        assert!(finding.detail.ends_with("has ended: OOMKilled, code 137"), "{finding}");
    }

    #[test]
    fn an_image_is_being_pulled_only_when_it_is_the_exporters_turn() {
        let waiting = json!({"waiting": {"reason": "PodInitializing"}});
        let mut pod = init(&waiting);
        assert_eq!(reason(&pod), None, "volumes or network are not there yet");
        pod["conditions"] = json!([{"type": "PodReadyToStartContainers", "status": "True"}]);
        assert_eq!(reason(&pod), Some(Reason::ImagePullSlow));
        let before = |earlier: Value| {
            let mut pod = pod.clone();
            pod["initContainerStatuses"].as_array_mut().unwrap().insert(0, earlier);
            reason(&pod)
        };
        assert_eq!(before(json!({"name": "slow", "state": {"running": {}}})), None);
        assert_eq!(
            before(json!({"name": "done", "state": {"terminated": {"exitCode": 0}}})),
            Some(Reason::ImagePullSlow)
        );
        let proxy = json!({"name": "istio-proxy", "started": true, "state": {"running": {}}});
        assert_eq!(before(proxy), Some(Reason::ImagePullSlow));
    }

    #[test]
    fn a_node_on_which_nothing_runs_is_no_fault_of_the_exporters() {
        let mut pod = init(&json!({"terminated": {"reason": "Unknown", "exitCode": 255}}));
        assert_eq!(reason(&pod), Some(Reason::ExporterNotRunning));
        pod["conditions"] = json!([{"type": "PodReadyToStartContainers", "status": "False"}]);
        assert_eq!(reason(&pod), None);
    }

    #[test]
    fn a_gateway_that_ends_at_once_may_be_gwmons_doing_and_one_that_was_ready_is_not() {
        let pod = |name: &str, word: &str, ready: &str| {
            let looping = json!({"name": name, "state": {"waiting": {"reason": word}}, "lastState": {"terminated": {"exitCode": 1}}});
            let mut pod = init(&json!({"running": {}}));
            pod["containerStatuses"] = json!([looping]);
            pod["conditions"] = json!([
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Ready", "status": "False", "lastTransitionTime": ready},
            ]);
            reason(&pod)
        };
        let (never, once) = ("2026-01-01T00:00:01Z", "2026-01-01T00:05:00Z");
        assert_eq!(pod("envoy", "CrashLoopBackOff", never), Some(Reason::GatewayNotStarting));
        assert_eq!(pod("envoy", "CrashLoopBackOff", once), None);
        assert_eq!(pod("envoy", "ContainerCreating", never), None);
        assert_eq!(pod("other", "CrashLoopBackOff", never), None);
    }

    #[test]
    fn a_pod_without_a_node_is_unschedulable_only_when_the_scheduler_says_so() {
        let unscheduled = |word: &str, message: &str| {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": word, "message": message});
            reason(&json!({"phase": "Pending", "conditions": [condition]}))
        };
        let full = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate";
        assert_eq!(unscheduled("Unschedulable", full), Some(Reason::PodUnschedulable));
        let apart = "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules";
        assert_eq!(unscheduled("Unschedulable", apart), None);
        assert_eq!(unscheduled("SchedulingGated", full), None);
    }
}
