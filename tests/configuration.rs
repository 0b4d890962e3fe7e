//! The configuration file and the label of namespaces, on a real API server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gwmon_cluster::{scenario, wait_for};
use serde_json::{Value, json};
use support::fixture::{Fixture, gateway};
use support::{Gwmon, Installed, by_release, everywhere, injected_as, settle};
use tempfile::TempDir;

/// A folder as the kubelet mounts a ConfigMap: the files behind a link, which is swapped.
struct Mounted(TempDir);

impl Mounted {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> String {
        self.0.path().join("config.yaml").display().to_string()
    }

    /// Another content, or none.
    fn put(&self, content: Option<&str>) {
        let at = |name: &str| self.0.path().join(name);
        let version = tempfile::Builder::new().prefix("..").tempdir_in(self.0.path()).unwrap().keep();
        if let Some(content) = content {
            let whole = format!("apiVersion: gwmon.io/v1alpha1\nkind: Configuration\n{content}");
            fs::write(version.join("config.yaml"), whole).unwrap();
        }
        std::os::unix::fs::symlink(&version, at("..next")).unwrap();
        fs::rename(at("..next"), at("..data")).unwrap();
        let _ = match content {
            Some(_) => std::os::unix::fs::symlink(Path::new("..data/config.yaml"), at("config.yaml")),
            None => fs::remove_file(at("config.yaml")),
        };
    }
}

/// `gwmon` with these arguments: its exit code, and what it said.
fn gwmon(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gwmon")).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn the_file_is_read_again_and_a_bad_one_leaves_the_good_one_in_use() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    let mounted = Mounted::new();
    let gwmon = installed.serve_with(&["--config", &mounted.file(), "--exporter-image", "flag.example/exporter:1"]);
    let asks = json!({"gwmon.io/interval": "15s"});
    kubectl.apply(&injected_as("edge", "edge", &asks, &json!({})).to_string()).unwrap();
    let interval = |expected: &str| {
        settle(&format!("an interval of {expected}"), || {
            let monitor = installed.monitor("edge", "edge-gwmon")?;
            Ok((monitor["spec"]["endpoints"][0]["interval"] == expected).then_some(()))
        });
    };
    let review = |changes: &Value| installed.review(&gwmon, "/mutate/pods", changes);
    interval("15s");
    let (patch, _) = review(&json!({}));
    assert!(!patch.unwrap().contains("imagePullPolicy"));

    // The ConfigMap is made while gwmon runs: new pods follow it, and monitors do. A flag overrides it.
    let pod = kubectl.run("-n edge get pods -o yaml").unwrap().out;
    mounted.put(Some("exporter: {image: file.example/exporter:1, imagePullPolicy: Always, imagePullSecrets: [registry], resources: {limits: {memory: 96Mi}}}\nmonitors: {minInterval: 30s}\n"));
    interval("30s");
    installed.event("edge", "edge", "NotAllowed", "15s is shorter than 30s, which is taken instead");
    let (patch, _) = review(&json!({}));
    let patch = patch.unwrap();
    for words in
        [r#""imagePullPolicy":"Always""#, r#"{"name":"registry"}"#, r#""memory":"96Mi""#, "flag.example/exporter:1"]
    {
        assert!(patch.contains(words), "{words}\n{patch}");
    }
    assert_eq!(kubectl.run("-n edge get pods -o yaml").unwrap().out, pod, "injected pods stay as they are");

    // Not valid: said on gwmon's own Deployment, by log and metric, and nothing changes.
    mounted.put(Some("monitors: {minInterval: often}\n"));
    installed.event("gwmon", "gwmon", "ConfigurationNotUpdated", "config.yaml:3:25: is not a duration");
    assert!(gwmon.metric("gwmon_configuration_update_failing") > 0.9);
    assert!(review(&json!({})).0.unwrap().contains("registry"));
    interval("30s");

    // Namespaces are closed to injection; their workloads and pods are told.
    mounted.put(Some("gateways: {namespaces: [west]}\n"));
    settle("the namespace to be closed", || {
        let (patch, warnings) = review(&json!({"namespace": "edge"}));
        Ok((patch.is_none() && warnings.contains("in namespace edge nothing is injected")).then_some(()))
    });
    assert!(gwmon.metric("gwmon_configuration_update_failing") < 0.1);
    assert!(review(&json!({"namespace": "west"})).0.is_some());
    let mut workload = gateway("edge", &json!({"gwmon.io/inject": "true"}));
    // It is merged into a pod of a ReplicaSet.
    workload["metadata"]["ownerReferences"] = Value::Null;
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    let workload = json!({"namespace": "edge", "kind": kind, "object": workload});
    let (patch, warnings) = installed.review(&gwmon, "/mutate/workloads", &workload);
    assert!(patch.is_none() && warnings.contains("gateways.namespaces, which has west"), "{warnings}");

    // The ConfigMap goes: the defaults hold.
    mounted.put(None);
    settle("the defaults", || Ok(review(&json!({"namespace": "edge"})).0.filter(|patch| !patch.contains("registry"))));
    gwmon.assert_never_forbidden();
}

#[test]
fn gateways_that_may_not_have_their_monitor_elsewhere_are_told() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &json!({"serviceMonitorSelector": {}}));
    let mounted = Mounted::new();
    mounted.put(Some("monitors: {crossNamespace: [west]}\n"));
    let _gwmon = installed.serve_with(&["--config", &mounted.file()]);
    for namespace in ["edge", "west"] {
        kubectl.apply(&injected_as(namespace, namespace, &json!({}), &json!({})).to_string()).unwrap();
    }
    settle("the monitor", || installed.monitor("monitoring", "west.west-gwmon").map(Some));
    installed.event("edge", "edge", "NotSelected", "monitors.crossNamespace");
    installed.monitor("monitoring", "edge.edge-gwmon").unwrap_err();
    installed.prometheus("k8s", &everywhere(&json!({})));
    settle("its own", || installed.monitor("edge", "edge-gwmon").map(Some));
}

