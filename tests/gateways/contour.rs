//! Contour as its `examples/contour` install it: certificates from its Job, two replicas, Envoy in a `DaemonSet`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Scene, has_exporter};

const NAMESPACE: &str = "projectcontour";
const ENVOY: &str = "app=envoy";
const REQUESTS: &str = "envoy_cluster_upstream_rq_total";

pub(crate) fn programs_envoy(scene: &Scene) -> Result<()> {
    let kubectl = &scene.kubectl;
    scene.install("contour.yaml", NAMESPACE)?;
    scene.ready(NAMESPACE, "deploy/contour")?;
    scene.ready(NAMESPACE, "ds/envoy")?;
    kubectl.apply(&proxy("up").to_string())?;
    ensure!(!has_exporter(&scene.pod(NAMESPACE, ENVOY)?), "nothing is injected unasked");

    kubectl.run(&format!("-n {NAMESPACE} annotate daemonset envoy gwmon.io/inject=true"))?;
    scene.ready(NAMESPACE, "ds/envoy")?;
    let _traffic = scene.traffic(NAMESPACE, ENVOY, 8080)?;
    let pod = scene.pod(NAMESPACE, ENVOY)?;
    ensure!(has_exporter(&pod), "{}", pod["spec"]);
    scene.rises(REQUESTS, &pod, ",envoy_cluster_name=\"edge_up_80\"")?;
    let monitor = scene.monitor(NAMESPACE, "envoy-gwmon")?;

    // Contour programs the same Envoy anew, and Prometheus has the name of its new cluster.
    kubectl.apply(&proxy("next").to_string())?;
    scene.rises(REQUESTS, &pod, ",envoy_cluster_name=\"edge_next_80\"")?;

    // Upstream's manifests once more, as an upgrade or GitOps applies them, and a new Contour.
    scene.install("contour.yaml", NAMESPACE)?;
    kubectl.run(&format!("-n {NAMESPACE} rollout restart deploy/contour"))?;
    scene.ready(NAMESPACE, "deploy/contour")?;
    scene.ready(NAMESPACE, "ds/envoy")?;
    let after = scene.pod(NAMESPACE, ENVOY)?;
    ensure!(after["metadata"]["uid"] == pod["metadata"]["uid"], "Envoy was not started again: {after}");
    kubectl.apply(&proxy("up").to_string())?;
    scene.rises(REQUESTS, &after, ",envoy_cluster_name=\"edge_up_80\"")?;
    scene.same_monitor(NAMESPACE, "envoy-gwmon", &monitor)
}

/// What Contour is configured by: requests for `up.example` go to this Service.
fn proxy(service: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1",
        "kind": "HTTPProxy",
        "metadata": {"name": "up", "namespace": "edge"},
        "spec": {
            "virtualhost": {"fqdn": "up.example"},
            "routes": [{"conditions": [{"prefix": "/"}], "services": [{"name": service, "port": 80}]}],
        },
    })
}
