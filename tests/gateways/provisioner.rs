//! Contour's gateway-provisioner as `examples/gateway-provisioner` install it: it makes Contour and Envoy for each
//! Gateway, and writes what it made anew at each reconcile.

use anyhow::{Context, Result, ensure};
use gwmon_cluster::wait_for;
use serde_json::{Value, json};

use super::{Fixture, PATIENCE, has_exporter, manifest};

/// Where the Gateways are, and so what is made for them.
const NAMESPACE: &str = "gateways";
const REQUESTS: &str = "envoy_cluster_upstream_rq_total";

pub(crate) fn makes_contours_proxies(fixture: &Fixture) -> Result<()> {
    let kubectl = &fixture.kubectl;
    // Before Envoy Gateway's, which are newer: they end in a policy that forbids to go back.
    fixture.install("gateway-api.yaml", "projectcontour")?;
    fixture.install("contour-provisioner.yaml", "projectcontour")?;
    fixture.ready("projectcontour", "deploy/contour-gateway-provisioner")?;
    kubectl.run(&format!("create namespace {NAMESPACE}"))?;
    kubectl.apply(&manifest("provisioner.yaml")?)?;

    // The right place: the ContourDeployment, whose annotations it writes into the pods' template.
    made(fixture, "deploy/envoy-annotated")?;
    let _traffic = fixture.traffic(NAMESPACE, &selector("annotated"), 8080)?;
    serves(fixture, "annotated")?;
    let monitor = fixture.monitor(NAMESPACE, "envoy-annotated-gwmon")?;

    // The other place: what it makes. A DaemonSet keeps the annotation; a Deployment would lose it, so that is refused.
    made(fixture, "ds/envoy-daemonset")?;
    kubectl.run(&format!("-n {NAMESPACE} annotate ds/envoy-daemonset gwmon.io/inject=true"))?;
    fixture.ready(NAMESPACE, "ds/envoy-daemonset")?;
    ensure!(has_exporter(&fixture.pod(NAMESPACE, &selector("daemonset"))?), "the DaemonSet has its exporter");
    made(fixture, "deploy/envoy-deployment")?;
    let refused = kubectl.run(&format!("-n {NAMESPACE} annotate deploy/envoy-deployment gwmon.io/inject=true"))?;
    ensure!(
        refused.err.contains("ManagedWorkload") && refused.err.contains("spec.envoy.podAnnotations"),
        "{}",
        refused.err
    );

    // Its next reconcile, with something to write: a change of the Gateway brings it about, not one of the ContourDeployment.
    for gateway in ["annotated", "daemonset", "deployment"] {
        let workload = if gateway == "daemonset" { "ds" } else { "deploy" };
        let workload = format!("{workload}/envoy-{gateway}");
        let before = generation(fixture, &workload)?;
        let level = json!({"spec": {"envoy": {"logLevel": "debug"}}}).to_string();
        let of_its_pods = ["-n", "projectcontour", "patch", "contourdeployment", gateway, "--type=merge", "-p", &level];
        kubectl.run_with(&of_its_pods, "")?;
        let listener = json!({"name": "more", "protocol": "HTTP", "port": 81});
        let patch = json!([{"op": "add", "path": "/spec/listeners/-", "value": listener}]).to_string();
        kubectl.run_with(&["-n", NAMESPACE, "patch", "gateway", gateway, "--type=json", "-p", &patch], "")?;
        wait_for(&format!("the provisioner to write {workload}"), PATIENCE, || {
            Ok((generation(fixture, &workload)? > before).then_some(()))
        })?;
        fixture.ready(NAMESPACE, &workload)?;
    }
    serves(fixture, "annotated")?;
    fixture.same_monitor(NAMESPACE, "envoy-annotated-gwmon", &monitor)?;
    // Of a DaemonSet it takes over the specification only, and gwmon puts its copy back in the same request.
    let _more = fixture.traffic(NAMESPACE, &selector("daemonset"), 8080)?;
    serves(fixture, "daemonset")?;
    // Of a Deployment it takes over the annotations too: why the ContourDeployment is the place to annotate.
    let annotations =
        kubectl.get(&format!("-n {NAMESPACE} deploy/envoy-deployment"))?["metadata"]["annotations"].clone();
    ensure!(annotations["gwmon.io/inject"].is_null(), "the provisioner keeps annotations now: {annotations}");
    Ok(())
}

/// The series of a Gateway's one Envoy.
fn serves(fixture: &Fixture, gateway: &str) -> Result<()> {
    let pod = fixture.pod(NAMESPACE, &selector(gateway))?;
    ensure!(has_exporter(&pod), "{}", pod["spec"]);
    fixture.rises(REQUESTS, &pod, ",envoy_cluster_name=~\"edge_up_80\"")
}

/// Waits until the provisioner has made a workload, and its pods are ready.
fn made(fixture: &Fixture, workload: &str) -> Result<()> {
    wait_for(workload, PATIENCE, || fixture.kubectl.get(&format!("-n {NAMESPACE} {workload}")).map(Some))?;
    fixture.ready(NAMESPACE, workload)
}

/// The pods of Envoy, not those of the Contour that is made beside it.
fn selector(gateway: &str) -> String {
    format!("app=envoy-{gateway}")
}

fn generation(fixture: &Fixture, workload: &str) -> Result<u64> {
    let object: Value = fixture.kubectl.get(&format!("-n {NAMESPACE} {workload}"))?;
    object["metadata"]["generation"].as_u64().context("no generation")
}
