//! Istio's sidecar beside a gateway takes all that comes into the pod, Prometheus' requests too, and with strict mTLS
//! refuses them.

use crate::kubernetes::Annotations;
use crate::kubernetes::pod::Pod;
use crate::reason::{Finding, Reason};

/// Read when Istio's webhook injects (`files/injection-template.yaml`), which by the configurations' names is after
/// gwmon's. Without Istio it means nothing.
const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// The annotation that Istio's webhook sets on the pods that it injects. A container of its image alone may be there
/// only for its certificates, as in Gloo's pods.
const INJECTED: &str = "sidecar.istio.io/status";
const ASKED: &str = "sidecar.istio.io/inject";

/// The effect of Istio's sidecar on the port that Prometheus scrapes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Interception {
    /// The sidecar leaves the port alone.
    None,
    /// The sidecar leaves the port alone if the pod gets this annotation.
    Excluded { annotation: &'static str, value: String },
    /// The sidecar takes the port: it is the gateway's own, or the sidecar is in the pod already.
    Intercepted(Finding),
}

/// Always excludes the exporter's port: most often the namespace, not the pod, requests Istio.
pub(super) fn interception(pod: &Pod, gateway: &str, port: u16, is_exporters: bool) -> Interception {
    let is_there = pod.metadata.annotation(INJECTED).is_some()
        || pod.all_containers().any(|container| container.name == "istio-init");
    let is_asked = [pod.metadata.label(ASKED), pod.metadata.annotation(ASKED)].contains(&Some("true"))
        || pod.metadata.label("istio.io/rev").is_some();
    let set = pod.metadata.annotation(EXCLUDED).unwrap_or_default();
    let is_concerned = is_there || is_asked || is_exporters;
    if gateway == "istio" || !is_concerned || set.split(',').any(|one| one.trim() == port.to_string()) {
        return Interception::None;
    }
    if is_there || !is_exporters {
        return Interception::Intercepted(taken(port));
    }
    let value = if set.is_empty() { port.to_string() } else { format!("{set},{port}") };
    Interception::Excluded { annotation: EXCLUDED, value }
}

/// The finding that Istio's sidecar takes a port of a pod that runs, by the pod's annotations.
#[must_use]
pub fn intercepted(annotations: &Annotations, port: u16) -> Option<Finding> {
    let excluded = annotations.get(EXCLUDED).map_or("", String::as_str);
    let is_taken = annotations.contains_key(INJECTED) && !excluded.split(',').any(|one| one.trim() == port.to_string());
    is_taken.then(|| taken(port))
}

fn taken(port: u16) -> Finding {
    let detail =
        format!("Istio's sidecar takes port {port}, and Prometheus may not reach it; set {EXCLUDED}: \"{port}\"");
    Finding::new(Reason::MeshInterceptsPort, detail)
}

#[cfg(test)]
mod tests {
    use super::super::gateway::testing::pod;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_sidecar_is_kept_off_the_port_where_there_is_time() {
        let asked = |annotations| {
            pod(&json!({}), &json!({"metadata": {"labels": {ASKED: "true"}, "annotations": annotations}}))
        };
        let of = |pod: &Pod| interception(pod, "envoy", 9102, true);
        let excluded = |value: &str| Interception::Excluded { annotation: EXCLUDED, value: value.to_owned() };
        assert_eq!(of(&asked(json!({}))), excluded("9102"));
        assert_eq!(of(&asked(json!({EXCLUDED: "15020"}))), excluded("15020,9102"));
        assert_eq!(of(&asked(json!({EXCLUDED: "9102"}))), Interception::None);
        assert_eq!(of(&pod(&json!({}), &json!({}))), excluded("9102"));
        for late in [
            json!({"spec": {"initContainers": [{"name": "istio-init"}]}}),
            json!({"metadata": {"annotations": {INJECTED: "{}"}}}),
        ] {
            assert!(matches!(of(&pod(&json!({}), &late)), Interception::Intercepted(_)), "{late}");
        }
        // Gloo's, for its certificates.
        let sds = pod(&json!({}), &json!({"spec": {"initContainers": [{"name": "istio-proxy"}]}}));
        assert_eq!(interception(&sds, "gloo", 8081, false), Interception::None);
        let own = interception(&asked(json!({})), "traefik", 8000, false);
        assert!(matches!(own, Interception::Intercepted(_)), "traffic may come in there");
    }
}
