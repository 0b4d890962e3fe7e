//! Beside others, on a real API server: webhooks that inject too, controllers that own the gateway's workload, quotas,
//! limits, Jobs and `kubectl debug`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon::certs::issue::Certificates;
use gwmon::certs::{self, CurrentLeaf};
use gwmon::server;
use gwmon_cluster::{scenario, wait_for};
use serde_json::{Value, json};
use support::fixture::{Fixture, gateway};

const EXPORTER: &str = "gwmon-statsd-exporter";

/// All containers of a pod that are gwmon's.
fn exporters(pod: &Value) -> Vec<&Value> {
    let containers = ["initContainers", "containers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    containers.flatten().filter(|container| container["name"] == EXPORTER).collect()
}

/// A webhook that brings Envoy into a pod as App Mesh's does: appended last, with what the pod's annotation says for its
/// environment, and refusing an annotation that it cannot split.
fn mesh(review: &Value) -> Value {
    let request = &review["request"];
    let pod = &request["object"];
    let annotation = |key: &str| pod["metadata"]["annotations"][format!("appmesh.k8s.aws/{key}")].as_str();
    let has_envoy = pod["spec"]["containers"].as_array().unwrap().iter().any(|container| container["name"] == "envoy");
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if annotation("sidecarInjectorWebhook") == Some("enabled") && !has_envoy {
        let mut env = vec![json!({"name": "APPMESH_VIRTUAL_NODE_NAME", "value": "mesh/x/virtualNode/y"})];
        for pair in annotation("sidecarEnv").into_iter().flat_map(|pairs| pairs.split(',')) {
            match pair.split('=').collect::<Vec<_>>()[..] {
                [name, value] => env.push(json!({"name": name.trim(), "value": value.trim()})),
                _ => response = json!({"uid": request["uid"], "allowed": false, "status": {"message": pair}}),
            }
        }
        let container = json!({
            "name": "envoy",
            "image": "public.ecr.aws/appmesh/aws-appmesh-envoy:v1.27.0.0-prod",
            "env": env,
            "ports": [{"name": "stats", "containerPort": 9901}],
            "securityContext": {"runAsUser": 1337, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        });
        let patch = json!([{"op": "add", "path": "/spec/containers/-", "value": container}]);
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(BASE64_STANDARD.encode(patch.to_string()));
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

/// Serves the mesh's webhook for one namespace until the test program ends; returns what the API server must know.
fn install_mesh(fixture: &Fixture, name: &str) {
    install_webhook(fixture, name, mesh);
    let probe = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {"appmesh.k8s.aws/sidecarInjectorWebhook": "enabled"}},
        "spec": pod_spec("corp/app:1"),
    });
    wait_for("the mesh's webhook to be called", Duration::from_secs(20), || {
        let shown = fixture.run_with(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], &probe.to_string())?;
        Ok(shown.out.contains("aws-appmesh-envoy").then_some(()))
    })
    .unwrap();
}

/// A webhook for pods that answers reviews so.
fn install_webhook(fixture: &Fixture, name: &str, answer: fn(&Value) -> Value) {
    let certificates = Certificates::new(&["127.0.0.1".to_owned()], time::OffsetDateTime::now_utc()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let leaf = CurrentLeaf::default();
    leaf.put(&certificates.leaf, &certificates.leaf_key).unwrap();
    let config = Arc::new(certs::serving::server_config(Arc::new(leaf), None).unwrap());
    let answer = move |body: Bytes| async move { answer(&serde_json::from_slice(&body).unwrap()).to_string() };
    let router = Router::new().route("/", post(answer));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            server::serve(listener, Some(config), router, 64, std::future::pending()).await;
        });
    });
    let webhook = scenario::pod_webhook(
        name,
        &fixture.namespace,
        &format!("https://127.0.0.1:{port}/"),
        &certificates.authorities,
    );
    fixture.kubectl.apply(&webhook.to_string()).unwrap();
}

/// What Pod Security's `restricted` admits.
fn pod_spec(image: &str) -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "app",
            "image": image,
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    })
}

