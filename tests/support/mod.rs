//! What several tests need: the real binary as a process, and a review to send to it.
#![allow(dead_code, reason = "every test program takes its part of this")]

pub(crate) mod boards;
pub(crate) mod fixture;
pub(crate) mod kinds;
pub(crate) mod pods;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon_cluster::{ControlPlane, GivenCluster, Kubectl, local, wait_for};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A running `gwmon serve`; it ends with the value.
pub(crate) struct Gwmon {
    child: Child,
    folder: TempDir,
    pub(crate) webhook: u16,
    pub(crate) admin: u16,
}

impl Gwmon {
    /// `gwmon serve --standalone`, ready.
    pub(crate) fn standalone() -> Self {
        let gwmon =
            Self::start(|command, folder| command.arg("--standalone").arg("--ca-out").arg(folder.join("ca.crt")));
        gwmon.wait_ready();
        gwmon
    }

    /// `gwmon serve` with some arguments, on free ports.
    pub(crate) fn start(arguments: impl for<'c> FnOnce(&'c mut Command, &Path) -> &'c mut Command) -> Self {
        Self::start_through(&[], arguments)
    }

    /// The same, started by another program.
    pub(crate) fn start_through(
        starter: &[&str],
        arguments: impl for<'c> FnOnce(&'c mut Command, &Path) -> &'c mut Command,
    ) -> Self {
        let folder = TempDir::new().unwrap();
        let [webhook, admin] = local::free_ports().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let mut words = starter.iter().copied().chain([env!("CARGO_BIN_EXE_gwmon")]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["serve", "--bind", &at(webhook), "--admin-bind", &at(admin)])
            .stdin(Stdio::null())
            .stderr(log);
        let child = arguments(&mut command, folder.path()).spawn().unwrap();
        Self { child, folder, webhook, admin }
    }

    pub(crate) fn wait_ready(&self) {
        wait_for("gwmon to be ready", Duration::from_secs(20), || {
            Ok(local::get(self.admin, "/readyz")?.starts_with("HTTP/1.1 200").then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Nothing was tried that the shipped roles do not allow.
    pub(crate) fn assert_never_forbidden(&self) {
        assert!(!self.log().contains("forbidden"), "{}", self.log());
    }

    /// The sum of the samples whose line begins so.
    pub(crate) fn metric(&self, prefix: &str) -> f64 {
        let metrics = local::get(self.admin, "/metrics").unwrap();
        metrics
            .lines()
            .filter(|line| line.starts_with(prefix))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Resident memory of the process.
    pub(crate) fn resident_kib(&self) -> f64 {
        self.status_kib("VmRSS:")
    }

    /// One of the sizes that the kernel tells of the process.
    pub(crate) fn status_kib(&self, which: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap_or("NaN");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The size of the log.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("log")).unwrap().len()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("gwmon to end", Duration::from_secs(40), || Ok(child.try_wait()?)).unwrap()
    }

    /// A TLS connection to the webhook, by a client that trusts only what `--ca-out` wrote.
    pub(crate) async fn connect(&self, name: &str) -> std::io::Result<Https> {
        let authority = std::fs::read(self.authority())?;
        Https::connect(self.webhook, name, &authority).await
    }
}

impl Drop for Gwmon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `gwmon` as a person runs it, with this kubeconfig: the exit code, and all that it says.
pub(crate) fn gwmon(kubeconfig: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gwmon"));
    let output = command.args(arguments).env("KUBECONFIG", kubeconfig).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// A control plane with gwmon's manifests and monitoring CRDs, and the namespaces `edge`, `west` and `monitoring`. No API server
/// calls the webhook of such a gwmon.
pub(crate) struct Installed {
    pub(crate) cluster: Cluster,
    pub(crate) kubectl: Kubectl,
}

/// The cluster behind it.
pub(crate) enum Cluster {
    /// Its own, with which anything may be done.
    Own(ControlPlane),
    /// The one that was given.
    Given { _cluster: GivenCluster },
}

impl Installed {
    /// In the cluster that was given, or in its own.
    pub(crate) fn new() -> Self {
        let Some(given) = GivenCluster::find().unwrap() else { return Self::own(false) };
        let kubectl = given.kubectl();
        let installed = Self { cluster: Cluster::Given { _cluster: given }, kubectl };
        installed.install();
        installed
    }

    /// In its own; with `kwok` also with a node that plays pods.
    pub(crate) fn own(kwok: bool) -> Self {
        let cluster = ControlPlane::start(kwok).unwrap();
        let kubectl = cluster.kubectl();
        let installed = Self { cluster: Cluster::Own(cluster), kubectl };
        installed.install();
        installed
    }

    /// Its own control plane.
    pub(crate) fn control_plane(&self) -> &ControlPlane {
        let Cluster::Own(control_plane) = &self.cluster else { panic!("it was given") };
        control_plane
    }

    /// Into a cluster that has nothing.
    pub(crate) fn install(&self) {
        self.kubectl.apply(&std::fs::read_to_string("deploy/install.yaml").unwrap()).unwrap();
        for kind in ["prometheuses", "prometheusagents", "servicemonitors"] {
            self.kubectl.run(&format!("apply --server-side -f {}", Self::crd(kind))).unwrap();
        }
        self.kubectl.wait_established().unwrap();
        for namespace in ["monitoring", "edge", "west"] {
            self.kubectl.run(&format!("create namespace {namespace}")).unwrap();
        }
    }

    /// The file of one of prometheus-operator's CRDs.
    pub(crate) fn crd(kind: &str) -> String {
        gwmon_cluster::operators_crds().join(format!("monitoring.coreos.com_{kind}.yaml")).display().to_string()
    }

    /// `gwmon serve` with the rights of the shipped service account.
    pub(crate) fn serve(&self) -> Gwmon {
        self.serve_with(&[])
    }

    /// The same with some arguments.
    pub(crate) fn serve_with(&self, arguments: &[&str]) -> Gwmon {
        let gwmon = self.start(arguments, &[]);
        gwmon.wait_ready();
        gwmon
    }

    /// The same with some variables, and perhaps not ready yet.
    pub(crate) fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Gwmon {
        let token = self.kubectl.run("-n gwmon create token gwmon").unwrap().out;
        let kubeconfig = std::fs::read_to_string(self.kubectl.kubeconfig()).unwrap();
        let mut config: Value = serde_saphyr::from_str(&kubeconfig).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        Gwmon::start(|command, folder| {
            let kubeconfig = folder.join("kubeconfig");
            std::fs::write(&kubeconfig, config.to_string()).unwrap();
            command.args(arguments).env("KUBECONFIG", kubeconfig).envs(environment.iter().copied())
        })
    }

    /// What a replica that serves a certificate of its own answers to the README's review with these changes of its request: the
    /// patch, if any, and the warnings.
    pub(crate) fn review(&self, gwmon: &Gwmon, route: &str, request: &Value) -> (Option<String>, String) {
        let secret = self.kubectl.get("-n gwmon secret gwmon-tls").unwrap();
        let authority = BASE64_STANDARD.decode(secret["data"]["ca.crt"].as_str().unwrap()).unwrap();
        let mut review = pod_review();
        json_patch::merge(&mut review["request"], request);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, body) = runtime.block_on(async {
            let mut https = Https::connect(gwmon.webhook, "gwmon.gwmon.svc", &authority).await.unwrap();
            https.post(route, review.to_string().as_bytes()).await.unwrap()
        });
        assert_eq!(status, 200);
        let reply: Value = serde_json::from_slice(&body).unwrap();
        let response = &reply["response"];
        assert_eq!(response["allowed"], true);
        let patch =
            response["patch"].as_str().map(|patch| String::from_utf8(BASE64_STANDARD.decode(patch).unwrap()).unwrap());
        (patch, response["warnings"].to_string())
    }

    /// What gwmon's service account has asked this control plane for, each once: verb, API group, resource, and the object's name.
    pub(crate) fn requested(&self) -> BTreeSet<[String; 4]> {
        let log = std::fs::read_to_string(self.control_plane().log("audit")).unwrap();
        let requests = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let asked = requests.filter(|request| request["objectRef"].is_object()).map(|request| {
            let of = |field: &str| request["objectRef"][field].as_str().unwrap_or_default().to_owned();
            // A patch that makes the object takes the right to create it.
            let made = request["verb"] == "patch" && request["responseStatus"]["code"] == 201;
            let verb = if made { "create" } else { request["verb"].as_str().unwrap() };
            [verb.to_owned(), of("apiGroup"), of("resource"), of("name")]
        });
        asked.collect()
    }

    /// `gwmon serve` with every right, and one that outlives the cluster's service accounts.
    pub(crate) fn serve_as_admin(&self) -> Gwmon {
        let gwmon = Gwmon::start(|command, _| command.env("KUBECONFIG", self.kubectl.kubeconfig()));
        gwmon.wait_ready();
        gwmon
    }

    /// A `Prometheus` in the namespace `monitoring`; fields that it had and has no more are gone.
    pub(crate) fn prometheus(&self, name: &str, spec: &Value) {
        let object = json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": name, "namespace": "monitoring"}, "spec": spec});
        self.kubectl
            .run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &object.to_string())
            .unwrap();
    }

    pub(crate) fn monitor(&self, namespace: &str, name: &str) -> Result<Value> {
        self.kubectl.get(&format!("-n {namespace} servicemonitor {name}"))
    }

    /// How often anybody has asked the API server to write a Service or a ServiceMonitor, by its own count.
    pub(crate) fn object_writes(&self) -> u64 {
        let written = |resource| {
            let count = move |verb| self.requests(&[("verb", verb), ("resource", resource)]);
            ["POST", "PUT", "PATCH", "APPLY", "DELETE"].into_iter().map(count)
        };
        ["services", "servicemonitors"].into_iter().flat_map(written).sum()
    }

    /// How often anybody has sent the API server requests with these labels, by its own count.
    pub(crate) fn requests(&self, labels: &[(&str, &str)]) -> u64 {
        let metrics = self.kubectl.run("get --raw /metrics").unwrap().out;
        let is_counted = |line: &&str| {
            line.starts_with("apiserver_request_total{")
                && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        };
        metrics.lines().filter(is_counted).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// The messages of the Events of one reason about an object.
    pub(crate) fn events(&self, namespace: &str, name: &str, reason: &str) -> Result<Vec<String>> {
        let fields = format!("involvedObject.name={name},reason={reason}");
        let events = self.kubectl.get(&format!("-n {namespace} events --field-selector {fields}"))?;
        let text = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
        Ok(events["items"].as_array().into_iter().flatten().map(text).collect())
    }

    /// Waits for an Event of that reason whose message has these words.
    pub(crate) fn event(&self, namespace: &str, name: &str, reason: &str, words: &str) {
        settle(&format!("an Event {reason} on {name}: {words}"), || {
            let events = self.events(namespace, name, reason)?;
            Ok(events.iter().any(|message| message.contains(words)).then_some(()))
        });
    }
}

/// A Prometheus that reads everywhere and asks for this label.
pub(crate) fn by_release(release: &str) -> Value {
    everywhere(&json!({"matchLabels": {"release": release}}))
}

/// A Prometheus that reads everywhere, with this selector.
pub(crate) fn everywhere(selector: &Value) -> Value {
    json!({"serviceMonitorSelector": selector, "serviceMonitorNamespaceSelector": {}})
}

/// A Deployment whose pods look injected: no webhook is called where this is used.
pub(crate) fn injected(namespace: &str, name: &str, replicas: u32) -> Value {
    let status = json!({
        "version": "0.1.0", "gateway": "envoy", "container": "envoy", "mode": "statsd", "statsdPort": 9125,
        "metricsPort": 9102, "added": [], "hash": "",
    });
    let label = gwmon::injection::monitor_name(name);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "gateway", "gwmon.io/monitored-by": label}},
            "template": {
                "metadata": {
                    "labels": {"app": "gateway", "gwmon.io/monitored-by": label, "gwmon.io/exporter": label},
                    "annotations": {"gwmon.io/inject": "true", "gwmon.io/interval": "15s", "gwmon.io/status": status.to_string()},
                },
                "spec": {"containers": [
                    {"name": "envoy", "image": "envoy"},
                    {"name": "gwmon-statsd-exporter", "image": "exporter", "ports": [{"containerPort": 9102}]},
                ]},
            },
        },
    })
}

