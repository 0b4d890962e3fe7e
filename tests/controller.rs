//! The controller and the certificate keeper against a real API server and a real garbage collector, with no more
//! rights than the shipped roles give.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::time::Duration;

use anyhow::Result;
use gwmon_cluster::wait_for;
use serde_json::{Value, json};
use support::kinds::{KINDS, definition};
use support::{Installed, by_release, everywhere, injected, injected_as, settle};

#[test]
fn objects_follow_the_gateway_and_the_prometheus() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    let monitor = |namespace: &str, name: &str| installed.monitor(namespace, name);
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
    // This one has no account that may list anything; gwmon asks and tells, and grants nothing. So it is not monitored.
    installed.event("edge", "edge", "ScrapeRBACMissing", "system:serviceaccount:monitoring:default");
    assert!(installed.events("edge", "edge", "Monitored").unwrap().is_empty());

    // gwmon is monitored by the same means.
    let own = settle("gwmon's own monitor", || monitor("gwmon", "gwmon").map(Some));
    assert_eq!(own["metadata"]["labels"]["release"], "one");
    assert_eq!(own["spec"]["selector"]["matchLabels"], json!({"app.kubernetes.io/name": "gwmon"}));

    // What a person adds survives; what the Prometheus asks for changes in place.
    kubectl.run("-n edge label servicemonitor edge-gwmon team=edge").unwrap();
    installed.prometheus("k8s", &by_release("two"));
    release("two");
    assert_eq!(monitor("edge", "edge-gwmon").unwrap()["metadata"]["labels"]["team"], "edge");

    // Unless that is what keeps it from being selected.
    installed
        .prometheus("k8s", &everywhere(&json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]})));
    installed.event("edge", "edge", "NotSelected", "needs !team, has team=edge");
    installed.prometheus("k8s", &by_release("two"));
    release("two");

    // Tampered with: back within five seconds. Taken away: back again.
    let soon = |what: &str, check: &dyn Fn() -> Result<bool>| {
        wait_for(what, Duration::from_secs(5), || Ok(check()?.then_some(())))
            .unwrap_or_else(|error| panic!("{error:#}"));
    };
    for patch in [
        r#"[{"op": "replace", "path": "/spec/selector/gwmon.io~1monitored-by", "value": "other"}]"#,
        r#"[{"op": "remove", "path": "/metadata/labels/gwmon.io~1metrics-for"}]"#,
        r#"[{"op": "replace", "path": "/metadata/labels/gwmon.io~1metrics-for", "value": "other-gwmon"}]"#,
        r#"[{"op": "remove", "path": "/metadata/ownerReferences"}]"#,
    ] {
        kubectl.run_with(&["-n", "edge", "patch", "service", "edge-gwmon", "--type=json", "-p", patch], "").unwrap();
        soon(patch, &|| {
            let now = kubectl.get("-n edge service edge-gwmon")?;
            Ok(now["spec"]["selector"] == service["spec"]["selector"]
                && now["metadata"]["labels"] == service["metadata"]["labels"]
                && now["metadata"]["ownerReferences"] == service["metadata"]["ownerReferences"])
        });
    }
    kubectl.run("-n edge delete service edge-gwmon").unwrap();
    soon("the Service", &|| kubectl.get("-n edge service edge-gwmon").map(|_| true));

    // At rest nothing is written, and a pod that only changes its status is no reason to.
    std::thread::sleep(Duration::from_secs(1));
    let writes = |gwmon: &support::Gwmon| gwmon.metric("gwmon_writes_total");
    let before = (writes(&gwmon), installed.object_writes());
    let pod = kubectl.run("-n edge get pods -o name").unwrap().out.lines().next().unwrap().to_owned();
    kubectl.run(&format!("-n edge annotate {pod} unrelated=true")).unwrap();
    kubectl.run("label namespace west unrelated=true").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((writes(&gwmon), installed.object_writes()), before);

    // A name that is taken is left alone, and the other object is made all the same.
    kubectl.run("-n edge create service clusterip taken-gwmon --tcp=80").unwrap();
    kubectl.apply(&injected("edge", "taken", 1).to_string()).unwrap();
    settle("the other object", || monitor("edge", "taken-gwmon").map(Some));
    installed.event("edge", "taken", "NameConflict", "Service edge/taken-gwmon exists and is not managed by gwmon");
    assert!(kubectl.get("-n edge service taken-gwmon").unwrap()["metadata"]["ownerReferences"].is_null());
    // Told once, though it is tried again and again.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(installed.events("edge", "taken", "NameConflict").unwrap().len(), 1);

    // A Prometheus that reads its own namespace only: the monitors move there, one for each workload of one name.
    installed.prometheus("k8s", &json!({"serviceMonitorSelector": {}}));
    kubectl.apply(&injected("west", "edge", 1).to_string()).unwrap();
    for namespace in ["edge", "west"] {
        let moved = settle("the monitor", || monitor("monitoring", &format!("{namespace}.edge-gwmon")).map(Some));
        assert_eq!(moved["spec"]["namespaceSelector"]["matchNames"], json!([namespace]));
        assert!(moved["metadata"]["ownerReferences"].is_null());
    }
    settle("the old one to go", || Ok(monitor("edge", "edge-gwmon").is_err().then_some(())));

    // Scaled to nothing it keeps its objects; gone, they go: by the real garbage collector, or swept.
    kubectl.run("-n edge scale deployment edge --replicas=0").unwrap();
    settle("no pods", || {
        let pods = kubectl.get("-n edge pods -l gwmon.io/monitored-by=edge-gwmon")?;
        Ok(pods["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    });
    std::thread::sleep(Duration::from_secs(2));
    kubectl.get("-n edge service edge-gwmon").unwrap();
    kubectl.run("-n west delete deployment edge").unwrap();
    let left = |namespace: &str| -> Result<bool> {
        let left = kubectl.get(&format!("-A servicemonitors,services -l gwmon.io/workload-namespace={namespace}"))?;
        Ok(left["items"].as_array().is_some_and(|left| !left.is_empty()))
    };
    settle("the sweep", || Ok((!left("west")?).then_some(())));
    monitor("monitoring", "edge.edge-gwmon").unwrap();

    gwmon.assert_never_forbidden();

    // What went while no gwmon ran is swept by the next.
    drop(gwmon);
    kubectl.run("-n edge delete deployment edge").unwrap();
    settle("the garbage collector", || Ok(kubectl.get("-n edge service edge-gwmon").is_err().then_some(())));
    monitor("monitoring", "edge.edge-gwmon").unwrap();
    let _next = installed.serve();
    settle("the sweep", || Ok(monitor("monitoring", "edge.edge-gwmon").is_err().then_some(())));
}

#[test]
fn whatever_kind_owns_the_pods_owns_the_objects() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    let owner = |name: &str| -> Result<Value> {
        Ok(kubectl.get(&format!("-n edge service {name}"))?["metadata"]["ownerReferences"][0].clone())
    };

    // Argo's Rollouts stand above ReplicaSets as Deployments do; gwmon knows nothing of them.
    let rollouts = KINDS.into_iter().find(|kind| kind.2 == "Rollout").unwrap();
    kubectl.apply(&definition(rollouts).to_string()).unwrap();
    kubectl.wait_established().unwrap();
    let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "canary", "namespace": "edge"}});
    settle("the Rollout", || kubectl.apply(&rollout.to_string()).map(Some));
    let uid = kubectl.get("-n edge rollouts.argoproj.io canary").unwrap()["metadata"]["uid"].clone();
    let mut replica_set = injected("edge", "canary", 1);
    replica_set["kind"] = json!("ReplicaSet");
    replica_set["metadata"]["name"] = json!("canary-6d4b");
    replica_set["metadata"]["ownerReferences"] = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "canary", "uid": uid, "controller": true}]);
    kubectl.apply(&replica_set.to_string()).unwrap();
    let found = settle("the Rollout's Service", || owner("canary-gwmon").map(Some));
    assert_eq!((&found["kind"], &found["uid"]), (&json!("Rollout"), &uid));

    let mut workload = injected("edge", "stateful", 1);
    workload["kind"] = json!("StatefulSet");
    workload["spec"]["serviceName"] = json!("stateful");
    kubectl.apply(&workload.to_string()).unwrap();
    assert_eq!(settle("the StatefulSet's", || owner("stateful-gwmon").map(Some))["kind"], "StatefulSet");

    // Names of more than 63 characters that differ only past the cut.
    let long = |end: &str| format!("{}-{end}", "gateway".repeat(9));
    for end in ["a", "b"] {
        kubectl.apply(&injected("edge", &long(end), 1).to_string()).unwrap();
    }
    for end in ["a", "b"] {
        let name = gwmon::injection::monitor_name(&long(end));
        assert_eq!(settle(&name, || owner(&name).map(Some))["name"], long(end));
    }

    // The workload goes, and the real garbage collector takes what it owns.
    kubectl.run("-n edge delete rollouts.argoproj.io canary").unwrap();
    settle("the collection", || {
        let left = kubectl.get("-n edge services,servicemonitors -l gwmon.io/metrics-for=canary-gwmon")?;
        Ok(left["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    });
    gwmon.assert_never_forbidden();
}

#[test]
fn every_prometheus_that_is_asked_for_has_its_monitor() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("a", &by_release("one"));
    installed.prometheus("b", &by_release("two"));
    let gwmon = installed.serve();
    let asking = |target: &str| {
        // Which of two roll-outs is the newer one, their pods' creation tells, to the second.
        std::thread::sleep(Duration::from_millis(1100));
        let mut gateway = injected("edge", "edge", 1);
        gateway["spec"]["template"]["metadata"]["annotations"]["gwmon.io/prometheus"] = json!(target);
        gateway["spec"]["template"]["metadata"]["annotations"]["gwmon.io/monitor-labels"] = json!("team=edge");
        kubectl.apply(&gateway.to_string()).unwrap();
    };
    let label = |name: &str, key: &str| -> Result<Value> {
        Ok(installed.monitor("edge", name)?["metadata"]["labels"][key].clone())
    };

    // They cannot agree on a label, so each has its own.
    asking("all");
    settle("two monitors", || {
        Ok((label("edge-gwmon", "release")? == "one" && label("edge-gwmon-2", "release")? == "two").then_some(()))
    });
    assert_eq!(
        (label("edge-gwmon", "team").unwrap(), label("edge-gwmon-2", "team").unwrap()),
        (json!("edge"), json!("edge"))
    );

    // One that is named; the other's monitor goes.
    asking("monitoring/b");
    settle("one monitor", || {
        Ok((label("edge-gwmon", "release")? == "two" && label("edge-gwmon-2", "release").is_err()).then_some(()))
    });

    // One that is not there is told with those that are, and what was made stays.
    asking("monitoring/nobody");
    installed.event("edge", "edge", "PrometheusNotFound", "Prometheus monitoring/a, Prometheus monitoring/b");
    assert_eq!(label("edge-gwmon", "release").unwrap(), "two");

    // Nobody asked for: it is a toss-up, decided by the name, until another monitor here tips the balance.
    kubectl.apply(&injected("edge", "tie", 1).to_string()).unwrap();
    settle("the first by name", || Ok((label("tie-gwmon", "release")? == "one").then_some(())));
    installed.event("edge", "tie", "AmbiguousPrometheus", "choose with gwmon.io/prometheus");
    let theirs = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "theirs", "namespace": "west", "labels": {"release": "two"}},
        "spec": {"selector": {}, "endpoints": []},
    });
    kubectl.apply(&theirs.to_string()).unwrap();
    kubectl.apply(&injected("west", "tie", 1).to_string()).unwrap();
    settle("the one that reads this namespace already", || {
        Ok((installed.monitor("west", "tie-gwmon")?["metadata"]["labels"]["release"] == "two").then_some(()))
    });
    gwmon.assert_never_forbidden();
}

