//! `gwmon doctor` against faults on the real thing: each is made, found by its reason and by no other, and mended. The numbers D1
//! to D20 are those of the causes in docs/troubleshooting.md.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon_cluster::{Kubectl, Node, Prometheus, scenario, wait_for};
use serde_json::{Value, json};

/// How long a fault or its mending may take to be seen: a kubelet, an operator and a Prometheus are between.
const PATIENCE: Duration = Duration::from_mins(4);

/// Somebody who may only look: the role `view` of Kubernetes', in every namespace.
const VIEWER: &str = "viewer";

/// One fault.
struct Fault {
    name: &'static str,
    /// What is to be found, and nothing else.
    expected: &'static [&'static str],
    /// Words of one of the findings.
    words: &'static str,
    strike: fn(&Kubectl) -> Result<()>,
    mend: fn(&Kubectl) -> Result<()>,
}

pub(crate) fn every_fault_is_found() -> Result<()> {
    let (node, kubectl) = super::fixture()?;
    let _traffic = scenario::Traffic::start(&node, "app=edge")?;
    scenario::annotate(&kubectl)?;
    scenario::target_up(&Prometheus::of(&kubectl), scenario::POOL)?;
    kubectl.run(&format!("create clusterrolebinding {VIEWER} --clusterrole=view --user={VIEWER}"))?;

    healthy(&kubectl)?;
    a_viewer_sees_no_fault(&kubectl)?;
    status_shows_the_gateway(&kubectl)?;
    explain_marks_the_cause(&kubectl)?;
    the_bundle_has_no_secret(&kubectl)?;
    for fault in FAULTS {
        try_fault(&kubectl, fault, &[])?;
    }
    another_version_is_seen(&node, &kubectl)?;
    // Without its controller, nobody puts right what is changed.
    kubectl.run("-n gwmon scale deployment gwmon --replicas=0")?;
    kubectl.run("-n gwmon wait --for=delete pod -l app.kubernetes.io/name=gwmon --timeout=90s")?;
    found(&kubectl, &["WebhookUnreachable"], "no ready address")?;
    for fault in WITHOUT_CONTROLLER {
        try_fault(&kubectl, fault, &["WebhookUnreachable"])?;
    }
    kubectl.run("-n gwmon scale deployment gwmon --replicas=2")?;
    kubectl.run("-n gwmon rollout status deploy/gwmon --timeout=90s")?;
    healthy(&kubectl)?;
    repair_restarts_what_was_missed(&kubectl)?;
    a_suspension_is_found(&kubectl)
}

/// An exporter whose image nobody has: gwmon goes on without it, and the doctor says so. Nothing follows this: it takes its time to
/// come back, which `faults.rs` tries.
fn a_suspension_is_found(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(
        "-n gwmon set env deployment/gwmon -c gwmon GWMON_EXPORTER_IMAGE=registry.invalid/x:v1 GWMON_SUSPEND_AFTER=5s",
    )?;
    kubectl.run("-n gwmon rollout status deploy/gwmon --timeout=90s")?;
    // The old replicas answer for ten seconds more.
    wait_for("the old replicas to go", Duration::from_mins(1), || {
        let pods = kubectl.run("-n gwmon get pods -l app.kubernetes.io/name=gwmon -o name")?.out;
        Ok((pods.lines().count() == 2).then_some(()))
    })?;
    kubectl.run("-n edge rollout restart deploy/edge")?;
    found(kubectl, &["ImageNotPulled", "InjectionSuspended"], "registry.invalid/x:v1")
}

fn try_fault(kubectl: &Kubectl, fault: &Fault, besides: &[&str]) -> Result<()> {
    eprintln!("  {}", fault.name);
    (fault.strike)(kubectl).with_context(|| format!("{}: cannot strike", fault.name))?;
    let expected = [fault.expected, besides].concat();
    found(kubectl, &expected, fault.words).with_context(|| fault.name)?;
    (fault.mend)(kubectl).with_context(|| format!("{}: cannot mend", fault.name))?;
    found(kubectl, besides, "").with_context(|| format!("{}, mended", fault.name))
}

fn healthy(kubectl: &Kubectl) -> Result<()> {
    found(kubectl, &[], "").context("a healthy cluster")
}

