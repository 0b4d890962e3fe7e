//! `HAProxy`, with the exporter that is built into it. Its controllers cannot be had: what would write its configuration
//! is a `ConfigMap` here, and the next reconcile a roll-out.

use anyhow::{Result, ensure};

use super::{Scene, manifest};

const NAMESPACE: &str = "haproxy-controller";
const PODS: &str = "run=haproxy-ingress";
const DEPLOYMENT: &str = "deploy/haproxy-kubernetes-ingress";

pub(crate) fn serves_its_own(scene: &Scene) -> Result<()> {
    let kubectl = &scene.kubectl;
    kubectl.apply(&manifest("haproxy.yaml")?)?;
    scene.ready(NAMESPACE, DEPLOYMENT)?;
    kubectl.run(&format!("-n {NAMESPACE} annotate {DEPLOYMENT} gwmon.io/inject=true"))?;
    scene.ready(NAMESPACE, DEPLOYMENT)?;
    let pod = scene.pod(NAMESPACE, PODS)?;
    ensure!(pod["spec"]["initContainers"].is_null(), "it is scraped itself: {}", pod["spec"]);
    let _traffic = scene.traffic(NAMESPACE, PODS, 8080)?;
    // Answers of the backend: the requests went all the way.
    scene.rises("haproxy_backend_http_responses_total", &pod, ",proxy=\"edge_svc_up_http\",code=\"2xx\"")?;
    let monitor = scene.monitor(NAMESPACE, "haproxy-kubernetes-ingress-gwmon")?;

    // The manifests once more, and other pods.
    kubectl.apply(&manifest("haproxy.yaml")?)?;
    kubectl.run(&format!("-n {NAMESPACE} rollout restart {DEPLOYMENT}"))?;
    scene.ready(NAMESPACE, DEPLOYMENT)?;
    let after = scene.pod(NAMESPACE, PODS)?;
    ensure!(after["metadata"]["uid"] != pod["metadata"]["uid"], "another pod");
    scene.rises("haproxy_backend_http_responses_total", &after, ",proxy=\"edge_svc_up_http\",code=\"2xx\"")?;
    scene.same_monitor(NAMESPACE, "haproxy-kubernetes-ingress-gwmon", &monitor)
}