#[test]
fn objects_do_not_outlive_their_workload_nor_come_back() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    let service = |name: &str| kubectl.get(&format!("-n edge service {name}-gwmon"));
    let still = |what: &str, writes: f64| {
        std::thread::sleep(Duration::from_secs(3));
        let more = gwmon.metric("gwmon_writes_total") - writes;
        assert!(more.abs() < 0.1, "{more} writes while {what}");
    };

    // Its pods take their time to go, as those of a gateway with open connections do.
    let mut slow = injected("edge", "slow", 2);
    slow["spec"]["template"]["metadata"]["finalizers"] = json!(["example.com/drain"]);
    kubectl.apply(&slow.to_string()).unwrap();
    settle("the Service", || service("slow").map(Some));
    kubectl.run("-n edge delete deployment slow").unwrap();
    settle("the garbage collector", || Ok(service("slow").is_err().then_some(())));
    let pods = || kubectl.run("-n edge get pods -l gwmon.io/monitored-by=slow-gwmon -o name").unwrap().out;
    assert_eq!(pods().lines().count(), 2);
    still("its pods drain", gwmon.metric("gwmon_writes_total"));
    service("slow").unwrap_err();
    for pod in pods().lines() {
        kubectl
            .run_with(&["-n", "edge", "patch", pod, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#], "")
            .unwrap();
    }

    // Deleted from above its pods, and made again over them: the objects follow what owns the pods.
    kubectl.apply(&injected("edge", "orphan", 1).to_string()).unwrap();
    settle("the Service", || service("orphan").map(Some));
    kubectl.run("-n edge delete deployment orphan --cascade=orphan").unwrap();
    settle("another owner", || {
        Ok((service("orphan")?["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet").then_some(()))
    });
    still("nothing changes", gwmon.metric("gwmon_writes_total"));
    gwmon.assert_never_forbidden();
}

#[test]
fn pods_that_were_missed_are_found_and_told() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let gateway = |name: &str, template: &Value, spec: &Value| {
        let mut deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "edge", "annotations": {"gwmon.io/inject": "true"}},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}, "annotations": template},
                    "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/e.yaml"]}]},
                },
            },
        });
        json_patch::merge(&mut deployment["spec"]["template"]["spec"], spec);
        kubectl.apply(&deployment.to_string()).unwrap();
    };
    // No webhook is called: its Service has no endpoints, and the shipped policy is to ignore that.
    let asks = json!({"gwmon.io/inject": "true"});
    gateway("missed", &asks, &json!({}));
    gateway("unseen", &json!({}), &json!({}));
    gateway("refused", &asks, &json!({"hostNetwork": true}));
    gateway("declined", &json!({"gwmon.io/inject": "false"}), &json!({}));
    settle("the pods", || {
        let deployments = kubectl.get("-n edge deployments")?;
        let made = |deployment: &Value| deployment["status"]["replicas"] == 2;
        Ok(deployments["items"].as_array().unwrap().iter().all(made).then_some(()))
    });

    // Refused at its admission; the template has no copy, and a restart would change nothing.
    let in_shell = json!([{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "command": ["sh", "-c", "x; envoy"]}]);
    gateway("wrapped", &json!({}), &json!({"containers": in_shell}));
    // Un-annotated while no gwmon answered: the copies are still there.
    let mut stale = injected("edge", "stale", 1);
    stale["spec"]["template"]["metadata"]["annotations"]["gwmon.io/copied"] =
        json!(json!({"gwmon.io/inject": "true"}).to_string());
    kubectl.apply(&stale.to_string()).unwrap();

    let gwmon = installed.serve();
    installed.event("edge", "missed", "MissedInjection", "kubectl -n edge rollout restart deployment/missed");
    installed.event("edge", "unseen", "MissedInjection", "kubectl -n edge rollout restart deployment/unseen");
    installed.event("edge", "refused", "HostNetwork", "spec.hostNetwork is true");
    installed.event("edge", "wrapped", "UnpatchableCommand", "container envoy");
    assert!((gwmon.metric("gwmon_missed_pods") - 4.).abs() < 0.1);
    installed.event("edge", "stale", "MissedRemoval", "kubectl -n edge rollout restart deployment/stale");

    // Those that ask later are looked at within moments, not at the next round, and without a list of all pods each.
    let lists = || installed.requests(&[("verb", "LIST"), ("resource", "pods"), ("scope", "cluster")]);
    let before = lists();
    for name in ["later", "later-2", "later-3"] {
        gateway(name, &asks, &json!({"hostNetwork": true}));
        installed.event("edge", name, "HostNetwork", "spec.hostNetwork is true");
    }
    assert_eq!(lists(), before);
    for name in ["declined", "wrapped", "stale"] {
        assert_eq!(installed.events("edge", name, "MissedInjection").unwrap().len(), 0, "{name}");
    }

    // Where the webhooks are not called, that is what is told.
    let selector =
        r#"{"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["edge"]}]}"#;
    let patch = format!(r#"[{{"op": "replace", "path": "/webhooks/1/namespaceSelector", "value": {selector}}}]"#);
    kubectl.run_with(&["patch", "mutatingwebhookconfiguration", "gwmon", "--type=json", "-p", &patch], "").unwrap();
    gateway("excluded", &json!({}), &json!({}));
    installed.event("edge", "excluded", "NamespaceExcluded", "needs kubernetes.io/metadata.name");
    gwmon.assert_never_forbidden();
}