/// Waits until the doctor finds these reasons and no others.
fn found(kubectl: &Kubectl, expected: &[&str], words: &str) -> Result<()> {
    let expected: BTreeSet<_> = expected.iter().map(ToString::to_string).collect();
    let mut last = String::new();
    let waited = wait_for("the doctor's findings", PATIENCE, || {
        let (code, report) = doctor(kubectl, &[])?;
        let found = findings(&report);
        let reasons: BTreeSet<_> = found.iter().map(|(reason, _)| reason.clone()).collect();
        last = format!("{found:#?}");
        let has_failed = report["checks"].as_array().into_iter().flatten().any(|check| check["verdict"] == "FAIL");
        ensure!(code == i32::from(has_failed), "exit code {code}");
        let has_words = words.is_empty() || found.iter().any(|(_, fact)| fact.contains(words));
        Ok((reasons == expected && has_words).then_some(()))
    });
    waited.with_context(|| format!("expected {expected:?} with {words:?}; the last findings: {last}"))
}

/// Reason and fact of each warning and failure.
fn findings(report: &Value) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().into_iter().flatten();
    let bad = checks.filter(|check| check["verdict"] == "WARN" || check["verdict"] == "FAIL");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    bad.map(|check| (text(&check["reason"]), format!("{}: {}", text(&check["object"]), text(&check["fact"])))).collect()
}

fn doctor(kubectl: &Kubectl, arguments: &[&str]) -> Result<(i32, Value)> {
    let (code, out) = gwmon(kubectl, &[&["doctor", "-o", "json"], arguments].concat())?;
    Ok((code, serde_json::from_str(&out).with_context(|| out.clone())?))
}

fn gwmon(kubectl: &Kubectl, arguments: &[&str]) -> Result<(i32, String)> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_gwmon")).args(arguments).env("KUBECONFIG", kubectl.kubeconfig()).output()?;
    let code = output.status.code().context("killed")?;
    ensure!(code < 2, "gwmon {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((code, String::from_utf8(output.stdout)?))
}

fn a_viewer_sees_no_fault(kubectl: &Kubectl) -> Result<()> {
    let (code, report) = doctor(kubectl, &["--as", VIEWER])?;
    ensure!(code == 0 && findings(&report).is_empty(), "{:#?}", findings(&report));
    let skipped = report["checks"].as_array().into_iter().flatten().filter(|check| check["verdict"] == "SKIP");
    let facts: Vec<_> = skipped.filter_map(|check| check["fact"].as_str()).collect();
    for right in ["cannot list resource \"mutatingwebhookconfigurations\"", "cannot list resource \"prometheuses\""] {
        ensure!(facts.iter().any(|fact| fact.contains(right)), "{right}: {facts:#?}");
    }
    Ok(())
}

fn explain_marks_the_cause(kubectl: &Kubectl) -> Result<()> {
    let (code, lines) = gwmon(kubectl, &["explain", "deploy/edge", "-n", "edge"])?;
    ensure!(code == 0, "{lines}");
    for step in [
        "annotation",
        "template",
        "webhook",
        "pods",
        "gateway",
        "sidecar",
        "service",
        "endpoints",
        "service-monitor",
        "selection",
        "prometheus",
        "scrape-rights",
        "network",
        "target",
        "samples",
    ] {
        ensure!(lines.lines().any(|line| line.starts_with(&format!("OK   {step} "))), "{step}: {lines}");
    }
    super::Shell::new(kubectl)?.run("docs/troubleshooting.md", "no-data")?;
    impossible_selector(kubectl)?;
    let lines = wait_for("the cause", PATIENCE, || {
        let (code, lines) = gwmon(kubectl, &["explain", "edge", "-n", "edge"])?;
        Ok((code == 1).then_some(lines))
    })?;
    let all: Vec<_> = lines.lines().collect();
    // What the page shows, to the letter.
    let page = std::fs::read_to_string("docs/troubleshooting.md")?;
    let shown = page.split_once("```text\n").and_then(|(_, rest)| rest.split_once("```")).context("no transcript")?.0;
    for line in shown.lines().filter(|line| *line != "...") {
        ensure!(all.contains(&line), "{line:?} is not in\n{lines}");
    }
    let marked: Vec<_> = all.windows(2).filter(|pair| pair[1].contains("This is the cause.")).collect();
    ensure!(marked.len() == 1 && marked[0][0].contains("NotSelected"), "{lines}");
    original_prometheus(kubectl)?;
    healthy(kubectl)
}

