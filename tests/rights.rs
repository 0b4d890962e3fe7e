//! gwmon's rights are as wide as its code: each that is granted is used, by the API server's audit log. (Whatever is used and not
//! granted fails the other tests.) And what gwmon does without those that people take away.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use gwmon_cluster::wait_for;
use serde_json::{Value, json};
use support::kinds::{KINDS, definition};
use support::{Installed, by_release, gwmon, injected, injected_as, settle};

/// What the shipped roles grant: verb, API group, resource, and the object's name where only that one may be touched.
fn granted(installed: &Installed) -> Vec<[String; 4]> {
    let roles = ["clusterrole gwmon", "-n gwmon role gwmon"].map(|role| installed.kubectl.get(role).unwrap());
    let words = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = vec![];
    for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    let names = words(&rule["resourceNames"]);
                    let names = if names.is_empty() { vec![String::new()] } else { names };
                    granted.extend(names.into_iter().map(|name| [verb.clone(), group.clone(), resource.clone(), name]));
                }
            }
        }
    }
    granted
}

/// An object of one of other people's kinds, or of Kubernetes' own.
fn object(version: &str, kind: &str, name: &str, content: &Value) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "edge"}});
    json_patch::merge(&mut object, content);
    object
}

/// A Deployment whose pods have its own label, of which gwmon's labels may come off again.
fn named_pods(name: &str) -> Value {
    let mut workload = injected("edge", name, 1);
    workload["spec"]["selector"]["matchLabels"] = json!({"app": name});
    workload["spec"]["strategy"] = json!({"type": "Recreate"});
    workload["spec"]["template"]["metadata"]["labels"]["app"] = json!(name);
    workload
}

fn kong() -> Value {
    let native =
        json!({"gateway": "kong", "imageVersion": "3.9", "mode": "scrape", "statsdPort": null, "metricsPort": 8100});
    let mut kong = injected_as("edge", "kong", &json!({}), &native);
    kong["spec"]["template"]["spec"]["containers"] = json!([{"name": "envoy", "image": "kong:3.9"}]);
    kong
}

/// Gateways of every kind of owner, with everything that may stand beside them.
fn gateways() -> Vec<Value> {
    let of_kind = |name: &str, kind: &str, spec: Value| {
        let mut workload = injected("edge", name, 1);
        json_patch::merge(&mut workload, &json!({"kind": kind, "spec": spec}));
        workload
    };
    vec![
        // A DaemonSet has a pod for each node.
        object("v1", "Node", "node", &json!({"metadata": {"namespace": null}})),
        named_pods("edge"),
        named_pods("leaving"),
        of_kind("stateful", "StatefulSet", json!({"serviceName": "stateful"})),
        of_kind("daemon", "DaemonSet", json!({"replicas": null})),
        kong(),
        object("argoproj.io/v1alpha1", "Rollout", "canary", &json!({})),
        object("operator.victoriametrics.com/v1beta1", "VMAgent", "agent", &json!({"spec": {}})),
        object("opentelemetry.io/v1alpha1", "TargetAllocator", "allocator", &json!({"spec": {}})),
        object("opentelemetry.io/v1beta1", "OpenTelemetryCollector", "collector", &json!({"spec": {}})),
        object("monitoring.coreos.com/v1alpha1", "PrometheusAgent", "agent", &json!({"spec": {}})),
    ]
}

#[test]
fn every_right_that_is_granted_is_used() {
    let installed = Installed::own(false);
    let Installed { kubectl, .. } = &installed;
    for kind in KINDS.into_iter().filter(|kind| kind.0 != "monitoring.coreos.com") {
        kubectl.apply(&definition(kind).to_string()).unwrap();
    }
    kubectl.wait_established().unwrap();
    installed.prometheus("k8s", &by_release("one"));
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": gateways()}).to_string()).unwrap();
    let uid = kubectl.get("-n edge rollouts.argoproj.io canary").unwrap()["metadata"]["uid"].clone();
    let mut replicas = injected("edge", "canary", 1);
    let owner = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "canary", "uid": uid, "controller": true}]);
    let of_rollout = json!({"kind": "ReplicaSet", "metadata": {"name": "canary-6d4b", "ownerReferences": owner}, "spec": {"strategy": null}});
    json_patch::merge(&mut replicas, &of_rollout);
    kubectl.apply(&replicas.to_string()).unwrap();

    let gwmon = installed.serve_with(&["--suspend-after", "1s"]);
    let names = ["edge", "leaving", "stateful", "daemon", "kong", "canary"];
    for name in names {
        settle(name, || installed.monitor("edge", &format!("{name}-gwmon")).map(Some));
    }
    // A pod whose exporter does not run.
    let pod = kubectl.run("-n edge get pods -l app=edge -o name").unwrap().out;
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [{
        "name": "gwmon-statsd-exporter", "image": "exporter", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff"}},
    }]}});
    let patch = |target: &[&str], patch: &Value| {
        kubectl.run_with(&[&["patch", "--type=merge", "-p", &patch.to_string()], target].concat(), "").unwrap();
    };
    patch(&["-n", "edge", pod.trim(), "--subresource=status"], &status);
    // A certificate that somebody emptied.
    patch(&["-n", "gwmon", "secret", "gwmon-tls"], &json!({"data": {"tls.crt": ""}}));
    // A Service that somebody changed.
    kubectl.run("-n edge label service stateful-gwmon gwmon.io/metrics-for-").unwrap();
    // A gateway that is one no more.
    let mut plain = named_pods("leaving");
    plain["spec"]["template"]["metadata"] = json!({"labels": {"app": "leaving"}});
    kubectl.run_with(&["replace", "-f", "-"], &plain.to_string()).unwrap();
    // Monitors that need another label, and then another namespace.
    installed.prometheus("k8s", &by_release("two"));
    settle("the label", || {
        Ok((installed.monitor("edge", "edge-gwmon")?["metadata"]["labels"]["release"] == "two").then_some(()))
    });
    installed.prometheus("k8s", &json!({"serviceMonitorSelector": {}}));

    let unused = || -> BTreeSet<String> {
        let requested = installed.requested();
        let is_used = |right: &[String; 4]| {
            requested
                .iter()
                .any(|request| request[..3] == right[..3] && (right[3].is_empty() || right[3] == request[3]))
        };
        granted(&installed).into_iter().filter(|right| !is_used(right)).map(|right| right.join(" ")).collect()
    };
    let all = wait_for("every right to be used", Duration::from_mins(1), || Ok(unused().is_empty().then_some(())));
    assert!(all.is_ok(), "granted and never used: {:#?}", unused());
    gwmon.assert_never_forbidden();
}

