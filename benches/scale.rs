//! A thousand gateways at once, then ten thousand pods, on a real API server: how long after a pod exists its monitor
//! does, what is written at rest, and what the process holds in memory. `cargo bench --bench scale`
//!
//! Goals: p99 within 1 s of the pods; no writes at rest; 32 MiB with 10,000 gateway pods.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends where it fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use support::{Gwmon, Installed, by_release, injected};

const GATEWAYS: u32 = 1_000;
const REPLICAS: u32 = 10;
const AT_ONCE: usize = 32;

/// When each gateway's first object of a kind was seen.
type Seen = Arc<Mutex<HashMap<String, Instant>>>;

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn watch(client: &Client, resource: &ApiResource, label: &'static str) -> Seen {
    let seen = Seen::default();
    let api = Api::<PartialObjectMeta<DynamicObject>>::namespaced_with(client.clone(), "edge", resource);
    let mut events = watcher(api, Config::default().labels(label)).boxed();
    let into = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
                let gateway = object.labels()[label].clone();
                into.lock().unwrap().entry(gateway).or_insert_with(Instant::now);
            }
        }
    });
    seen
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited 10 minutes for {what}");
}

#[tokio::main]
async fn main() {
    let installed = Installed::new();
    installed.prometheus("k8s", &by_release("one"));
    // All of them in one namespace.
    let gwmon = installed.serve_with(&["--max-gateways-per-namespace", &GATEWAYS.to_string()]);
    let kubeconfig = Kubeconfig::read_from(installed.kubectl.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let pods = watch(&client, &kind("", "v1", "Pod"), "gwmon.io/monitored-by");
    let monitors = watch(&client, &kind("monitoring.coreos.com", "v1", "ServiceMonitor"), "gwmon.io/metrics-for");
    let all = |seen: &Seen| seen.lock().unwrap().len() == GATEWAYS as usize;
    println!("resident with no gateway {:.1} MiB", gwmon.resident_kib() / 1024.);

    let deployments = Api::<DynamicObject>::namespaced_with(client.clone(), "edge", &kind("apps", "v1", "Deployment"));
    let started = Instant::now();
    stream::iter(0..GATEWAYS)
        .for_each_concurrent(AT_ONCE, async |i| {
            let object = serde_json::from_value(injected("edge", &format!("gateway-{i}"), 1)).unwrap();
            deployments.create(&PostParams::default(), &object).await.unwrap();
        })
        .await;
    until("the monitors", || all(&pods) && all(&monitors)).await;
    println!("{GATEWAYS} gateways from nothing to their monitors in {:.1} s", started.elapsed().as_secs_f64());
    let (made, monitored) = (pods.lock().unwrap().clone(), monitors.lock().unwrap().clone());
    let mut waits: Vec<_> = made.iter().map(|(gateway, made)| monitored[gateway].duration_since(*made)).collect();
    waits.sort_unstable();
    let at = |percent: usize| waits[waits.len() * percent / 100].as_secs_f64();
    println!("from a pod to its monitor: p50 {:.2} s, p99 {:.2} s (goal 1)", at(50), at(99));

    // What follows the last write: Events, and questions about the Prometheus' rights.
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("resident with {GATEWAYS} gateways {:.1} MiB", gwmon.resident_kib() / 1024.);
    rest(&installed, &gwmon).await;

    let more = Patch::Merge(json!({"spec": {"replicas": REPLICAS}}));
    stream::iter(0..GATEWAYS)
        .for_each_concurrent(AT_ONCE, async |i| {
            deployments.patch(&format!("gateway-{i}"), &PatchParams::default(), &more).await.unwrap();
        })
        .await;
    let count = || {
        let pods = installed.kubectl.run("get --raw /metrics").unwrap().out;
        let line = pods
            .lines()
            .find(|line| line.starts_with("apiserver_resource_objects{") && line.contains("resource=\"pods\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    until("the pods", || {
        std::thread::sleep(Duration::from_secs(5));
        count() >= f64::from(GATEWAYS * REPLICAS)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("resident with {} pods {:.1} MiB (goal 32)", GATEWAYS * REPLICAS, gwmon.resident_kib() / 1024.);
    rest(&installed, &gwmon).await;
    look(&installed, &["status", "-A"], "goal 1.5 s, 64 MiB");
    look(&installed, &["doctor"], "no goal");

    // As many pods that are nobody's gateway: what it costs to look among them for those that were missed.
    stream::iter(0..REPLICAS)
        .for_each_concurrent(AT_ONCE, async |i| {
            let mut object = injected("edge", &format!("bare-{i}"), GATEWAYS);
            object["spec"]["selector"] = json!({"matchLabels": {"app": "bare"}});
            object["spec"]["template"]["metadata"] = json!({"labels": {"app": "bare"}});
            let object = serde_json::from_value(object).unwrap();
            deployments.create(&PostParams::default(), &object).await.unwrap();
        })
        .await;
    until("the other pods", || {
        std::thread::sleep(Duration::from_secs(5));
        count() >= f64::from(2 * GATEWAYS * REPLICAS)
    })
    .await;
    drop(gwmon);
    let lists = || installed.requests(&[("verb", "LIST"), ("resource", "pods"), ("scope", "cluster")]);
    let (before, started) = (lists(), Instant::now());
    let gwmon = installed.serve_with(&["--max-gateways-per-namespace", &GATEWAYS.to_string()]);
    let mut last = (lists(), started.elapsed());
    while last.1 + Duration::from_secs(15) > started.elapsed() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if lists() > last.0 {
            last = (lists(), started.elapsed());
        }
    }
    println!(
        "started among {} pods: {} lists of pods in {:.0} s, resident {:.1} MiB",
        2 * GATEWAYS * REPLICAS,
        last.0 - before,
        last.1.as_secs_f64(),
        gwmon.resident_kib() / 1024.
    );
    for i in 0..3 {
        let ask = Patch::Merge(json!({"metadata": {"annotations": {"gwmon.io/inject": "true"}}}));
        deployments.patch(&format!("bare-{i}"), &PatchParams::default(), &ask).await.unwrap();
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    println!("three workloads annotated: {} lists of pods (goal 0)", lists() - last.0);
}

/// How long a command takes that looks at all gateways, and what it holds in memory at the most.
fn look(installed: &Installed, arguments: &[&str], goal: &str) {
    let started = Instant::now();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gwmon"));
    command.args(arguments).env("KUBECONFIG", installed.kubectl.kubeconfig());
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let held = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        most = most.max(held.unwrap_or_default());
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("gwmon {} took {seconds:.2} s and {} MiB ({goal})", arguments.join(" "), most / 1024);
}

/// Ten seconds in which nothing happens.
async fn rest(installed: &Installed, gwmon: &Gwmon) {
    let before = installed.object_writes();
    let reconciled = gwmon.metric("gwmon_reconciles_total");
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "in 10 s at rest: {} writes of Services and ServiceMonitors, {} reconciles",
        installed.object_writes() - before,
        gwmon.metric("gwmon_reconciles_total") - reconciled
    );
}
