//! The controller and the certificate keeper against a real API server and a real garbage collector, with no more
//! rights than the shipped roles give.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::time::Duration;

use anyhow::Result;
use gwmon_cluster::{ControlPlane, Kubectl, wait_for};
use serde_json::{Value, json};
use support::Gwmon;

const MINUTE: Duration = Duration::from_mins(1);

fn settle<T>(what: &str, attempt: impl FnMut() -> Result<Option<T>>) -> T {
    wait_for(what, MINUTE, attempt).unwrap_or_else(|error| panic!("{error:#}"))
}

/// `gwmon serve` with the rights of the shipped service account.
fn serve(kubectl: &Kubectl) -> Gwmon {
    let token = kubectl.run("-n gwmon create token gwmon").unwrap().out;
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubectl.kubeconfig()).unwrap()).unwrap();
    config["users"][0]["user"]["token"] = json!(token.trim());
    let gwmon = Gwmon::start(|command, folder| {
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        command.env("KUBECONFIG", kubeconfig)
    });
    gwmon.wait_ready();
    gwmon
}

/// A Deployment whose pods look injected: no webhook is called in this test.
fn injected(namespace: &str, name: &str, replicas: u32) -> Value {
    let status = json!({
        "version": "0.1.0", "gateway": "envoy", "container": "envoy", "mode": "statsd", "statsdPort": 9125,
        "metricsPort": 9102, "added": [], "hash": "",
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {
                    "labels": {"app": name, "gwmon.io/monitored-by": format!("{name}-gwmon")},
                    "annotations": {"gwmon.io/inject": "true", "gwmon.io/interval": "15s", "gwmon.io/status": status.to_string()},
                },
                "spec": {"containers": [{"name": "envoy", "image": "envoy"}]},
            },
        },
    })
}

fn prometheus(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": name, "namespace": "monitoring"}, "spec": spec})
}