#[test]
fn who_refuses_an_object_is_told() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    kubectl.run("-n edge create quota none --hard=services=0").unwrap();
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"]});
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "west"}});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "team"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
            "validations": [{"expression": "has(object.metadata.labels) && 'team' in object.metadata.labels", "message": "a Service needs a label team"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "team"},
        "spec": {"policyName": "team", "validationActions": ["Deny"]},
    });
    let _gwmon = installed.serve();
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}).to_string()).unwrap();
    settle("the policy to be in force", || {
        Ok(kubectl.run("-n west create service clusterip tried --tcp=80 --dry-run=server").is_err().then_some(()))
    });
    for namespace in ["edge", "west"] {
        kubectl.apply(&injected(namespace, "edge", 1).to_string()).unwrap();
    }
    installed.event(
        "edge",
        "edge",
        "ObjectRefused",
        "cannot apply Service edge/edge-gwmon: services \"edge-gwmon\" is forbidden: exceeded quota",
    );
    installed.event("west", "edge", "ObjectRefused", "a Service needs a label team");
    // The monitor is made all the same, and what is mended is tried again.
    installed.monitor("west", "edge-gwmon").unwrap();
    kubectl.run("delete validatingadmissionpolicybinding team").unwrap();
    settle("the Service", || Ok(kubectl.get("-n west service edge-gwmon").ok()));
}