fn status_shows_the_gateway(kubectl: &Kubectl) -> Result<()> {
    let line = wait_for("a line about the gateway", PATIENCE, || {
        let (_, out) = gwmon(kubectl, &["status", "-n", "edge", "-o", "json"])?;
        let report: Value = serde_json::from_str(&out)?;
        let line = report["gateways"][0].clone();
        Ok((line["health"] == "OK" && line["samplesPerSecond"].as_f64() > Some(0.)).then_some(line))
    })?;
    for (field, value) in [
        ("workload", json!("deployment.apps/edge")),
        ("gateway", json!("envoy")),
        ("mode", json!("statsd")),
        ("podsInjected", json!(1)),
        ("pods", json!(1)),
        ("template", json!("current")),
        ("serviceMonitor", json!("edge-gwmon")),
        ("prometheus", json!("monitoring/k8s")),
        ("targetsUp", json!(1)),
        ("reason", json!("Monitored")),
    ] {
        ensure!(line[field] == value, "{field}: {line:#}");
    }
    let (_, table) = gwmon(kubectl, &["status", "-A"])?;
    ensure!(table.starts_with("NAMESPACE") && table.contains("deployment.apps/edge"), "{table}");
    let (_, names) = gwmon(kubectl, &["status", "-A", "-o", "name"])?;
    ensure!(names == "deployment.apps/edge\n", "{names}");
    Ok(())
}

fn the_bundle_has_no_secret(kubectl: &Kubectl) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bundle.tar.gz");
    kubectl.run("-n edge set env deployment/edge PASSWORD=hunter2")?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s")?;
    gwmon(kubectl, &["doctor", "--collect", &file.display().to_string()])?;
    let unpacked = Command::new("tar").arg("-xzOf").arg(&file).output()?;
    let text = String::from_utf8(unpacked.stdout)?;
    ensure!(unpacked.status.success() && text.contains("PASSWORD") && text.contains("edge-gwmon"), "{}", text.len());
    ensure!(!text.contains("hunter2") && !text.contains("PRIVATE KEY"), "a secret in the bundle");
    ensure!(std::fs::read_dir(folder.path())?.count() == 1, "something is left beside it");
    kubectl.run("-n edge set env deployment/edge PASSWORD-")?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s")?;
    healthy(kubectl)
}

/// gwmon's own image under the tag of another version.
fn another_version_is_seen(node: &Node, kubectl: &Kubectl) -> Result<()> {
    let pods = kubectl.get("-n gwmon pods -l app.kubernetes.io/name=gwmon")?;
    let containers = pods["items"][0]["spec"]["containers"].as_array().into_iter().flatten();
    let image = containers.filter(|container| container["name"] == "gwmon").find_map(|it| it["image"].as_str());
    let image = image.context("no image")?;
    let name = image.rsplit_once(':').context("no tag")?.0;
    let other = format!("{name}:0.0.9");
    // containerd knows no short names.
    let whole = |image: &str| if image.contains('/') { image.to_owned() } else { format!("docker.io/library/{image}") };
    let mut tag = node.inside("ctr");
    tag.args(["-n", "k8s.io", "images", "tag", "--force", &whole(image), &whole(&other)]);
    gwmon_cluster::run(tag)?;
    kubectl.run(&format!("-n gwmon set image deployment/gwmon gwmon={other}"))?;
    kubectl.run("-n gwmon rollout status deploy/gwmon --timeout=90s")?;
    found(kubectl, &["VersionSkew"], "gwmon 0.0.9 runs in the cluster; this command is")?;
    kubectl.run("-n gwmon rollout undo deployment gwmon")?;
    kubectl.run("-n gwmon rollout status deploy/gwmon --timeout=90s")?;
    healthy(kubectl)
}

