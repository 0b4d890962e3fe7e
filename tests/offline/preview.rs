//! `gwmon preview` as a user and a script meet it: outputs, exit codes, and what is typed wrong.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/envoy-args.yaml");
const PROMETHEUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/prometheus.yaml");

fn preview(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gwmon"))
        .arg("preview")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails at once may not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_output_is_what_it_says() {
    let json = preview(&["-f", CASE, "--prometheus", PROMETHEUS, "-o", "json"], "");
    assert_eq!(json.status.code(), Some(0));
    let list: Value = serde_json::from_slice(&json.stdout).unwrap();
    let kinds: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!((list["kind"].as_str(), kinds), (Some("List"), vec!["Deployment", "Service", "ServiceMonitor"]));

    let yaml = preview(&["-f", CASE, "--prometheus", PROMETHEUS, "-o", "yaml"], "");
    let documents: Vec<Value> = serde_saphyr::from_multiple(text(&yaml.stdout)).unwrap();
    assert_eq!(Value::from(documents), list["items"], "YAML and JSON say the same");

    let patch = preview(&["-f", CASE, "-o", "patch"], "");
    let patch: json_patch::Patch = serde_json::from_slice(&patch.stdout).unwrap();
    assert!(patch.iter().all(|operation| matches!(operation, json_patch::PatchOperation::Add(_))));

    let diff = preview(&["-f", CASE, "--prometheus", PROMETHEUS], "");
    let diff = text(&diff.stdout);
    assert!(diff.contains("+      - name: gwmon-statsd-exporter") && diff.contains("+    release: kps"), "{diff}");
    assert!(!diff.contains('\u{1b}'), "colour is for terminals");
}

#[test]
fn what_it_prints_needs_no_second_look() {
    let once = preview(&["-f", CASE, "-o", "yaml"], "");
    let twice = preview(&["-f", "-", "-o", "yaml"], text(&once.stdout));
    assert_eq!(twice.status.code(), Some(0), "{}", text(&twice.stderr));
    assert!(text(&twice.stderr).contains("AlreadyInjected"));
}

#[test]
fn a_namespace_is_taken_from_where_kubectl_takes_it() {
    let manifest = std::fs::read_to_string(CASE).unwrap().replace(", namespace: edge", "");
    let namespace = |arguments: &[&str]| {
        let output = preview(&[&["-f", "-", "-o", "json"], arguments].concat(), &manifest);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["items"][1]["metadata"]["namespace"].clone()
    };
    assert_eq!(namespace(&[]), "default");
    assert_eq!(namespace(&["-n", "other"]), "other");
}

#[test]
fn a_limit_range_among_the_manifests_is_respected() {
    let range = "---\n{apiVersion: v1, kind: LimitRange, metadata: {name: limits, namespace: edge}, spec: {limits: [{type: Container, max: {memory: MAX}}]}}\n";
    let with = |max: &str| {
        let manifests = std::fs::read_to_string(CASE).unwrap() + &range.replace("MAX", max);
        preview(&["-f", "-", "-o", "json"], &manifests)
    };
    assert!(text(&with("64Mi").stdout).contains("\"memory\": \"64Mi\""));
    let refused = with("16Mi");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("LimitRangeExceeded"), "{}", text(&refused.stderr));
}