#[test]
fn pods_that_have_ended_keep_nothing_alive() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let mut gateway = injected("edge", "edge", 1);
    gateway["spec"]["strategy"] = json!({"type": "Recreate"});
    gateway["spec"]["selector"] = json!({"matchLabels": {"app": "gateway"}});
    kubectl.apply(&gateway.to_string()).unwrap();
    let _gwmon = installed.serve();
    settle("the Service", || Ok(kubectl.get("-n edge service edge-gwmon").ok()));
    let pod = kubectl.run("-n edge get pods -o name").unwrap().out.trim().to_owned();
    let evicted = r#"{"status": {"phase": "Failed", "reason": "Evicted"}}"#;
    kubectl.run_with(&["-n", "edge", "patch", &pod, "--subresource=status", "-p", evicted], "").unwrap();
    let metadata = &mut gateway["spec"]["template"]["metadata"];
    *metadata = json!({"labels": {"app": "gateway"}});
    kubectl.run_with(&["replace", "-f", "-"], &gateway.to_string()).unwrap();
    settle("the Service to go", || Ok(kubectl.get("-n edge service edge-gwmon").is_err().then_some(())));
    kubectl.run(&format!("-n edge get {pod}")).unwrap();
}

#[test]
fn the_rendered_manifest_is_the_base_rendered() {
    gwmon_cluster::prepare().unwrap();
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

#[test]
fn what_a_gateway_is_shows_in_its_objects() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let kong_plugins = KINDS.into_iter().find(|kind| kind.2 == "KongClusterPlugin").unwrap();
    kubectl.apply(&definition(kong_plugins).to_string()).unwrap();
    kubectl.wait_established().unwrap();
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();

    // Scraped where it serves its metrics itself; and told what it takes that they say something.
    let scrape = json!({"gateway": "kong", "imageVersion": "2.8", "mode": "scrape", "statsdPort": null, "metricsPort": 8100, "metricsPath": "/metrics"});
    let kong = |name: &str| {
        let mut kong = injected_as("edge", name, &json!({}), &scrape);
        kong["spec"]["template"]["spec"]["containers"] = json!([{"name": "envoy", "image": "kong:2.8"}]);
        kong.to_string()
    };
    kubectl.apply(&kong("kong")).unwrap();
    let made = settle("the monitor", || installed.monitor("edge", "kong-gwmon").map(Some));
    assert_eq!(made["spec"]["endpoints"][0]["path"], "/metrics");
    assert_eq!(kubectl.get("-n edge service kong-gwmon").unwrap()["spec"]["ports"][0]["targetPort"], 8100);
    installed.event("edge", "kong", "KongPluginMissing", "kind: KongClusterPlugin");
    let told = installed.events("edge", "kong", "KongPluginMissing").unwrap().concat();
    assert!(!told.contains("status_code_metrics"), "Kong 2 refuses that: {told}");

    // What it says can be applied, and then a Kong that comes is not told again.
    kubectl.apply(told.split('\'').nth(1).unwrap()).unwrap();
    // An answer holds for a minute.
    drop(gwmon);
    let gwmon = installed.serve();
    kubectl.apply(&kong("second")).unwrap();
    settle("the second monitor", || installed.monitor("edge", "second-gwmon").map(Some));
    assert_eq!(installed.events("edge", "second", "KongPluginMissing").unwrap(), Vec::<String>::new());

    // The queries of the profile bakins ask for the pods' label.
    kubectl
        .apply(&injected_as("edge", "bakins", &json!({"gwmon.io/profile": "bakins"}), &json!({})).to_string())
        .unwrap();
    let made = settle("the monitor", || installed.monitor("edge", "bakins-gwmon").map(Some));
    assert_eq!(made["spec"]["podTargetLabels"], json!(["app"]));
    gwmon.assert_never_forbidden();
}

