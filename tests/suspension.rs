//! Stepping aside, on a real API server and controller manager: who is suspended, that every replica knows, that a restart
//! forgets nothing, and how it comes back. What a kubelet would write into a pod's status is written by hand here; with a
//! real one: tests/e2e/faults.rs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::time::{Duration, Instant};

use gwmon_cluster::wait_for;
use serde_json::{Value, json};
use support::{Gwmon, Installed, injected, settle};

/// Seconds until a workload is suspended, and until it is tried again.
const QUICK: [&str; 4] = ["--suspend-after", "2s", "--suspend-for", "4s"];

/// A Deployment whose one pod looks injected, and is found by its name.
fn gateway(name: &str) -> Value {
    let mut deployment = injected("edge", name, 1);
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = json!(name);
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!(name);
    // One that gets an exporter, and does not only look so.
    deployment["spec"]["template"]["spec"]["containers"] =
        json!([{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/etc/envoy/envoy.yaml"]}]);
    deployment
}

/// What a replica says to a new pod of this workload: the patch, if any, and the warnings.
fn asked(installed: &Installed, gwmon: &Gwmon, workload: &str, is_dry_run: bool) -> (Option<String>, String) {
    installed.review(gwmon, "/mutate/pods", &json!({
        "namespace": "edge",
        "dryRun": is_dry_run,
        "object": {"metadata": {
            "labels": {"pod-template-hash": "6d4b"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{workload}-6d4b"), "uid": "u", "controller": true,
            }],
        }},
    }))
}

/// What the ConfigMap says of a workload.
fn entry(installed: &Installed, workload: &str) -> Option<Value> {
    let config_map = installed.kubectl.get("-n gwmon configmap gwmon-suspensions").ok()?;
    let entry = config_map["data"][format!("edge.{workload}-gwmon")].as_str()?;
    Some(serde_json::from_str(entry).unwrap())
}

fn wait_phase(installed: &Installed, workload: &str, phase: &str) -> Value {
    settle(&format!("{workload} to be {phase}"), || {
        Ok(entry(installed, workload).filter(|entry| entry["phase"] == phase))
    })
}

/// The name of the workload's pod.
fn pod_of(installed: &Installed, workload: &str) -> String {
    settle("a pod", || {
        let pods = installed.kubectl.run(&format!("-n edge get pods -l app={workload} -o name"))?.out;
        Ok(pods.lines().next().map(str::to_owned))
    })
}

/// Writes what a kubelet would about the exporter's container, and about the pod.
fn set_exporter(installed: &Installed, pod: &str, state: &Value) {
    let ready = if state["running"].is_object() { "True" } else { "False" };
    let conditions = json!([{"type": "Ready", "status": ready}]);
    let status = json!({"status": {"phase": "Pending", "conditions": conditions, "initContainerStatuses": [{
        "name": "gwmon-statsd-exporter", "image": "mirror/statsd-exporter:1", "imageID": "", "ready": false, "restartCount": 0, "state": state,
    }]}});
    let arguments = ["-n", "edge", "patch", pod, "--subresource=status", "--type=merge", "-p"];
    installed.kubectl.run_with(&[&arguments[..], &[&status.to_string()]].concat(), "").unwrap();
}

fn not_pulled() -> Value {
    json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
}

#[test]
fn a_gateway_whose_exporter_does_not_run_goes_without_until_one_pod_shows_that_it_can() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let replicas = [installed.serve_with(&QUICK), installed.serve_with(&QUICK)];
    kubectl.apply(&gateway("edge").to_string()).unwrap();
    let pod = pod_of(&installed, "edge");
    assert!(replicas.iter().all(|gwmon| asked(&installed, gwmon, "edge", false).0.is_some()));

    // For a moment it does not run: nothing happens. For longer: suspended, and within a second both replicas know.
    set_exporter(&installed, &pod, &not_pulled());
    std::thread::sleep(Duration::from_millis(500));
    set_exporter(&installed, &pod, &running());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(entry(&installed, "edge"), None);
    set_exporter(&installed, &pod, &not_pulled());
    let suspended = wait_phase(&installed, "edge", "suspended");
    let noticed = Instant::now();
    for gwmon in &replicas {
        wait_for("the replica to know", Duration::from_secs(1), || {
            let (patch, warnings) = asked(&installed, gwmon, "edge", false);
            Ok((patch.is_none() && warnings.contains("InjectionSuspended")).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#} after {:?}\n{}", noticed.elapsed(), gwmon.log()));
        assert!(asked(&installed, gwmon, "other", false).0.is_some(), "one workload's trouble is no other's");
    }
    assert_eq!((&suspended["reason"], &suspended["name"]), (&json!("ImageNotPulled"), &json!("edge")));
    installed.event("edge", "edge", "ImageNotPulled", &format!("kubectl -n edge delete {}", pod.replace('/', " ")));
    let metric = "gwmon_suspended_workloads{reason=\"ImageNotPulled\"}";
    settle("the metric", || Ok(replicas.iter().any(|gwmon| gwmon.metric(metric) > 0.9).then_some(())));
    // The pod that is there is left alone.
    assert!(kubectl.get(&format!("-n edge {pod}")).unwrap()["metadata"]["deletionTimestamp"].is_null());

    // No replica that starts knows less.
    drop(replicas);
    let gwmon = installed.serve_with(&QUICK);
    let known = entry(&installed, "edge").unwrap();
    if known["phase"] == "suspended" {
        assert!(asked(&installed, &gwmon, "edge", true).1.contains("InjectionSuspended"));
    }

    // One pod is tried; a dry run is none.
    wait_phase(&installed, "edge", "trial");
    settle("the trial", || Ok(asked(&installed, &gwmon, "edge", true).0.is_none().then_some(())));
    let trial = settle("a pod to be tried", || Ok(asked(&installed, &gwmon, "edge", false).0));
    let mark = format!("\"path\":\"/metadata/annotations/gwmon.io~1trial\",\"value\":\"{}\"", suspended["since"]);
    assert!(trial.contains(&mark), "{trial}");
    assert!(asked(&installed, &gwmon, "edge", false).0.is_none(), "one only");

    // It fails: suspended again, for longer.
    let tried = |since: &Value| {
        kubectl.run(&format!("-n edge delete {}", pod_of(&installed, "edge"))).unwrap();
        let pod = pod_of(&installed, "edge");
        kubectl.run(&format!("-n edge annotate {pod} gwmon.io/trial={since}")).unwrap();
        wait_phase(&installed, "edge", "watched");
        pod
    };
    let pod = tried(&suspended["since"]);
    assert!(asked(&installed, &gwmon, "edge", false).0.is_none());
    set_exporter(&installed, &pod, &not_pulled());
    let again = wait_phase(&installed, "edge", "suspended");
    let wait = |entry: &Value| entry["until"].as_i64().unwrap() - entry["since"].as_i64().unwrap();
    assert_eq!((wait(&suspended), wait(&again), &again["failures"]), (4, 8, &json!(2)));

    // It runs: back.
    wait_phase(&installed, "edge", "trial");
    let pod = tried(&again["since"]);
    set_exporter(&installed, &pod, &running());
    wait_phase(&installed, "edge", "resumed");
    settle("the exporter again", || Ok(asked(&installed, &gwmon, "edge", false).0.map(drop)));
    installed.event("edge", "edge", "InjectionResumed", "rollout restart deployment/edge");
    gwmon.assert_never_forbidden();

    // An image that can be pulled every other time does not flap: each time it is away for longer.
    set_exporter(&installed, &pod, &not_pulled());
    let third = wait_phase(&installed, "edge", "suspended");
    assert_eq!((wait(&third), &third["failures"]), (16, &json!(3)));

    // A person has the last word, though the pod waits still.
    kubectl.run("-n gwmon delete configmap gwmon-suspensions").unwrap();
    wait_for("everybody to be back", Duration::from_secs(2), || Ok(asked(&installed, &gwmon, "edge", false).0))
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(asked(&installed, &gwmon, "edge", false).0.is_some());
}

/// Real refusals by a real quota. These pods are refused without the exporter, too, so it is not taken from them.
#[test]
fn pods_that_are_refused_either_way_keep_their_exporter() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let gwmon = installed.serve_with(&["--suspend-after", "6s"]);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": "edge"}, "spec": {"hard": {"pods": "0"}}});
    kubectl.apply(&quota.to_string()).unwrap();
    settle("the quota", || Ok(kubectl.get("-n edge resourcequota none")?["status"]["used"].is_object().then_some(())));
    kubectl.apply(&gateway("edge").to_string()).unwrap();
    let mut bystander = gateway("bystander");
    bystander["spec"]["template"]["metadata"]["annotations"] = json!({});
    kubectl.apply(&bystander.to_string()).unwrap();
    let mut scraped = gateway("scraped");
    let template = &mut scraped["spec"]["template"];
    template["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
    template["spec"]["containers"][0]["image"] = json!("kong:3.9");
    kubectl.apply(&scraped.to_string()).unwrap();

    let suspended = wait_phase(&installed, "edge", "suspended");
    assert_eq!(suspended["reason"], "PodRefused");
    installed.event("edge", "edge", "PodRefused", "exceeded quota: none");
    for name in ["bystander", "scraped"] {
        assert_eq!(entry(&installed, name), None, "whoever gets no exporter is none of gwmon's business");
    }
    wait_for("the next try to show it", Duration::from_secs(100), || {
        Ok(entry(&installed, "edge").is_none().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", gwmon.log()));
    installed.event("edge", "edge", "InjectionResumed", "refused without the exporter, too");
}

/// What a tenant can write on its own pods and Events keeps nobody else's gateway from being looked after.
#[test]
fn forged_owners_and_events_end_no_look() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let gwmon = installed.serve_with(&["--suspend-after", "1s"]);
    let owners = [
        json!({"apiVersion": "evil.example/v1", "kind": "ReplicaSet", "name": "x", "uid": "1", "controller": true}),
        json!({"apiVersion": "v1", "kind": "Pods?watch=true&x=", "name": "x", "uid": "2", "controller": true}),
        json!({"apiVersion": "v1", "kind": "Foo", "name": "a b", "uid": "3", "controller": true}),
        json!({"apiVersion": "evil.example/v1", "kind": "Foo", "name": "f", "uid": "4", "controller": true}),
    ];
    for (index, owner) in owners.iter().enumerate() {
        let metadata = json!({
            "name": format!("forged-{index}"), "namespace": "edge", "ownerReferences": [owner],
            "labels": {"gwmon.io/exporter": "a-gwmon"}, "annotations": {"gwmon.io/inject": "true"},
        });
        let exporter = json!({"name": "gwmon-statsd-exporter", "image": "x", "restartPolicy": "Always"});
        let spec = json!({"initContainers": [exporter], "containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0"}]});
        kubectl
            .apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string())
            .unwrap();
        set_exporter(&installed, &format!("pod/forged-{index}"), &not_pulled());
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("forged-{index}"), "namespace": "edge"},
            "involvedObject": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("a b{index}"), "namespace": "edge", "uid": "1"},
            "reason": "FailedCreate", "message": "m", "type": "Warning",
        });
        kubectl.apply(&event.to_string()).unwrap();
    }
    std::thread::sleep(Duration::from_secs(3));
    kubectl.apply(&gateway("honest").to_string()).unwrap();
    set_exporter(&installed, &pod_of(&installed, "honest"), &not_pulled());
    wait_phase(&installed, "honest", "suspended");
    let all = kubectl.get("-n gwmon configmap gwmon-suspensions").unwrap()["data"].clone();
    assert!(all.as_object().unwrap().len() <= 2, "of the forged ones at most the one that could be: {all}");
    assert!(asked(&installed, &gwmon, "other", false).0.is_some());
}