#[test]
fn whichever_webhook_comes_first_the_mesh_is_told_and_nothing_is_doubled() {
    // The API server calls them in the order of their configurations' names; gwmon's is that of the namespace.
    for (namespace, mesh) in [("mesh-after", "z-mesh"), ("mesh-before", "a-mesh")] {
        let fixture = Fixture::new(namespace);
        install_mesh(&fixture, mesh);
        for (name, before) in [("plain", None), ("told", Some("TEAM=edge"))] {
            let mut deployment = gateway(name, &json!({"gwmon.io/inject": "true"}));
            let template = &mut deployment["spec"]["template"];
            template["metadata"]["annotations"] = json!({"appmesh.k8s.aws/sidecarInjectorWebhook": "enabled"});
            if let Some(before) = before {
                template["metadata"]["annotations"]["appmesh.k8s.aws/sidecarEnv"] = json!(before);
            }
            template["spec"] = pod_spec("corp/app:1");
            fixture.apply(&deployment);
            let pod = fixture.pod(&format!("app={name}"));
            let [exporter] = exporters(&pod)[..] else { panic!("{namespace}: {}", pod["spec"]) };
            assert_eq!(exporter["args"][0], "--statsd.listen-udp=127.0.0.1:8125");
            let containers = pod["spec"]["containers"].as_array().unwrap();
            let envoy = containers.iter().find(|container| container["name"] == "envoy").unwrap();
            let env: Vec<_> = envoy["env"]
                .as_array()
                .unwrap()
                .iter()
                .map(|variable| {
                    format!("{}={}", variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap())
                })
                .collect();
            let told = ["ENABLE_ENVOY_DOG_STATSD=1", "STATSD_PORT=8125", "STATSD_ADDRESS=127.0.0.1"];
            for variable in told.into_iter().chain(before) {
                assert_eq!(env.iter().filter(|set| *set == variable).count(), 1, "{namespace}: {variable} in {env:?}");
            }
        }
        fixture.kubectl.run(&format!("delete mutatingwebhookconfiguration {mesh}")).unwrap();
    }
}

/// Envoy Gateway and its like write the whole workload again whenever it is not as they want it.
#[test]
fn a_workload_that_a_controller_owns_is_not_fought_over() {
    let fixture = Fixture::new("owned");
    fixture.run_with(&["create", "configmap", "eg"], "").unwrap();
    let owner = fixture.get("configmap eg")["metadata"]["uid"].clone();
    let mut deployment = gateway("edge", &json!({}));
    deployment["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "eg", "uid": owner, "controller": true}]);
    let labels = json!({"app": "edge", "app.kubernetes.io/managed-by": "envoy-gateway"});
    deployment["spec"]["template"]["metadata"]["labels"] = labels;
    let write = |deployment: &Value| {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=owner", "-f", "-"];
        fixture.run_with(&arguments, &deployment.to_string()).unwrap()
    };
    let generation = || fixture.get("deployment edge")["metadata"]["generation"].as_u64().unwrap();
    write(&deployment);
    // An annotation counts as a change of its own.
    let after_annotating = generation() + 1;

    // The user annotates what is not the user's: a warning that says where, and not one update more than the owner's own.
    let said = fixture.run_with(&["annotate", "deployment", "edge", "gwmon.io/inject=true"], "").unwrap();
    assert!(said.err.contains("ManagedWorkload") && said.err.contains("EnvoyProxy, spec.provider"), "{}", said.err);
    for _ in 0..5 {
        write(&deployment);
    }
    assert_eq!(generation(), after_annotating, "nobody changed the spec");
    assert!(exporters(&fixture.pod("app=edge")).is_empty());

    // On the template, by the owner: injected, and at rest again.
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
    write(&deployment);
    assert_eq!(exporters(&fixture.pod("app=edge,gwmon.io/monitored-by=edge-gwmon")).len(), 1);
    for _ in 0..5 {
        write(&deployment);
    }
    assert_eq!(generation(), after_annotating + 1);
}

#[test]
fn quotas_and_limits_count_the_exporter_and_let_it_in() {
    let fixture = Fixture::new("limited");
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        // A pod whose containers do not all have requests and limits is refused.
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": {
            "requests.cpu": "2", "requests.memory": "2Gi", "limits.cpu": "4", "limits.memory": "4Gi"}}},
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"}, "spec": {"limits": [{
            "type": "Container", "min": {"memory": "64Mi"}, "max": {"memory": "1Gi"},
            "default": {"cpu": "1", "memory": "512Mi"}, "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}]}},
    ]});
    fixture.apply(&objects);
    // Until the quota has counted, everything is refused.
    wait_for("the quota", Duration::from_secs(20), || {
        Ok(fixture.get("resourcequota quota")["status"]["used"].is_object().then_some(()))
    })
    .unwrap();
    let asked = json!({"gwmon.io/inject": "true", "gwmon.io/resources": "memory=64Mi/128Mi"});
    fixture.apply(&gateway("edge", &asked));
    let pod = fixture.pod("app=edge");
    let [exporter] = exporters(&pod)[..] else { panic!("{}", pod["spec"]) };
    let expected = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}});
    assert_eq!(exporter["resources"], expected, "no default of the namespace's stands in for gwmon's");
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["memory"], "512Mi");
}