#[test]
fn exit_codes_tell_a_refusal_from_a_mistake() {
    let refused = preview(&["-f", "-"], &std::fs::read_to_string(CASE).unwrap().replace("\"true\"", "\"yes\""));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("InvalidAnnotation") && refused.stdout.is_empty());

    let unasked = preview(&["-f", "-"], &std::fs::read_to_string(CASE).unwrap().replace("\"true\"", "\"false\""));
    assert_eq!(unasked.status.code(), Some(0));
    assert!(text(&unasked.stderr).contains("OptedOut"));

    let unreadable = "{kind: Prometheus, metadata: {name: k, namespace: m}, spec: {serviceMonitorSelector: 7}}";
    let unselected = preview(&["-f", CASE, "--prometheus", "-"], unreadable);
    assert_eq!(unselected.status.code(), Some(1));
    assert!(
        text(&unselected.stderr).contains("NotSelected: Prometheus m/k spec cannot be read: serviceMonitorSelector")
    );

    for (arguments, input, said) in [
        (vec!["-f", "/nowhere.yaml"], "", "/nowhere.yaml"),
        (vec!["-f", "-"], "", "no objects"),
        (
            vec!["-f", "https://example.org/edge.yaml"],
            "",
            "curl -sSfL https://example.org/edge.yaml | gwmon preview -f -",
        ),
        (vec!["-f", CASE, "--prometheus", "-"], "a: [", "standard input, document 1, line 1: "),
        (vec!["-f", "-"], "kind: ConfigMap", "no workload"),
        (vec!["-f", CASE, "--prometheus", "/nowhere.yaml"], "", "/nowhere.yaml"),
        (vec!["-f", CASE, "--prometheus", "-"], "{kind: Prometheus, spec: {}}", "metadata"),
        (vec!["-f", CASE, "--context", "x"], "", "--cluster"),
        (vec!["-f", CASE, "-o", "xml"], "", "xml"),
        (vec![], "", "--filename"),
    ] {
        let output = preview(&arguments, input);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

/// A Deployment of an Envoy that nobody has annotated.
const PLAIN: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: NAME, namespace: gw}\nspec: {template: {metadata: {labels: {app: edge}}, spec: {containers: [{name: envoy, image: 'envoyproxy/envoy:v1.34.0', args: [-c, /e.yaml]}]}}}\n";

#[test]
fn what_cannot_be_read_keeps_nothing_else_from_being_previewed() {
    let good = PLAIN.replace("NAME", "edge");
    let broken = preview(
        &["-f", "-", "--inject"],
        &format!("{good}---\na:\n b: [\n---\njust words\n---\na: [!b,c]\n---\n{}", good.replace("edge", "late")),
    );
    assert_eq!(broken.status.code(), Some(1));
    let said = text(&broken.stderr);
    let errors: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("Warning: ") && !line.starts_with("deployment")).collect();
    for (told, begins) in errors.iter().zip([
        "error: standard input, document 2, line 7: ",
        "error: standard input, document 3, line 9: \"just words\" is not a Kubernetes object",
        // The parser panics at this one, of which nothing else is to be seen.
        "error: standard input, document 4, line 11: ",
    ]) {
        assert!(told.starts_with(begins), "{said}");
    }
    assert_eq!(errors.len(), 3, "{said}");
    assert!(text(&broken.stdout).contains("deployment.apps/late -n gw"), "{}", text(&broken.stdout));
}

