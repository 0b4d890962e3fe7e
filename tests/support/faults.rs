//! Faults on a whole node, each to a gateway that serves 200 requests a second through the endpoints of its Service, once
//! without gwmon's injection and once with: what it costs. The numbers W1 to W13 are those of
//! docs/design/never-worse-off.md.
#![allow(dead_code, reason = "the benchmark runs every row, the test some")]
#![allow(clippy::unwrap_used, reason = "the processes that it starts again inside the node end where they fail")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon::certs::issue::Certificates;
use gwmon::certs::{self, CurrentLeaf};
use gwmon::server;
use gwmon_cluster::{Kubectl, Node, scenario, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const EXPORTER: &str = "gwmon-statsd-exporter";
/// The address of the node, inside its network namespace.
const NODE: &str = "10.89.0.1";
const MESH_PORT: u16 = 15443;
/// After a roll-out, for what comes late.
const AFTER: Duration = Duration::from_secs(5);
/// A roll-out that takes longer does not end by itself.
const GIVE_UP: Duration = Duration::from_mins(6);

/// A node with gwmon.
pub(crate) struct Fixture {
    pub(crate) node: Node,
    pub(crate) kubectl: Kubectl,
    folder: TempDir,
}

/// One row.
pub(crate) struct Fault {
    /// Its number, and what is the matter.
    pub(crate) name: &'static str,
    /// What is different in the cluster; the second word is the gateway's namespace.
    before: fn(&Fixture, &str) -> Result<()>,
    /// What is different in the gateway's objects: ConfigMap and Deployment.
    gateway: fn(&mut Value),
    /// What happens once its roll-out is over.
    strike: fn(&Fixture, &str) -> Result<()>,
    /// What makes the cluster as it was.
    after: fn(&Fixture) -> Result<()>,
    /// Annotations beside `gwmon.io/inject`.
    annotations: &'static str,
}

const NOTHING: Fault = Fault {
    name: "nothing",
    before: |_, _| Ok(()),
    gateway: |_| (),
    strike: |_, _| Ok(()),
    after: |_| Ok(()),
    annotations: "",
};

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// In which 99 of 100 requests were answered.
    pub(crate) p99: Duration,
    /// How long the roll-out took; `None` where it did not end.
    pub(crate) rollout: Option<Duration>,
    /// Until the first new pod was ready.
    pub(crate) ready: Option<Duration>,
    /// The command that an Event told, where the roll-out waited for that.
    pub(crate) told: Option<String>,
    /// How many of the gateway's pods have an exporter in the end.
    pub(crate) exporters: usize,
}

impl Fixture {
    /// Brings a node up, with gwmon and these settings of its Deployment.
    pub(crate) fn new(settings: &str) -> Result<Self> {
        let node = Node::start(false)?;
        let kubectl = node.kubectl();
        scenario::install_gwmon(&node, Path::new(env!("CARGO_BIN_EXE_gwmon")))?;
        let fixture = Self { node, kubectl, folder: TempDir::new()? };
        if !settings.is_empty() {
            fixture.set(settings)?;
        }
        Ok(fixture)
    }

    pub(crate) fn set(&self, settings: &str) -> Result<()> {
        self.kubectl.run(&format!("-n gwmon set env deployment/gwmon {settings}"))?;
        self.kubectl.run("-n gwmon rollout status deployment/gwmon --timeout=120s")?;
        // The old replicas answer for ten seconds more.
        wait_for("the old replicas to go", Duration::from_mins(1), || {
            let pods = self.kubectl.run("-n gwmon get pods -o name")?.out;
            Ok((pods.lines().count() == 2).then_some(()))
        })
    }