#[test]
fn many_at_once_stop_all_injection_loudly() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let gwmon = installed.serve_with(&["--suspend-after", "1s"]);
    for name in ["one", "two", "three"] {
        assert!(asked(&installed, &gwmon, "healthy", false).0.is_some());
        kubectl.apply(&gateway(name).to_string()).unwrap();
        set_exporter(&installed, &pod_of(&installed, name), &not_pulled());
        wait_phase(&installed, name, "suspended");
    }
    let warning = settle("the stop", || {
        let (patch, warnings) = asked(&installed, &gwmon, "healthy", false);
        Ok(patch.is_none().then_some(warnings))
    });
    assert!(warning.contains("InjectionStopped") && warning.contains("ImageNotPulled"), "{warning}");
    installed.event("gwmon", "gwmon", "InjectionStopped", "in namespace edge");
    settle("the metric", || Ok((gwmon.metric("gwmon_injection_stopped") > 0.9).then_some(())));
    assert!(gwmon.log().contains("ERROR"), "{}", gwmon.log());
    kubectl.run("-n edge delete deployment one").unwrap();
}

/// A new gwmon under the roles of an older one: it serves, and says what it cannot know.
#[test]
fn without_the_rights_for_it_gwmon_serves_all_the_same() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    for (kind, resources) in [("-n gwmon role", vec!["configmaps"]), ("clusterrole", vec!["limitranges", "events"])] {
        let mut role = kubectl.get(&format!("{kind} gwmon")).unwrap();
        let is_kept = |rule: &Value| {
            let core = rule["apiGroups"] == json!([""]);
            !(core && resources.iter().any(|resource| rule["resources"] == json!([resource])))
        };
        role["rules"].as_array_mut().unwrap().retain(is_kept);
        kubectl.run_with(&["replace", "-f", "-"], &role.to_string()).unwrap();
    }
    let gwmon = installed.serve();
    assert!(asked(&installed, &gwmon, "edge", true).0.is_some());
    for kind in ["ConfigMap", "LimitRange"] {
        settle(kind, || {
            let log = gwmon.log();
            let said = |line: &&str| line.contains(kind) && line.contains("apply deploy/install.yaml again");
            Ok(log.lines().find(said).map(drop))
        });
    }
}

#[test]
fn the_namespaces_limits_are_respected() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let gwmon = installed.serve();
    let limits = |max: &str| {
        let spec = json!({"limits": [{"type": "Container", "max": {"memory": max}}, {"type": "Pod", "max": {"memory": "1Gi"}}]});
        let object = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits", "namespace": "edge"}, "spec": spec});
        kubectl.apply(&object.to_string()).unwrap();
    };
    limits("64Mi");
    settle("the limit", || {
        let (patch, _) = asked(&installed, &gwmon, "edge", true);
        Ok(patch.filter(|patch| patch.contains(r#""limits":{"cpu":"500m","memory":"64Mi"}"#)))
    });
    limits("16Mi");
    let said = settle("the refusal", || {
        let (patch, warnings) = asked(&installed, &gwmon, "edge", true);
        Ok(patch.is_none().then_some(warnings))
    });
    assert!(said.contains("LimitRangeExceeded: LimitRange limits allows 16Mi of memory"), "{said}");
    kubectl.run("-n edge delete limitrange limits").unwrap();
    settle("no limit", || {
        Ok(asked(&installed, &gwmon, "edge", true).0.filter(|patch| patch.contains(r#""memory":"192Mi""#)))
    });
    gwmon.assert_never_forbidden();
}
