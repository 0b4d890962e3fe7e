//! What happens to clusters, and to gwmon in them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::time::{Duration, Instant};

use anyhow::Result;
use gwmon_cluster::wait_for;
use serde_json::{Value, json};
use support::{Gwmon, Installed, by_release, injected, settle};

/// Waits until the gateway's monitor has this label.
fn released(installed: &Installed, name: &str, release: &str) {
    settle(&format!("release={release} on {name}"), || {
        let monitor = installed.monitor("edge", &format!("{name}-gwmon"))?;
        Ok((monitor["metadata"]["labels"]["release"] == release).then_some(()))
    });
}

#[test]
fn one_controller_writes_and_another_takes_over() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let leading = |gwmon: &Gwmon| gwmon.log().matches("acquired leadership").count();
    let first = installed.serve();
    settle("a leader", || Ok((leading(&first) == 1).then_some(())));
    let second = installed.serve();
    kubectl.apply(&injected("edge", "a", 1).to_string()).unwrap();
    released(&installed, "a", "one");
    assert_eq!(leading(&second), 0);
    assert!(second.metric("gwmon_writes_total") < 1.);

    // Killed without a word: the other writes within 15 seconds.
    let killed = Instant::now();
    first.signal("KILL");
    drop(first);
    kubectl.apply(&injected("edge", "b", 1).to_string()).unwrap();
    wait_for("the other to take over", Duration::from_secs(15), || {
        installed.monitor("edge", "b-gwmon").map(|_| Some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#} after {:?}\n{}", killed.elapsed(), second.log()));

    // The Lease taken away: it stops at once, though nobody else writes either.
    let take = json!({"spec": {"holderIdentity": "somebody", "renewTime": "2999-01-01T00:00:00.000000Z"}}).to_string();
    kubectl.run_with(&["-n", "gwmon", "patch", "lease", "gwmon", "--type=merge", "-p", &take], "").unwrap();
    settle("it to notice", || Ok(second.log().contains("lost leadership").then_some(())));
    kubectl.apply(&injected("edge", "c", 1).to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    installed.monitor("edge", "c-gwmon").unwrap_err();

    // Given back: it goes on. Stopped in good order, it leaves the Lease to others.
    kubectl.run("-n gwmon delete lease gwmon").unwrap();
    settle("it to lead again", || installed.monitor("edge", "c-gwmon").map(Some));
    let mut second = second;
    second.signal("TERM");
    second.wait();
    let third = installed.serve();
    wait_for("the next to lead at once", Duration::from_secs(5), || Ok((leading(&third) == 1).then_some(()))).unwrap();
}

#[test]
fn a_controller_that_is_killed_between_two_writes_is_finished_by_the_next() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gateways: Vec<_> = (0..40).map(|i| injected("edge", &format!("gateway-{i}"), 1).to_string()).collect();
    kubectl.apply(&gateways.join("\n---\n")).unwrap();
    settle("the pods", || {
        let pods = kubectl.run("-n edge get pods -o name")?.out;
        Ok((pods.lines().count() == gateways.len()).then_some(()))
    });
    let count = |kind: &str| -> Result<usize> {
        let words = format!("-n edge get {kind} -l gwmon.io/workload-namespace=edge -o name");
        Ok(kubectl.run(&words)?.out.lines().count())
    };
    // Somewhere in the middle, three times.
    for least in [1, 15, 30] {
        let gwmon = installed.serve();
        settle("some Services", || Ok((count("services")? >= least).then_some(())));
        gwmon.signal("KILL");
        drop(gwmon);
    }
    let last = installed.serve();
    settle("all of them", || {
        Ok((count("services")? == gateways.len() && count("servicemonitors")? == gateways.len()).then_some(()))
    });
    assert!(!last.log().contains("NameConflict"), "{}", last.log());
}

#[test]
fn it_survives_what_happens_to_clusters() {
    let installed = Installed::own(false);
    let Installed { kubectl, .. } = &installed;
    let cluster = installed.control_plane();
    installed.prometheus("k8s", &by_release("one"));
    let mut gwmon = installed.serve();
    kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    released(&installed, "edge", "one");

    // The kind goes, and comes back with nothing in it.
    kubectl.run("delete crd servicemonitors.monitoring.coreos.com").unwrap();
    kubectl.apply(&injected("edge", "late", 1).to_string()).unwrap();
    installed.event(
        "edge",
        "late",
        "ServiceMonitorCRDMissing",
        "does not serve monitoring.coreos.com/v1 ServiceMonitor",
    );
    kubectl.get("-n edge service late-gwmon").unwrap();
    kubectl.run(&format!("apply --server-side -f {}", Installed::crd("servicemonitors"))).unwrap();
    released(&installed, "edge", "one");
    released(&installed, "late", "one");

    // A kind of which nothing can be made: the reason is told, and all others go on.
    installed.prometheus(
        "k8s",
        &json!({"serviceMonitorSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
    );
    installed.event("edge", "edge", "NotSelected", "matchExpressions[0]: operator \"Near\" is none of");
    released(&installed, "edge", "one");

    // The API server dies and comes back.
    cluster.restart_api_server().unwrap();
    settle("the API server", || kubectl.run("get --raw /readyz").map(Some));
    installed.prometheus("k8s", &by_release("two"));
    released(&installed, "edge", "two");

    // Rights are taken away: told once for each workload, and given back without a restart.
    kubectl.run("delete clusterrolebinding gwmon").unwrap();
    gwmon.signal("TERM");
    gwmon.wait();
    kubectl.apply(&std::fs::read_to_string("deploy/install.yaml").unwrap()).unwrap();
    let no_writes = json!([{"op": "replace", "path": "/rules", "value": without_service_writes(kubectl)}]).to_string();
    kubectl.run_with(&["patch", "clusterrole", "gwmon", "--type=json", "-p", &no_writes], "").unwrap();
    let gwmon = installed.serve();
    kubectl.apply(&injected("edge", "poor", 1).to_string()).unwrap();
    installed.event("edge", "poor", "Forbidden", "apply deploy/install.yaml again");
    released(&installed, "poor", "two");
    kubectl.apply(&std::fs::read_to_string("deploy/install.yaml").unwrap()).unwrap();
    settle("the Service", || kubectl.get("-n edge service poor-gwmon").map(Some));
    drop(gwmon);

    // Everything is gone, and is put back while gwmon runs. (It runs as one whose account is in no etcd.)
    let gwmon = installed.serve_as_admin();
    released(&installed, "edge", "two");
    cluster.empty_etcd().unwrap();
    settle("the API server", || kubectl.run("get --raw /readyz").map(Some));
    settle("the account of the namespace's pods", || {
        let _ = kubectl.run("create namespace default");
        kubectl.get("serviceaccount default").map(Some)
    });
    installed.install();
    installed.prometheus("k8s", &by_release("three"));
    settle("the gateway", || kubectl.apply(&injected("edge", "edge", 1).to_string()).map(Some));
    released(&installed, "edge", "three");
    assert!(gwmon.log().contains("acquired leadership"), "{}", gwmon.log());
}

/// The shipped rules, but Services may only be read.
fn without_service_writes(kubectl: &gwmon_cluster::Kubectl) -> Value {
    let mut rules = kubectl.get("clusterrole gwmon").unwrap()["rules"].clone();
    for rule in rules.as_array_mut().unwrap() {
        if rule["resources"] == json!(["services"]) {
            rule["verbs"] = json!(["get", "list", "watch"]);
        }
    }
    rules
}
