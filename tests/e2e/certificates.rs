//! Certificates are renewed while the API server creates pods, and it misses none of them.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon::certs::certificate::CertificateInfo;
use gwmon::certs::issue::Certificates;
use gwmon_cluster::{Kubectl, Node, scenario, wait_for};
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::Shell;

/// Pod creations a second, a little above what is promised.
const RATE: u32 = 110;
const SECONDS: u64 = 60;
const NAMES: [&str; 2] = ["gwmon.gwmon.svc.cluster.local", "gwmon.gwmon.svc"];

/// Plays the part of this program that creates pods, if that was asked for.
pub(crate) fn play_role() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, owner] = &arguments[..] else { return false };
    role == "role:pods" && {
        match create_pods(owner) {
            Ok(created) => println!("{created}"),
            Err(error) => eprintln!("{error:#}"),
        }
        true
    }
}

/// Creates pods that no scheduler looks at, all of one workload, and returns how many.
fn create_pods(owner: &str) -> Result<u64> {
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
        let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
        let mut running = tokio::task::JoinSet::new();
        let end = tokio::time::Instant::now() + Duration::from_secs(SECONDS);
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

/// One node, with the certificates of a gwmon that is as old as they say.
struct Fixture {
    node: Node,
    kubectl: Kubectl,
    shell: Shell,
    owner: String,
}

impl Fixture {
    fn new() -> Result<Self> {
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

    /// Runs `rotations`, seconds apart, while pods are created: all of them are injected, and no call has failed.
    fn under_load(&self, rotations: &[(u64, &dyn Fn() -> Result<()>)]) -> Result<()> {
        let failed = || self.count("apiserver_admission_webhook_fail_open_count", "");
        let answered = || self.count("apiserver_admission_webhook_request_total", "code=\"200\"");
        let injected = || -> Result<usize> {
            let pods = self.kubectl.run("-n load get pods -l gwmon.io/exporter=edge-gwmon -o name")?.out;
            Ok(pods.lines().count())
        };
        let before = (failed()?, answered()?, injected()?);
        let mut load = self.node.inside(std::env::current_exe()?);
        let load = load.args(["role:pods", &self.owner]).stdout(Stdio::piped()).spawn()?;
        let started = std::time::Instant::now();
        for (after, rotate) in rotations {
            std::thread::sleep(Duration::from_secs(*after).saturating_sub(started.elapsed()));
            rotate()?;
        }
        let created: u64 = String::from_utf8(load.wait_with_output()?.stdout)?.trim().parse()?;
        let (failed, answered) = (failed()? - before.0, answered()? - before.1);
        let injected = injected()? - before.2;
        ensure!(failed < 1., "{failed} of {answered} calls failed\n{}", self.failures());
        ensure!(created >= 100 * SECONDS, "{created} pods in {SECONDS} s");
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

    /// The leaf that each replica serves, by `gwmon certs status`, which finds that all is well.
    fn served(&self) -> Result<Vec<String>> {
        self.shell.command("gwmon certs status -o json > status.json")?;
        let status: Value = serde_json::from_str(&self.shell.read("status.json")?)?;
        let replicas = status["served"].as_array().cloned().unwrap_or_default();
        ensure!(replicas.len() == 2, "{status}");
        ensure!(
            replicas.iter().all(|replica| replica["by"].as_str().is_some_and(|by| by.starts_with("pod/"))),
            "{status}"
        );
        Ok(replicas.iter().map(|replica| replica["chain"][0]["notBefore"].to_string()).collect())
    }

    /// Waits until both replicas serve another leaf than one of these.
    fn all_but(&self, before: &[String]) -> Result<Vec<String>> {
        wait_for("both replicas to serve another certificate", Duration::from_mins(2), || {
            let served = self.served()?;
            Ok(served.iter().all(|leaf| !before.contains(leaf)).then_some(served))
        })
    }
}

/// Certificates of which the leaf is due in half a minute, and the authority in a minute.
fn aged() -> Result<Certificates> {
    let (names, now) = (NAMES.map(str::to_owned), OffsetDateTime::now_utc());
    let fresh = Certificates::new(&names, now)?;
    let made = |pem: &str, due: i64| -> Result<OffsetDateTime> {
        let age = CertificateInfo::of("a certificate", pem)?.renewal() - now;
        Ok(now - age + time::Duration::seconds(due))
    };
    let authority = Certificates::new(&names, made(&fresh.authorities, 55)?)?;
    // Its first leaf has ended months ago.
    authority.renewed(&names, made(&fresh.leaf, 35)?)?.context("nothing was due")
}

pub(crate) fn no_pod_is_missed_while_certificates_are_renewed() -> Result<()> {
    let fixture = Fixture::new()?;
    let Fixture { node, kubectl, shell, .. } = &fixture;
    node.load_image(&scenario::image()?, std::path::Path::new(env!("CARGO_BIN_EXE_gwmon")))?;

    shell.run("certs/README.md", "self-signed")?;
    let first = fixture.served()?;
    let aged = aged()?;
    let encoded = |text: &str| json!(BASE64_STANDARD.encode(text));
    let data = json!({"data": {
        "ca.crt": encoded(&aged.authorities), "ca.key": encoded(&aged.authority_key),
        "tls.crt": encoded(&aged.leaf), "tls.key": encoded(&aged.leaf_key),
    }});
    kubectl.run_with(&["-n", "gwmon", "patch", "secret", "gwmon-tls", "-p", &data.to_string()], "")?;
    let second = fixture.all_but(&first)?;
    // What is due is looked at once a minute, and when the Secret changes.
    let when_due = |pem: &str| {
        let due = CertificateInfo::of("a certificate", pem)?.renewal() - OffsetDateTime::now_utc();
        ensure!(due.is_positive(), "the machine is too slow: a certificate was due before the load");
        std::thread::sleep(due.try_into()?);
        kubectl.run("-n gwmon annotate secret gwmon-tls looked-").map(drop)?;
        kubectl.run("-n gwmon annotate secret gwmon-tls looked=at").map(drop)
    };
    fixture.under_load(&[(0, &|| when_due(&aged.leaf)), (0, &|| when_due(&aged.authorities))])?;
    let third = fixture.all_but(&second)?;
    let stored = kubectl.get("-n gwmon secret gwmon-tls")?["data"]["ca.crt"].as_str().unwrap_or_default().to_owned();
    let stored = String::from_utf8(BASE64_STANDARD.decode(stored)?)?;
    ensure!(stored.matches("BEGIN").count() == 2 && stored.contains(aged.authorities.trim()), "the CA was not renewed");

    // cert-manager's: the change of the source, and then each of its certificates.
    scenario::serve_cert_managers_kinds(kubectl)?;
    let mut cert_manager = node.inside("sh");
    // It ends with the node.
    std::mem::forget(cert_manager.args(["-c", "exec cert-manager $KUBECONFIG"]).stderr(Stdio::null()).spawn()?);
    let change = || shell.run("certs/README.md", "cert-manager");
    let renew_leaf = || scenario::renew_certificate(kubectl, "gwmon", "gwmon-webhook-tls");
    let renew_authority = || scenario::renew_certificate(kubectl, "gwmon-ca", "gwmon-ca");
    let change_back = || shell.run("certs/README.md", "self-signed");
    // Each change of the source ends when the last replica of before has gone.
    fixture.under_load(&[
        (1, &change),
        (25, &renew_leaf),
        (27, &renew_authority),
        (29, &renew_leaf),
        (32, &change_back),
    ])?;
    let fourth = wait_for("the replicas of before to go", Duration::from_mins(1), || fixture.served().map(Some))?;
    ensure!(fourth == third, "the certificate of before is still in its Secret");

    shell.run("certs/README.md", "files")?;
    let before = fixture.all_but(&fourth)?;
    shell.run("certs/README.md", "renew")?;
    // The kubelet would bring it within a minute and a half; it looks at once at a pod that has changed.
    kubectl.run("-n gwmon annotate pods --all looked=at")?;
    fixture.all_but(&before).map(drop)
}
