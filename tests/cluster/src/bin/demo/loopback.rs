//! The demo without root: a real control plane, whose pods kwok plays, and the pods' programs on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon_cluster::local::{self, LocalEnvoy, LocalGateway, free_ports};
use gwmon_cluster::{ControlPlane, Kubectl, Prometheus, folder, program, scenario, wait_for};
use serde_json::{Value, json};

use crate::{Narrator, command, show, show_outcome};

/// Processes that end with the value.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Processes {
    fn start(&mut self, program: &Path, arguments: &[String], environment: &[(&str, &Path)], log: &Path) -> Result<()> {
        let log = fs::File::create(log)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.0.push(command.spawn().with_context(|| format!("cannot start {}", program.display()))?);
        Ok(())
    }
}

/// A folder that goes with the value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn demo(gwmon: &Path, tell: &Narrator) -> Result<()> {
    tell.step("A real control plane: etcd, API server, controller manager, scheduler; kwok plays the node");
    let cluster = ControlPlane::start(true)?;
    let kubectl = cluster.kubectl();
    let scratch = Scratch(gwmon_cluster::cache().join("run").join(format!("demo-{}", std::process::id())));
    fs::create_dir_all(&scratch.0)?;
    let at = |name: &str| scratch.0.join(name);
    tell.step(
        "The Prometheus Operator's definitions, and a Prometheus that takes monitors labelled release=prometheus",
    );
    monitoring(&kubectl)?;

    tell.step("gwmon as two processes: the webhook and the controller");
    let mut processes = Processes(vec![]);
    let [webhook, admin, other_webhook, other_admin, statsd, metrics, http, upstreams, prometheus] = free_ports()?;
    let on = |port: u16| format!("127.0.0.1:{port}");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let authority = at("ca.crt");
    let serve = [
        "serve",
        "--standalone",
        "--bind",
        &on(webhook),
        "--admin-bind",
        &on(admin),
        "--ca-out",
        &authority.to_string_lossy(),
    ];
    processes.start(gwmon, &words(&serve), &[], &at("webhook.log"))?;
    wait_for("the webhook", Duration::from_secs(20), || {
        Ok(local::get(admin, "/readyz")?.contains("200 OK").then_some(()))
    })?;
    configure_webhook(&kubectl, webhook, &fs::read_to_string(&authority)?)?;
    let serve = ["serve", "--bind", &on(other_webhook), "--admin-bind", &on(other_admin)];
    processes.start(gwmon, &words(&serve), &[("KUBECONFIG", kubectl.kubeconfig())], &at("controller.log"))?;

    tell.step("A gateway: an Envoy that knows nothing of metrics");
    scenario::deploy_gateway(&kubectl)?;
    let before = scenario::pod(&kubectl)?;
    tell.step("The one thing a user does (and ports that are free on this machine)");
    let ports = format!("gwmon.io/statsd-port={statsd} gwmon.io/metrics-port={metrics}");
    command(&format!("kubectl -n edge annotate deployment edge gwmon.io/inject=true {ports}"));
    kubectl.run(&format!("-n edge annotate deployment edge {ports}"))?;
    scenario::annotate(&kubectl)?;
    let after = scenario::pod(&kubectl)?;
    show_outcome(tell, gwmon, &kubectl, &before, &after)?;

    tell.step("What the pod would run, on loopback, with traffic; and a Prometheus that scrapes it");
    let configuration = scenario::envoy_configuration(http, upstreams)?;
    let envoy = LocalEnvoy { program: "envoy", configuration: &configuration, ready: (http, "/a") };
    let _gateway = LocalGateway::start(&after, &envoy, &scratch.0)?;
    let config = json!({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "edge-gwmon", "static_configs": [{"targets": [on(metrics)], "labels": {"namespace": "edge"}}]}],
    });
    fs::write(at("prometheus.yml"), config.to_string())?;
    let arguments = [
        format!("--config.file={}", at("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", at("tsdb").display()),
        format!("--web.listen-address={}", on(prometheus)),
    ];
    processes.start(&program("prometheus"), &arguments, &[], &at("prometheus.log"))?;
    let prometheus = Prometheus::Local(prometheus);
    tell.step("The target in Prometheus:");
    show::target(&scenario::target_up(&prometheus, "edge-gwmon")?);
    traffic(http)?;
    tell.step(&format!("{} =", scenario::QUERY));
    show::rate(scenario::rate(&prometheus)?);
    tell.step("Requests a second, by response class, as Envoy counts them:");
    show::plot(&prometheus)?;
    tell.step("Done.");
    Ok(())
}

fn monitoring(kubectl: &Kubectl) -> Result<()> {
    let definitions = gwmon_cluster::operators_crds();
    kubectl.run(&format!("apply --server-side -f {}", definitions.display()))?;
    kubectl.wait_established()?;
    kubectl.run("create namespace monitoring")?;
    let manifests: Vec<Value> =
        serde_saphyr::from_multiple(&fs::read_to_string(folder().join("monitoring/prometheus.yaml"))?)?;
    let prometheus = manifests.iter().find(|object| object["kind"] == "Prometheus").context("no Prometheus")?;
    kubectl.apply(&prometheus.to_string())?;
    Ok(())
}

/// The shipped configuration, but for where the webhook is. Under another name: the one that the controller's
/// process looks after is there too, and empty.
fn configure_webhook(kubectl: &Kubectl, port: u16, authority: &str) -> Result<()> {
    let base = scenario::repository().join("deploy/base");
    // Where the controller keeps its Lease and its certificate.
    kubectl.apply(&fs::read_to_string(base.join("namespace.yaml"))?)?;
    let shipped = fs::read_to_string(base.join("webhook.yaml"))?;
    let mut configuration: Value = serde_saphyr::from_str(&shipped)?;
    let webhooks = configuration["webhooks"].take();
    kubectl.apply(&configuration.to_string())?;
    configuration["metadata"]["name"] = json!("gwmon-standalone");
    configuration["webhooks"] = webhooks;
    for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
        let path = webhook["clientConfig"]["service"]["path"].as_str().context("no path")?;
        webhook["clientConfig"] =
            json!({"url": format!("https://127.0.0.1:{port}{path}"), "caBundle": BASE64_STANDARD.encode(authority)});
    }
    kubectl.apply(&configuration.to_string())?;
    // The API server takes a moment to see it.
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Some seconds of requests, most of them to a path that answers 200.
fn traffic(http: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(15);
    for i in 0_u64.. {
        if Instant::now() > end {
            break;
        }
        local::get(http, if i.is_multiple_of(9) { "/b" } else { "/a" })?;
        std::thread::sleep(Duration::from_millis(20 + 60 * (i / 60 % 2)));
    }
    Ok(())
}