    /// Runs one row.
    pub(crate) fn measure(&self, fault: &Fault, is_injected: bool) -> Result<Measured> {
        let number = fault.name.split(' ').next().unwrap_or_default().to_lowercase();
        let namespace = format!("{number}-{}", if is_injected { "with" } else { "without" });
        let measured = self.measure_in(fault, &namespace, is_injected).with_context(|| {
            let said = |words: &str| self.kubectl.run(words).map_or_else(|e| format!("{e:#}"), |said| said.out);
            let pods = said(&format!("-n {namespace} get pods -o wide"));
            format!("{}, {namespace}\n{pods}\n{}", fault.name, said(&format!("-n {namespace} get events")))
        });
        (fault.after)(self)?;
        let _ = self.kubectl.run("-n gwmon delete configmap gwmon-suspensions --ignore-not-found");
        // The namespace controller would look for what is left only after half of the pods' grace period.
        self.kubectl.run(&format!("-n {namespace} delete deployments --all --cascade=foreground --timeout=60s"))?;
        self.kubectl.run(&format!("-n {namespace} delete pods --all --grace-period=1 --timeout=60s"))?;
        self.kubectl.run(&format!("delete namespace {namespace} --wait=false"))?;
        measured
    }

    fn measure_in(&self, fault: &Fault, namespace: &str, is_injected: bool) -> Result<Measured> {
        let kubectl = &self.kubectl;
        kubectl.apply(&gateway(namespace, fault.gateway)?)?;
        kubectl.run(&format!("-n {namespace} rollout status deployment/edge --timeout=90s"))?;
        let load = Load::start(self, namespace)?;
        (fault.before)(self, namespace)?;
        let started = Instant::now();
        if is_injected {
            kubectl
                .run(&format!("-n {namespace} annotate deployment edge gwmon.io/inject=true {}", fault.annotations))?;
        } else {
            kubectl.run(&format!("-n {namespace} rollout restart deployment edge"))?;
        }
        let (mut ready, mut rollout, mut told) = (None, None, None);
        while started.elapsed() < GIVE_UP {
            let deployment = kubectl.get(&format!("-n {namespace} deployment edge"))?;
            let count = |field: &str| deployment["status"][field].as_u64().unwrap_or_default();
            let is_seen = deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"];
            if is_seen && count("updatedReplicas") > 0 && count("updatedReplicas") > count("unavailableReplicas") {
                ready.get_or_insert_with(|| started.elapsed());
            }
            let is_over = [count("updatedReplicas"), count("replicas"), count("readyReplicas")] == [2, 2, 2];
            if is_seen && is_over {
                rollout = Some(started.elapsed());
                break;
            }
            if told.is_none()
                && let Some(command) = self.told_command(namespace)?
            {
                kubectl.run(&command)?;
                told = Some(command);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        (fault.strike)(self, namespace)?;
        std::thread::sleep(AFTER);
        let Counts { sent, failed, p99 } = load.end()?;
        let pods = kubectl.get(&format!("-n {namespace} pods -l app=edge"))?;
        let has_exporter = |pod: &&Value| pod["spec"].to_string().contains(EXPORTER);
        let exporters = pods["items"].as_array().into_iter().flatten().filter(has_exporter).count();
        Ok(Measured { sent, failed, p99, rollout, ready, told, exporters })
    }

    /// The command that an Event about the gateway tells.
    pub(crate) fn told_command(&self, namespace: &str) -> Result<Option<String>> {
        let events = self.kubectl.get(&format!("-n {namespace} events --field-selector involvedObject.name=edge"))?;
        let mut notes = events["items"].as_array().into_iter().flatten().filter_map(|event| event["message"].as_str());
        Ok(notes.find_map(|note| Some(note.split_once("made again without it: kubectl ")?.1.to_owned())))
    }

    /// Deploys the gateway as it is in every row.
    pub(crate) fn deploy(&self, namespace: &str) -> Result<()> {
        self.kubectl.apply(&gateway(namespace, NOTHING.gateway)?)?;
        self.kubectl.run(&format!("-n {namespace} rollout status deployment/edge --timeout=90s")).map(drop)
    }

    /// Runs a command in the exporter's container of every pod.
    fn in_exporters(&self, namespace: &str, command: &str) -> Result<()> {
        let pods = self.kubectl.run(&format!("-n {namespace} get pods -l gwmon.io/exporter -o name"))?.out;
        for pod in pods.lines() {
            self.kubectl
                .run_with(&["-n", namespace, "exec", pod, "-c", EXPORTER, "--", "/bin/sh", "-c", command], "")?;
        }
        Ok(())
    }

    /// Every process of gwmon's on the node.
    fn signal_gwmon(&self, signal: &str) -> Result<()> {
        let mut kill = self.node.inside("pkill");
        ensure!(kill.args([&format!("-{signal}"), "-x", "gwmon"]).status()?.success(), "no gwmon to signal");
        Ok(())
    }
}

/// The main job's gateway, two of them, behind a Service, ending as gateways do: after the endpoints have gone.
fn gateway(namespace: &str, change: fn(&mut Value)) -> Result<String> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&scenario::gateway()?)?;
    for object in &mut objects {
        if object["kind"] == "Namespace" {
            object["metadata"]["name"] = json!(namespace);
        } else {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if object["kind"] == "Deployment" {
            object["spec"]["replicas"] = json!(2);
            let container = &mut object["spec"]["template"]["spec"]["containers"][0];
            container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 3}}});
            container["resources"] =
                json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}});
        }
        change(object);
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "edge", "namespace": namespace},
        "spec": {"selector": {"app": "edge"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }));
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
}