#[test]
fn folders_lists_and_streams_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
    std::fs::create_dir(folder.path().join("deeper")).unwrap();
    let named = |name: &str| PLAIN.replace("NAME", name);
    let json = |name: &str| serde_json::to_string(&serde_saphyr::from_str::<Value>(&named(name)).unwrap()).unwrap();
    write("b.yml", &named("one"));
    write("a.json", &format!("{}{}\n{}", json("two"), json("three"), json("four")));
    write("notes.txt", "not read");
    write(
        "deeper/c.yaml",
        &format!("kind: List\nitems:\n- kind: List\n  items: [{}]\n- {}\n", json("five"), json("six")),
    );
    let names = |arguments: &[&str]| {
        let output = preview(&[&["--inject", "-o", "json"], arguments].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = list["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "Deployment");
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let path = folder.path().to_str().unwrap();
    assert_eq!(names(&["-f", path]), ["two", "three", "four", "one"]);
    assert_eq!(names(&["-R", "-f", path]), ["two", "three", "four", "one", "five", "six"]);
    let (b, c) = (format!("{path}/b.yml"), format!("{path}/deeper/c.yaml"));
    assert_eq!(names(&["-f", &b, "-f", &c]), ["one", "five", "six"]);
    assert_eq!(names(&["-f", &format!("{c},{b}")]), ["five", "six", "one"]);
    let empty = preview(&["-f", &format!("{path}/deeper/none")], "");
    assert_eq!(empty.status.code(), Some(2));
}

#[test]
fn where_an_annotation_has_to_stand_is_told() {
    let asks = |head: &str, spec: &str| {
        let object =
            format!("{{{head}, metadata: {{name: edge, annotations: {{gwmon.io/inject: \"true\"}}}}, spec: {spec}}}");
        let output = preview(&["-f", "-"], &object);
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let pod = "{spec: {containers: [{name: envoy, image: 'envoyproxy/envoy:v1.34.0', args: [-c, /e.yaml]}]}}";
    let template = format!("{{template: {pod}}}");
    for (head, spec, place) in [
        ("apiVersion: argoproj.io/v1alpha1, kind: Rollout", &template, "in spec.template.metadata.annotations"),
        ("apiVersion: apps/v1, kind: ReplicaSet", &template, "in spec.template.metadata.annotations"),
        ("apiVersion: extensions/v1beta1, kind: Deployment", &template, "in spec.template.metadata.annotations"),
        (
            "apiVersion: apps.openshift.io/v1, kind: DeploymentConfig",
            &template,
            "in spec.template.metadata.annotations",
        ),
        ("apiVersion: batch/v1, kind: Job", &template, "in spec.template.metadata.annotations"),
        (
            "apiVersion: batch/v1, kind: CronJob",
            &format!("{{jobTemplate: {{spec: {template}}}}}"),
            "in spec.jobTemplate.spec.template.metadata.annotations",
        ),
    ] {
        let (code, said) = asks(head, spec);
        assert_eq!(code, Some(1), "{head}: {said}");
        assert!(said.contains("AnnotationMisplaced") && said.contains(place), "{head}: {said}");
    }
}

#[test]
fn a_gateway_that_nobody_has_annotated_is_named() {
    let plain = PLAIN.replace("NAME", "edge");
    let output = preview(&["-f", "-"], &plain);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(said.contains("it is envoy 1.34, in container envoy; to have it monitored: kubectl annotate deployment.apps/edge -n gw gwmon.io/inject=true"), "{said}");
    let rollout = plain.replace("apps/v1", "argoproj.io/v1alpha1").replace("Deployment", "Rollout");
    let said = preview(&["-f", "-"], &rollout);
    assert!(
        text(&said.stderr).contains("set gwmon.io/inject: \"true\" in spec.template.metadata.annotations"),
        "{}",
        text(&said.stderr)
    );
    for object in [plain.as_str(), &rollout] {
        let asked = preview(&["-f", "-", "--inject", "-o", "yaml"], object);
        assert!(text(&asked.stdout).contains("gwmon-statsd-exporter"), "{}", text(&asked.stderr));
    }
    // Nobody is asked against their will, and what is no gateway is left alone.
    let declined = plain.replace("namespace: gw}", "namespace: gw, annotations: {gwmon.io/inject: \"false\"}}");
    for object in [declined, plain.replace("envoyproxy/envoy", "nginx")] {
        assert!(preview(&["-f", "-", "--inject"], &object).stdout.is_empty());
    }
}

#[test]
fn a_network_policy_that_keeps_prometheus_away_is_told() {
    // In the shape of the policies that the charts of Contour and Kong come with.
    let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: envoy, namespace: projectcontour}\nspec: {podSelector: {matchLabels: {app: envoy}}, policyTypes: [Ingress], ingress: [{ports: [{port: 8080}, {port: 8443}, {port: 8002}]}]}\n";
    let contour =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/contour-daemonset.yaml")).unwrap();
    let said = |policy: &str, arguments: &[&str]| {
        let output =
            preview(&[&["-f", "-", "--prometheus", PROMETHEUS], arguments].concat(), &format!("{contour}{policy}"));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr).to_owned()
    };
    let denied = said(policy, &[]);
    assert!(
        denied.contains(
            "NetworkPolicyDenies: NetworkPolicy projectcontour/envoy lets nothing of monitoring in at port 9102"
        ),
        "{denied}"
    );
    assert!(denied.contains("add to its spec.ingress: {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}], ports: [{port: 9102}]}"), "{denied}");
    assert!(denied.contains("or set gwmon.io/mode: scrape, which scrapes port 8002"), "{denied}");
    assert!(!said(&policy.replace("8002", "9102"), &[]).contains("NetworkPolicyDenies"));
    assert!(!said("", &[]).contains("NetworkPolicyDenies"));
}

#[test]
fn a_stream_may_be_as_long_as_it_likes() {
    let stream: String = (0..1100).map(|number| PLAIN.replace("NAME", &format!("edge-{number}")) + "---\n").collect();
    let output = preview(&["-f", "-", "--inject", "-o", "patch"], &stream);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 1100);
    let octal = PLAIN.replace("NAME", "edge").replace(
        "spec: {containers",
        "spec: {volumes: [{name: s, secret: {secretName: s, defaultMode: 0400}}], containers",
    );
    let output = preview(&["-f", "-", "--inject", "-o", "json"], &octal);
    assert!(text(&output.stdout).contains("\"defaultMode\": 256"), "{}", text(&output.stderr));
}

