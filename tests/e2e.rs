//! The main job on a whole node: real kubelet, real Envoy, real statsd_exporter, real Prometheus Operator.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use gwmon_cluster::{Node, Prometheus, REQUIRE_ALL, scenario};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trial = Trial::test("annotate_a_deployment_and_read_its_metrics_in_prometheus", || {
        the_main_job().map_err(|error| format!("{error:#}").into())
    });
    if let Some(why) = Node::obstacle()
        && std::env::var_os(REQUIRE_ALL).is_none()
    {
        trial = trial.with_ignored_flag(true).with_kind(why);
    }
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

fn the_main_job() -> Result<()> {
    let node = Node::start(false)?;
    let kubectl = node.kubectl();
    node.install_monitoring()?;
    scenario::install_gwmon(&node, Path::new(env!("CARGO_BIN_EXE_gwmon")))?;
    scenario::deploy_gateway(&kubectl)?;
    let _traffic = scenario::Traffic::start(&node)?;

    let before = scenario::pod(&kubectl)?;
    ensure!(before["spec"]["initContainers"].is_null(), "nothing is injected unasked");
    scenario::annotate(&kubectl)?;
    let after = scenario::pod(&kubectl)?;
    let name = after["metadata"]["name"].as_str().context("no name")?.to_owned();
    let sidecar = &after["spec"]["initContainers"][0];
    ensure!(sidecar["name"] == "gwmon-statsd-exporter" && sidecar["restartPolicy"] == "Always", "{sidecar}");

    let monitor = kubectl.get("-n edge servicemonitor edge-gwmon")?;
    ensure!(monitor["metadata"]["labels"]["release"] == "prometheus", "{monitor}");
    let service = kubectl.get("-n edge service edge-gwmon")?;
    for object in [&monitor, &service] {
        let owner = &object["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "Deployment" && owner["name"] == "edge", "{owner}");
    }
    let prometheus = Prometheus::InCluster(kubectl.clone());
    scenario::target_up(&prometheus, scenario::POOL)?;
    scenario::rate(&prometheus)?;

    // The exporter does not see the service account's token, though Envoy does.
    let look = |container: &str| {
        kubectl.run(&format!("-n edge exec {name} -c {container} -- ls /var/run/secrets/kubernetes.io/serviceaccount"))
    };
    ensure!(look("envoy")?.out.contains("token"), "the gateway keeps its token");
    ensure!(look("gwmon-statsd-exporter")?.out.trim().is_empty(), "the exporter sees no token");

    // Off again: the roll-out takes the exporter away, then the objects go.
    kubectl.run("-n edge annotate deployment edge gwmon.io/inject-")?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s")?;
    let bare = scenario::pod(&kubectl)?;
    ensure!(bare["spec"]["initContainers"].is_null(), "{}", bare["spec"]);
    let template = &kubectl.get("-n edge deployment edge")?["spec"]["template"]["metadata"]["annotations"];
    ensure!(template.is_null(), "the template is as it was: {template}");
    gwmon_cluster::wait_for("the objects to go", std::time::Duration::from_secs(30), || {
        let left = kubectl.get("-n edge services,servicemonitors -l app.kubernetes.io/managed-by=gwmon")?;
        Ok(left["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
}
