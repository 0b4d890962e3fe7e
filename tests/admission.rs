//! The webhook behind a real API server: what reaches it, what it changes, and what it leaves alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::time::Duration;

use gwmon_cluster::wait_for;
use serde_json::{Value, json};
use support::fixture::{Fixture, gateway};

fn close_to(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 0.1
}

#[test]
fn the_annotation_goes_down_starts_a_roll_out_and_comes_off_again() {
    let fixture = Fixture::new("down");
    fixture.apply(&gateway("edge", &json!({})));
    let bare = fixture.pod("app=edge");
    assert!(bare["spec"]["initContainers"].is_null());

    fixture
        .run_with(&["annotate", "deployment", "edge", "gwmon.io/inject=true", "gwmon.io/metrics-port=9200"], "")
        .unwrap();
    let pod = fixture.pod("app=edge,gwmon.io/monitored-by=edge-gwmon");
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&json!("gwmon-statsd-exporter"), &json!("Always")));
    assert_eq!(sidecar["ports"][0]["containerPort"], 9200);
    // The API server mounts the token into whatever has nothing there.
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mounted = |container: &Value| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["mountPath"] == token).map(|mount| mount["name"].as_str().unwrap().to_owned())
    };
    assert_eq!(mounted(sidecar).as_deref(), Some("gwmon-mapping"));
    assert!(mounted(&pod["spec"]["containers"][0]).unwrap().starts_with("kube-api-access"));

    fixture.run_with(&["annotate", "deployment", "edge", "gwmon.io/inject-", "gwmon.io/metrics-port-"], "").unwrap();
    assert!(fixture.get("deployment edge")["spec"]["template"]["metadata"]["annotations"].is_null());
}

#[test]
fn a_template_annotation_of_the_users_own_wins_and_stays() {
    let fixture = Fixture::new("own");
    let mut deployment = gateway("edge", &json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "9200"}));
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({"gwmon.io/metrics-port": "9300"});
    fixture.apply(&deployment);
    assert_eq!(fixture.pod("app=edge")["spec"]["initContainers"][0]["ports"][0]["containerPort"], 9300);
    // Applied again, as a pipeline does: nothing changes, so nothing rolls out.
    let generation = fixture.get("deployment edge")["metadata"]["generation"].clone();
    fixture.apply(&deployment);
    assert_eq!(fixture.get("deployment edge")["metadata"]["generation"], generation);
    fixture.run_with(&["annotate", "deployment", "edge", "gwmon.io/inject-", "gwmon.io/metrics-port-"], "").unwrap();
    assert_eq!(
        fixture.get("deployment edge")["spec"]["template"]["metadata"]["annotations"],
        json!({"gwmon.io/metrics-port": "9300"})
    );
}

#[test]
fn a_pod_that_nobody_owns_is_injected_and_its_warning_is_true() {
    let fixture = Fixture::new("bare");
    let pod = |name: &str, args: &Value| {
        let mut pod = gateway(name, &json!({}))["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"] = json!({"name": name, "labels": {"run": name}, "annotations": {"gwmon.io/inject": "true"}});
        let envoy = pod["spec"]["containers"][0].as_object_mut().unwrap();
        envoy.remove("args");
        envoy.extend(args.is_array().then(|| ("args".to_owned(), args.clone())));
        pod
    };
    let apply = |pod: &Value| fixture.run_with(&["apply", "-f", "-"], &pod.to_string());
    let with_arguments = pod("solo", &json!(["-c", "/etc/envoy/envoy.yaml"]));
    let applied = apply(&with_arguments).unwrap();
    assert!(applied.err.contains("PodNotReappliable"), "{}", applied.err);
    let made = fixture.get("pod solo");
    assert_eq!(made["metadata"]["labels"]["gwmon.io/monitored-by"], "solo-gwmon");
    assert_eq!(made["spec"]["initContainers"][0]["name"], "gwmon-statsd-exporter");
    let refused = apply(&with_arguments).unwrap_err().to_string();
    assert!(refused.contains("pod updates may not change fields"), "{refused}");

    let without = pod("plain", &Value::Null);
    assert!(!apply(&without).unwrap().err.contains("PodNotReappliable"));
    assert_eq!(fixture.get("pod plain")["metadata"]["labels"]["gwmon.io/monitored-by"], "plain-gwmon");
    apply(&without).unwrap();
}