/// Pods that were made while the webhook was gone are restarted, and those alone.
fn repair_restarts_what_was_missed(kubectl: &Kubectl) -> Result<()> {
    let (code, said) = gwmon(kubectl, &["repair", "-A"])?;
    ensure!(code == 0 && said == "nothing to repair\n", "{said}");
    missed(kubectl)?;
    found(kubectl, &["MissedInjection"], "1 of 1 pods run without")?;
    let before = scenario::pod(kubectl)?["metadata"]["name"].clone();
    let (code, said) = gwmon(kubectl, &["repair", "deploy/edge", "-n", "edge", "--dry-run"])?;
    ensure!(code == 0 && said.contains("would be restarted"), "{said}");
    ensure!(scenario::pod(kubectl)?["metadata"]["name"] == before, "a dry run changes nothing");
    let (code, said) = gwmon(kubectl, &["repair", "-n", "edge"])?;
    ensure!(code == 0 && said.contains("its pods are injected"), "{said}");
    healthy(kubectl)
}

fn patch(kubectl: &Kubectl, what: &str, patch: &Value) -> Result<()> {
    let words: Vec<_> = what.split(' ').collect();
    let patch = patch.to_string();
    kubectl.run_with(&[&["patch"], &words[..], &["--type=merge", "-p", &patch]].concat(), "").map(drop)
}

fn prometheus(kubectl: &Kubectl, change: &Value) -> Result<()> {
    patch(kubectl, "prometheus k8s -n monitoring", change)
}

fn impossible_selector(kubectl: &Kubectl) -> Result<()> {
    let expression = |operator: &str| json!({"key": "release", "operator": operator});
    let selector = json!({"matchLabels": null, "matchExpressions": [expression("Exists"), expression("DoesNotExist")]});
    prometheus(kubectl, &json!({"spec": {"serviceMonitorSelector": selector}}))
}

/// As `tests/cluster/monitoring/prometheus.yaml` has it.
fn original_prometheus(kubectl: &Kubectl) -> Result<()> {
    let selector = json!({"matchLabels": {"release": "prometheus"}, "matchExpressions": null});
    let spec = json!({"serviceMonitorSelector": selector, "serviceMonitorNamespaceSelector": {}, "paused": null, "additionalScrapeConfigs": null});
    prometheus(kubectl, &json!({"metadata": {"labels": {"chart": null}}, "spec": spec}))
}

/// Has a pod made while the API server does not call gwmon.
fn missed(kubectl: &Kubectl) -> Result<()> {
    let configuration = kubectl.run("get mutatingwebhookconfiguration gwmon -o yaml")?.out;
    kubectl.run("delete mutatingwebhookconfiguration gwmon")?;
    kubectl.run("-n edge delete pod -l app=edge")?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s")?;
    let mut configuration: Value = serde_saphyr::from_str(&configuration)?;
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        configuration["metadata"][field] = Value::Null;
    }
    kubectl.apply(&configuration.to_string()).map(drop)
}

/// New pods, and so new exporters that know nothing of the lines before.
fn restart(kubectl: &Kubectl) -> Result<()> {
    kubectl.run("-n edge rollout restart deploy/edge")?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s").map(drop)
}

/// A sink in the gateway's own configuration.
const OWN_SINK: &str = "stats_sinks: [{name: envoy.stat_sinks.statsd, typed_config: {\"@type\": type.googleapis.com/envoy.config.metrics.v3.StatsdSink, address: {socket_address: {address: 127.0.0.1, port_value: 9125, protocol: UDP}}}}]\n";

