//! `Monitored` is said when it is so: the real prometheus-operator against a real API server, with pods of kwok's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Installed, injected, settle};

/// prometheus-operator as a process, and a Deployment that says how it was started.
struct Operator(Child);

impl Operator {
    fn start(installed: &Installed, folder: &tempfile::TempDir) -> Self {
        let flags = ["--feature-gates=StatusForConfigurationResources=true", "--web.listen-address=127.0.0.1:0"];
        let container = json!({"name": "prometheus-operator", "image": "operator", "args": flags});
        let labels = json!({"app.kubernetes.io/name": "prometheus-operator"});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "prometheus-operator", "namespace": "monitoring", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        });
        installed.kubectl.apply(&deployment.to_string()).unwrap();
        let log = File::create(folder.path().join("operator.log")).unwrap();
        let mut command = Command::new(gwmon_cluster::program("operator"));
        command.args(flags).env("KUBECONFIG", installed.kubectl.kubeconfig()).stdin(Stdio::null()).stdout(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus of the namespace `monitoring` that asks for a label and may discover targets everywhere.
fn prometheus(installed: &Installed, name: &str, label: (&str, &str)) {
    installed.prometheus(
        name,
        &json!({
            "serviceAccountName": "prometheus",
            "serviceMonitorSelector": {"matchLabels": {label.0: label.1}},
            "serviceMonitorNamespaceSelector": {},
        }),
    );
}

#[test]
fn monitored_is_said_when_the_operator_has_taken_the_monitor() {
    let help = Command::new(gwmon_cluster::program("operator")).arg("-help").output().unwrap();
    if !String::from_utf8_lossy(&help.stderr).contains("StatusForConfigurationResources") {
        eprintln!("skipped: this operator writes no status.bindings");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let installed = Installed::own(true);
    let Installed { kubectl, .. } = &installed;
    for kind in [
        "alertmanagers",
        "alertmanagerconfigs",
        "podmonitors",
        "probes",
        "prometheusrules",
        "scrapeconfigs",
        "thanosrulers",
    ] {
        kubectl.run(&format!("apply --server-side -f {}", Installed::crd(kind))).unwrap();
    }
    kubectl.wait_established().unwrap();
    kubectl.run("-n monitoring create serviceaccount prometheus").unwrap();
    kubectl.run("create clusterrole discovers --verb=get,list,watch --resource=services,pods,endpoints").unwrap();
    kubectl
        .run("create clusterrolebinding discovers --clusterrole=discovers --serviceaccount=monitoring:prometheus")
        .unwrap();
    let operator = Operator::start(&installed, &folder);
    prometheus(&installed, "kps", ("release", "kps"));
    let gwmon = installed.serve();

    // Not before the Prometheus runs and its operator has written on the monitor that it has taken it.
    kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    installed.event("edge", "edge", "Monitored", "Prometheus monitoring/kps asks for release=kps");
    let monitor = installed.monitor("edge", "edge-gwmon").unwrap();
    let binding = &monitor["status"]["bindings"][0];
    assert_eq!((&binding["name"], &binding["conditions"][0]["status"]), (&json!("kps"), &json!("True")), "{monitor}");
    let reconciled = |prometheus: &Value| {
        let conditions = prometheus["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Available" && condition["status"] == "True")
    };
    assert!(reconciled(&kubectl.get("-n monitoring prometheus kps").unwrap()));

    // Another Prometheus that would do as well, and comes first by its name, moves nothing.
    prometheus(&installed, "another", ("team", "apps"));
    settle("the operator to take it up", || {
        Ok(reconciled(&kubectl.get("-n monitoring prometheus another")?).then_some(()))
    });
    std::thread::sleep(Duration::from_secs(2));
    let labels = installed.monitor("edge", "edge-gwmon").unwrap()["metadata"]["labels"].clone();
    assert_eq!((&labels["release"], &labels["team"]), (&json!("kps"), &Value::Null));
    kubectl.run("-n monitoring delete prometheus another").unwrap();

    // Without its operator nothing is taken up, and that is said instead.
    drop(operator);
    kubectl.run("-n monitoring scale deployment prometheus-operator --replicas=0").unwrap();
    settle("the operator's Deployment", || {
        Ok(kubectl.get("-n monitoring deployment prometheus-operator")?["status"]["replicas"].is_null().then_some(()))
    });
    kubectl.apply(&injected("west", "late", 1).to_string()).unwrap();
    installed.event(
        "west",
        "late",
        "PrometheusNotRunning",
        "its operator monitoring/prometheus-operator has no ready pod",
    );
    settle("the monitor all the same", || installed.monitor("west", "late-gwmon").map(Some));
    assert!(installed.events("west", "late", "Monitored").unwrap().is_empty());
    kubectl.run("-n monitoring scale deployment prometheus-operator --replicas=1").unwrap();
    let _operator = Operator::start(&installed, &folder);
    installed.event("west", "late", "Monitored", "release=kps");
    gwmon.assert_never_forbidden();
}