/// A field of the gateway's pod spec.
fn with(mut deployment: Value, field: &str, value: Value) -> Value {
    deployment["spec"]["template"]["spec"][field] = value;
    deployment
}

/// The API server refuses a pod whose containers ask for more than the pod itself does (Kubernetes 1.34).
#[test]
fn a_pod_with_resources_of_its_own_is_admitted_with_the_exporter() {
    let fixture = Fixture::new("pod-level");
    let version: Value = serde_json::from_str(&fixture.kubectl.run("get --raw /version").unwrap().out).unwrap();
    if version["minor"].as_str().unwrap().parse::<u32>().unwrap() < 34 {
        eprintln!("skipped: Kubernetes 1.34 is the first with resources of pods");
        return;
    }
    let asked = json!({"gwmon.io/inject": "true"});
    let own = json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}});
    let mut deployment = with(gateway("edge", &asked), "resources", own.clone());
    deployment["spec"]["template"]["spec"]["containers"][0]["resources"] = own;
    fixture.apply(&deployment);
    let pod = fixture.pod("app=edge");
    let [exporter] = exporters(&pod)[..] else { panic!("{}", pod["spec"]) };
    assert_eq!(exporter["resources"], json!({}));
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let fixture = Fixture::new("guaranteed");
    let mut deployment = gateway("edge", &json!({"gwmon.io/inject": "true"}));
    deployment["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "2", "memory": "1Gi"}});
    fixture.apply(&deployment);
    let pod = fixture.pod("app=edge");
    assert_eq!(exporters(&pod).len(), 1);
    assert_eq!(pod["status"]["qosClass"], "Guaranteed", "{}", pod["spec"]);
}

/// What keeps `kubectl drain` from a node keeps the cluster autoscaler from it, too.
#[test]
fn a_node_with_an_injected_gateway_can_be_drained() {
    let fixture = Fixture::new("drained");
    fixture.kubectl.apply(r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "drained"}}"#).unwrap();
    fixture.apply(&with(gateway("edge", &json!({"gwmon.io/inject": "true"})), "nodeName", json!("drained")));
    assert_eq!(exporters(&fixture.pod("app=edge")).len(), 1);
    let drained = fixture.kubectl.run("drain drained --dry-run=client").unwrap();
    assert!(drained.out.contains("node/drained drained"), "{drained:?}");
}