const FAULTS: &[Fault] = &[
    Fault {
        name: "D1: no label can satisfy the selector",
        expected: &["NotSelected"],
        words: "spec.serviceMonitorSelector",
        strike: impossible_selector,
        mend: original_prometheus,
    },
    Fault {
        name: "D6: pods that were created before the webhook",
        expected: &["MissedInjection"],
        words: "1 of 1 pods run without",
        strike: missed,
        mend: restart,
    },
    Fault {
        name: "D7: Prometheus may not discover targets",
        expected: &["ScrapeRBACMissing"],
        words: "may not list services, pods, endpointslices in edge",
        strike: |kubectl| kubectl.run("delete clusterrolebinding prometheus").map(drop),
        mend: |kubectl| {
            let account = "--serviceaccount=monitoring:prometheus";
            kubectl.run(&format!("create clusterrolebinding prometheus --clusterrole=prometheus {account}")).map(drop)
        },
    },
    Fault {
        name: "D9: a ServiceMonitor of somebody else's finds the pods too",
        expected: &["SelectedTwice"],
        words: "it finds the pods of edge-gwmon as well",
        strike: |kubectl| {
            let spec = json!({"selector": {"matchLabels": {"gwmon.io/metrics-for": "edge-gwmon"}}, "endpoints": [{"port": "gwmon-metrics"}]});
            let metadata = json!({"name": "again", "namespace": "edge", "labels": {"release": "prometheus"}});
            kubectl.apply(&json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": metadata, "spec": spec}).to_string()).map(drop)
        },
        mend: |kubectl| kubectl.run("-n edge delete servicemonitor again").map(drop),
    },
    Fault {
        name: "D10: a metric has a label of the target's",
        expected: &["LabelsRenamed"],
        words: "exported_namespace",
        strike: |kubectl| {
            let tags = "stats_config: {stats_tags: [{tag_name: namespace, fixed_value: elsewhere}]}\n";
            another_gateway(kubectl, |_, config| config.insert_str(0, tags))
        },
        mend: no_other_gateway,
    },
    Fault {
        name: "D11: a NetworkPolicy closes the port",
        expected: &["NetworkPolicyDenies"],
        words: "NetworkPolicy edge/closed lets nothing of monitoring in",
        strike: |kubectl| {
            let spec =
                json!({"podSelector": {"matchLabels": {"app": "edge"}}, "ingress": [{"ports": [{"port": 8080}]}]});
            let metadata = json!({"name": "closed", "namespace": "edge"});
            kubectl.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}).to_string()).map(drop)
        },
        mend: |kubectl| kubectl.run("-n edge delete networkpolicy closed").map(drop),
    },
    Fault {
        name: "D11: a mesh takes the port",
        expected: &["MeshInterceptsPort"],
        words: "Istio's sidecar takes port 9102",
        strike: |kubectl| {
            kubectl.run("-n edge annotate pod -l app=edge --overwrite sidecar.istio.io/status={} traffic.sidecar.istio.io/excludeInboundPorts-").map(drop)
        },
        mend: restart,
    },
    Fault {
        name: "D13: nobody reads ServiceMonitors",
        expected: &["NoPrometheus"],
        words: "no Prometheus or other object",
        strike: |kubectl| kubectl.run("-n monitoring delete prometheus k8s").map(drop),
        mend: |kubectl| {
            let manifests = std::fs::read_to_string(gwmon_cluster::folder().join("monitoring/prometheus.yaml"))?;
            let versions = std::fs::read_to_string(gwmon_cluster::cache().join("versions"))?;
            let version = versions.lines().find_map(|line| line.strip_prefix("PROMETHEUS="));
            kubectl.apply(&manifests.replace("PROMETHEUS_VERSION", version.context("no version")?))?;
            scenario::target_up(&Prometheus::of(kubectl), scenario::POOL).map(drop)
        },
    },
    Fault {
        name: "D14: the CRD is older than a field",
        expected: &["CustomResourceOutdated"],
        words: "spec.endpoints[0].interval",
        strike: |kubectl| {
            let interval = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/endpoints/items/properties/interval";
            let patch = json!([{"op": "remove", "path": interval}]).to_string();
            let crd = ["patch", "crd", "servicemonitors.monitoring.coreos.com", "--type=json", "-p", &patch];
            kubectl.run_with(&crd, "")?;
            kubectl.run("-n edge annotate deployment edge gwmon.io/interval=5s")?;
            kubectl.run("-n edge rollout status deploy/edge --timeout=90s").map(drop)
        },
        mend: |kubectl| {
            let crd = gwmon_cluster::operators_crds().join("monitoring.coreos.com_servicemonitors.yaml");
            kubectl.run(&format!("replace -f {}", crd.display()))?;
            kubectl.run("-n edge annotate deployment edge gwmon.io/interval-")?;
            kubectl.run("-n edge rollout status deploy/edge --timeout=90s").map(drop)
        },
    },
    Fault {
        name: "D15: nobody loads a rule",
        expected: &["RuleNotSelected"],
        words: "loads no rules: it has no spec.ruleSelector",
        strike: |kubectl| {
            let rule = json!({"alert": "Errors", "expr": "envoy_cluster_upstream_rq_xx > 1"});
            let metadata = json!({"name": "errors", "namespace": "edge"});
            kubectl.apply(&json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": {"groups": [{"name": "edge", "rules": [rule]}]}}).to_string()).map(drop)
        },
        mend: |kubectl| kubectl.run("-n edge delete prometheusrule errors").map(drop),
    },
    Fault {
        name: "D16: the gateway sends nothing",
        expected: &["NoSamples"],
        words: "the exporters have received nothing",
        strike: |kubectl| {
            let none = "stats_config: {stats_matcher: {reject_all: true}}\n";
            another_gateway(kubectl, |_, config| config.insert_str(0, none))
        },
        mend: no_other_gateway,
    },
    Fault {
        name: "D17: an exporter of the user's own makes summaries",
        expected: &["SummariesExported"],
        words: "label quantile",
        strike: |kubectl| {
            let image = scenario::exporter_image()?;
            let exporter = json!({"name": "exporter", "image": image, "args": ["--statsd.listen-udp=127.0.0.1:9125"], "ports": [{"containerPort": 9102}]});
            another_gateway(kubectl, |deployment, config| {
                config.insert_str(0, OWN_SINK);
                if let Some(containers) = deployment["spec"]["template"]["spec"]["containers"].as_array_mut() {
                    containers.push(exporter.clone());
                }
            })
        },
        mend: no_other_gateway,
    },
    Fault {
        name: "D18: the exporter rejects lines",
        expected: &["SamplesLost"],
        words: "sample_errors_total invalid_sample_factor",
        strike: |kubectl| {
            // Envoy does not escape what it sends, and a part of a line ends at this character.
            another_gateway(kubectl, |_, config| {
                *config = config.replace("clusters:\n", "clusters:\n  - {name: \"shop|blue\"}\n");
            })
        },
        mend: no_other_gateway,
    },
    Fault {
        name: "D19: the Prometheus is paused",
        expected: &["PrometheusPaused"],
        words: "is paused (spec.paused)",
        strike: |kubectl| prometheus(kubectl, &json!({"spec": {"paused": true}})),
        mend: original_prometheus,
    },
    Fault {
        name: "D19: the operator is down",
        expected: &["PrometheusNotRunning"],
        words: "its operator",
        strike: |kubectl| operator(kubectl, 0),
        mend: |kubectl| operator(kubectl, 1),
    },
    Fault {
        name: "D20: Prometheus cannot load its configuration",
        expected: &["PrometheusNotReloaded"],
        words: "cannot load its newest configuration",
        strike: |kubectl| {
            let job = "- {job_name: x, scrape_interval: 1s, scrape_timeout: 9s}";
            let literal = format!("--from-literal=extra.yaml={job}");
            kubectl.run("-n monitoring delete secret extra --ignore-not-found")?;
            kubectl.run_with(&["-n", "monitoring", "create", "secret", "generic", "extra", &literal], "")?;
            let extra = json!({"name": "extra", "key": "extra.yaml"});
            prometheus(kubectl, &json!({"spec": {"additionalScrapeConfigs": extra}}))?;
            look_again(kubectl)
        },
        mend: |kubectl| {
            original_prometheus(kubectl)?;
            kubectl.run("-n monitoring delete secret extra")?;
            look_again(kubectl)
        },
    },
    Fault {
        name: "a failurePolicy that keeps pods out",
        expected: &["WebhookBlocksPods"],
        words: "pods.gwmon.io",
        strike: |kubectl| failure_policy(kubectl, "Fail"),
        mend: |kubectl| failure_policy(kubectl, "Ignore"),
    },
    Fault {
        name: "a caBundle that somebody else wrote, and no right to mend it",
        expected: &["CertificateNotUpdated"],
        words: "caBundle",
        strike: |kubectl| {
            let role = kubectl.get("clusterrole gwmon")?;
            let rules = role["rules"].as_array().cloned().unwrap_or_default();
            let is_kept = |rule: &Value| rule["resources"] != json!(["mutatingwebhookconfigurations"]);
            let kept: Vec<_> = rules.into_iter().filter(is_kept).collect();
            patch(kubectl, "clusterrole gwmon", &json!({"rules": kept}))?;
            let other = rcgen::generate_simple_self_signed(["gwmon.gwmon.svc".to_owned()])?.cert.pem();
            let bundle = BASE64_STANDARD.encode(other);
            let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]);
            let words = ["patch", "mutatingwebhookconfiguration", "gwmon", "--type=json", "-p", &patch.to_string()];
            kubectl.run_with(&words, "").map(drop)
        },
        mend: |kubectl| {
            let manifests = std::fs::read_to_string("deploy/base/rbac.yaml")?;
            kubectl.apply(&manifests).map(drop)
        },
    },
    Fault {
        name: "a gateway that is not ready",
        expected: &["NoEndpoints"],
        words: "it has no ready address; 1 pods are injected",
        strike: |kubectl| {
            apply_gateway(kubectl, |deployment, _| {
                let gate = json!([{"conditionType": "example.com/attached"}]);
                deployment["spec"]["template"]["spec"]["readinessGates"] = gate;
            })?;
            attach(kubectl, "True")?;
            kubectl.run("-n edge rollout status deploy/other --timeout=90s")?;
            attach(kubectl, "False")
        },
        mend: no_other_gateway,
    },
    Fault {
        name: "pods that a quota refuses",
        expected: &["PodRefused"],
        words: "exceeded quota",
        strike: |kubectl| {
            kubectl.run("-n edge create quota few --hard=pods=1")?;
            kubectl.run("-n edge scale deployment edge --replicas=2").map(drop)
        },
        mend: |kubectl| {
            kubectl.run("-n edge scale deployment edge --replicas=1")?;
            kubectl.run("-n edge delete quota few").map(drop)
        },
    },
];

