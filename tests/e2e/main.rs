//! The main job on a whole node: real kubelet, real Envoy, real statsd_exporter, real Prometheus Operator.

mod certificates;
mod dashboards;
mod doctor;
mod faults;
mod gateways;
mod helm;
mod load;
#[path = "../support/faults.rs"]
mod rows;
mod uninstall;
mod upgrade;

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon_cluster::{Kubectl, Node, Prometheus, REQUIRE_ALL, scenario, wait_for};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

fn main() -> ExitCode {
    if rows::play_role() || load::play_role() {
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // A node is as much as a small machine can run.
    arguments.test_threads = Some(1);
    let trial = |name: &str, test: fn() -> Result<()>| {
        Trial::test(name, move || test().map_err(|error| format!("{error:#}").into()))
    };
    let mut trials = vec![
        trial("annotate_a_deployment_and_read_its_metrics_in_prometheus", the_main_job),
        trial("every_shape_of_prometheus_scrapes_it", every_shape),
        trial("no_request_is_lost_whatever_becomes_of_the_exporter", faults::no_request_is_lost),
        trial(
            "no_pod_is_missed_while_certificates_are_renewed",
            certificates::no_pod_is_missed_while_certificates_are_renewed,
        ),
        trial("no_pod_is_missed_while_gwmon_is_upgraded", upgrade::no_pod_is_missed_while_gwmon_is_upgraded),
        trial("it_leaves_without_a_trace_and_comes_back_by_helm", || {
            let fixture = rows::Fixture::new("")?;
            uninstall::nothing_is_left(&fixture)?;
            helm::a_release_lives_and_dies(&fixture)
        }),
        trial("every_fault_is_found_by_the_doctor", doctor::every_fault_is_found),
        trial("every_gateway_is_told_the_way_it_wants_to_be", gateways::every_gateway),
    ];
    if let Some(why) = Node::obstacle()
        && std::env::var_os(REQUIRE_ALL).is_none()
    {
        trials = trials.into_iter().map(|trial| trial.with_ignored_flag(true).with_kind(why)).collect();
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A node with monitoring, gwmon and a gateway that nobody has annotated yet.
fn fixture() -> Result<(Node, Kubectl)> {
    let node = Node::start(false)?;
    let kubectl = node.kubectl();
    node.install_monitoring()?;
    scenario::install_gwmon(&node, Path::new(env!("CARGO_BIN_EXE_gwmon")))?;
    scenario::deploy_gateway(&kubectl)?;
    Ok((node, kubectl))
}

/// A folder with a few manifests, and a kubeconfig whose namespace is the gateway's: where somebody types what the README says.
struct Shell {
    folder: tempfile::TempDir,
}

impl Shell {
    fn new(kubectl: &Kubectl) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("manifests"))?;
        std::fs::write(at("manifests/gateway.yaml"), scenario::gateway()?)?;
        std::fs::copy(kubectl.kubeconfig(), at("kubeconfig"))?;
        for name in ["certs", "deploy"] {
            std::os::unix::fs::symlink(scenario::repository().canonicalize()?.join(name), at(name))?;
        }
        let shell = Self { folder };
        shell.command("kubectl config set-context --current --namespace=edge")?;
        Ok(shell)
    }

    /// Runs the commands of a block as they stand, each until it succeeds: people look again, too.
    fn run(&self, file: &str, name: &str) -> Result<()> {
        for line in scenario::commands(file, name)? {
            wait_for(&line, Duration::from_mins(1), || self.command(&line).map(Some))?;
        }
        Ok(())
    }

    fn command(&self, line: &str) -> Result<()> {
        let programs = [Path::new(env!("CARGO_BIN_EXE_gwmon")).parent(), gwmon_cluster::program("kubectl").parent()]
            .map(|folder| folder.unwrap_or_else(|| Path::new("/")).to_owned());
        let system = std::env::var("PATH").unwrap_or_default();
        let path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&system)))?;
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", line])
            .env("PATH", path)
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .current_dir(self.folder.path())
            .output()?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join(name))?)
    }
}