#[test]
fn a_file_that_is_not_valid_is_said_with_its_place() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.yaml").display().to_string();
    for (content, words) in [
        ("exporter:\n  imag: x\n", &["config.yaml:4:", "unknown field `imag`", "^"][..]),
        (
            "monitors:\n  minInterval: often\n",
            &["config.yaml:4:16: is not a duration", "  minInterval: often\n", "                 ^"],
        ),
        ("monitors: {prometheus: [k8s]}\n", &["\"k8s\" names no Prometheus; use namespace/name"]),
        ("gateways: {namespaces: ['*', edge]}\n", &["leave the others out"]),
        ("gateways: {namespaces: [Edge]}\n", &["\"Edge\" is not a valid namespace"]),
        ("gateways: {mode: push}\n", &["push", "statsd"]),
        ("exporter: {resources: {limits: {memory: 8Mi}}}\n", &["more than its limit of 8Mi"]),
        ("exporter: {resources: {limits: {disk: 8Mi}}}\n", &["disk"]),
        ("exporter: {imagePullSecrets: [A b]}\n", &["name of a Secret"]),
        ("monitors: {labels: {a b: c}}\n", &["not a valid label"]),
        ("monitors: {labels: {gwmon.io/metrics-for: c}}\n", &["is gwmon's own"]),
        ("monitors: {minInterval: 1m, maxInterval: 30s}\n", &["1m, longer than monitors.maxInterval, which is 30s"]),
        ("monitors: [\n", &[":3:11: "]),
    ] {
        fs::write(&file, format!("apiVersion: gwmon.io/v1alpha1\nkind: Configuration\n{content}")).unwrap();
        for arguments in [
            &["config", "check", "-f", &file][..],
            &["serve", "--config", &file],
            &["preview", "-f", "tests/cases/emissary.yaml", "--config", &file],
        ] {
            let (code, said) = gwmon(arguments);
            assert!(
                code == 2 && words.iter().all(|words| said.contains(words)),
                "{arguments:?} {content}: {code} {said}"
            );
            assert!(said.contains(&file) && !said.contains("panicked"), "{said}");
        }
    }
    for (content, words) in [
        ("", "unexpected end"),
        ("apiVersion: v1\nkind: ConfigMap\n", "gwmon.io/v1alpha1"),
        ("apiVersion: gwmon.io/v9\nkind: Configuration\n", "gwmon.io/v1alpha1"),
    ] {
        fs::write(&file, content).unwrap();
        let (code, said) = gwmon(&["config", "check", "-f", &file]);
        assert!(code == 2 && said.contains(words), "{content}: {said}");
    }
    let (code, said) = gwmon(&["config", "check", "-f", "nowhere.yaml"]);
    assert!(code == 2 && said.contains("nowhere.yaml"), "{said}");
    let other = file.replace("config.yaml", "gwmon.yaml");
    fs::rename(&file, &other).unwrap();
    let (code, said) = gwmon(&["serve", "--config", &file]);
    assert!(code == 2 && said.contains("beside it is gwmon.yaml: give the ConfigMap's key that name"), "{said}");
    let (code, said) = gwmon(&["serve", "--config", "/nowhere/config.yaml"]);
    assert!(code == 2 && said.contains("/nowhere/config.yaml"), "{said}");
}