const WITHOUT_CONTROLLER: &[Fault] = &[
    Fault {
        name: "D2: the chart's default selector",
        expected: &["NotSelected"],
        words: "serviceMonitorSelectorNilUsesHelmValues",
        strike: |kubectl| {
            let labels = json!({"chart": "kube-prometheus-stack-77.0.0"});
            let selector = json!({"matchLabels": {"release": "kps"}});
            prometheus(kubectl, &json!({"metadata": {"labels": labels}, "spec": {"serviceMonitorSelector": selector}}))
        },
        mend: original_prometheus,
    },
    Fault {
        name: "D3: the Prometheus reads other namespaces",
        expected: &["NotSelected"],
        words: "spec.serviceMonitorNamespaceSelector needs team=shop",
        strike: |kubectl| {
            prometheus(
                kubectl,
                &json!({"spec": {"serviceMonitorNamespaceSelector": {"matchLabels": {"team": "shop"}}}}),
            )
        },
        mend: |kubectl| {
            prometheus(kubectl, &json!({"spec": {"serviceMonitorNamespaceSelector": {"matchLabels": null}}}))
        },
    },
    Fault {
        name: "D4: the ServiceMonitor selects no Service",
        expected: &["ObjectChanged"],
        words: "it selects no Service: spec.selector needs team=shop",
        strike: |kubectl| {
            patch(
                kubectl,
                "servicemonitor edge-gwmon -n edge",
                &json!({"spec": {"selector": {"matchLabels": {"team": "shop"}}}}),
            )
        },
        mend: |kubectl| {
            patch(
                kubectl,
                "servicemonitor edge-gwmon -n edge",
                &json!({"spec": {"selector": {"matchLabels": {"team": null}}}}),
            )
        },
    },
    Fault {
        name: "D5: the ServiceMonitor names another port",
        expected: &["ObjectChanged"],
        words: "spec.endpoints names the port \"metrics\"",
        strike: |kubectl| port(kubectl, "metrics"),
        mend: |kubectl| port(kubectl, "gwmon-metrics"),
    },
    Fault {
        name: "D6: the Service selects other pods",
        expected: &["ObjectChanged"],
        words: "spec.selector is",
        strike: |kubectl| {
            patch(kubectl, "service edge-gwmon -n edge", &json!({"spec": {"selector": {"team": "shop"}}}))
        },
        mend: |kubectl| patch(kubectl, "service edge-gwmon -n edge", &json!({"spec": {"selector": {"team": null}}})),
    },
    Fault {
        name: "D8: the operator rejects the ServiceMonitor",
        expected: &["MonitorRejected"],
        words: "scrapeTimeout 9s is longer than the interval",
        strike: |kubectl| scrape_timeout(kubectl, &json!("9s")),
        mend: |kubectl| scrape_timeout(kubectl, &Value::Null),
    },
];

