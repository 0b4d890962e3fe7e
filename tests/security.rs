//! What `SECURITY.md` promises, on a real API server: who is answered, what a tenant can bring about, and what gwmon's own token
//! may do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use gwmon_cluster::ControlPlane;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};
use support::fixture::Fixture;
use support::{Gwmon, Https, Installed, TlsClient, by_release, gwmon, injected, injected_as, pod_review, settle};
use tempfile::TempDir;

/// An authority and a client's certificate of it, as files.
fn client_certificate(folder: &Path, name: &str) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut client = CertificateParams::new(vec![name.to_owned()]).unwrap();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = client.signed_by(&key, &authority).unwrap();
    for (file, pem) in
        [("ca.crt", authority.pem()), ("client.crt", certificate.pem()), ("client.key", key.serialize_pem())]
    {
        fs::write(folder.join(file), pem).unwrap();
    }
}

/// One of the shipped files, for keys in this folder.
fn shipped_for(file: &str, folder: &Path) -> String {
    let text = fs::read_to_string(format!("deploy/overlays/client-certificate/{file}")).unwrap();
    text.replace("/etc/kubernetes/gwmon", folder.to_str().unwrap())
}

#[test]
fn only_an_api_server_with_the_right_certificate_is_answered() {
    let (right, wrong) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    client_certificate(right.path(), "api-server");
    client_certificate(wrong.path(), "somebody");
    let gwmon = Gwmon::start(|command, folder| {
        command.args(["--standalone", "--ca-out"]).arg(folder.join("ca.crt"));
        command.arg("--client-ca").arg(right.path().join("ca.crt"))
    });
    gwmon.wait_ready();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answers = |client: TlsClient| {
        runtime.block_on(async {
            let mut client = Https(client.connect(gwmon.webhook).await?);
            client.post("/mutate/pods", pod_review().to_string().as_bytes()).await.map(|(status, _)| status)
        })
    };
    let authority = fs::read(gwmon.authority()).unwrap();
    let shows = |folder: &TempDir| {
        TlsClient::showing(
            &authority,
            &fs::read(folder.path().join("client.crt")).unwrap(),
            &fs::read(folder.path().join("client.key")).unwrap(),
        )
    };
    assert_eq!(answers(shows(&right)).unwrap(), 200);
    assert!(answers(shows(&wrong)).is_err());
    assert!(answers(TlsClient::new(&authority)).is_err());

    // The shipped configuration, by the name of this test's webhook.
    fs::write(right.path().join("admission.yaml"), shipped_for("admission.yaml", right.path())).unwrap();
    let users = shipped_for("kubeconfig.yaml", right.path());
    fs::write(
        right.path().join("kubeconfig.yaml"),
        users.replace("gwmon.gwmon.svc", &format!("'127.0.0.1:{}'", gwmon.webhook)),
    )
    .unwrap();
    let flags = format!("--admission-control-config-file={}", right.path().join("admission.yaml").display());
    let cluster = ControlPlane::start_with(&flags).unwrap();
    // Its webhook is called: that is what it waits for.
    let fixture = Fixture::of(cluster.kubectl(), "certified", gwmon);
    assert!(fixture.gwmon.metric(r#"gwmon_reviews_total{route="workloads",outcome="patched""#) > 0.);
}

/// `kubectl` as gwmon's service account: whether it may, and what was said.
fn as_gwmon(installed: &Installed, arguments: &[&str], input: &Value) -> Result<(), String> {
    let arguments = [&["--as", "system:serviceaccount:gwmon:gwmon"], arguments].concat();
    let done = installed.kubectl.run_with(&arguments, &input.to_string());
    done.map(drop).map_err(|error| format!("{error:#}"))
}

#[test]
fn gwmons_own_token_does_its_job_and_no_more() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    for overlay in ["admission-policy", "networkpolicy"] {
        kubectl.run(&format!("apply -k deploy/overlays/{overlay}")).unwrap();
    }
    kubectl.run("-n edge create service clusterip other --tcp=80").unwrap();
    let service = |name: &str, labels: Value, spec: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "edge", "labels": labels},
            "spec": spec,
        })
    };
    let ours = json!({"gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": "edge"});
    let headless = json!({"clusterIP": "None", "ports": [{"port": 9102}]});
    settle("the policies to hold", || {
        let made = service("plain", json!({}), headless.clone());
        Ok(as_gwmon(&installed, &["create", "--dry-run=server", "-f", "-"], &made).is_err().then_some(()))
    });
    let elsewhere = json!({"gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": "west"});
    let rules = json!([{"op": "replace", "path": "/webhooks/0/rules/0/resources", "value": ["*"]}]).to_string();
    let policy = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]).to_string();
    let away =
        json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/namespace", "value": "edge"}]).to_string();
    let own_webhook = ["patch", "mutatingwebhookconfiguration", "gwmon", "--type=json", "-p"];
    let none = json!({});
    for (arguments, input) in [
        (vec!["create", "-f", "-"], &service("a", json!({}), headless.clone())),
        (vec!["create", "-f", "-"], &service("b", elsewhere, headless.clone())),
        (vec!["create", "-f", "-"], &service("c", ours.clone(), json!({"ports": [{"port": 9102}]}))),
        (vec!["create", "-f", "-"], &service("d", ours, json!({"type": "ExternalName", "externalName": "x.example"}))),
        (vec!["-n", "edge", "delete", "service", "other"], &none),
        (vec!["-n", "edge", "label", "service", "other", "gwmon.io/metrics-for=edge-gwmon"], &none),
        ([&own_webhook[..], &[&rules]].concat(), &none),
        ([&own_webhook[..], &[&policy]].concat(), &none),
        ([&own_webhook[..], &[&away]].concat(), &none),
    ] {
        let said = as_gwmon(&installed, &arguments, input).unwrap_err();
        assert!(said.contains("denied request: "), "{arguments:?} {input}: {said}");
    }

    // All that gwmon does, it still may: announce its certificate, make, put back and take away.
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve();
    kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    let made = || installed.monitor("edge", "edge-gwmon");
    settle("the objects", || made().map(Some));
    let tampered = r#"[{"op": "remove", "path": "/metadata/labels/gwmon.io~1metrics-for"}]"#;
    kubectl.run_with(&["-n", "edge", "patch", "service", "edge-gwmon", "--type=json", "-p", tampered], "").unwrap();
    settle("the label", || {
        let service = kubectl.get("-n edge service edge-gwmon")?;
        Ok(service["metadata"]["labels"]["gwmon.io/metrics-for"].is_string().then_some(()))
    });
    // A Prometheus that reads its own namespace only: the monitor is made there, and taken away here.
    installed.prometheus("k8s", &json!({"serviceMonitorSelector": {}}));
    settle("the monitor to move", || {
        Ok((installed.monitor("monitoring", "edge.edge-gwmon").is_ok() && made().is_err()).then_some(()))
    });
    kubectl.run("-n edge delete deployment edge").unwrap();
    settle("the objects to go", || Ok(installed.monitor("monitoring", "edge.edge-gwmon").is_err().then_some(())));
    assert!(!gwmon.log().contains("denied"), "{}", gwmon.log());
}

