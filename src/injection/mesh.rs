//! Istio's sidecar beside a gateway takes all that comes into the pod, Prometheus' requests too, and with strict mTLS
//! refuses them.

use super::pod::Pod;
use crate::reason::{Finding, Reason};

/// Read when Istio's webhook injects (`files/injection-template.yaml`), which by the configurations' names is after
/// gwmon's. Without Istio it means nothing.
const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// The annotation that Istio's webhook sets on the pods that it injects. A container of its image alone may be there
/// only for its certificates, as in Gloo's pods.
const INJECTED: &str = "sidecar.istio.io/status";
const ASKED: &str = "sidecar.istio.io/inject";

/// The annotation that keeps the sidecar off the exporter's port, whether or not a mesh is seen: most often it is the
/// namespace that asks for one. Or why Prometheus may not reach what it scrapes: a port of the gateway's own stays the mesh's,
/// and where the sidecar is in the pod already, it is too late.
pub(super) fn excluded(
    pod: &Pod,
    gateway: &str,
    port: u16,
    is_exporters: bool,
) -> Option<Result<(&'static str, String), Finding>> {
    let is_there = pod.metadata.annotation(INJECTED).is_some()
        || pod.all_containers().any(|container| container.name == "istio-init");
    let is_asked = [pod.metadata.label(ASKED), pod.metadata.annotation(ASKED)].contains(&Some("true"))
        || pod.metadata.label("istio.io/rev").is_some();
    let set = pod.metadata.annotation(EXCLUDED).unwrap_or_default();
    let is_concerned = is_there || is_asked || is_exporters;
    if gateway == "istio" || !is_concerned || set.split(',').any(|one| one.trim() == port.to_string()) {
        return None;
    }
    if is_there || !is_exporters {
        let detail =
            format!("Istio's sidecar takes port {port}, and Prometheus may not reach it; set {EXCLUDED}: \"{port}\"");
        return Some(Err(Finding::new(Reason::MeshInterceptsPort, detail)));
    }
    let all = if set.is_empty() { port.to_string() } else { format!("{set},{port}") };
    Some(Ok((EXCLUDED, all)))
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
        let excluded =
            |pod: &Pod| excluded(pod, "envoy", 9102, true).map(|done| done.map_err(|finding| finding.reason));
        assert_eq!(excluded(&asked(json!({}))), Some(Ok((EXCLUDED, "9102".to_owned()))));
        assert_eq!(excluded(&asked(json!({EXCLUDED: "15020"}))), Some(Ok((EXCLUDED, "15020,9102".to_owned()))));
        assert_eq!(excluded(&asked(json!({EXCLUDED: "9102"}))), None);
        assert_eq!(excluded(&pod(&json!({}), &json!({}))), Some(Ok((EXCLUDED, "9102".to_owned()))));
        for late in [
            json!({"spec": {"initContainers": [{"name": "istio-init"}]}}),
            json!({"metadata": {"annotations": {INJECTED: "{}"}}}),
        ] {
            assert_eq!(excluded(&pod(&json!({}), &late)), Some(Err(Reason::MeshInterceptsPort)), "{late}");
        }
        // Gloo's, for its certificates.
        let sds = pod(&json!({}), &json!({"spec": {"initContainers": [{"name": "istio-proxy"}]}}));
        assert!(super::excluded(&sds, "gloo", 8081, false).is_none());
        let own = super::excluded(&asked(json!({})), "traefik", 8000, false);
        assert!(own.is_some_and(|done| done.is_err()), "traffic may come in there");
    }
}