/// The API server asks mutating webhooks before it validates: a tenant's dry run is enough to have gwmon read anything.
#[test]
fn a_monstrous_pod_keeps_no_other_one_without_its_exporter() {
    let fixture = Fixture::new("monstrous");
    let containers: Vec<_> =
        (0..22_000).map(|number| json!({"name": format!("c{number}"), "image": "envoyproxy/envoy:v1"})).collect();
    let monster = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "monster", "annotations": {"gwmon.io/inject": "true"}},
        "spec": {"containers": containers},
    });
    let monster = monster.to_string();
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                for _ in 0..3 {
                    // Refused by the API server itself, in the end.
                    fixture
                        .run_with(&["create", "--dry-run=server", "--validate=false", "-f", "-"], &monster)
                        .unwrap_err();
                }
            });
        }
        for name in ["one", "two", "three"] {
            fixture.apply(&gateway(name, &json!({"gwmon.io/inject": "true"})));
            let pod = fixture.pod(&format!("app={name}"));
            assert_eq!(pod["metadata"]["labels"]["gwmon.io/monitored-by"], format!("{name}-gwmon"));
        }
    });
    assert!(fixture.gwmon.metric(r#"gwmon_reviews_total{route="pods",outcome="unchanged",reason="TooLarge"}"#) > 0.);
}

#[test]
fn what_does_not_ask_never_reaches_the_webhook() {
    let fixture = Fixture::new("quiet");
    let probes = (fixture.calls("pods"), fixture.calls("workloads"));
    for i in 0..10 {
        fixture.apply(&gateway(&format!("other-{i}"), &json!({"team": "edge"})));
    }
    fixture.apply(&gateway("out", &json!({})));
    fixture.pod("app=out");
    fixture.run_with(&["create", "configmap", "x", "--from-literal=a=b"], "").unwrap();
    fixture.run_with(&["annotate", "configmap", "x", "gwmon.io/inject=true"], "").unwrap();
    fixture.run_with(&["scale", "deployment", "out", "--replicas=2"], "").unwrap();
    fixture.run_with(&["label", "pod", "--all", "touched=yes"], "").unwrap();
    assert!(close_to(fixture.calls("pods"), probes.0) && close_to(fixture.calls("workloads"), probes.1));

    fixture.apply(&gateway("edge", &json!({"gwmon.io/inject": "true"})));
    fixture.pod("app=edge");
    fixture.run_with(&["rollout", "status", "deployment", "edge", "--watch=false"], "").unwrap();
    assert!(close_to(fixture.calls("pods"), probes.0 + 1.), "one pod, one call");
    // The deployment controller notes its revision on the Deployment: an update of an annotated object.
    let calls = fixture.calls("workloads") - probes.1;
    assert!((1. ..=3.).contains(&calls), "{calls}");
}

#[test]
fn pods_keep_all_that_gwmon_does_not_know_and_gain_the_lists_they_lack() {
    let fixture = Fixture::new("whole");
    let mut deployment = gateway("edge", &json!({"gwmon.io/inject": "true"}));
    let spec = &mut deployment["spec"]["template"]["spec"];
    spec["automountServiceAccountToken"] = json!(false);
    spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "edge"}}, "matchLabelKeys": ["pod-template-hash"]}]);
    spec["volumes"] = Value::Null;
    spec["initContainers"] = json!([{
        "name": "first", "image": "corp/init:1",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    }]);
    fixture.apply(&deployment);
    let pod = fixture.pod("app=edge");
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&pod["spec"]["initContainers"]), ["gwmon-statsd-exporter", "first"]);
    assert_eq!(names(&pod["spec"]["volumes"]), ["gwmon-mapping"]);
    assert_eq!(pod["spec"]["topologySpreadConstraints"][0]["matchLabelKeys"], json!(["pod-template-hash"]));
}