/// A manifest that `gwmon preview -o json` has printed, applied where gwmon runs.
#[test]
fn a_preview_that_is_applied_runs_as_it_was_shown() {
    let fixture = Fixture::new("previewed");
    let mut deployment = gateway("edge", &json!({"gwmon.io/inject": "true"}));
    // One that reads a file which comes with the pod.
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("quay.io/solo-io/gloo-envoy-wrapper:1.18.0");
    container["args"] = json!(["--log-level", "info"]);
    let shown = support::pods::preview(&deployment);
    fixture.apply(&shown);
    let pod = fixture.pod("app=edge");
    assert_eq!(exporters(&pod).len(), 1);
    for annotation in ["gwmon.io/mapping", "gwmon.io/envoy-bootstrap"] {
        let expected = &shown["spec"]["template"]["metadata"]["annotations"][annotation];
        assert!(expected.is_string(), "{shown}");
        assert_eq!(&pod["metadata"]["annotations"][annotation], expected);
    }

    // Half of it: said at once.
    let mut half = shown;
    half["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove("gwmon.io/envoy-bootstrap");
    let said = fixture.run_with(&["replace", "-f", "-"], &half.to_string()).unwrap();
    assert!(said.err.contains("IncompleteInjection"), "{}", said.err);
}

/// A manifest that `gwmon inject` has written, applied where gwmon runs: each pod is as the manifest has it.
#[test]
fn an_injected_manifest_is_left_whole() {
    let fixture = Fixture::new("written");
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("edge.yaml");
    std::fs::write(&file, serde_saphyr::to_string(&gateway("edge", &json!({"gwmon.io/inject": "true"}))).unwrap())
        .unwrap();
    let mut inject = std::process::Command::new(env!("CARGO_BIN_EXE_gwmon"));
    let written = inject.arg("inject").arg("-f").arg(&file).output().unwrap();
    assert!(written.status.success(), "{written:?}");
    let written = String::from_utf8(written.stdout).unwrap();
    let said = fixture.run_with(&["apply", "-f", "-"], &written).unwrap();
    assert!(!said.err.contains("gwmon"), "{}", said.err);
    let expected: Value = serde_saphyr::from_str(&written).unwrap();
    let template = &expected["spec"]["template"];
    let stored = fixture.get("deployment edge");
    assert_eq!(stored["spec"]["template"]["metadata"]["annotations"], template["metadata"]["annotations"]);
    let pod = fixture.pod("app=edge");
    let names = |value: &Value, field: &str| -> Vec<Value> {
        value[field].as_array().into_iter().flatten().map(|item| item["name"].clone()).collect()
    };
    for field in ["containers", "initContainers"] {
        assert_eq!(names(&pod["spec"], field), names(&template["spec"], field), "{field}");
    }
    assert_eq!(exporters(&pod)[0]["args"], template["spec"]["initContainers"][0]["args"]);
    assert_eq!(pod["spec"]["containers"][0]["args"], template["spec"]["containers"][0]["args"]);
    assert_eq!(pod["metadata"]["annotations"], template["metadata"]["annotations"]);
}

/// The pod of each golden case, as `gwmon preview` shows it and as the webhook makes it: what the API server admits is the same.
#[test]
fn what_is_previewed_is_what_the_webhook_does() {
    let fixture = Fixture::new("ways");
    fixture.kubectl.run("label --overwrite namespace ways pod-security.kubernetes.io/enforce=privileged").unwrap();
    let admitted = |name: &str, pod: &Value| -> Value {
        // Some cases have a field that no Kubernetes knows yet.
        let create = ["create", "--dry-run=server", "--validate=ignore", "-o", "json", "-f", "-"];
        let said = fixture.run_with(&create, &pod.to_string()).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let mut pod: Value = serde_json::from_str(&said.out).unwrap();
        // These differ between any two pods.
        pod["metadata"].as_object_mut().unwrap().retain(|field, _| field == "annotations" || field == "labels");
        pod
    };
    let mut compared = 0;
    for (name, pod) in support::pods::of_cases() {
        let Some(previewed) = support::pods::try_preview(&pod) else { continue };
        assert_eq!(admitted(&name, &previewed), admitted(&name, &pod), "{name}");
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn a_job_gets_a_native_sidecar_or_none() {
    let fixture = Fixture::new("jobs");
    let job = |name: &str, sidecar: &str| {
        let mut spec = pod_spec("envoyproxy/envoy:v1.40.0");
        spec["restartPolicy"] = json!("Never");
        let annotations = json!({"gwmon.io/inject": "true", "gwmon.io/sidecar": sidecar});
        let template = json!({"metadata": {"labels": {"app": name}, "annotations": annotations}, "spec": spec});
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template}})
    };
    fixture.apply(&job("native", "native"));
    assert_eq!(exporters(&fixture.pod("app=native"))[0]["restartPolicy"], "Always");
    fixture.apply(&job("plain", "regular"));
    assert!(exporters(&fixture.pod("app=plain")).is_empty());
    assert!(fixture.gwmon.metric("gwmon_reviews_total{route=\"pods\",outcome=\"unchanged\",reason=\"JobPod\"}") > 0.);
}

#[test]
fn debugging_a_pod_neither_doubles_the_exporter_nor_calls_for_it() {
    let fixture = Fixture::new("debugged");
    fixture.apply(&gateway("edge", &json!({"gwmon.io/inject": "true"})));
    let pod = fixture.pod("app=edge");
    let name = pod["metadata"]["name"].as_str().unwrap();
    let copy = [
        "debug",
        name,
        "--copy-to=copy",
        "--image=busybox",
        "--container=shell",
        "--profile=restricted",
        "--attach=false",
    ];
    fixture.run_with(&copy, "").unwrap();
    let copied = fixture.get("pod copy");
    assert_eq!(exporters(&copied).len(), 1);
    assert_eq!(copied["spec"]["containers"].as_array().unwrap().len(), 2);

    let calls = fixture.calls("pods");
    let ephemeral = ["debug", name, "--image=busybox", "--profile=restricted", "--attach=false"];
    fixture.run_with(&ephemeral, "").unwrap();
    assert_eq!(fixture.get(&format!("pod {name}"))["spec"]["ephemeralContainers"].as_array().unwrap().len(), 1);
    assert!((fixture.calls("pods") - calls).abs() < 0.1, "an ephemeral container is no new pod");
}

