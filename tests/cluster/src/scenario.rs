//! The pieces of gwmon's main job, as the demo shows them and the tests assert them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use crate::{Kubectl, Node, Prometheus, folder, run, wait_for};

/// The query that the first page of the README promises an answer to.
pub const QUERY: &str = r#"sum(rate(envoy_cluster_upstream_rq_total{namespace="edge"}[1m]))"#;

const PATIENCE: Duration = Duration::from_secs(90);

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    folder().join("../..")
}

/// The gateway's manifests, for the Envoy that was built into the node.
///
/// # Errors
/// Where nothing has been built yet.
pub fn gateway() -> Result<String> {
    Ok(fs::read_to_string(folder().join("gateway.yaml"))?.replace("ENVOY_VERSION", &version("ENVOY")?))
}

/// The image of that Envoy.
///
/// # Errors
/// Where nothing has been built yet.
pub fn envoy_image() -> Result<String> {
    Ok(format!("docker.io/envoyproxy/envoy:{}", version("ENVOY")?))
}

/// The image of the exporter.
///
/// # Errors
/// Where nothing has been built yet.
pub fn exporter_image() -> Result<String> {
    Ok(format!("quay.io/prometheus/statsd-exporter:{}", version("EXPORTER")?))
}

fn version(of: &str) -> Result<String> {
    let versions = fs::read_to_string(crate::cache().join("versions")).context("the cluster is not built yet")?;
    let version = versions.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix('='));
    version.map(str::to_owned).with_context(|| format!("no version of {of}"))
}

/// Builds gwmon's binary in this cargo profile; cargo shows its progress.
///
/// # Errors
/// It does not build.
pub fn build_gwmon(profile: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--profile", profile, "--package", "gwmon", "--bin", "gwmon"]).current_dir(repository());
    run(build)?;
    // Beside our own: target/debug/demo, target/release/gwmon.
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("this program does not run from cargo's target folder")?;
    Ok(target.join(profile).join("gwmon"))
}

/// Architectures of a static binary, as images name them: with the target of Rust, and the C compiler that its crypto needs.
const STATIC: [(&str, &str, &str); 2] = [
    ("amd64", "x86_64-unknown-linux-musl", "x86_64-linux-gnu-gcc"),
    ("arm64", "aarch64-unknown-linux-musl", "aarch64-linux-gnu-gcc"),
];

/// Builds a static binary of gwmon for an architecture, the same byte for byte wherever it is built. Installs Rust's target.
///
/// # Errors
/// Another architecture than amd64 and arm64, or it does not build.
pub fn build_static(arch: &str) -> Result<PathBuf> {
    let known = STATIC.into_iter().find(|(name, ..)| *name == arch);
    let (_, target, compiler) = known.with_context(|| format!("{arch} is neither amd64 nor arm64"))?;
    let mut add = Command::new("rustup");
    add.args(["target", "add", target]).current_dir(repository());
    crate::quietly(add)?;
    let repository = repository().canonicalize()?;
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| Ok::<_, anyhow::Error>(format!("{}/.cargo", std::env::var("HOME")?)))?;
    // No path of this machine in panic messages.
    let paths = format!("--remap-path-prefix={home}=/cargo --remap-path-prefix={}=/gwmon", repository.display());
    let variable = target.replace('-', "_");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--locked", "--profile", "dist", "--package", "gwmon", "--bin", "gwmon", "--target", target])
        .env(format!("CC_{variable}"), compiler)
        .env(format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), "rust-lld")
        .env("RUSTFLAGS", format!("-C target-feature=+crt-static -C link-self-contained=yes {paths}"))
        .env("CARGO_INCREMENTAL", "0")
        .current_dir(&repository);
    run(build)?;
    Ok(repository.join("target").join(target).join("dist/gwmon"))
}

/// The image that `deploy/` runs.
///
/// # Errors
/// Where the manifest cannot be read.
pub fn image() -> Result<String> {
    let manifest = fs::read_to_string(repository().join("deploy/install.yaml"))?;
    let image = manifest.lines().find_map(|line| line.trim().strip_prefix("image: "));
    image.map(str::to_owned).context("no image in deploy/install.yaml")
}

/// Installs gwmon from `deploy/` and waits until it is ready.
///
/// # Errors
/// Where it does not become ready.
pub fn install_gwmon(node: &Node, binary: &Path) -> Result<()> {
    let kubectl = node.kubectl();
    node.load_image(&image()?, binary)?;
    kubectl.apply(&fs::read_to_string(repository().join("deploy/install.yaml"))?)?;
    kubectl.run("-n gwmon rollout status deploy/gwmon --timeout=90s")?;
    Ok(())
}

/// Deploys the gateway and waits until it is ready.
///
/// # Errors
/// Where it does not become ready.
pub fn deploy_gateway(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply(&gateway()?)?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s")?;
    Ok(())
}

/// Requests to the gateway, until the value is dropped.
pub struct Traffic(Child);

impl Traffic {
    /// Starts them, to the pods with these labels.
    ///
    /// # Errors
    /// Where the generator does not start.
    pub fn start(node: &Node, selector: &str) -> Result<Self> {
        Self::send(node, &["edge", selector])
    }

