//! The Kubernetes project's ingress-nginx as its chart installs it: the real controller, which reads nginx' statistics,
//! and Debian's nginx, for which its template goes without Lua.

use anyhow::{Context, Result, ensure};
use gwmon_cluster::wait_for;
use serde_json::{Value, json};

use super::{PATIENCE, Scene, manifest};

const NAMESPACE: &str = "ingress-nginx";
const PODS: &str = "app.kubernetes.io/component=controller,app.kubernetes.io/instance=ingress-nginx";
const DEPLOYMENT: &str = "deploy/ingress-nginx-controller";
const REQUESTS: &str = "nginx_ingress_controller_nginx_process_requests_total";

pub(crate) fn serves_its_own(scene: &Scene) -> Result<()> {
    let kubectl = &scene.kubectl;
    let template = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nginx-template", "namespace": NAMESPACE},
             "data": {"nginx.tmpl": manifest("nginx.tmpl")?}},
        ],
    });
    kubectl.apply(&template.to_string())?;
    scene.install("ingress-nginx.yaml", NAMESPACE)?;
    kubectl.apply(&ingress("/").to_string())?;
    scene.ready(NAMESPACE, DEPLOYMENT)?;

    kubectl.run(&format!("-n {NAMESPACE} annotate {DEPLOYMENT} gwmon.io/inject=true"))?;
    scene.ready(NAMESPACE, DEPLOYMENT)?;
    let pod = scene.pod(NAMESPACE, PODS)?;
    ensure!(pod["spec"]["initContainers"].is_null(), "it is scraped itself: {}", pod["spec"]);
    let _traffic = scene.traffic(NAMESPACE, PODS, 80)?;
    scene.rises(REQUESTS, &pod, "")?;
    let monitor = scene.monitor(NAMESPACE, "ingress-nginx-controller-gwmon")?;

    // Another path: the controller writes its configuration anew and reloads nginx, and says so in its metrics.
    let query = "max(nginx_ingress_controller_success)";
    let reloads = wait_for(query, PATIENCE, || scene.prometheus.query(query))?;
    kubectl.apply(&ingress("/a").to_string())?;
    wait_for("a reload of nginx", PATIENCE, || Ok(scene.prometheus.query(query)?.filter(|now| *now > reloads)))
        .with_context(|| scene.state(NAMESPACE, DEPLOYMENT))?;
    scene.rises(REQUESTS, &pod, "")?;

    // The chart once more, as an upgrade applies it.
    scene.install("ingress-nginx.yaml", NAMESPACE)?;
    scene.ready(NAMESPACE, DEPLOYMENT)?;
    scene.rises(REQUESTS, &scene.pod(NAMESPACE, PODS)?, "")?;
    scene.same_monitor(NAMESPACE, "ingress-nginx-controller-gwmon", &monitor)
}

/// Requests for `up.example` and this path go to the upstream.
fn ingress(path: &str) -> Value {
    let backend = json!({"service": {"name": "up", "port": {"name": "http"}}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "up", "namespace": "edge"},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": "up.example", "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}],
        },
    })
}