/// A kubelet before 1.29 would run a native sidecar as an init container, to its end, which never comes.
#[test]
fn the_oldest_kubelet_decides_for_a_regular_sidecar() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let gwmon = installed.serve();
    assert!(gwmon.log().contains("sidecar=\"native\""), "{}", gwmon.log());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "old"}});
    kubectl.apply(&node.to_string()).unwrap();
    let info = json!({"status": {"nodeInfo": {"kubeletVersion": "v1.28.15-eks-1", "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""}}});
    kubectl
        .run_with(&["patch", "node", "old", "--subresource=status", "--type=merge", "-p", &info.to_string()], "")
        .unwrap();
    let gwmon = installed.serve();
    assert!(gwmon.log().contains("sidecar=\"regular\""), "{}", gwmon.log());
    gwmon.assert_never_forbidden();
}

/// Whoever may make pods writes their labels: they name no gateway but that of the pod's own workload.
#[test]
fn a_label_on_a_pod_proves_nothing() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    let mut forged = injected("edge", "edge", 1);
    for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        forged.pointer_mut(labels).unwrap()["gwmon.io/monitored-by"] = json!("apiserver");
    }
    kubectl.apply(&forged.to_string()).unwrap();
    let mut unreadable = injected("edge", "unreadable", 1)["spec"]["template"].clone();
    unreadable["apiVersion"] = json!("v1");
    unreadable["kind"] = json!("Pod");
    unreadable["metadata"]["name"] = json!("unreadable");
    unreadable["metadata"]["namespace"] = json!("edge");
    unreadable["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pods?watch=true&x=", "name": "unreadable", "uid": "1", "controller": true}]);
    kubectl.apply(&unreadable.to_string()).unwrap();
    kubectl.apply(&injected("west", "honest", 1).to_string()).unwrap();
    settle("the honest one's monitor", || installed.monitor("west", "honest-gwmon").map(Some));
    std::thread::sleep(Duration::from_secs(2));
    let made = kubectl.get("-n edge services,servicemonitors").unwrap();
    assert!(made["items"].as_array().unwrap().is_empty(), "{made}");
    gwmon.assert_never_forbidden();
}