/// What became of the requests.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) p99: Duration,
}

/// Requests to the gateway's endpoints, from inside the node.
pub(crate) struct Load {
    child: Child,
    result: PathBuf,
}

impl Load {
    pub(crate) fn start(fixture: &Fixture, namespace: &str) -> Result<Self> {
        let result = fixture.folder.path().join(format!("{namespace}.load"));
        let mut load = fixture.node.inside(std::env::current_exe()?);
        let child = load.args(["role:load", namespace]).arg(&result).stdin(Stdio::piped()).spawn()?;
        wait_for("the first requests", Duration::from_secs(30), || {
            Ok(read_counts(&result).filter(|counts| counts.sent > 0))
        })?;
        Ok(Self { child, result })
    }

    /// Ends them.
    pub(crate) fn end(mut self) -> Result<Counts> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        read_counts(&self.result).context("no counts")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_counts(file: &Path) -> Option<Counts> {
    let text = fs::read_to_string(file).ok()?;
    let mut numbers = text.split(' ').map_while(|number| number.parse().ok());
    let mut next = || numbers.next();
    Some(Counts { sent: next()?, failed: next()?, p99: Duration::from_micros(next()?) })
}

/// What this program is when it is started again inside the node: `true` where it was that and has ended.
pub(crate) fn play_role() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["role:load", namespace, result] => load(namespace, Path::new(result)),
        ["role:mesh", folder] => mesh(Path::new(folder)),
        _ => return false,
    }
    true
}

