//! The Kubernetes project's ingress-nginx as its chart installs it: the real controller, which reads nginx' statistics,
//! and Debian's nginx, for which its template goes without Lua.

use anyhow::{Context, Result, ensure};
use gwmon_cluster::wait_for;
use serde_json::{Value, json};

use super::{Fixture, PATIENCE, manifest};

const NAMESPACE: &str = "ingress-nginx";
const PODS: &str = "app.kubernetes.io/component=controller,app.kubernetes.io/instance=ingress-nginx";
const DEPLOYMENT: &str = "deploy/ingress-nginx-controller";
const REQUESTS: &str = "nginx_ingress_controller_nginx_process_requests_total";

pub(crate) fn serves_its_own(fixture: &Fixture) -> Result<()> {
    let kubectl = &fixture.kubectl;
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
    fixture.install("ingress-nginx.yaml", NAMESPACE)?;
    kubectl.apply(&ingress("/").to_string())?;
    fixture.ready(NAMESPACE, DEPLOYMENT)?;

    kubectl.run(&format!("-n {NAMESPACE} annotate {DEPLOYMENT} gwmon.io/inject=true"))?;
    fixture.ready(NAMESPACE, DEPLOYMENT)?;
    let pod = fixture.pod(NAMESPACE, PODS)?;
    ensure!(pod["spec"]["initContainers"].is_null(), "it is scraped itself: {}", pod["spec"]);
    let _traffic = fixture.traffic(NAMESPACE, PODS, 80)?;
    fixture.rises(REQUESTS, &pod, "")?;
    let monitor = fixture.monitor(NAMESPACE, "ingress-nginx-controller-gwmon")?;
    // Requests are counted by Lua, without which this nginx is.
    let by_lua = ["nginx_ingress_controller_requests{", "nginx_ingress_controller_request_duration"];
    fixture.fills("ingress-nginx", NAMESPACE, "ingress-nginx-controller-gwmon", &by_lua)?;

    // Another path: the controller writes its configuration anew and reloads nginx, and says so in its metrics.
    let query = "max(nginx_ingress_controller_success)";
    let reloads = wait_for(query, PATIENCE, || fixture.prometheus.query(query))?;
    kubectl.apply(&ingress("/a").to_string())?;
    wait_for("a reload of nginx", PATIENCE, || Ok(fixture.prometheus.query(query)?.filter(|now| *now > reloads)))
        .with_context(|| fixture.state(NAMESPACE, DEPLOYMENT))?;
    fixture.rises(REQUESTS, &pod, "")?;

    // The chart once more, as an upgrade applies it.
    fixture.install("ingress-nginx.yaml", NAMESPACE)?;
    fixture.ready(NAMESPACE, DEPLOYMENT)?;
    fixture.rises(REQUESTS, &fixture.pod(NAMESPACE, PODS)?, "")?;
    fixture.same_monitor(NAMESPACE, "ingress-nginx-controller-gwmon", &monitor)
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