#[test]
fn a_pod_that_nobody_owns_owns_its_objects() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    let mut pod = injected("edge", "solo", 1)["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("solo");
    pod["metadata"]["namespace"] = json!("edge");
    kubectl.apply(&pod.to_string()).unwrap();
    let service = settle("the Service", || kubectl.get("-n edge service solo-gwmon").map(Some));
    let owner = &service["metadata"]["ownerReferences"][0];
    let uid = kubectl.get("-n edge pod solo").unwrap()["metadata"]["uid"].clone();
    assert_eq!((&owner["kind"], &owner["name"], &owner["uid"]), (&json!("Pod"), &json!("solo"), &uid));
    settle("the monitor", || installed.monitor("edge", "solo-gwmon").map(Some));

    // A pod that was orphaned carries the label of its workload, and speaks for nobody.
    pod["metadata"]["name"] = json!("orphan-0");
    pod["metadata"]["labels"]["gwmon.io/monitored-by"] = json!("orphan-gwmon");
    kubectl.apply(&pod.to_string()).unwrap();
    kubectl.run("-n edge delete pod solo --grace-period=0 --force").unwrap();
    settle("its objects to go with it", || {
        let left = kubectl.get("-n edge services,servicemonitors -l gwmon.io/workload-namespace=edge")?;
        Ok(left["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    });
    gwmon.assert_never_forbidden();
}
