//! The chart, as the real Helm renders it, agrees with the manifests and with the flags.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use clap::CommandFactory;
use gwmon::cli::Cli;
use gwmon_cluster::program;
use serde_json::{Value, json};

fn helm(arguments: &[&str]) -> Output {
    gwmon_cluster::build_helm().unwrap();
    Command::new(program("helm")).args(arguments).output().unwrap()
}

/// `helm template` of a release of this name in this namespace, without the objects of `helm test`.
fn template(release: &str, namespace: &str, arguments: &[&str]) -> Result<String, String> {
    // Without a cluster, Helm takes its own for the cluster's version.
    let fixed = ["template", release, "deploy/chart", "-n", namespace, "--kube-version", "1.34.0", "--skip-tests"];
    let output = helm(&[&fixed[..], arguments].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn kustomize(folder: &str) -> String {
    let output = Command::new(program("kubectl")).args(["kustomize", folder]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The objects by kind and name, without the Namespace, which Helm makes otherwise, and without Helm's own labels.
fn objects(manifests: &str) -> BTreeMap<String, Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    let all = all.into_iter().filter(|object| !object.is_null() && object["kind"] != "Namespace");
    all.map(|mut object| {
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        labels.retain(|key, _| !["helm.sh/chart", "app.kubernetes.io/instance"].contains(&key.as_str()));
        labels.retain(|key, _| !["app.kubernetes.io/managed-by", "app.kubernetes.io/version"].contains(&key.as_str()));
        let arguments = object.pointer_mut("/spec/template/spec/containers/0/args").and_then(Value::as_array_mut);
        if let Some(arguments) = arguments {
            arguments.sort_by_key(ToString::to_string);
        }
        (format!("{} {}", object["kind"], object["metadata"]["name"]), object)
    })
    .collect()
}

fn assert_same(chart: &str, manifests: &str, what: &str) {
    let (chart, manifests) = (objects(chart), objects(manifests));
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&manifests), "{what}");
    for (name, object) in &manifests {
        let pretty = |object: &Value| serde_json::to_string_pretty(object).unwrap();
        assert_eq!(chart[name], *object, "{what}: {name}\n{}\n{}", pretty(&chart[name]), pretty(object));
    }
}

#[test]
fn the_chart_makes_what_the_manifests_make() {
    let install = fs::read_to_string("deploy/install.yaml").unwrap();
    let gwmon = |arguments: &[&str]| template("gwmon", "gwmon", arguments).unwrap();
    assert_same(&gwmon(&[]), &install, "install.yaml");
    assert_same(&gwmon(&["--set", "openshift=true"]), &kustomize("deploy/overlays/openshift"), "openshift");
    for (source, folder) in [("files", "certs/files"), ("cert-manager", "deploy/overlays/cert-manager")] {
        assert_same(&gwmon(&["--set", &format!("certificates.source={source}")]), &kustomize(folder), source);
    }
    let policy = format!("{install}---\n{}", kustomize("deploy/overlays/networkpolicy"));
    assert_same(&gwmon(&["--set", "networkPolicy.enabled=true"]), &policy, "networkpolicy");
}

/// Dashboards and rules as the commands print them, but for Helm's own labels and the release's name.
#[test]
fn the_chart_ships_the_dashboards_and_the_rules() {
    let values = "dashboards.enabled=true,dashboards.namespace=monitoring,rules.enabled=true,rules.labels.release=kps";
    let with = objects(&template("gwmon", "gwmon", &["--set", values]).unwrap());
    let without = objects(&template("gwmon", "gwmon", &[]).unwrap());
    let gwmon = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gwmon")).args(arguments).output().unwrap();
        objects(&String::from_utf8(output.stdout).unwrap())
    };
    let mut expected = gwmon(&["dashboards", "-n", "monitoring"]);
    expected.extend(gwmon(&["rules", "-n", "gwmon"]));
    assert_eq!(with.len(), without.len() + expected.len());
    for (name, object) in &expected {
        for field in ["data", "spec"] {
            assert_eq!(with[name][field], object[field], "{name}");
        }
        assert_eq!(with[name]["metadata"]["namespace"], object["metadata"]["namespace"]);
    }
    let rule = with.values().find(|object| object["kind"] == "PrometheusRule").unwrap();
    assert_eq!(rule["metadata"]["labels"]["release"], "kps");
    let linked = template("gwmon", "gwmon", &["--set", "rules.enabled=true,rules.runbooks=https://x.test/r/"]).unwrap();
    assert!(linked.contains("runbook_url: https://x.test/r/GatewayDown.md") && !linked.contains("runbook: "));
    let board = with.values().find(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1").unwrap();
    assert_eq!(board["metadata"]["annotations"]["grafana_folder"], "gwmon");
}

#[test]
fn a_release_may_have_any_name_in_any_namespace() {
    let rendered = template("metrics", "obs", &[]).unwrap();
    for (kind, object) in objects(&rendered) {
        let text = object
            .to_string()
            .replace("gwmon.io", "")
            .replace("/etc/gwmon/", "")
            .replace("/part-of\":\"gwmon\"", "")
            .replace("\"name\":\"gwmon\",\"image\":\"gwmon:", "");
        assert!(!text.contains("gwmon"), "{kind} {text}");
        assert!(text.contains("metrics"), "{kind}");
    }
    assert!(rendered.contains("- --name=metrics"));
    for (release, words) in
        [("edge-gwmon", "names that end in -gwmon are reserved"), ("1st", "is not possible: use lower case")]
    {
        let said = template(release, "obs", &[]).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
}

/// What `gwmon install` prints.
fn install(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gwmon")).arg("install").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn gwmon_itself_prints_what_the_chart_and_the_manifests_make() {
    let shipped: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string("deploy/install.yaml").unwrap()).unwrap();
    let printed: Vec<Value> = serde_saphyr::from_multiple(&install(&[])).unwrap();
    assert_eq!(printed, shipped);
    let list: Value = serde_json::from_str(&install(&["-o", "json"])).unwrap();
    assert_eq!(list["items"], json!(shipped));

    let own = install(&[
        "-n",
        "obs",
        "--name",
        "metrics",
        "--image",
        "mirror/gwmon:v2",
        "--replicas",
        "3",
        "--image-pull-secret",
        "registry",
        "--",
        "--suspend-after=1m",
        "--exporter-image=mirror/exporter:v1",
        "--bind=0.0.0.0:10250",
        "--log-format=json",
    ]);
    let values = "image.repository=mirror/gwmon,image.tag=v2,replicas=3,imagePullSecrets[0].name=registry,\
        suspendAfter=1m,exporter.image=mirror/exporter:v1,webhook.port=10250";
    assert_same(&own, &template("metrics", "obs", &["--set", values]).unwrap(), "another name");
    let namespace: Value = serde_saphyr::from_multiple::<Value>(&own).unwrap().swap_remove(0);
    assert_eq!((&namespace["kind"], &namespace["metadata"]), (&json!("Namespace"), &json!({"name": "obs"})));
}

#[test]
fn flags_that_need_other_objects_are_not_printed() {
    for (arguments, words) in [
        (&["--", "--certificates=files"][..], "use an overlay"),
        (&["--", "--name=other"], "before the --"),
        (&["--", "--namespace", "other"], "before the --"),
        (&["--", "--sidecar=yes"], "invalid value 'yes'"),
        (&["--name", "1st"], "beginning with a letter"),
        (&["--replicas", "0"], "--replicas"),
        (&["--image", "a b"], "an image reference"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_gwmon")).arg("install").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && output.stdout.is_empty() && said.contains(words),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn the_exporters_image_of_the_file_is_tried_too() {
    for (set, image) in [
        ("config.exporter.image=mirror/a:1", "mirror/a:1"),
        ("config.exporter.image=mirror/a:1,exporter.image=mirror/b:1", "mirror/b:1"),
    ] {
        let rendered = template("gwmon", "gwmon", &["--set", set]).unwrap();
        let objects = objects(&rendered);
        let tried = objects["\"Deployment\" \"gwmon\""].pointer("/spec/template/spec/initContainers/0/image").unwrap();
        assert_eq!(tried, image, "{set}");
        let file = objects["\"ConfigMap\" \"gwmon-config\""]["data"]["config.yaml"].as_str().unwrap();
        let file: gwmon::config::ConfigFile = file.parse().unwrap();
        assert_eq!(file.exporter.image.unwrap().as_str(), "mirror/a:1");
    }
}

#[test]
fn nonsense_is_refused() {
    for (nonsense, words) in [
        ("nonsense=1", "'nonsense' not allowed"),
        ("image.tagg=1", "'tagg' not allowed"),
        ("replicas=0", "/replicas"),
        ("replicas=two", "/replicas"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("certificates.source=vault", "/certificates/source"),
        ("certificates.issuerRef.name=x", "certificates.issuerRef"),
        ("webhook.port=8080", "8080"),
        ("webhook.port=80", "/webhook/port"),
        ("webhook.timeoutSeconds=31", "/webhook/timeoutSeconds"),
        ("prometheus={k8s}", "/prometheus/0"),
        ("sidecar=yes", "/sidecar"),
        ("minInterval=often", "/minInterval"),
        ("config.exporter.imagePullPolicy=Sometimes", "/config/exporter/imagePullPolicy"),
        ("config.gateway.mode=scrape", "'gateway' not allowed"),
    ] {
        let said = template("gwmon", "gwmon", &["--set", nonsense]).expect_err(nonsense);
        assert!(said.contains(words), "{nonsense}: {said}");
    }
    let lint = helm(&["lint", "--strict", "deploy/chart"]);
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

/// The values that stand for flags of `gwmon serve`, with another value than the default.
const FLAGS: [(&str, &str, &str); 15] = [
    ("certificates.source", "cert-manager", "--certificates=cert-manager"),
    ("clientCA.secretName", "clients", "--client-ca=/etc/gwmon/client-ca/ca.crt"),
    ("nameOverride", "metrics", "--name=metrics"),
    ("suspendAfter", "1m", "--suspend-after=1m"),
    ("suspendFor", "10m", "--suspend-for=10m"),
    ("prometheus[0]", "monitoring/k8s", "--prometheus=monitoring/k8s"),
    ("maxGatewaysPerNamespace", "7", "--max-gateways-per-namespace=7"),
    ("logFormat", "text", ""),
    ("log", "debug", "--log=debug"),
    ("exporter.image", "mirror/exporter:v1", "--exporter-image=mirror/exporter:v1"),
    ("sidecar", "regular", "--sidecar=regular"),
    ("monitorLabels.release", "edge", "--monitor-labels=release=edge"),
    ("minInterval", "10s", "--min-interval=10s"),
    ("allowedMonitorLabels[0]", "team", "--allowed-monitor-labels=team"),
    ("allowCrossNamespaceMonitors", "false", "--allow-cross-namespace-monitors=false"),
];
/// Flags without a value of the chart: three are fixed by the pod, one follows from a port, one is for files alone, three are not
/// for a cluster.
const FIXED: [&str; 8] =
    ["admin-bind", "bind", "ca-out", "certificate-dir", "config", "help", "namespace", "standalone"];

#[test]
fn every_flag_is_a_value_and_is_parsed_by_gwmon_itself() {
    let set: Vec<_> = FLAGS.iter().map(|(value, other, _)| format!("{value}={other}")).collect();
    let rendered = template("gwmon", "gwmon", &["--set", &set.join(","), "--set", "webhook.port=10250"]).unwrap();
    let deployment = &objects(&rendered)["\"Deployment\" \"metrics\""];
    let arguments = deployment.pointer("/spec/template/spec/containers/0/args").unwrap();
    let arguments: Vec<_> = arguments.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for (value, _, flag) in FLAGS.iter().filter(|(.., flag)| !flag.is_empty()) {
        assert!(arguments.contains(flag), "{value}: {arguments:?}");
    }
    assert!(arguments.contains(&"--bind=0.0.0.0:10250"));
    let flags = arguments.iter().filter(|argument| argument.starts_with("--"));
    Cli::command().try_get_matches_from(["gwmon", "serve"].into_iter().chain(flags.copied())).unwrap();

    let serve = Cli::command().find_subcommand("serve").unwrap().clone();
    let known: Vec<_> = FLAGS.iter().map(|(.., flag)| flag.split('=').next().unwrap()).collect();
    for argument in serve.get_arguments().filter_map(clap::Arg::get_long).filter(|long| !FIXED.contains(long)) {
        assert!(
            known.contains(&&*format!("--{argument}")) || argument == "log-format",
            "the chart has no value for --{argument}"
        );
    }
}

/// The default of a value, or of each value in it.
fn defaults(schema: &Value) -> Value {
    match (&schema["properties"], schema.get("default")) {
        (_, Some(default)) => default.clone(),
        (Value::Object(properties), None) => {
            properties.iter().map(|(key, value)| (key.clone(), defaults(value))).collect()
        }
        _ => json!(null),
    }
}

#[test]
fn the_schema_tells_the_defaults_of_the_values() {
    let schema: Value = serde_json::from_str(&fs::read_to_string("deploy/chart/values.schema.json").unwrap()).unwrap();
    let values: Value = serde_saphyr::from_str(&fs::read_to_string("deploy/chart/values.yaml").unwrap()).unwrap();
    assert_eq!(defaults(&schema), values);
}