fn the_main_job() -> Result<()> {
    let (node, kubectl) = fixture()?;
    let _traffic = scenario::Traffic::start(&node, "app=edge")?;

    let before = scenario::pod(&kubectl)?;
    ensure!(before["spec"]["initContainers"].is_null(), "nothing is injected unasked");
    let shell = Shell::new(&kubectl)?;
    ensure!(scenario::commands("README.md", "start")? == scenario::commands("README.md", "annotate")?[..1]);
    shell.run("README.md", "preview")?;
    ensure!(shell.read("edge.yaml")?.contains("kind: Deployment"));
    shell.run("README.md", "annotate")?;
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
    let prometheus = Prometheus::of(&kubectl);
    scenario::target_up(&prometheus, scenario::POOL)?;
    scenario::rate(&prometheus)?;
    // gwmon itself, by the monitor that it made for itself.
    scenario::target_up(&prometheus, "serviceMonitor/gwmon/gwmon/0")?;
    wait_for("gwmon's own metrics", Duration::from_secs(30), || prometheus.query("sum(gwmon_gateways)"))?;

    dashboards::are_loaded(&kubectl, &prometheus)?;

    // The exporter does not see the service account's token, though Envoy does.
    let look = |container: &str| {
        kubectl.run(&format!("-n edge exec {name} -c {container} -- ls /var/run/secrets/kubernetes.io/serviceaccount"))
    };
    ensure!(look("envoy")?.out.contains("token"), "the gateway keeps its token");
    ensure!(look("gwmon-statsd-exporter")?.out.trim() == "mapping.yaml", "the exporter sees no token");

    // Off again: the roll-out takes the exporter away, then the objects go.
    kubectl.run("-n edge annotate deployment edge gwmon.io/inject-")?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s")?;
    let bare = scenario::pod(&kubectl)?;
    ensure!(bare["spec"]["initContainers"].is_null(), "{}", bare["spec"]);
    let template = &kubectl.get("-n edge deployment edge")?["spec"]["template"]["metadata"]["annotations"];
    ensure!(template.is_null(), "the template is as it was: {template}");
    gone(&kubectl)?;

    // A pod that nobody owns, as `kubectl run` makes it.
    let mut solo = kubectl.get("-n edge deployment edge")?["spec"]["template"].clone();
    solo["apiVersion"] = json!("v1");
    solo["kind"] = json!("Pod");
    solo["metadata"] = json!({
        "name": "solo", "namespace": "edge", "labels": {"run": "solo"}, "annotations": {"gwmon.io/inject": "true"},
    });
    kubectl.apply(&solo.to_string())?;
    kubectl.run("-n edge wait --for=condition=Ready pod/solo --timeout=90s")?;
    scenario::target_up(&prometheus, "serviceMonitor/edge/solo-gwmon/0")?;
    kubectl.run("-n edge delete pod solo")?;
    gone(&kubectl)
}