/// The same with other annotations and another status.
pub(crate) fn injected_as(namespace: &str, name: &str, annotations: &Value, status: &Value) -> Value {
    let mut deployment = injected(namespace, name, 1);
    let all = &mut deployment["spec"]["template"]["metadata"]["annotations"];
    json_patch::merge(all, annotations);
    let mut whole: Value = serde_json::from_str(all["gwmon.io/status"].as_str().unwrap()).unwrap();
    json_patch::merge(&mut whole, status);
    all["gwmon.io/status"] = json!(whole.to_string());
    deployment
}

/// Waits a minute at most.
pub(crate) fn settle<T>(what: &str, attempt: impl FnMut() -> Result<Option<T>>) -> T {
    wait_for(what, Duration::from_mins(1), attempt).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Connects to the webhook of this machine.
#[derive(Clone)]
pub(crate) struct TlsClient(TlsConnector);

impl TlsClient {
    /// Trusts this authority only, and shows no certificate.
    pub(crate) fn new(authority: &[u8]) -> Self {
        Self::with(Self::trusting(authority).with_no_client_auth())
    }

    /// The same, and shows this certificate.
    pub(crate) fn showing(authority: &[u8], certificate: &[u8], key: &[u8]) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key).unwrap();
        Self::with(Self::trusting(authority).with_client_auth_cert(chain, key).unwrap())
    }

    fn trusting(authority: &[u8]) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority).unwrap()).unwrap();
        ClientConfig::builder().with_root_certificates(roots)
    }

    fn with(config: ClientConfig) -> Self {
        Self(Arc::new(config).into())
    }

    pub(crate) async fn connect(&self, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_to(port, "localhost").await
    }

    pub(crate) async fn connect_to(&self, port: u16, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(("127.0.0.1", port)).await?, name).await
    }

    pub(crate) async fn over(&self, stream: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        self.0.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
    }
}

/// A keep-alive HTTPS/1.1 connection.
pub(crate) struct Https(pub(crate) TlsStream<TcpStream>);

impl Https {
    pub(crate) async fn connect(port: u16, name: &str, authority: &[u8]) -> std::io::Result<Self> {
        TlsClient::new(authority).connect_to(port, name).await.map(Self)
    }

    /// Whether the server has closed it.
    pub(crate) async fn is_closed(&mut self) -> bool {
        tokio::time::timeout(Duration::ZERO, self.0.read(&mut [0])).await.is_ok()
    }

    /// Status and body of one POST.
    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: gwmon\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut answer = Vec::new();
        let head_end = loop {
            if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.0.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&answer[..head_end]).to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        while answer.len() < head_end + length {
            self.0.read_buf(&mut answer).await?;
        }
        Ok((status, answer.split_off(head_end)))
    }
}

/// The review that the README sends.
pub(crate) fn pod_review() -> Value {
    serde_json::from_str(include_str!("../cases/review.json")).unwrap()
}