#[test]
fn an_object_that_is_odd_ends_nothing() {
    let good = PLAIN.replace("NAME", "edge");
    for (odd, said) in [
        ("{kind: NetworkPolicy, metadata: foo}", "metadata: it must be a map"),
        (
            "{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: {metadata: foo, spec: {}}}}",
            "spec.template.metadata: it must be a map",
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, annotations: []}, spec: {template: {spec: {containers: []}}}}",
            "metadata.annotations: it must be a map",
        ),
        ("{apiVersion: v1, kind: LimitRange, metadata: {name: r}, spec: {limits: foo}}", "limits"),
    ] {
        let output = preview(&["-f", "-", "--inject", "-o", "patch"], &format!("{odd}\n---\n{good}"));
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{odd}: {errors}");
        assert!(
            errors.contains("error: standard input, document 1, line 1: ") && errors.contains(said),
            "{odd}: {errors}"
        );
        assert_eq!(text(&output.stdout).lines().count(), 1, "{odd}: {errors}");
    }
    // What a Deployment makes is the Deployment's to annotate.
    let made = good.replace("Deployment", "ReplicaSet").replace("namespace: gw}", "namespace: gw, annotations: {gwmon.io/inject: \"true\"}, ownerReferences: [{kind: Deployment, name: edge, controller: true}]}");
    let output = preview(&["-f", "-"], &made);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("Deployment edge controls it"), "{}", text(&output.stderr));
}

#[test]
fn a_pipe_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writing = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, PLAIN.replace("NAME", "edge")).unwrap()
    });
    let output = preview(&["--inject", "-o", "patch", "-f", pipe.to_str().unwrap()], "");
    writing.join().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 1, "{}", text(&output.stderr));
}

#[test]
fn names_and_the_exit_code_are_for_scripts() {
    let names = preview(&["-f", CASE, "--prometheus", PROMETHEUS, "-o", "names"], "");
    let expected = "deployment.apps/edge -n edge\nservice/edge-gwmon -n edge\nservicemonitor.monitoring.coreos.com/edge-gwmon -n edge\n";
    assert_eq!((names.status.code(), text(&names.stdout)), (Some(0), expected));
    let code = |arguments: &[&str], input: &str| preview(&[&["--exit-code"], arguments].concat(), input).status.code();
    assert_eq!(code(&["-f", CASE], ""), Some(3));
    let quiet = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: web, image: httpd}]}}}\n";
    assert_eq!(code(&["-f", "-"], quiet), Some(0));
    // What cannot be done comes before what would change.
    let asks = quiet.replace("{name: web}\nspec", "{name: web, annotations: {gwmon.io/inject: \"true\"}}\nspec");
    assert_eq!(code(&["-f", CASE, "-f", "-"], &asks), Some(1));
    assert_eq!(code(&["-f", CASE, "--context", "x"], ""), Some(2), "a cluster that nobody asks");
}