#[test]
fn the_documented_file_is_valid_and_becomes_a_config_map() {
    let installed = Installed::new();
    let folder = TempDir::new().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_gwmon")).parent().unwrap();
    let kubectl = gwmon_cluster::program("kubectl");
    let path = std::env::join_paths(
        [program, kubectl.parent().unwrap()]
            .into_iter()
            .map(Path::to_owned)
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    for line in scenario::commands("docs/reference/configuration.md", "configure").unwrap() {
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", &line])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("KUBECONFIG", installed.kubectl.kubeconfig());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let stored = installed.kubectl.get("-n gwmon configmap gwmon-config").unwrap();
    assert_eq!(stored["data"]["config.yaml"], gwmon::config::DEFAULT);
    // All defaults are those of the code.
    let file: gwmon::config::ConfigFile = gwmon::config::DEFAULT.parse().unwrap();
    let none = gwmon::config::ConfigFile::default();
    let args = gwmon::cli::ConfigArgs::default();
    assert_eq!(args.config(&file, None), args.config(&none, None));
}

#[test]
fn a_labelled_namespace_has_all_its_gateways_injected_and_nothing_else() {
    let fixture = Fixture::new("labelled");
    let Fixture { kubectl, gwmon, .. } = &fixture;
    let exporter =
        |selector: &str| fixture.pod(selector)["spec"]["initContainers"].to_string().contains("gwmon-statsd-exporter");
    fixture.apply(&gateway("before", &json!({})));
    assert!(!exporter("app=before"));
    for line in scenario::commands("docs/reference/configuration.md", "label").unwrap() {
        let words = line.strip_prefix("kubectl ").unwrap().replace("edge", "labelled");
        kubectl.run(&words).unwrap();
    }
    let calls = || fixture.calls("labelled-namespaces");
    // The API server takes a moment to see the label.
    wait_for("the webhook to be called", Duration::from_secs(20), || {
        fixture.run_with(&["run", "probe", "--image=probe", "--dry-run=server"], "").ok();
        Ok((calls() > 0.).then_some(()))
    })
    .unwrap();

    fixture.apply(&gateway("edge", &json!({})));
    assert!(exporter("app=edge"));
    let pod = fixture.pod("app=edge");
    assert_eq!(pod["metadata"]["annotations"]["gwmon.io/inject"], "true");
    assert_eq!(pod["metadata"]["labels"]["gwmon.io/monitored-by"], "edge-gwmon");
    let template = fixture.get("deployment edge")["spec"]["template"]["metadata"].clone();
    assert_eq!(template["annotations"], Value::Null, "nothing is rolled out");

    // The workload's word counts.
    fixture.apply(&gateway("out", &json!({"gwmon.io/inject": "false"})));
    assert!(!exporter("app=out"));
    let reasoned = |reason: &str| {
        gwmon.metric(&format!(
            "gwmon_reviews_total{{route=\"labelled-namespaces\",outcome=\"unchanged\",reason=\"{reason}\""
        ))
    };

    // What is no gateway is admitted as it is, without a word, and counted; a pod of a Job is none.
    let with = |name: &str, containers: Value| {
        let mut deployment = gateway(name, &json!({}));
        let template = &mut deployment["spec"]["template"]["spec"]["containers"];
        let security = template[0]["securityContext"].clone();
        *template = containers;
        template
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|container| container["securityContext"] = security.clone());
        deployment
    };
    let before = reasoned("NotAGateway");
    fixture.apply(&with("web", json!([{"name": "web", "image": "httpd"}])));
    let proxy = json!({"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.24.0", "args": ["proxy", "sidecar"]});
    fixture.apply(&with("meshed", json!([{"name": "web", "image": "httpd"}, proxy])));
    let mut job = gateway("migrations", &json!({}));
    job["apiVersion"] = json!("batch/v1");
    job["kind"] = json!("Job");
    job["spec"].as_object_mut().unwrap().remove("selector");
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    fixture.apply(&job);
    for name in ["web", "meshed", "migrations"] {
        let pod = fixture.pod(&format!("app={name}"));
        assert!(pod["metadata"]["annotations"].is_null() && !pod.to_string().contains("gwmon"), "{pod}");
    }
    assert!(reasoned("NotAGateway") - before > 2.9);
    // One whose template says what it is.
    let mut named = with("named", json!([{"name": "proxy", "image": "edge", "args": ["-c", "/etc/envoy/envoy.yaml"]}]));
    named["spec"]["template"]["metadata"]["annotations"] = json!({"gwmon.io/gateway": "envoy"});
    fixture.apply(&named);
    assert!(exporter("app=named"));

    // Two that could each be it: told, and left alone.
    let envoy = |name: &str| json!({"name": name, "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/etc/envoy/envoy.yaml"]});
    fixture.apply(&with("twins", json!([envoy("one"), envoy("two")])));
    assert!(!exporter("app=twins") && reasoned("AmbiguousGateway") > 0.);
    let said = fixture.run_with(
        &["create", "-f", "-", "--dry-run=server"],
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "twins"}, "spec": fixture.pod("app=twins")["spec"],
        })
        .to_string(),
    );
    assert!(format!("{said:?}").contains("AmbiguousGateway"), "{said:?}");
}