fn gone(kubectl: &Kubectl) -> Result<()> {
    wait_for("the objects to go", Duration::from_secs(30), || {
        let left = kubectl.get("-n edge services,servicemonitors -l gwmon.io/workload-namespace=edge")?;
        Ok(left["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
}

/// Prometheuses as people have them, all in one cluster and all asked to scrape one gateway.
fn every_shape() -> Result<()> {
    const ELSEWHERE: &str = "observability";
    let (_node, kubectl) = fixture()?;
    let everywhere =
        |selector: Value| json!({"serviceMonitorSelector": selector, "serviceMonitorNamespaceSelector": {}});
    let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "edge"}});
    let in_list = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold", "silver"]}]});
    let mut enforced = everywhere(in_list);
    enforced["enforcedNamespaceLabel"] = json!("namespace");
    // Beside `k8s`, which has kube-prometheus-stack's shape: kind, namespace, name, selectors.
    let shapes = [
        ("Prometheus", "monitoring", "tutorial", everywhere(json!({"matchLabels": {"ambassador": "monitoring"}}))),
        ("Prometheus", "monitoring", "takes-all", everywhere(json!({}))),
        (
            "Prometheus",
            "monitoring",
            "by-name",
            json!({"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": named}),
        ),
        ("Prometheus", "monitoring", "enforced", enforced),
        ("PrometheusAgent", "monitoring", "agent", everywhere(json!({"matchLabels": {"agent": "yes"}}))),
        ("Prometheus", ELSEWHERE, "own", json!({"serviceMonitorSelector": {}})),
    ];
    kubectl.run(&format!("create namespace {ELSEWHERE}"))?;
    kubectl.run(&format!("-n {ELSEWHERE} create serviceaccount prometheus"))?;
    kubectl.run(&format!(
        "create clusterrolebinding {ELSEWHERE} --clusterrole=prometheus --serviceaccount={ELSEWHERE}:prometheus"
    ))?;
    let template = kubectl.get("-n monitoring prometheus k8s")?["spec"].clone();
    for (kind, namespace, name, selectors) in &shapes {
        let version = if *kind == "Prometheus" { "v1" } else { "v1alpha1" };
        let mut spec = template.clone();
        let fields = spec.as_object_mut().context("no spec")?;
        fields.retain(|field, _| !field.starts_with("serviceMonitor"));
        if *kind == "PrometheusAgent" {
            fields.remove("evaluationInterval");
        }
        json_patch::merge(&mut spec, selectors);
        let object = json!({
            "apiVersion": format!("monitoring.coreos.com/{version}"),
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        });
        // The agent's CRD knows fewer fields than the template has.
        kubectl.run_with(&["apply", "--validate=warn", "-f", "-"], &object.to_string())?;
    }

    // A configuration that changes before the reloader watches is noticed minutes later only.
    for (kind, namespace, name, _) in &shapes {
        let pod = format!("{}-0", pod_of(kind, name));
        wait_for(&format!("{pod} to watch its configuration"), Duration::from_mins(2), || {
            let log = kubectl.run(&format!("-n {namespace} logs {pod} -c config-reloader"))?.out;
            Ok(log.contains("started watching").then_some(()))
        })?;
    }

    kubectl.run("-n edge annotate deployment edge gwmon.io/prometheus=all")?;
    scenario::annotate(&kubectl)?;
    let monitor = kubectl.get("-n edge servicemonitor edge-gwmon")?;
    let labels = &monitor["metadata"]["labels"];
    for (key, value) in [("release", "prometheus"), ("ambassador", "monitoring"), ("agent", "yes"), ("tier", "gold")] {
        ensure!(labels[key] == value, "{key} in {labels}");
    }
    let stack = ("Prometheus", "monitoring", "k8s");
    for (kind, namespace, name) in shapes.iter().map(|(kind, ns, name, _)| (*kind, *ns, *name)).chain([stack]) {
        let job = if namespace == ELSEWHERE { "observability/edge.edge-gwmon" } else { "edge/edge-gwmon" };
        let pool = format!("serviceMonitor/{job}/0");
        let pod = pod_of(kind, name);
        wait_for(&format!("{pool} in the configuration of {name}"), Duration::from_mins(1), || {
            Ok(configuration(&kubectl, namespace, &pod)?.contains(&pool).then_some(()))
        })?;
        let prometheus = Prometheus::InCluster {
            kubectl: kubectl.clone(),
            namespace: namespace.to_owned(),
            pod: format!("{pod}-0"),
        };
        let target = scenario::target_up(&prometheus, &pool).with_context(|| name.to_owned())?;
        ensure!(target["labels"]["namespace"] == "edge", "{name}: {target}");
    }

    // One of them only: the monitor for the others goes, and its stays.
    kubectl.run("-n edge annotate --overwrite deployment edge gwmon.io/prometheus=observability/own")?;
    wait_for("the other monitor to go", Duration::from_mins(1), || {
        Ok(kubectl.get("-n edge servicemonitor edge-gwmon").is_err().then_some(()))
    })?;
    kubectl.get("-n observability servicemonitor edge.edge-gwmon").map(drop)
}

/// What the operator names a Prometheus' Secret, and its pods less their number.
fn pod_of(kind: &str, name: &str) -> String {
    if kind == "Prometheus" { format!("prometheus-{name}") } else { format!("prom-agent-{name}") }
}

/// What the operator has written for a Prometheus.
fn configuration(kubectl: &Kubectl, namespace: &str, secret: &str) -> Result<String> {
    let secret = kubectl.get(&format!("-n {namespace} secret {secret}"))?;
    let packed = BASE64_STANDARD.decode(secret["data"]["prometheus.yaml.gz"].as_str().context("no configuration")?)?;
    let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().context("no input")?;
    // Written beside reading: either could fill its pipe.
    let writer = std::thread::spawn(move || input.write_all(&packed));
    let output = gzip.wait_with_output()?;
    ensure!(writer.join().is_ok_and(|written| written.is_ok()) && output.status.success(), "gzip failed");
    Ok(String::from_utf8(output.stdout)?)
}
