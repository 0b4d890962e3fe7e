//! `HAProxy`, with the exporter that is built into it. Its controllers cannot be had: what would write its configuration
//! is a `ConfigMap` here, and the next reconcile a roll-out.

use anyhow::{Result, ensure};

use super::{Fixture, manifest};

const NAMESPACE: &str = "haproxy-controller";
const PODS: &str = "run=haproxy-ingress";
const DEPLOYMENT: &str = "deploy/haproxy-kubernetes-ingress";

pub(crate) fn serves_its_own(fixture: &Fixture) -> Result<()> {
    let kubectl = &fixture.kubectl;
    kubectl.apply(&manifest("haproxy.yaml")?)?;
    fixture.ready(NAMESPACE, DEPLOYMENT)?;
    kubectl.run(&format!("-n {NAMESPACE} annotate {DEPLOYMENT} gwmon.io/inject=true"))?;
    fixture.ready(NAMESPACE, DEPLOYMENT)?;
    let pod = fixture.pod(NAMESPACE, PODS)?;
    ensure!(pod["spec"]["initContainers"].is_null(), "it is scraped itself: {}", pod["spec"]);
    let _traffic = fixture.traffic(NAMESPACE, PODS, 8080)?;
    // Answers of the backend: the requests went all the way.
    fixture.rises("haproxy_backend_http_responses_total", &pod, ",proxy=\"edge_svc_up_http\",code=\"2xx\"")?;
    let monitor = fixture.monitor(NAMESPACE, "haproxy-kubernetes-ingress-gwmon")?;
    fixture.fills("haproxy", NAMESPACE, "haproxy-kubernetes-ingress-gwmon", &[])?;

    // The manifests once more, and other pods.
    kubectl.apply(&manifest("haproxy.yaml")?)?;
    kubectl.run(&format!("-n {NAMESPACE} rollout restart {DEPLOYMENT}"))?;
    fixture.ready(NAMESPACE, DEPLOYMENT)?;
    let after = fixture.pod(NAMESPACE, PODS)?;
    ensure!(after["metadata"]["uid"] != pod["metadata"]["uid"], "another pod");
    fixture.rises("haproxy_backend_http_responses_total", &after, ",proxy=\"edge_svc_up_http\",code=\"2xx\"")?;
    fixture.same_monitor(NAMESPACE, "haproxy-kubernetes-ingress-gwmon", &monitor)
}