#[test]
fn what_a_labelled_namespace_has_not_injected_is_told_on_the_workload() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    kubectl.run("label namespace edge gwmon.io/inject=enabled").unwrap();
    let workload = |name: &str, containers: Value, annotations: Value| {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "edge"},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations}, "spec": {"containers": containers},
            }},
        });
        kubectl.apply(&deployment.to_string()).unwrap();
        settle("the pod", || {
            Ok((!kubectl.run(&format!("-n edge get pods -l app={name} -o name"))?.out.is_empty()).then_some(()))
        });
    };
    let envoy = |name: &str| json!({"name": name, "image": "envoyproxy/envoy:v1.34.0", "args": ["-c", "/e.yaml"]});
    workload("old", json!([envoy("envoy")]), json!({}));
    workload("twins", json!([envoy("one"), envoy("two")]), json!({}));
    workload("web", json!([{"name": "web", "image": "httpd"}]), json!({}));
    workload("out", json!([envoy("envoy")]), json!({"gwmon.io/inject": "false"}));
    let gwmon: Gwmon = installed.serve();
    installed.event("edge", "old", "MissedInjection", "has the label gwmon.io/inject=enabled");
    installed.event("edge", "twins", "AmbiguousGateway", "choose with gwmon.io/container");
    // Events of one look come together.
    std::thread::sleep(Duration::from_secs(2));
    for name in ["web", "out"] {
        for reason in ["MissedInjection", "NoGateway", "NotAGateway"] {
            assert!(installed.events("edge", name, reason).unwrap().is_empty(), "{name} {reason}");
        }
    }
    gwmon.assert_never_forbidden();
}

#[test]
fn a_labelled_gateway_keeps_its_monitor_and_is_suspended_as_any_other() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    installed.prometheus("k8s", &by_release("one"));
    kubectl.run("label namespace edge gwmon.io/inject=enabled").unwrap();
    // As the webhook would have it: the pods ask, and their template does not.
    let mut deployment = injected_as("edge", "edge", &json!({}), &json!({}));
    deployment["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove("gwmon.io/inject");
    kubectl.apply(&deployment.to_string()).unwrap();
    settle("the pod", || {
        kubectl
            .run("-n edge annotate pods -l app=gateway gwmon.io/inject=true")
            .map(|said| said.out.contains("annotated").then_some(()))
    });
    let _gwmon = installed.serve_with(&["--suspend-after", "2s"]);
    settle("the monitor", || installed.monitor("edge", "edge-gwmon").map(Some));

    // Without pods it still asks.
    kubectl.run("-n edge scale deployment edge --replicas=0").unwrap();
    settle("the pods to go", || {
        Ok(kubectl.run("-n edge get pods -l app=gateway -o name")?.out.is_empty().then_some(()))
    });
    std::thread::sleep(Duration::from_secs(3));
    installed.monitor("edge", "edge-gwmon").unwrap();

    // Refused while they would get an exporter: suspended, as a gateway that asks itself.
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": "edge"}, "spec": {"hard": {"pods": "0"}}});
    kubectl.apply(&quota.to_string()).unwrap();
    let mut gateway = gateway("refused", &json!({}));
    gateway["metadata"]["namespace"] = json!("edge");
    kubectl.apply(&gateway.to_string()).unwrap();
    let key = "edge.refused-gwmon";
    let entry = settle("the suspension", || {
        let suspended = kubectl.get("-n gwmon configmap gwmon-suspensions")?["data"][key].as_str().map(str::to_owned);
        Ok(suspended)
    });
    assert!(entry.contains("PodRefused"), "{entry}");
}