/// Has the kubelet look at the Prometheus' configuration now, and not within two minutes.
fn look_again(kubectl: &Kubectl) -> Result<()> {
    for time in ["first", "second"] {
        // The operator writes the configuration in between.
        std::thread::sleep(Duration::from_secs(4));
        kubectl.run(&format!("-n monitoring annotate pod prometheus-k8s-0 --overwrite looked={time}"))?;
    }
    Ok(())
}

fn port(kubectl: &Kubectl, name: &str) -> Result<()> {
    let endpoint = json!({"port": name, "path": "/metrics"});
    patch(kubectl, "servicemonitor edge-gwmon -n edge", &json!({"spec": {"endpoints": [endpoint]}}))
}

fn scrape_timeout(kubectl: &Kubectl, timeout: &Value) -> Result<()> {
    let endpoint = json!({"port": "gwmon-metrics", "path": "/metrics", "scrapeTimeout": timeout});
    patch(kubectl, "servicemonitor edge-gwmon -n edge", &json!({"spec": {"endpoints": [endpoint]}}))
}

fn operator(kubectl: &Kubectl, replicas: usize) -> Result<()> {
    let label = "app.kubernetes.io/name=prometheus-operator";
    kubectl.run(&format!("-n monitoring scale deployment -l {label} --replicas={replicas}")).map(drop)
}

