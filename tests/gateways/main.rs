//! Real gateways under their own controllers, on one whole node with the real Prometheus: each is annotated, has its
//! series, makes its controller write its workload anew, and has its series still.
//!
//! Only with `GWMON_TEST_GATEWAYS=1`: their builds take minutes. Those that cannot be had, Istio's, Traefik, Emissary,
//! Kong and Consul's, are golden cases in the shape that they are published in (`tests/cases/`).

#[path = "../support/boards.rs"]
mod boards;
mod contour;
mod envoy_gateway;
mod haproxy;
mod ingress_nginx;
mod provisioner;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gwmon_cluster::scenario::{self, Traffic};
use gwmon_cluster::{Kubectl, Node, Prometheus, REQUIRE_ALL, wait_for};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

/// Set to run these tests.
const ASKED: &str = "GWMON_TEST_GATEWAYS";

const PATIENCE: Duration = Duration::from_secs(90);

/// The node that all of them share, brought up by the first.
static SCENE: Mutex<Option<Fixture>> = Mutex::new(None);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A node is as much as a small machine can run.
    arguments.test_threads = Some(1);
    let trial = |name: &str, test: fn(&Fixture) -> Result<()>| {
        Trial::test(name, move || on_the_node(test).map_err(|error| format!("{error:#}").into()))
    };
    let mut trials = vec![
        trial("contour", contour::programs_envoy),
        trial("contour_provisioner", provisioner::makes_contours_proxies),
        trial("envoy_gateway", envoy_gateway::makes_its_proxies),
        trial("haproxy", haproxy::serves_its_own),
        trial("ingress_nginx", ingress_nginx::serves_its_own),
    ];
    let obstacle = Node::obstacle().filter(|_| std::env::var_os(REQUIRE_ALL).is_none());
    let unasked = std::env::var_os(ASKED).is_none().then_some("needs GWMON_TEST_GATEWAYS=1");
    if let Some(why) = unasked.or(obstacle) {
        trials = trials.into_iter().map(|trial| trial.with_ignored_flag(true).with_kind(why)).collect();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // A static is not dropped, and the node is to be gone when this program is.
    drop(SCENE.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

fn on_the_node(test: fn(&Fixture) -> Result<()>) -> Result<()> {
    let mut fixture = SCENE.lock().unwrap_or_else(PoisonError::into_inner);
    if fixture.is_none() {
        *fixture = Some(Fixture::start()?);
    }
    test(fixture.as_ref().context("no node")?)
}

/// A node with monitoring, gwmon, the images of the gateways, and in namespace `edge` what they pass requests on to.
struct Fixture {
    node: Node,
    kubectl: Kubectl,
    prometheus: Prometheus,
}

impl Fixture {
    fn start() -> Result<Self> {
        gwmon_cluster::build_gateways()?;
        let node = Node::start(false)?;
        let kubectl = node.kubectl();
        node.start_dns()?;
        node.import(&gwmon_cluster::cache().join("gateways/images.tar"))?;
        node.install_monitoring()?;
        scenario::install_gwmon(&node, Path::new(env!("CARGO_BIN_EXE_gwmon")))?;
        scenario::deploy_gateway(&kubectl)?;
        kubectl.apply(&manifest("upstream.yaml")?)?;
        let prometheus = Prometheus::of(&kubectl);
        Ok(Self { node, kubectl, prometheus })
    }

    /// Installs a gateway's controller, as upstream publishes it, into its namespace.
    fn install(&self, what: &str, namespace: &str) -> Result<()> {
        let file = gwmon_cluster::cache().join("gateways").join(what);
        let file = file.to_str().context("the cache's path is no text")?;
        self.kubectl.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))?;
        // More than once: custom resources and their kinds are in one file. Server-side: the kinds are too large for the
        // annotation that kubectl would make.
        wait_for(what, Duration::from_mins(1), || {
            self.kubectl.run(&format!("-n {namespace} apply --server-side --force-conflicts -f {file}")).map(Some)
        })?;
        self.kubectl.wait_established()
    }

    /// Waits until a workload's roll-out has ended.
    fn ready(&self, namespace: &str, workload: &str) -> Result<()> {
        let status = self.kubectl.run(&format!("-n {namespace} rollout status {workload} --timeout=120s"));
        status.map(drop).with_context(|| self.state(namespace, workload))
    }

    /// What helps to find out why something did not happen.
    fn state(&self, namespace: &str, workload: &str) -> String {
        let said = |words: &str| {
            self.kubectl.run(&format!("-n {namespace} {words}")).map_or_else(|e| format!("{e:#}"), |said| said.out)
        };
        let logs = said(&format!("logs --all-containers --all-pods --tail=20 {workload}"));
        format!("{}\n{}\n{logs}", said("get pods"), said("get events --sort-by=.lastTimestamp"))
    }

    /// Requests of the virtual host to the pods of one gateway.
    fn traffic(&self, namespace: &str, selector: &str, port: u16) -> Result<Traffic> {
        Traffic::to(&self.node, namespace, selector, port, "up.example")
    }

    /// The one pod that is not on its way out.
    fn pod(&self, namespace: &str, selector: &str) -> Result<Value> {
        wait_for(&format!("one pod of {selector}"), PATIENCE, || {
            let pods = self.kubectl.get(&format!("-n {namespace} pods -l {selector}"))?;
            let pods = pods["items"].as_array().into_iter().flatten();
            let alive: Vec<_> = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect();
            Ok(if let [pod] = alive[..] { Some(pod.clone()) } else { None })
        })
    }

    /// Waits until this sum over this very pod is in Prometheus and has risen since it was first seen.
    fn rises(&self, metric: &str, pod: &Value, labels: &str) -> Result<()> {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let query = format!("sum({metric}{{pod=\"{name}\"{labels}}})");
        let first = wait_for(&query, PATIENCE, || self.prometheus.query(&query))?;
        wait_for(&format!("more than {first} of {query}"), PATIENCE, || {
            Ok(self.prometheus.query(&query)?.filter(|value| *value > first))
        })
        .map(drop)
    }

    /// Every query of a dashboard about this workload has data, but for those with one of these words, which have none.
    fn fills(&self, dashboard: &str, namespace: &str, job: &str, absent: &[&str]) -> Result<()> {
        let queries = boards::queries().into_iter().filter(|query| query.dashboard == dashboard);
        let mut empty = Vec::new();
        for query in queries {
            let expr = query.filled(namespace, job, "1m");
            let ask = || self.prometheus.query(&expr);
            if absent.iter().any(|word| expr.contains(word)) {
                ensure!(ask()?.is_none(), "{}: it is said to have no data: {expr}", query.panel);
            } else if wait_for(&expr, PATIENCE, ask).is_err() {
                empty.push(format!("{}: {expr}", query.panel));
            }
        }
        ensure!(empty.is_empty(), "{dashboard}: no data:\n{}", empty.join("\n"));
        Ok(())
    }

    /// The objects of gwmon's are what they were: not made anew, so nothing was deleted in between.
    fn same_monitor(&self, namespace: &str, name: &str, before: &Value) -> Result<()> {
        let now = self.kubectl.get(&format!("-n {namespace} servicemonitor {name}"))?;
        ensure!(now["metadata"]["uid"] == before["metadata"]["uid"], "{now} instead of {before}");
        Ok(())
    }

    /// Waits for the monitor that gwmon makes.
    fn monitor(&self, namespace: &str, name: &str) -> Result<Value> {
        wait_for(&format!("the monitor {name}"), PATIENCE, || {
            self.kubectl.get(&format!("-n {namespace} servicemonitor {name}")).map(Some)
        })
    }
}

/// A file beside this one.
fn manifest(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateways").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Whether gwmon's exporter runs in this pod, before everything else.
fn has_exporter(pod: &Value) -> bool {
    pod["spec"]["initContainers"][0]["name"] == "gwmon-statsd-exporter"
}
