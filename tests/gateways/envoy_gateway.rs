//! Envoy Gateway as its chart installs it: it makes the Deployment of Envoy itself, and owns it.

use anyhow::{Context, Result, ensure};
use gwmon_cluster::{scenario, wait_for};
use serde_json::{Value, json};

use super::{Fixture, PATIENCE, has_exporter, manifest};

const NAMESPACE: &str = "envoy-gateway-system";
const REQUESTS: &str = "envoy_http_downstream_rq_total";

pub(crate) fn makes_its_proxies(fixture: &Fixture) -> Result<()> {
    let kubectl = &fixture.kubectl;
    fixture.install("envoy-gateway.yaml", NAMESPACE)?;
    fixture.ready(NAMESPACE, "deploy/envoy-gateway")?;
    kubectl.apply(&manifest("envoy-gateway.yaml")?.replace("ENVOY_IMAGE", &scenario::envoy_image()?))?;

    // The right place: Envoy Gateway writes what the EnvoyProxy says into the pods' template.
    let deployment = deployment(fixture, "monitored")?;
    fixture.ready(NAMESPACE, &format!("deploy/{deployment}"))?;
    survives_a_reconcile(fixture, "monitored", &deployment)?;

    // The other place: the Deployment that it makes. It writes by server-side apply, and what others have added stays.
    let deployment = self::deployment(fixture, "plain")?;
    fixture.ready(NAMESPACE, &format!("deploy/{deployment}"))?;
    ensure!(!has_exporter(&fixture.pod(NAMESPACE, &selector("plain"))?), "nothing is injected unasked");
    kubectl.run(&format!("-n {NAMESPACE} annotate deployment {deployment} gwmon.io/inject=true"))?;
    fixture.ready(NAMESPACE, &format!("deploy/{deployment}"))?;
    survives_a_reconcile(fixture, "plain", &deployment)?;
    let object = kubectl.get(&format!("-n {NAMESPACE} deployment {deployment}"))?;
    for metadata in [&object["metadata"], &object["spec"]["template"]["metadata"]] {
        ensure!(metadata["annotations"]["gwmon.io/inject"] == "true", "{metadata}");
    }
    Ok(())
}

/// The series of a Gateway's Envoy; then with another listener, of which Envoy is told, and so of that one too; then with
/// another template, with which Envoy Gateway writes its Deployment anew.
fn survives_a_reconcile(fixture: &Fixture, gateway: &str, deployment: &str) -> Result<()> {
    let patch = |what: &[&str], patch: &Value| {
        fixture.kubectl.run_with(&[what, &["--type=merge", "-p", &patch.to_string()]].concat(), "")
    };
    let (selector, monitor) = (selector(gateway), format!("{deployment}-gwmon"));
    let pod = fixture.pod(NAMESPACE, &selector)?;
    ensure!(has_exporter(&pod), "{}", pod["spec"]);
    // Envoy Gateway moves privileged ports up by 10000.
    let _traffic = fixture.traffic(NAMESPACE, &selector, 10080)?;
    fixture.rises(REQUESTS, &pod, ",envoy_http_conn_manager_prefix=\"http-10080\"")?;
    let made = fixture.monitor(NAMESPACE, &monitor)?;

    let both =
        json!([{"name": "http", "protocol": "HTTP", "port": 80}, {"name": "more", "protocol": "HTTP", "port": 81}]);
    patch(&["-n", "edge", "patch", "gateway", gateway], &json!({"spec": {"listeners": both}}))?;
    let _more = fixture.traffic(NAMESPACE, &selector, 10081)?;
    fixture.rises(REQUESTS, &pod, ",envoy_http_conn_manager_prefix=\"http-10081\"")?;

    let before = generation(fixture, deployment)?;
    let labels = json!({"envoyDeployment": {"pod": {"labels": {"tier": "gold"}}}});
    patch(&["-n", NAMESPACE, "patch", "envoyproxy", gateway], &json!({"spec": {"provider": {"kubernetes": labels}}}))?;
    wait_for("Envoy Gateway to write its Deployment", PATIENCE, || {
        Ok((generation(fixture, deployment)? > before).then_some(()))
    })?;
    fixture.ready(NAMESPACE, &format!("deploy/{deployment}"))?;
    let after = fixture.pod(NAMESPACE, &selector)?;
    ensure!(after["metadata"]["labels"]["tier"] == "gold" && has_exporter(&after), "{after}");
    fixture.rises(REQUESTS, &after, ",envoy_http_conn_manager_prefix=\"http-10080\"")?;
    fixture.same_monitor(NAMESPACE, &monitor, &made)
}

/// What Envoy Gateway writes on all that it makes for a Gateway.
fn selector(gateway: &str) -> String {
    format!("gateway.envoyproxy.io/owning-gateway-name={gateway}")
}

/// The name of the Deployment that it makes for a Gateway, with a hash in it.
fn deployment(fixture: &Fixture, gateway: &str) -> Result<String> {
    wait_for("a Deployment of Envoy Gateway's", PATIENCE, || {
        let made = fixture.kubectl.get(&format!("-n {NAMESPACE} deployments -l {}", selector(gateway)))?;
        Ok(made["items"][0]["metadata"]["name"].as_str().map(str::to_owned))
    })
}

fn generation(fixture: &Fixture, deployment: &str) -> Result<u64> {
    let object: Value = fixture.kubectl.get(&format!("-n {NAMESPACE} deployment {deployment}"))?;
    object["metadata"]["generation"].as_u64().context("no generation")
}