fn failure_policy(kubectl: &Kubectl, policy: &str) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": policy}]).to_string();
    let words = ["patch", "mutatingwebhookconfiguration", "gwmon", "--type=json", "-p", &patch];
    kubectl.run_with(&words, "").map(drop)
}

/// What a load balancer's controller tells of a pod.
fn attach(kubectl: &Kubectl, status: &str) -> Result<()> {
    let conditions =
        json!({"status": {"conditions": [{"type": "example.com/attached", "status": status}]}}).to_string();
    let pod = wait_for("the pod", Duration::from_secs(30), || {
        Ok(kubectl.run("-n edge get pods -l app=other -o name")?.out.lines().next().map(str::to_owned))
    })?;
    kubectl.run_with(&["-n", "edge", "patch", &pod, "--subresource=status", "-p", &conditions], "").map(drop)
}

/// A second gateway beside the first, with something different: its Deployment, its Envoy's configuration.
fn another_gateway(kubectl: &Kubectl, change: impl Fn(&mut Value, &mut String)) -> Result<()> {
    apply_gateway(kubectl, change)?;
    kubectl.run("-n edge rollout status deploy/other --timeout=90s").map(drop)
}

fn apply_gateway(kubectl: &Kubectl, change: impl Fn(&mut Value, &mut String)) -> Result<()> {
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&scenario::gateway()?)?;
    let mut config_map = manifests[1].clone();
    let mut deployment = manifests[2].clone();
    for object in [&mut config_map, &mut deployment] {
        object["metadata"]["name"] = json!("other");
    }
    deployment["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!("other");
    let mut config = config_map["data"]["envoy.yaml"].as_str().context("no configuration")?.to_owned();
    change(&mut deployment, &mut config);
    config_map["data"]["envoy.yaml"] = json!(config);
    // Pod Security asks for it of every container.
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    for container in deployment["spec"]["template"]["spec"]["containers"].as_array_mut().into_iter().flatten() {
        if container["securityContext"].is_null() {
            container["securityContext"] = context.clone();
        }
    }
    kubectl.apply(&config_map.to_string())?;
    kubectl.apply(&deployment.to_string()).map(drop)
}

fn no_other_gateway(kubectl: &Kubectl) -> Result<()> {
    kubectl.run("-n edge delete deployment,configmap other")?;
    kubectl.run("-n edge wait --for=delete pod -l app=other --timeout=90s").map(drop)
}