#[test]
fn the_user_is_warned_at_once_and_the_object_stays_as_it_is() {
    let fixture = Fixture::new("warned");
    for (name, annotations, said) in [
        (
            "yes",
            json!({"gwmon.io/inject": "yes"}),
            "InvalidAnnotation: gwmon.io/inject: \"yes\" is not one of \"true\", \"false\"",
        ),
        (
            "port",
            json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "0"}),
            "gwmon.io/metrics-port: \"0\" is outside the range of ports",
        ),
        ("typo", json!({"gwmon.io/inject": "true", "gwmon.io/metric-port": "1"}), "gwmon.io/metric-port"),
        ("which", json!({"gwmon.io/inject": "true", "gwmon.io/container": "envoi"}), "ContainerNotFound"),
    ] {
        let before = gateway(name, &annotations);
        let applied = fixture.apply(&before);
        assert!(applied.err.contains("Warning: gwmon: ") && applied.err.contains(said), "{name}: {}", applied.err);
        let template = &fixture.get(&format!("deployment {name}"))["spec"]["template"];
        assert!(template["metadata"]["annotations"].is_null(), "{template}");
        assert!(fixture.pod(&format!("app={name}"))["spec"]["initContainers"].is_null());
    }
}

/// What README.md shows, to the letter.
#[test]
fn the_warning_in_the_readme_is_the_one_that_kubectl_prints() {
    let fixture = Fixture::new("readme");
    let mut wrapped = gateway("wrapped", &json!({"gwmon.io/inject": "true"}));
    wrapped["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["sh", "-c", "envoy -c /e.yaml"]);
    let said = fixture.apply(&wrapped).err;
    let readme = std::fs::read_to_string("README.md").unwrap();
    let shown = readme.lines().find(|line| line.starts_with("Warning: gwmon: ")).unwrap();
    assert!(said.lines().any(|line| line == shown), "{said}");
}

#[test]
fn a_dry_run_shows_the_patch_and_stores_nothing() {
    let fixture = Fixture::new("dry");
    let deployment = gateway("edge", &json!({"gwmon.io/inject": "true"}));
    let shown =
        fixture.run_with(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], &deployment.to_string()).unwrap();
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["spec"]["template"]["metadata"]["annotations"]["gwmon.io/inject"], "true");
    assert!(fixture.get("deployments")["items"].as_array().unwrap().is_empty());
}

#[test]
fn without_gwmon_pods_start_all_the_same() {
    let Fixture { kubectl, namespace, gwmon } = Fixture::new("gone");
    drop(gwmon);
    kubectl
        .run_with(
            &["-n", &namespace, "apply", "-f", "-"],
            &gateway("edge", &json!({"gwmon.io/inject": "true"})).to_string(),
        )
        .unwrap();
    wait_for("a pod", Duration::from_secs(20), || {
        Ok(kubectl.get(&format!("-n {namespace} pods -l app=edge"))?["items"]
            .as_array()
            .and_then(|pods| pods.first())
            .cloned())
    })
    .unwrap();
}