/// 200 requests a second to whatever endpoints are ready at that moment, as kube-proxy would send them, until standard
/// input ends. One that nobody is ready for has failed, too.
fn load(namespace: &str, result: &Path) {
    const THREADS: u64 = 8;
    const EVERY: Duration = Duration::from_millis(5 * THREADS);
    let mut watch = Command::new(gwmon_cluster::program("kubectl"))
        .args(["-n", namespace, "get", "endpointslices", "-l", "kubernetes.io/service-name=edge", "-w", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stream = BufReader::new(watch.stdout.take().unwrap());
    let endpoints: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
    let ready = Arc::clone(&endpoints);
    std::thread::spawn(move || {
        let mut slices: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        for slice in serde_json::Deserializer::from_reader(stream).into_iter::<Value>().map_while(Result::ok) {
            let all = slice["endpoints"].as_array().into_iter().flatten();
            let serving = all.filter(|endpoint| endpoint["conditions"]["ready"] == true);
            let addresses =
                serving.filter_map(|endpoint| format!("{}:8080", endpoint["addresses"][0].as_str()?).parse().ok());
            slices.insert(slice["metadata"]["name"].to_string(), addresses.collect());
            *ready.lock().unwrap() = slices.values().flatten().copied().collect();
        }
    });
    let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let answers: Arc<Mutex<Vec<u32>>> = Arc::default();
    std::thread::sleep(Duration::from_secs(1));
    for thread in 0..THREADS {
        let (endpoints, sent, failed) = (Arc::clone(&endpoints), Arc::clone(&sent), Arc::clone(&failed));
        let answers = Arc::clone(&answers);
        std::thread::spawn(move || {
            let start = Instant::now() + EVERY / 8 * u32::try_from(thread).unwrap();
            for turn in 0_u32.. {
                std::thread::sleep((start + EVERY * turn).saturating_duration_since(Instant::now()));
                let number = usize::try_from(sent.fetch_add(1, Ordering::Relaxed)).unwrap();
                let ready = endpoints.lock().unwrap().clone();
                let asked = Instant::now();
                match ready.get(number % ready.len().max(1)).map(|address| ask(*address)) {
                    Some(Ok(true)) => answers.lock().unwrap().push(u32::try_from(asked.elapsed().as_micros()).unwrap()),
                    _ => {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
    }
    let write = || {
        let p99 = {
            let mut answers = answers.lock().unwrap();
            answers.sort_unstable();
            answers.get(answers.len() * 99 / 100).copied().unwrap_or_default()
        };
        // Whoever reads must not find half of it.
        let whole = result.with_extension("tmp");
        let (sent, failed) = (sent.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        fs::write(&whole, format!("{sent} {failed} {p99}")).unwrap();
        fs::rename(whole, result).unwrap();
    };
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    while end.recv_timeout(Duration::from_millis(200)).is_err() {
        write();
    }
    write();
    let _ = watch.kill();
    let _ = watch.wait();
}

fn ask(address: SocketAddr) -> std::io::Result<bool> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"HTTP/1.1 200")
}

/// How Istio adds its proxy.
#[derive(Clone, Copy)]
enum Proxy {
    /// The last of the containers.
    Regular,
    /// `holdApplicationUntilProxyStarts`: the first of them, and the kubelet starts the others when its hook has ended.
    Held,
    /// `ENABLE_NATIVE_SIDECARS`: the first init container, which runs on.
    Native,
}

/// What Istio's webhook does to a pod (`pkg/kube/inject`), as far as it concerns others: a proxy is added, and the HTTP, TCP and
/// gRPC probes of every container, init containers included, ask its agent on port 15020 instead.
fn istio(review: &Value, proxy: Proxy) -> Value {
    let request = &review["request"];
    let mut operations = Vec::new();
    let spec = &request["object"]["spec"];
    let all = ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let has_proxy = all.into_iter().any(|container| container["name"] == "istio-proxy");
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let name = container["name"].as_str().unwrap();
            for (probe, path) in
                [("startupProbe", "startupz"), ("livenessProbe", "livez"), ("readinessProbe", "readyz")]
            {
                let port = &container[probe]["httpGet"]["port"];
                let is_asked = ["httpGet", "tcpSocket", "grpc"].iter().any(|kind| container[probe][kind].is_object());
                if !is_asked || *port == 15020 {
                    continue;
                }
                let mut rewritten = container[probe].clone();
                let fields = rewritten.as_object_mut().unwrap();
                fields.retain(|field, _| !matches!(field.as_str(), "httpGet" | "tcpSocket" | "grpc"));
                fields
                    .insert("httpGet".to_owned(), json!({"path": format!("/app-health/{name}/{path}"), "port": 15020}));
                operations.push(
                    json!({"op": "replace", "path": format!("/spec/{list}/{index}/{probe}"), "value": rewritten}),
                );
            }
        }
    }
    if !has_proxy {
        // Its agent passes a probe on to the container that it is about, and answers for itself at once.
        let own = spec["containers"].as_array().unwrap().iter().map(|container| &container["readinessProbe"]);
        let ask = own.filter_map(Value::as_object).find_map(|probe| {
            let get = probe.get("httpGet").map(|get| {
                format!(
                    "wget -T 1 -qO /dev/null http://127.0.0.1:{}{}",
                    get["port"],
                    get["path"].as_str().unwrap_or("/")
                )
            });
            get.or_else(|| Some(format!("nc -w 1 127.0.0.1 {} </dev/null", probe.get("tcpSocket")?["port"])))
        });
        let ask = ask.unwrap_or_else(|| "true".to_owned());
        let script = format!(
            "mkdir -p /tmp/app-health/envoy /tmp/healthz && echo ok >/tmp/healthz/ready
            while :; do
              if {ask}; then echo ok >/tmp/app-health/envoy/readyz; else rm -f /tmp/app-health/envoy/readyz; fi
              sleep 0.2
            done >/dev/null 2>&1 &
            exec httpd -f -p 15020 -h /tmp"
        );
        let ready = "until wget -qO /dev/null http://127.0.0.1:15020/healthz/ready; do sleep 0.1; done";
        let mut container = json!({
            "name": "istio-proxy", "image": "docker.io/library/busybox:1.35", "command": ["sh", "-c", script],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        });
        let path = match proxy {
            Proxy::Regular => "/spec/containers/-",
            Proxy::Held => {
                container["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh", "-c", ready]}}});
                "/spec/containers/0"
            }
            Proxy::Native => {
                container["restartPolicy"] = json!("Always");
                container["startupProbe"] = json!({
                    "httpGet": {"path": "/healthz/ready", "port": 15020}, "periodSeconds": 1, "failureThreshold": 60,
                });
                if spec["initContainers"].is_null() {
                    operations.push(json!({"op": "add", "path": "/spec/initContainers", "value": []}));
                }
                "/spec/initContainers/0"
            }
        };
        operations.push(json!({"op": "add", "path": path, "value": container}));
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": request["uid"], "allowed": true, "patchType": "JSONPatch",
        "patch": BASE64_STANDARD.encode(Value::from(operations).to_string()),
    }})
}