#[test]
fn only_gwmons_own_container_has_its_token() {
    let installed = Installed::new();
    let pod = settle("a pod of gwmon's", || {
        let pods = installed.kubectl.get("-n gwmon pods -l app.kubernetes.io/name=gwmon")?;
        Ok(pods["items"].as_array().and_then(|pods| pods.first()).cloned())
    });
    let has_token = |list: &str| {
        let mounts = pod["spec"][list][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
        mounts.iter().any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount")
    };
    assert!(has_token("containers") && !has_token("initContainers"), "{}", pod["spec"]);
}

/// A pod that claims to be an injected gateway's.
fn claiming(namespace: &str, name: &str, monitor: &str, owner: &Value) -> Value {
    let mut pod = injected(namespace, name, 1)["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    pod["metadata"]["labels"] = json!({"gwmon.io/monitored-by": monitor});
    pod["metadata"]["ownerReferences"] = json!([owner]);
    pod
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn made_in(installed: &Installed, namespace: &str) -> usize {
    let made = installed.kubectl.get(&format!("-n {namespace} services,servicemonitors")).unwrap();
    made["items"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_thousand_hostile_pods_keep_no_other_namespace_waiting() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    kubectl.apply(&injected("west", "own", 0).to_string()).unwrap();
    let uid = kubectl.get("-n west deployment own").unwrap()["metadata"]["uid"].clone();
    let gwmon = installed.serve();
    let owner = |kind: &str, version: &str, name: &str| json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true});
    let hostile: Vec<_> = (0..1000)
        .map(|number| {
            let (name, monitor) = (format!("h{number}"), format!("h{number}-gwmon"));
            let owner = match number % 4 {
                // Its own workload, which has another name.
                0 => owner("Deployment", "apps/v1", "own"),
                // Of a kind that gwmon may not read; of one that does not exist; of none that can be.
                1 => owner("ConfigMap", "v1", &name),
                2 => owner("Gateway", "evil.example/v1", &name),
                _ => owner("Pods?watch=true&x=", "v1", &name),
            };
            claiming("west", &name, &monitor, &owner)
        })
        .collect();
    for hundred in hostile.chunks(100) {
        kubectl.run_with(&["create", "-f", "-"], &list(hundred)).unwrap();
    }
    kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    settle("the gateway's pod", || {
        let pods = kubectl.get("-n edge pods -l gwmon.io/monitored-by=edge-gwmon")?;
        Ok(pods["items"].as_array().is_some_and(|pods| !pods.is_empty()).then_some(()))
    });
    let made = std::time::Instant::now();
    settle("its monitor", || installed.monitor("edge", "edge-gwmon").map(Some));
    assert!(made.elapsed() < Duration::from_secs(2), "{:?}", made.elapsed());
    // When all of them have been looked at, nothing has been made for any.
    settle("all to be looked at", || Ok((gwmon.metric("gwmon_queue_depth") < 1.).then_some(())));
    assert_eq!(made_in(&installed, "west"), 0);
    assert!(gwmon.log_bytes() < 1 << 20, "{} bytes of log", gwmon.log_bytes());
}

#[test]
fn a_namespace_has_its_share_and_a_pod_is_believed_what_it_shows() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let gwmon = installed.serve_with(&["--max-gateways-per-namespace", "2", "--min-interval", "20s"]);
    for name in ["one", "two"] {
        kubectl.apply(&injected("edge", name, 1).to_string()).unwrap();
        settle("its monitor", || installed.monitor("edge", &format!("{name}-gwmon")).map(Some));
    }
    kubectl.apply(&injected("edge", "three", 1).to_string()).unwrap();
    installed.event("edge", "three", "TooManyObjects", "gateways.maxPerNamespace");
    assert_eq!(made_in(&installed, "edge"), 4);

    // The fixture asks for 15 s.
    installed.event("edge", "one", "NotAllowed", "15s is shorter than 20s");
    assert_eq!(installed.monitor("edge", "one-gwmon").unwrap()["spec"]["endpoints"][0]["interval"], "20s");

    // A port that the exporter does not serve, and a path that it does not.
    for (name, status) in [("port", json!({"metricsPort": 6379})), ("path", json!({"metricsPath": "/anything?a=b"}))] {
        kubectl.apply(&injected_as("west", name, &json!({}), &status).to_string()).unwrap();
        installed.event("west", name, "StatusMismatch", "does not match pod");
    }
    // An owner that the API server does not show to gwmon.
    kubectl.run("-n west create configmap hidden").unwrap();
    let uid = kubectl.get("-n west configmap hidden").unwrap()["metadata"]["uid"].clone();
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "hidden", "uid": uid, "controller": true});
    kubectl.apply(&claiming("west", "hidden", "hidden-gwmon", &owner).to_string()).unwrap();
    installed.event("west", "hidden", "Forbidden", "gwmon may not read ConfigMap");
    assert_eq!(made_in(&installed, "west"), 0);
    drop(gwmon);
}

