//! Pods that are created all the time, while something happens to gwmon.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gwmon_cluster::{Kubectl, Node};
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::json;

use crate::Shell;

/// Plays the part of this program that creates pods, if that was asked for.
pub(crate) fn play_role() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, owner, rate, seconds] = &arguments[..] else { return false };
    role == "role:pods" && {
        match create_pods(owner, rate, seconds) {
            Ok(created) => println!("{created}"),
            Err(error) => eprintln!("{error:#}"),
        }
        true
    }
}

/// Creates so many pods a second that no scheduler looks at, all of one workload, and returns how many.
fn create_pods(owner: &str, rate: &str, seconds: &str) -> Result<u64> {
    let (rate, seconds): (u32, u64) = (rate.parse()?, seconds.parse()?);
    let pod: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "edge-",
            "annotations": {"gwmon.io/inject": "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "edge", "uid": owner, "controller": true}],
        },
        "spec": {
            "schedulerName": "none",
            "automountServiceAccountToken": false,
            "containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/e.yaml"]}],
        },
    }))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kind = kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("", "v1", "Pod"));
        let pods = Api::<DynamicObject>::namespaced_with(Client::try_default().await?, "load", &kind);
        let (pod, created) = (Arc::new(pod), Arc::new(AtomicU64::new(0)));
        let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
        let mut running = tokio::task::JoinSet::new();
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        while tokio::time::Instant::now() < end {
            tick.tick().await;
            let (pods, pod, created) = (pods.clone(), Arc::clone(&pod), Arc::clone(&created));
            running.spawn(async move {
                if pods.create(&PostParams::default(), &pod).await.is_ok() {
                    created.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        running.join_all().await;
        anyhow::Ok(created.load(Ordering::Relaxed))
    })
}

/// A node without gwmon, and a namespace for pods that nobody runs.
pub(crate) struct Fixture {
    pub(crate) node: Node,
    pub(crate) kubectl: Kubectl,
    pub(crate) shell: Shell,
    owner: String,
}

impl Fixture {
    pub(crate) fn new() -> Result<Self> {
        let node = Node::start(false)?;
        let kubectl = node.kubectl();
        let shell = Shell::new(&kubectl)?;
        kubectl.run("create namespace load")?;
        kubectl.run("-n load create configmap edge")?;
        let owner = kubectl.get("-n load configmap edge")?["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        Ok(Self { node, kubectl, shell, owner })
    }

    /// Sums of the API server's own counters of the webhook for pods, by the name of the metric and a part of its labels.
    fn count(&self, metric: &str, labels: &str) -> Result<f64> {
        let metrics = self.kubectl.run("get --raw /metrics")?.out;
        let lines = metrics.lines().filter(|line| {
            line.starts_with(&format!("{metric}{{")) && line.contains("name=\"pods.gwmon.io\"") && line.contains(labels)
        });
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Does `steps`, each after so many seconds, while a tenth more pods than `rate` are created a second: all of them are
    /// injected, and no call has failed.
    pub(crate) fn under_load(
        &self,
        (rate, seconds): (u64, u64),
        steps: &[(u64, &dyn Fn() -> Result<()>)],
    ) -> Result<()> {
        let failed = || self.count("apiserver_admission_webhook_fail_open_count", "");
        let answered = || self.count("apiserver_admission_webhook_request_total", "code=\"200\"");
        let injected = || -> Result<usize> {
            let pods = self.kubectl.run("-n load get pods -l gwmon.io/exporter=edge-gwmon -o name")?.out;
            Ok(pods.lines().count())
        };
        let before = (failed()?, answered()?, injected()?);
        let mut load = self.node.inside(std::env::current_exe()?);
        let load = load
            .args(["role:pods", &self.owner, &(rate + rate / 10).to_string(), &seconds.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let started = std::time::Instant::now();
        for (after, step) in steps {
            std::thread::sleep(Duration::from_secs(*after).saturating_sub(started.elapsed()));
            step()?;
        }
        let created: u64 = String::from_utf8(load.wait_with_output()?.stdout)?.trim().parse()?;
        let (failed, answered) = (failed()? - before.0, answered()? - before.1);
        let injected = injected()? - before.2;
        ensure!(failed < 1., "{failed} of {answered} calls failed\n{}", self.failures());
        ensure!(created >= rate * seconds, "{created} pods in {seconds} s");
        ensure!(injected as u64 == created, "{injected} of {created} pods are injected");
        Ok(())
    }

    /// What the API server says about calls that failed.
    fn failures(&self) -> String {
        let folder = self.kubectl.kubeconfig().parent().unwrap_or_else(|| "/".as_ref());
        let log = std::fs::read_to_string(folder.join("log/apiserver.log")).unwrap_or_default();
        let failures: Vec<_> = log.lines().filter(|line| line.contains("failing open pods.gwmon.io")).collect();
        failures.join("\n")
    }
}