/// Serves that, inside the node, until standard input ends.
fn mesh(folder: &Path) {
    let leaf = CurrentLeaf::default();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    leaf.put(&read("leaf.crt"), &read("leaf.key")).unwrap();
    let config = Arc::new(certs::serving::server_config(Arc::new(leaf), None).unwrap());
    let answer = |proxy| {
        post(move |body: Bytes| async move { istio(&serde_json::from_slice(&body).unwrap(), proxy).to_string() })
    };
    let router = Router::new()
        .route("/regular", answer(Proxy::Regular))
        .route("/held", answer(Proxy::Held))
        .route("/native", answer(Proxy::Native));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((NODE, MESH_PORT)).await.unwrap();
        server::serve(listener, Some(config), router, 64, std::future::pending()).await;
    });
}

/// The mesh's webhook for one namespace; which of the two comes first, the names of the configurations decide. The proxy is
/// `regular`, `held` or `native`.
fn install_mesh(fixture: &Fixture, namespace: &str, name: &str, proxy: &str) -> Result<()> {
    let certificates = Certificates::new(&[NODE.to_owned()], time::OffsetDateTime::now_utc())?;
    let folder = fixture.folder.path();
    fs::write(folder.join("leaf.crt"), &certificates.leaf)?;
    fs::write(folder.join("leaf.key"), &certificates.leaf_key)?;
    let mut mesh = fixture.node.inside(std::env::current_exe()?);
    // It ends with the node.
    std::mem::forget(mesh.arg("role:mesh").arg(folder).stdin(Stdio::piped()).spawn()?);
    let mut webhook = scenario::pod_webhook(
        name,
        namespace,
        &format!("https://{NODE}:{MESH_PORT}/{proxy}"),
        &certificates.authorities,
    );
    webhook["webhooks"][0]["reinvocationPolicy"] = json!("IfNeeded");
    fixture.kubectl.apply(&webhook.to_string())?;
    let probe = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "app", "image": "x", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }});
    wait_for("the mesh's webhook", Duration::from_secs(20), || {
        let arguments = ["-n", namespace, "apply", "--dry-run=server", "-o", "json", "-f", "-"];
        Ok(fixture.kubectl.run_with(&arguments, &probe.to_string())?.out.contains("istio-proxy").then_some(()))
    })
}

fn remove_mesh(fixture: &Fixture) -> Result<()> {
    fixture.kubectl.run("delete mutatingwebhookconfiguration a-mesh z-mesh --ignore-not-found")?;
    // It ends by itself when nobody holds its input any more; the next one wants its port.
    let _ = fixture.node.inside("pkill").args(["-f", "role:mesh"]).status()?;
    Ok(())
}

fn apply_in(fixture: &Fixture, namespace: &str, kind: (&str, &str), name: &str, spec: &Value) -> Result<()> {
    let object =
        json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": name, "namespace": namespace}, "spec": spec});
    fixture.kubectl.apply(&object.to_string()).map(drop)
}

fn container(object: &mut Value) -> Option<&mut Value> {
    (object["kind"] == "Deployment").then(|| &mut object["spec"]["template"]["spec"]["containers"][0])
}