#[test]
fn what_crosses_namespaces_is_the_operators_to_allow() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    // The platform's reads its own namespace; so monitors are made there.
    installed.prometheus("k8s", &json!({"serviceMonitorSelector": {}}));
    let gwmon = installed.serve();
    kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    let there = || installed.monitor("monitoring", "edge.edge-gwmon");
    settle("the monitor", || there().map(Some));

    // A tenant's, which reads everywhere, and would be the better choice: nothing moves.
    let tenants = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "Prometheus",
        "metadata": {"name": "a", "namespace": "west"},
        "spec": {"serviceMonitorNamespaceSelector": {}, "serviceMonitorSelector": {"matchLabels": {"mine": "yes"}}},
    });
    kubectl.apply(&tenants.to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    there().unwrap();
    assert!(installed.monitor("edge", "edge-gwmon").is_err());
    // Nor when gwmon starts anew.
    drop(gwmon);
    let gwmon = installed.serve();
    settle("gwmon to look", || Ok((gwmon.metric(r#"gwmon_reconciles_total{outcome="ok"#) >= 2.).then_some(())));
    there().unwrap();
    assert!(installed.monitor("edge", "edge-gwmon").is_err());
    // A forged monitor that says the tenant's reads it is believed nothing, nor does it matter while the platform's is gone for a
    // moment, as in an upgrade.
    let forged = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {
            "name": "edge.edge-gwmon-x", "namespace": "west",
            "labels": {"gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": "edge"},
            "annotations": {"gwmon.io/prometheus": "west/a"},
        },
        "spec": {"selector": {}, "endpoints": []},
    });
    kubectl.apply(&forged.to_string()).unwrap();
    kubectl.run("-n monitoring delete prometheus k8s").unwrap();
    installed.event("edge", "edge", "PrometheusNotFound", "monitoring/k8s, which read this gateway, is gone");
    there().unwrap();
    assert!(installed.monitor("edge", "edge-gwmon").is_err());
    installed.prometheus("k8s", &json!({"serviceMonitorSelector": {}}));
    std::thread::sleep(Duration::from_secs(2));
    there().unwrap();
    kubectl.run("-n west delete servicemonitor edge.edge-gwmon-x").unwrap();
    // A gateway that is new goes to the one that the operator names, and only there.
    drop(gwmon);
    let gwmon = installed.serve_with(&["--prometheus", "monitoring/k8s"]);
    kubectl.apply(&injected("edge", "second", 1).to_string()).unwrap();
    settle("the second's monitor", || installed.monitor("monitoring", "edge.second-gwmon").map(Some));
    drop(gwmon);
    // Nothing outside the gateway's namespace: told, and what is there stays.
    let gwmon = installed.serve_with(&["--prometheus", "monitoring/k8s", "--allow-cross-namespace-monitors=false"]);
    kubectl.apply(&injected("edge", "third", 1).to_string()).unwrap();
    installed.event("edge", "third", "NotSelected", "monitors.crossNamespace");
    assert!(installed.monitor("monitoring", "edge.third-gwmon").is_err());
    there().unwrap();
    gwmon.assert_never_forbidden();
}

#[test]
fn uninstall_takes_what_is_gwmons_and_nothing_else() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    // Of another's, and named like gwmon's; and one in the same namespace.
    kubectl.run("-n gwmon create secret generic gwmon-tls --from-literal=password=hunter2").unwrap();
    kubectl.run("-n gwmon create configmap team-notes").unwrap();
    kubectl.run("-n edge create service clusterip edge-gwmon --tcp=80").unwrap();
    kubectl
        .run("-n edge label service edge-gwmon gwmon.io/workload-namespace=edge gwmon.io/metrics-for=edge-gwmon")
        .unwrap();
    let mut annotated = injected("edge", "edge", 0);
    let template = &mut annotated["spec"]["template"]["metadata"]["annotations"];
    *template = json!({"gwmon.io/inject": "true", "gwmon.io/copied": r#"{"gwmon.io/inject":"true"}"#});
    annotated["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().pop();
    annotated["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
    kubectl.apply(&annotated.to_string()).unwrap();
    kubectl.run("-n gwmon scale deployment gwmon --replicas=0").unwrap();

    let (code, said) = gwmon(kubectl.kubeconfig(), &["uninstall", "-n", "edge", "--yes"]);
    assert!(code == 2 && said.contains("calls a Service in namespace gwmon, not in edge"), "{said}");
    let (code, plan) = gwmon(kubectl.kubeconfig(), &["uninstall"]);
    assert!(code == 0 && plan.starts_with("On https://"), "{plan}");
    for line in [
        "  deployment/edge -n edge",
        "  clusterrole/gwmon",
        "  secret/gwmon-tls -n gwmon",
        "  configmap/team-notes -n gwmon",
    ] {
        assert!(plan.lines().any(|said| said == line), "{line}\n{plan}");
    }
    let (listed, left) = plan.split_once("since gwmon did not make these:").unwrap();
    assert!(left.contains("gwmon-tls") && left.contains("team-notes") && !listed.contains("secret/"), "{plan}");
    assert!(!listed.contains("namespace/") && !listed.contains("service/edge-gwmon"), "{plan}");

    let (code, said) = gwmon(kubectl.kubeconfig(), &["uninstall", "--yes", "--keep-workloads"]);
    assert_eq!(code, 0, "{said}");
    let template =
        || kubectl.get("-n edge deployment edge").unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
    assert_eq!(template()["gwmon.io/inject"], "true");
    let (code, said) = gwmon(kubectl.kubeconfig(), &["uninstall", "--yes"]);
    assert!(code == 0 && said.contains("deployment/edge -n edge rolled out without the sidecar"), "{said}");
    assert_eq!(template(), Value::Null);
    for kept in ["secret gwmon-tls", "configmap team-notes"] {
        kubectl.get(&format!("-n gwmon {kept}")).unwrap();
    }
    kubectl.get("-n edge service edge-gwmon").unwrap();
    assert_eq!(kubectl.get("-n edge deployment edge").unwrap()["metadata"]["annotations"]["gwmon.io/inject"], "true");
    kubectl.get("clusterrole gwmon").unwrap_err();
    let (code, said) = gwmon(kubectl.kubeconfig(), &["uninstall"]);
    assert!(code == 0 && said.contains("nothing of gwmon was found"), "{said}");
}