    /// The same, to pods of any namespace, at one port and for one virtual host.
    ///
    /// # Errors
    /// Where the generator does not start.
    pub fn to(node: &Node, namespace: &str, selector: &str, port: u16, host: &str) -> Result<Self> {
        Self::send(node, &[namespace, selector, &port.to_string(), host])
    }

    fn send(node: &Node, arguments: &[&str]) -> Result<Self> {
        let mut load = node.inside(folder().join("load.sh"));
        Ok(Self(load.args(arguments).stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The gateway's one pod that is not on its way out.
///
/// # Errors
/// Where there is none.
pub fn pod(kubectl: &Kubectl) -> Result<Value> {
    wait_for("the gateway's pod", PATIENCE, || {
        let pods = kubectl.get("-n edge pods -l app=edge")?;
        let mut alive =
            pods["items"].as_array().into_iter().flatten().filter(|p| p["metadata"]["deletionTimestamp"].is_null());
        Ok(alive.next().cloned())
    })
}

/// Annotates the gateway's Deployment and waits for the roll-out that this starts.
///
/// # Errors
/// Where the roll-out does not end.
pub fn annotate(kubectl: &Kubectl) -> Result<()> {
    kubectl.run("-n edge annotate deployment edge gwmon.io/inject=true")?;
    kubectl.run("-n edge rollout status deploy/edge --timeout=90s")?;
    Ok(())
}

/// The scrape pool of the gateway's monitor, as the Prometheus Operator names it.
pub const POOL: &str = "serviceMonitor/edge/edge-gwmon/0";

/// Waits until Prometheus reports a target of this pool up.
///
/// # Errors
/// Where none is up in time.
pub fn target_up(prometheus: &Prometheus, pool: &str) -> Result<Value> {
    wait_for("a target that is up", PATIENCE, || {
        Ok(prometheus.targets(pool)?.into_iter().find(|target| target["health"] == "up"))
    })
}

/// Waits until [`QUERY`] answers with a whole request a second: right after the first scrapes a rate over a minute
/// is only a fraction of the truth.
///
/// # Errors
/// Where it does not in time.
pub fn rate(prometheus: &Prometheus) -> Result<f64> {
    wait_for("a rate above one", PATIENCE, || Ok(prometheus.query(QUERY)?.filter(|rate| *rate > 1.)))
}

/// The configuration of the gateway's Envoy, on other ports.
///
/// # Errors
/// Where the manifests cannot be read.
pub fn envoy_configuration(http: u16, upstreams: u16) -> Result<String> {
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&gateway()?)?;
    let config = manifests.iter().find_map(|object| object["data"]["envoy.yaml"].as_str()).context("no envoy.yaml")?;
    let port = |number: u16| format!("port_value: {number}");
    Ok(config.replace(&port(8080), &port(http)).replace(&port(9001), &port(upstreams)))
}

/// The commands of a block of one of the repository's Markdown files: the one below a comment that says
/// `run: … NAME`. What follows two spaces and a `#` is for people.
///
/// # Errors
/// Where there is no such block.
pub fn commands(file: &str, name: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(repository().join(file)).with_context(|| file.to_owned())?;
    let block = text.split("<!-- run: ").skip(1).find_map(|rest| {
        let (marker, rest) = rest.split_once(" -->\n```sh\n")?;
        (marker.split(' ').next_back()? == name).then_some(rest.split_once("```")?.0)
    });
    let block = block.with_context(|| format!("{file} has no block to run of the name {name}"))?;
    Ok(block.lines().map(|line| line.split("  #").next().unwrap_or(line).trim_end().to_owned()).collect())
}

/// The configuration of another team's webhook for the pods of one namespace, which refuses them where it cannot be reached.
#[must_use]
pub fn pod_webhook(name: &str, namespace: &str, url: &str, authorities: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": "mesh.example.com",
            "clientConfig": {"url": url, "caBundle": BASE64_STANDARD.encode(authorities)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    })
}

/// Makes the cluster serve cert-manager's kinds, of the version that is built.
///
/// # Errors
/// Where it cannot be built, or its CRDs cannot be applied.
pub fn serve_cert_managers_kinds(kubectl: &Kubectl) -> Result<()> {
    crate::build_certificates()?;
    kubectl.run(&format!("apply --server-side -f {}", crate::cache().join("cert-manager").display()))?;
    kubectl.wait_established()
}

/// Has cert-manager renew a certificate of the namespace `gwmon`, as `cmctl renew` does, and waits until its Secret has another.
///
/// # Errors
/// Where there is none, or it stays as it is.
pub fn renew_certificate(kubectl: &Kubectl, certificate: &str, secret: &str) -> Result<()> {
    let stored =
        || Ok::<_, anyhow::Error>(kubectl.get(&format!("-n gwmon secret {secret}"))?["data"]["tls.crt"].clone());
    let before = stored()?;
    let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": {
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by hand",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }}]);
    let patch = patch.to_string();
    let arguments =
        ["-n", "gwmon", "patch", "certificate", certificate, "--subresource=status", "--type=json", "-p", &patch];
    kubectl.run_with(&arguments, "")?;
    wait_for("another certificate", Duration::from_secs(20), || Ok((stored()? != before).then_some(())))
}
