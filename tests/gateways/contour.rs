//! Contour as its `examples/contour` install it: certificates from its Job, two replicas, Envoy in a `DaemonSet`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Fixture, has_exporter};

const NAMESPACE: &str = "projectcontour";
const ENVOY: &str = "app=envoy";
const REQUESTS: &str = "envoy_cluster_upstream_rq_total";

pub(crate) fn programs_envoy(fixture: &Fixture) -> Result<()> {
    let kubectl = &fixture.kubectl;
    fixture.install("contour.yaml", NAMESPACE)?;
    fixture.ready(NAMESPACE, "deploy/contour")?;
    fixture.ready(NAMESPACE, "ds/envoy")?;
    kubectl.apply(&proxy("up").to_string())?;
    ensure!(!has_exporter(&fixture.pod(NAMESPACE, ENVOY)?), "nothing is injected unasked");

    kubectl.run(&format!("-n {NAMESPACE} annotate daemonset envoy gwmon.io/inject=true"))?;
    fixture.ready(NAMESPACE, "ds/envoy")?;
    let _traffic = fixture.traffic(NAMESPACE, ENVOY, 8080)?;
    let pod = fixture.pod(NAMESPACE, ENVOY)?;
    ensure!(has_exporter(&pod), "{}", pod["spec"]);
    fixture.rises(REQUESTS, &pod, ",envoy_cluster_name=\"edge_up_80\"")?;
    let monitor = fixture.monitor(NAMESPACE, "envoy-gwmon")?;

    // Contour programs the same Envoy anew, and Prometheus has the name of its new cluster.
    kubectl.apply(&proxy("next").to_string())?;
    fixture.rises(REQUESTS, &pod, ",envoy_cluster_name=\"edge_next_80\"")?;

    // Upstream's manifests once more, as an upgrade or GitOps applies them, and a new Contour.
    fixture.install("contour.yaml", NAMESPACE)?;
    kubectl.run(&format!("-n {NAMESPACE} rollout restart deploy/contour"))?;
    fixture.ready(NAMESPACE, "deploy/contour")?;
    fixture.ready(NAMESPACE, "ds/envoy")?;
    let after = fixture.pod(NAMESPACE, ENVOY)?;
    ensure!(after["metadata"]["uid"] == pod["metadata"]["uid"], "Envoy was not started again: {after}");
    kubectl.apply(&proxy("up").to_string())?;
    fixture.rises(REQUESTS, &after, ",envoy_cluster_name=\"edge_up_80\"")?;
    fixture.same_monitor(NAMESPACE, "envoy-gwmon", &monitor)
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