/// `gwmon preview --server` asks the real API server, with the rights of whoever calls it, and makes nothing.
#[test]
fn a_preview_on_the_server_says_what_would_be_refused_and_by_whom() {
    let fixture = Fixture::new("tried");
    let preview = |deployment: &Value, kubeconfig: &std::path::Path| {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gwmon"))
            .args(["preview", "--server", "-n", "tried", "-o", "patch", "-f", "-"])
            .env("KUBECONFIG", kubeconfig)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), deployment.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let mut deployment = gateway("edge", &json!({"gwmon.io/inject": "true"}));
    deployment["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    let own = fixture.kubectl.kubeconfig();
    let (code, said) = preview(&deployment, own);
    assert!(
        said.contains("deployment.apps/edge -n tried: the API server admits the pod with what gwmon adds"),
        "{said}"
    );
    assert_eq!(code, Some(0), "{said}");

    let limit = |cpu: &str| {
        fixture.apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "cpu"}, "spec": {"hard": {"requests.cpu": cpu}}}));
        wait_for("the quota", Duration::from_secs(20), || {
            Ok((fixture.get("resourcequota cpu")["status"]["hard"]["requests.cpu"] == cpu).then_some(()))
        })
        .unwrap();
    };
    for (cpu, expected) in [
        ("120m", "PodRefused: the API server refuses the pod with the exporter, and would take it without: "),
        ("90m", "PodRefused: the API server refuses the pod, with the exporter and without: "),
    ] {
        limit(cpu);
        let (code, said) = preview(&deployment, own);
        assert!(said.contains(expected) && said.contains("exceeded quota: cpu"), "{said}");
        assert_eq!(code, Some(1), "{said}");
    }
    assert!(fixture.get("pods")["items"].as_array().unwrap().is_empty(), "nothing was made");

    // A LimitRange of the cluster is taken into account, as it is where gwmon runs.
    fixture.run_with(&["delete", "resourcequota", "cpu"], "").unwrap();
    let spec = json!({"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]});
    fixture.apply(&json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": spec}));
    let (code, said) = preview(&deployment, own);
    assert_eq!(code, Some(0), "{said}");

    // Whoever may not create pods is told so.
    let config = std::fs::read_to_string(own).unwrap();
    fixture.run_with(&["create", "serviceaccount", "reader"], "").unwrap();
    fixture
        .run_with(&["create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount=tried:reader"], "")
        .unwrap();
    let token = fixture.run_with(&["create", "token", "reader"], "").unwrap().out;
    let mut config: Value = serde_saphyr::from_str(&config).unwrap();
    config["users"][0]["user"]["token"] = json!(token.trim());
    let folder = tempfile::TempDir::new().unwrap();
    let reader = folder.path().join("kubeconfig");
    std::fs::write(&reader, config.to_string()).unwrap();
    let (code, said) = preview(&deployment, &reader);
    assert!(said.contains("--server needs the right to create pods"), "{said}");
    assert_eq!(code, Some(2));
}

#[test]
fn a_roll_back_that_gwmon_puts_forward_again_is_told() {
    let fixture = Fixture::new("undone");
    let mut daemons = gateway("edge", &json!({}));
    daemons["kind"] = json!("DaemonSet");
    fixture.apply(&daemons);
    wait_for("the first revision", Duration::from_secs(20), || {
        Ok((fixture.get("controllerrevisions")["items"].as_array().map(Vec::len) == Some(1)).then_some(()))
    })
    .unwrap();
    fixture.run_with(&["annotate", "daemonset", "edge", "gwmon.io/inject=true"], "").unwrap();
    wait_for("the second revision", Duration::from_secs(20), || {
        Ok((fixture.get("controllerrevisions")["items"].as_array().map(Vec::len) == Some(2)).then_some(()))
    })
    .unwrap();
    let undone = fixture.run_with(&["rollout", "undo", "daemonset", "edge"], "").unwrap();
    assert!(
        undone.err.contains("InjectionKept") && undone.err.contains("kubectl annotate daemonset/edge gwmon.io/inject-"),
        "{}",
        undone.err
    );
    let template = &fixture.get("daemonset edge")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(template["gwmon.io/inject"], "true");
}

#[test]
fn an_annotation_that_moves_to_the_template_rolls_nothing_out() {
    let fixture = Fixture::new("moved");
    for server_side in [false, true] {
        let name = if server_side { "server" } else { "client" };
        let apply = |object: &Value| {
            let arguments = ["apply", "--server-side", "-f", "-"];
            let arguments = if server_side { &arguments[..] } else { &["apply", "-f", "-"] };
            fixture.run_with(arguments, &object.to_string()).unwrap();
            // The generation rises with the Deployment's own annotations too.
            fixture.get(&format!("deployment {name}"))["spec"]["template"].clone()
        };
        let before = gateway(name, &json!({"gwmon.io/inject": "true"}));
        let template = apply(&before);
        assert_eq!(template["metadata"]["annotations"]["gwmon.io/inject"], "true", "{name}");
        let mut after = gateway(name, &json!({}));
        after["spec"]["template"]["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
        assert_eq!(apply(&after), template, "{name}");
        assert_eq!(apply(&after), template, "{name}");
        // Taken off there too, it is off.
        let annotations = apply(&gateway(name, &json!({})))["metadata"]["annotations"].clone();
        assert!(annotations["gwmon.io/inject"].is_null(), "{name}: {annotations}");
    }
}