/// Rules that an administrator may well take out: questions about other people's rights, machines and plugins.
#[test]
fn without_the_rights_to_ask_gateways_are_monitored_and_the_gap_is_told() {
    let installed = Installed::own(false);
    let Installed { kubectl, .. } = &installed;
    let kong_plugins = KINDS.into_iter().find(|kind| kind.2 == "KongClusterPlugin").unwrap();
    kubectl.apply(&definition(kong_plugins).to_string()).unwrap();
    kubectl.wait_established().unwrap();
    let mut role = kubectl.get("clusterrole gwmon").unwrap();
    let refused = ["subjectaccessreviews", "nodes", "kongclusterplugins"];
    let is_kept = |rule: &Value| !refused.iter().any(|resource| rule["resources"] == json!([resource]));
    role["rules"].as_array_mut().unwrap().retain(is_kept);
    kubectl.run_with(&["replace", "-f", "-"], &role.to_string()).unwrap();

    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    kubectl.apply(&kong().to_string()).unwrap();
    settle("the monitor", || installed.monitor("edge", "kong-gwmon").map(Some));
    let log = gwmon.log();
    for words in [
        "cannot read the kubelets' versions, so they count as old as Kubernetes allows",
        "needs, a KongClusterPlugin",
        "may read targets in edge",
    ] {
        assert!(log.contains(words), "{words}\n{log}");
    }
}

#[test]
fn a_cluster_is_checked_before_anything_is_installed() {
    let installed = Installed::own(false);
    let Installed { kubectl, .. } = &installed;
    let folder = tempfile::tempdir().unwrap();
    let check =
        |kubeconfig: &Path, arguments: &[&str]| gwmon(kubeconfig, &[&["install", "--check"], arguments].concat());
    let (code, said) = check(kubectl.kubeconfig(), &[]);
    let expected = [
        "OK    Kubernetes v1.",
        "OK    the API server serves MutatingWebhookConfigurations",
        "OK    you may apply all objects",
        "WARN  no Prometheus object",
    ];
    assert!(code == 0 && expected.iter().all(|line| said.contains(line)), "{said}");
    installed.prometheus("k8s", &by_release("one"));
    let (code, said) = check(kubectl.kubeconfig(), &["--name", "metrics", "-n", "obs"]);
    let expected = [
        "OK    the cluster serves monitoring.coreos.com/v1 Prometheus",
        "WARN  another gwmon is installed, by the name gwmon",
    ];
    assert!(code == 0 && expected.iter().all(|line| said.contains(line)), "{said}");

    // Somebody who may do little, and a cluster without the operator.
    let token = kubectl.run("-n edge create token default").unwrap().out;
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubectl.kubeconfig()).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    kubectl.run("delete crd prometheuses.monitoring.coreos.com").unwrap();
    let (code, said) = check(&file, &[]);
    let expected =
        ["FAIL  you may not create namespaces, patch namespaces, ", "SKIP  webhooks: ", "SKIP  ServiceMonitor: "];
    assert!(code == 1 && expected.iter().all(|line| said.contains(line)), "{said}");
    let (code, said) = check(kubectl.kubeconfig(), &[]);
    assert!(
        code == 0 && said.contains("WARN  the cluster does not serve monitoring.coreos.com/v1 Prometheus; install"),
        "{said}"
    );
    let (code, said) = check(&folder.path().join("nowhere"), &[]);
    assert!(code == 2 && said.starts_with("error: "), "{said}");
}
