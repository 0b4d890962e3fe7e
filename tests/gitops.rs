//! What GitOps tools see of gwmon's own objects and of an annotated workload: Argo CD by its own engine, Flux by server-side apply,
//! Helm by an upgrade, kubectl by a second apply. None of them finds anything to change.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use gwmon_cluster::{Kubectl, build_gitops, build_helm, program};
use serde_json::{Value, json};
use support::fixture::{Fixture, gateway};
use support::{Installed, by_release, injected, settle};

/// What Argo CD would change, of objects that are configured so and are applied already.
fn out_of_sync(kubectl: &Kubectl, configured: &[Value]) -> Vec<Value> {
    build_gitops().unwrap();
    let pairs = configured.iter().map(|config| {
        let namespace = config["metadata"]["namespace"].as_str().map(|name| format!("-n {name} ")).unwrap_or_default();
        let (kind, name) = (config["kind"].as_str().unwrap(), config["metadata"]["name"].as_str().unwrap());
        json!({"config": config, "live": kubectl.get(&format!("{namespace}{kind} {name}")).unwrap()})
    });
    let pairs = json!(pairs.collect::<Vec<_>>());
    let mut engine = Command::new(program("gitops")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    engine.stdin.take().unwrap().write_all(pairs.to_string().as_bytes()).unwrap();
    let output = engine.wait_with_output().unwrap();
    assert!(output.status.success());
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.len(), configured.len());
    found.into_iter().filter(|found| !found.is_null()).collect()
}

fn own_objects() -> Vec<Value> {
    serde_saphyr::from_multiple(&std::fs::read_to_string("deploy/install.yaml").unwrap()).unwrap()
}

#[test]
fn gwmons_own_objects_stay_in_sync() {
    let installed = Installed::own(false);
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    settle("the monitor", || installed.monitor("edge", "edge-gwmon").map(Some));
    let bundle = || {
        let webhook = kubectl.get("mutatingwebhookconfiguration gwmon").unwrap();
        webhook["webhooks"][2]["clientConfig"]["caBundle"].clone()
    };
    let written = settle("the caBundle", || Ok(Some(bundle()).filter(Value::is_string)));
    assert_eq!(out_of_sync(kubectl, &own_objects()), Vec::<Value>::new());
    // It does see a difference.
    let mut scaled = own_objects();
    scaled.retain(|object| object["kind"] == "Deployment");
    scaled[0]["spec"]["replicas"] = json!(3);
    assert_eq!(out_of_sync(kubectl, &scaled).len(), 1);

    // As people apply, once more. kubectl always sends the selector of a PodDisruptionBudget, which replaces itself.
    let again = kubectl.run("apply -f deploy/install.yaml").unwrap().out;
    let is_same = |line: &str| line.ends_with(" unchanged") || line.starts_with("poddisruptionbudget");
    assert!(again.lines().all(is_same), "{again}");

    // As Flux applies, time and again.
    let versions = || -> Vec<Value> {
        let live = kubectl.run("get -f deploy/install.yaml -o json").unwrap().out;
        let live: Value = serde_json::from_str(&live).unwrap();
        live["items"].as_array().unwrap().iter().map(|object| object["metadata"]["generation"].clone()).collect()
    };
    let flux = || {
        let apply = "apply --server-side --force-conflicts --field-manager=kustomize-controller -f deploy/install.yaml";
        kubectl.run(apply).unwrap();
    };
    // The first takes kubectl's annotation off, which counts as a generation of a Deployment.
    flux();
    let before = versions();
    flux();
    assert_eq!((versions(), bundle()), (before, written));
    gwmon.assert_never_forbidden();
}

#[test]
fn an_annotated_workload_stays_in_sync() {
    let fixture = Fixture::new("gitops");
    let Fixture { kubectl, .. } = &fixture;
    let asks = json!({"gwmon.io/inject": "true", "gwmon.io/interval": "15s"});
    let configured = |name: &str| {
        let mut deployment = gateway(name, &asks);
        deployment["metadata"]["namespace"] = json!("gitops");
        deployment
    };
    let live = |name: &str| fixture.get(&format!("deployment {name}"));
    let state = |name: &str| (live(name)["metadata"]["generation"].clone(), live(name)["spec"]["template"].clone());
    let is_copied = |name: &str| {
        assert_eq!(live(name)["spec"]["template"]["metadata"]["annotations"]["gwmon.io/interval"], "15s", "{name}");
    };

    // kubectl, and Argo CD, which applies as kubectl does.
    fixture.apply(&configured("applied"));
    is_copied("applied");
    assert_eq!(out_of_sync(kubectl, &[configured("applied")]), Vec::<Value>::new());
    let before = state("applied");
    fixture.apply(&configured("applied"));
    assert_eq!(state("applied"), before);

    // Flux.
    let flux = |object: &Value| {
        let arguments = ["apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-"];
        fixture.run_with(&arguments, &object.to_string()).unwrap();
    };
    flux(&configured("flux"));
    is_copied("flux");
    let before = state("flux");
    flux(&configured("flux"));
    assert_eq!(state("flux"), before);

    // Helm: an upgrade that changes nothing, and one that changes the image.
    build_helm().unwrap();
    let chart = tempfile::tempdir().unwrap();
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    std::fs::write(chart.path().join("Chart.yaml"), "apiVersion: v2\nname: edge\nversion: 1.0.0\n").unwrap();
    let file = chart.path().join("templates/gateway.yaml");
    std::fs::write(&file, configured("helm").to_string()).unwrap();
    let helm = |verb: &str| {
        let mut helm = Command::new(program("helm"));
        helm.args([verb, "edge"]).arg(chart.path()).args(["-n", "gitops"]).env("KUBECONFIG", kubectl.kubeconfig());
        let output = helm.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    helm("install");
    is_copied("helm");
    let before = state("helm");
    helm("upgrade");
    assert_eq!(state("helm"), before);
    std::fs::write(&file, configured("helm").to_string().replace("v1.34.0", "v1.34.1")).unwrap();
    helm("upgrade");
    is_copied("helm");
    assert_ne!(state("helm"), before);
}
