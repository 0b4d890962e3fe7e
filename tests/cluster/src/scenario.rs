//! The pieces of gwmon's main job, as the demo shows them and the tests assert them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Kubectl, Node, folder, wait_for};

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
    let versions = fs::read_to_string(crate::cache().join("versions")).context("the cluster is not built yet")?;
    let envoy = versions.lines().find_map(|line| line.strip_prefix("ENVOY=")).context("no Envoy version")?;
    Ok(fs::read_to_string(folder().join("gateway.yaml"))?.replace("ENVOY_VERSION", envoy))
}

/// Installs gwmon from `deploy/` and waits until it is ready.
///
/// # Errors
/// Where it does not become ready.
pub fn install_gwmon(node: &Node, binary: &Path) -> Result<()> {
    let kubectl = node.kubectl();
    let manifest = repository().join("deploy/install.yaml");
    let text = fs::read_to_string(&manifest)?;
    let image =
        text.lines().find_map(|line| line.trim().strip_prefix("image: ")).context("no image in deploy/install.yaml")?;
    node.load_image(image, binary)?;
    kubectl.apply(&text)?;
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
    /// Starts them.
    ///
    /// # Errors
    /// Where the generator does not start.
    pub fn start(node: &Node) -> Result<Self> {
        let mut load = node.inside(folder().join("load.sh"));
        Ok(Self(load.args(["edge", "app=edge"]).stdout(Stdio::null()).spawn()?))
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

/// Waits until Prometheus reports a target of the gateway's monitor up.
///
/// # Errors
/// Where none is up in time.
pub fn target_up(kubectl: &Kubectl) -> Result<Value> {
    wait_for("a target that is up", PATIENCE, || {
        let targets = kubectl.prometheus("targets?state=active&scrapePool=serviceMonitor/edge/edge-gwmon/0")?;
        Ok(targets["activeTargets"].as_array().into_iter().flatten().find(|target| target["health"] == "up").cloned())
    })
}

/// Waits until [`QUERY`] answers with a whole request a second: right after the first scrapes a rate over a minute
/// is only a fraction of the truth.
///
/// # Errors
/// Where it does not in time.
pub fn rate(kubectl: &Kubectl) -> Result<f64> {
    wait_for("a rate above one", PATIENCE, || Ok(kubectl.query(QUERY)?.filter(|rate| *rate > 1.)))
}