/// Every row that can be made on this node, by number.
pub(crate) const FAULTS: &[Fault] = &[
    Fault { name: "W0 nothing is the matter", ..NOTHING },
    Fault {
        name: "W1 the exporter's image cannot be pulled",
        before: |fixture, _| fixture.set("GWMON_EXPORTER_IMAGE=registry.invalid/statsd-exporter:v0.30.0"),
        after: |fixture| fixture.set("GWMON_EXPORTER_IMAGE-"),
        ..NOTHING
    },
    Fault {
        name: "W2 a LimitRange asks for more and allows less than the exporter's defaults",
        before: |fixture, namespace| {
            let limits = json!({"limits": [{"type": "Container", "min": {"memory": "64Mi"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "10"}}, {"type": "Pod", "max": {"memory": "640Mi"}}]});
            apply_in(fixture, namespace, ("v1", "LimitRange"), "limits", &limits)
        },
        ..NOTHING
    },
    Fault {
        name: "W3 a ResourceQuota has room for the gateway's pods only",
        before: |fixture, namespace| {
            let quota = json!({"hard": {"requests.cpu": "300m"}});
            apply_in(fixture, namespace, ("v1", "ResourceQuota"), "cpu", &quota)?;
            wait_for("the quota", Duration::from_secs(20), || {
                let found = fixture.kubectl.get(&format!("-n {namespace} resourcequota cpu"))?;
                Ok((found["status"]["used"]["requests.cpu"] == "200m").then_some(()))
            })
        },
        ..NOTHING
    },
    Fault {
        name: "W4 a ValidatingAdmissionPolicy allows images of one registry only",
        before: |fixture, namespace| {
            let policy = json!({
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
                "validations": [{"expression": "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])).all(c, c.image.startsWith('docker.io/envoyproxy/'))", "message": "images of other registries are not allowed"}],
            });
            let binding = json!({"policyName": "images", "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}});
            let v1 = "admissionregistration.k8s.io/v1";
            for (kind, spec) in [("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding)] {
                let object = json!({"apiVersion": v1, "kind": kind, "metadata": {"name": "images"}, "spec": spec});
                fixture.kubectl.apply(&object.to_string())?;
            }
            let foreign = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "x", "image": "y", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            }});
            wait_for("the policy", Duration::from_secs(30), || {
                let create = ["-n", namespace, "create", "--dry-run=server", "-f", "-"];
                Ok(fixture.kubectl.run_with(&create, &foreign.to_string()).is_err().then_some(()))
            })
        },
        after: |fixture| {
            fixture.kubectl.run("delete validatingadmissionpolicybinding,validatingadmissionpolicy images").map(drop)
        },
        ..NOTHING
    },
    // The namespace enforces `restricted` in every row.
    Fault {
        name: "W6 the exporter is killed, three times",
        strike: |fixture, namespace| {
            for _ in 0..3 {
                fixture.in_exporters(namespace, "kill -9 $(pidof statsd_exporter)")?;
                std::thread::sleep(Duration::from_secs(7));
            }
            Ok(())
        },
        ..NOTHING
    },
    Fault {
        name: "W6b the exporter hangs",
        strike: |fixture, namespace| fixture.in_exporters(namespace, "kill -STOP $(pidof statsd_exporter)"),
        ..NOTHING
    },
    Fault {
        name: "W7 the gateway listens on the exporter's port and does not declare it",
        gateway: |object| {
            if let Some(config) = object["data"]["envoy.yaml"].as_str() {
                let second = "  - name: second\n    address: {socket_address: {address: 0.0.0.0, port_value: 9102}}\n    filter_chains: [{filters: [{name: envoy.filters.network.echo, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}]\n  clusters:\n";
                object["data"]["envoy.yaml"] = json!(config.replacen("  clusters:\n", second, 1));
            }
        },
        ..NOTHING
    },
    Fault {
        name: "W8 the exporter's image has no exporter",
        before: |fixture, _| fixture.set("GWMON_EXPORTER_IMAGE=docker.io/library/busybox:1.35"),
        after: |fixture| fixture.set("GWMON_EXPORTER_IMAGE-"),
        ..NOTHING
    },
    Fault {
        name: "W8b the gateway refuses the merged configuration (a wrong gwmon.io/envoy-version)",
        annotations: "gwmon.io/envoy-version=1.10",
        ..NOTHING
    },
    Fault {
        name: "W9 the node has room for the gateway's pods only",
        before: |fixture, namespace| {
            let node = fixture.kubectl.get("node gw")?;
            let cores: u64 = node["status"]["allocatable"]["cpu"].as_str().context("no cpu")?.parse()?;
            // gwmon's two pods, two gateways and a third while they roll.
            let filler = cores * 1000 - 2 * 20 - 3 * 100 - 10;
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler", "namespace": namespace}, "spec": {
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "filler", "image": "docker.io/library/busybox:1.35", "command": ["sleep", "3600"],
                    "resources": {"requests": {"cpu": format!("{filler}m")}},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            }});
            fixture.kubectl.apply(&pod.to_string())?;
            fixture
                .kubectl
                .run(&format!("-n {namespace} wait pod/filler --for=condition=Ready --timeout=30s"))
                .map(drop)
        },
        ..NOTHING
    },
    Fault {
        name: "W10 a mesh with a regular proxy rewrites probes, after gwmon",
        before: |fixture, namespace| install_mesh(fixture, namespace, "z-mesh", "regular"),
        after: remove_mesh,
        ..NOTHING
    },
    Fault {
        name: "W10b the same, before gwmon",
        before: |fixture, namespace| install_mesh(fixture, namespace, "a-mesh", "regular"),
        after: remove_mesh,
        ..NOTHING
    },
    Fault {
        name: "W10d a mesh with a native proxy, after gwmon",
        before: |fixture, namespace| install_mesh(fixture, namespace, "z-mesh", "native"),
        after: remove_mesh,
        ..NOTHING
    },
    Fault {
        name: "W10e the same, before gwmon",
        before: |fixture, namespace| install_mesh(fixture, namespace, "a-mesh", "native"),
        after: remove_mesh,
        ..NOTHING
    },
    Fault {
        name: "W10f a mesh that holds the others until its proxy has started, after gwmon",
        before: |fixture, namespace| install_mesh(fixture, namespace, "z-mesh", "held"),
        after: remove_mesh,
        ..NOTHING
    },
    Fault {
        name: "W10g the same, before gwmon",
        before: |fixture, namespace| install_mesh(fixture, namespace, "a-mesh", "held"),
        after: remove_mesh,
        ..NOTHING
    },
    Fault {
        name: "W10c the pod sets its own resources, just enough for the gateway",
        gateway: |object| {
            if let Some(container) = container(object) {
                let own = container["resources"].clone();
                object["spec"]["template"]["spec"]["resources"] = own;
            }
        },
        ..NOTHING
    },
    Fault {
        name: "W11 nothing is the matter, for a minute: sending costs the gateway time",
        strike: |_, _| {
            std::thread::sleep(Duration::from_mins(1));
            Ok(())
        },
        ..NOTHING
    },
    Fault {
        name: "W12 no gwmon answers",
        before: |fixture, _| {
            fixture.kubectl.run("-n gwmon scale deployment gwmon --replicas=0")?;
            fixture
                .kubectl
                .run("-n gwmon wait --for=delete pod -l app.kubernetes.io/name=gwmon --timeout=60s")
                .map(drop)
        },
        after: |fixture| {
            fixture.kubectl.run("-n gwmon scale deployment gwmon --replicas=2")?;
            fixture.kubectl.run("-n gwmon rollout status deployment/gwmon --timeout=90s").map(drop)
        },
        ..NOTHING
    },
    Fault {
        name: "W12b every gwmon hangs",
        before: |fixture, _| fixture.signal_gwmon("STOP"),
        after: |fixture| {
            fixture.signal_gwmon("CONT")?;
            fixture.kubectl.run("-n gwmon rollout status deployment/gwmon --timeout=90s").map(drop)
        },
        ..NOTHING
    },
];

/// One row by the first word of its name.
pub(crate) fn fault(number: &str) -> Result<&'static Fault> {
    let found = FAULTS.iter().find(|fault| fault.name.split(' ').next() == Some(number));
    let Some(fault) = found else { bail!("no row {number}") };
    Ok(fault)
}