#[test]
fn objects_follow_the_gateway_and_the_prometheus() {
    let cluster = ControlPlane::start(false).unwrap();
    let kubectl = cluster.kubectl();
    let install = std::fs::read_to_string("deploy/install.yaml").unwrap();
    kubectl.apply(&install).unwrap();
    let crds = gwmon_cluster::cache().join("upstream/crd");
    let crd = |kind: &str| crds.join(format!("monitoring.coreos.com_{kind}.yaml")).display().to_string();
    for kind in ["prometheuses", "servicemonitors"] {
        kubectl.run(&format!("apply --server-side -f {}", crd(kind))).unwrap();
    }
    kubectl.run("wait --for=condition=Established crd --all --timeout=60s").unwrap();
    for namespace in ["monitoring", "edge", "west"] {
        kubectl.run(&format!("create namespace {namespace}")).unwrap();
    }
    kubectl
        .apply(&prometheus("k8s", &json!({"serviceMonitorSelector": {"matchLabels": {"release": "one"}}, "serviceMonitorNamespaceSelector": {}})).to_string())
        .unwrap();
    let gwmon = serve(&kubectl);
    let monitor = |namespace: &str, name: &str| kubectl.get(&format!("-n {namespace} servicemonitor {name}"));
    let release = |value: &str| {
        settle("the label", || {
            Ok((monitor("edge", "edge-gwmon")?["metadata"]["labels"]["release"] == value).then_some(()))
        });
    };

    // Made, owned by the Deployment, and asking for just what the pods say.
    kubectl.apply(&injected("edge", "edge", 2).to_string()).unwrap();
    release("one");
    let service = kubectl.get("-n edge service edge-gwmon").unwrap();
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 9102);
    assert_eq!(service["metadata"]["ownerReferences"][0]["kind"], "Deployment");
    let made = monitor("edge", "edge-gwmon").unwrap();
    assert_eq!(made["spec"]["endpoints"], json!([{"port": "gwmon-metrics", "path": "/metrics", "interval": "15s"}]));

    // What a person adds survives; what the Prometheus asks for changes in place.
    kubectl.run("-n edge label servicemonitor edge-gwmon team=edge").unwrap();
    kubectl
        .run_with(
            &[
                "-n",
                "monitoring",
                "patch",
                "prometheus",
                "k8s",
                "--type=merge",
                "-p",
                r#"{"spec":{"serviceMonitorSelector":{"matchLabels":{"release":"two"}}}}"#,
            ],
            "",
        )
        .unwrap();
    release("two");
    assert_eq!(monitor("edge", "edge-gwmon").unwrap()["metadata"]["labels"]["team"], "edge");

    // Taken away by hand: back again.
    kubectl.run("-n edge delete service edge-gwmon").unwrap();
    settle("the Service", || kubectl.get("-n edge service edge-gwmon").map(Some));

    // A name that is taken is left alone, and the other object is made all the same.
    kubectl.run("-n edge create service clusterip taken-gwmon --tcp=80").unwrap();
    kubectl.apply(&injected("edge", "taken", 1).to_string()).unwrap();
    settle("the other object", || monitor("edge", "taken-gwmon").map(Some));
    settle("the reason", || Ok(gwmon.log().contains("NameTaken: Service edge/taken-gwmon").then_some(())));
    assert!(kubectl.get("-n edge service taken-gwmon").unwrap()["metadata"]["ownerReferences"].is_null());

    // A Prometheus that reads its own namespace only: the monitors move there, one for each workload of one name.
    kubectl.apply(&prometheus("k8s", &json!({"serviceMonitorSelector": {}})).to_string()).unwrap();
    kubectl
        .run_with(
            &[
                "-n",
                "monitoring",
                "patch",
                "prometheus",
                "k8s",
                "--type=merge",
                "-p",
                r#"{"spec":{"serviceMonitorSelector":{"matchLabels":null},"serviceMonitorNamespaceSelector":null}}"#,
            ],
            "",
        )
        .unwrap();
    kubectl.apply(&injected("west", "edge", 1).to_string()).unwrap();
    for namespace in ["edge", "west"] {
        let moved = settle("the monitor", || monitor("monitoring", &format!("{namespace}.edge-gwmon")).map(Some));
        assert_eq!(moved["spec"]["namespaceSelector"]["matchNames"], json!([namespace]));
        assert!(moved["metadata"]["ownerReferences"].is_null());
    }

    // Scaled to nothing it keeps its objects; gone, they go: by the real garbage collector, or swept.
    kubectl.run("-n edge scale deployment edge --replicas=0").unwrap();
    settle("no pods", || {
        Ok(kubectl.get("-n edge pods -l app=edge")?["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    });
    std::thread::sleep(Duration::from_secs(2));
    kubectl.get("-n edge service edge-gwmon").unwrap();
    kubectl.run("-n west delete deployment edge").unwrap();
    settle("the sweep", || {
        let left = kubectl.get("-A servicemonitors,services -l gwmon.io/workload-namespace=west")?;
        Ok(left["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    });
    monitor("monitoring", "edge.edge-gwmon").unwrap();

    // Nothing that the shipped roles do not allow was tried.
    assert!(!gwmon.log().contains("forbidden"), "{}", gwmon.log());
}

#[test]
fn two_replicas_share_one_certificate_and_keep_it_announced() {
    let cluster = ControlPlane::start(false).unwrap();
    let kubectl = cluster.kubectl();
    let install = std::fs::read_to_string("deploy/install.yaml").unwrap();
    kubectl.apply(&install).unwrap();
    let replicas = [serve(&kubectl), serve(&kubectl)];

    let secret = kubectl.get("-n gwmon secret gwmon-tls").unwrap();
    let bundles = || -> Result<Vec<Value>> {
        let configuration = kubectl.get("mutatingwebhookconfiguration gwmon")?;
        Ok(configuration["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|webhook| webhook["clientConfig"]["caBundle"].clone())
            .collect())
    };
    assert_eq!(bundles().unwrap(), vec![secret["data"]["ca.crt"].clone(); 2], "both webhooks trust the one authority");

    // The manifests again: nothing is lost, since they name no caBundle (R8).
    kubectl.apply(&install).unwrap();
    assert_eq!(bundles().unwrap(), vec![secret["data"]["ca.crt"].clone(); 2]);

    // Overwritten: restored within moments (R7).
    let overwrite = r#"[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": null}]"#;
    kubectl.run_with(&["patch", "mutatingwebhookconfiguration", "gwmon", "--type=json", "-p", overwrite], "").unwrap();
    wait_for("the caBundle", Duration::from_secs(5), || {
        Ok((bundles()? == vec![secret["data"]["ca.crt"].clone(); 2]).then_some(()))
    })
    .unwrap();

    // The Secret gone: a new authority, announced and served by both.
    kubectl.run("-n gwmon delete secret gwmon-tls").unwrap();
    let renewed = settle("a new Secret", || kubectl.get("-n gwmon secret gwmon-tls").map(Some));
    assert_ne!(renewed["data"]["ca.crt"], secret["data"]["ca.crt"]);
    settle("the announcement", || Ok((bundles()? == vec![renewed["data"]["ca.crt"].clone(); 2]).then_some(())));
    for replica in &replicas {
        settle("both serving it", || {
            Ok((replica.log().matches("serving a new certificate").count() == 2).then_some(()))
        });
        assert!(!replica.log().contains("forbidden"), "{}", replica.log());
    }
}

#[test]
fn the_rendered_manifest_is_the_base_rendered() {
    gwmon_cluster::build().unwrap();
    let rendered = std::process::Command::new(gwmon_cluster::program("kubectl"))
        .args(["kustomize", "deploy/base"])
        .output()
        .unwrap();
    let committed = std::fs::read_to_string("deploy/install.yaml").unwrap();
    assert_eq!(
        String::from_utf8(rendered.stdout).unwrap(),
        committed,
        "kubectl kustomize deploy/base > deploy/install.yaml"
    );
    assert!(committed.contains(&format!("image: gwmon:{}\n", env!("CARGO_PKG_VERSION"))));
    assert!(!committed.contains("caBundle"));
}