/// What gwmon makes of every golden case, in the shapes of the published manifests, is what the API server takes.
#[test]
fn every_case_is_admitted_after_its_injection() {
    let fixture = Fixture::new("cases");
    fixture.kubectl.run("label --overwrite namespace cases pod-security.kubernetes.io/enforce=privileged").unwrap();
    let mut admitted = 0;
    for (name, object) in support::pods::golden() {
        let mut object = object;
        object["metadata"]["namespace"] = json!("cases");
        if object["apiVersion"] != "apps/v1" {
            continue;
        }
        object["spec"]["selector"] = json!({"matchLabels": {"case": "x"}});
        object["spec"]["template"]["metadata"]["labels"]["case"] = json!("x");
        // One case has a field that no Kubernetes knows yet.
        let create = ["create", "--dry-run=server", "--validate=ignore", "-o", "name", "-f", "-"];
        let shown = fixture.run_with(&create, &object.to_string());
        assert!(shown.is_ok(), "{name}: {:#}", shown.unwrap_err());
        admitted += 1;
    }
    assert!(admitted > 30, "{admitted}");
}

/// A value of the gateway's own that something is merged into, through the real API server.
#[test]
fn what_is_merged_into_a_value_arrives_whole() {
    let fixture = Fixture::new("merged");
    let mut deployment = gateway("edge", &json!({"gwmon.io/inject": "true"}));
    let configuration = "--config-yaml node: {locality: {zone: $(POD)}}\n# <on> & off\nstatic_resources: {}\n";
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["args"] = json!(["--service-node $(POD)", configuration]);
    container["env"] = json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    fixture.apply(&deployment);
    let pod = fixture.pod("app=edge");
    let merged = pod["spec"]["containers"][0]["args"][1].as_str().unwrap();
    let (inserted, rest) = merged.split_once("\nnode: ").unwrap();
    assert!(inserted.starts_with("--config-yaml stats_sinks: [{"), "{merged}");
    assert_eq!(format!("--config-yaml node: {rest}"), configuration);
}

/// Has the exporter's readiness probe ask another port, as a mesh that rewrites probes does.
fn rewrite_probes(review: &Value) -> Value {
    let request = &review["request"];
    let containers = request["object"]["spec"]["initContainers"].as_array().into_iter().flatten();
    let found = containers.enumerate().find(|(_, container)| container["name"] == "gwmon-statsd-exporter");
    let patch = found.map(|(index, _)| {
        let path = format!("/spec/initContainers/{index}/ports/0/containerPort");
        json!([{"op": "replace", "path": path, "value": 15020}])
    });
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if let Some(patch) = patch {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(base64::prelude::BASE64_STANDARD.encode(patch.to_string()));
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[test]
fn the_doctor_sees_what_a_later_webhook_changes() {
    let fixture = Fixture::new("rewritten");
    // The doctor reads gwmon's configuration from there. Nothing runs.
    let manifests = std::fs::read_to_string("deploy/install.yaml").unwrap();
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&manifests).unwrap();
    for object in manifests.iter().filter(|object| object["kind"] == "Namespace" || object["kind"] == "Deployment") {
        fixture.kubectl.apply(&object.to_string()).unwrap();
    }
    let reasons = || {
        let arguments = ["doctor", "-n", &fixture.namespace, "-o", "json"];
        let (_, said) = support::gwmon(fixture.kubectl.kubeconfig(), &arguments);
        let report: Value = serde_json::from_str(&said).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        checks.filter_map(|check| check["reason"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    fixture.apply(&gateway("before", &json!({"gwmon.io/inject": "true"})));
    fixture.pod("app=before");
    assert!(!reasons().contains(&"WebhookRewritesPods".to_owned()));
    install_webhook(&fixture, "z-rewriting", rewrite_probes);
    fixture.apply(&gateway("after", &json!({"gwmon.io/inject": "true"})));
    let pod = fixture.pod("app=after");
    assert_eq!(pod["spec"]["initContainers"][0]["ports"][0]["containerPort"], 15020, "{}", pod["spec"]);
    assert!(reasons().contains(&"WebhookRewritesPods".to_owned()), "{:?}", reasons());
}
