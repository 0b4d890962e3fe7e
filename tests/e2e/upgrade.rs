//! gwmon is upgraded from the version before, by `kubectl apply` and by Helm, while the API server creates pods.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gwmon_cluster::{Kubectl, run, scenario, wait_for};
use serde_json::json;

use crate::load::Fixture;

/// Pods that are created a second, and for how many seconds: a roll-out of two replicas takes 30.
const LOAD: (u64, u64) = (55, 60);
const PREVIOUS: &str = "localhost/gwmon:previous";

/// The sources before the last commit that changed what is shipped, and the binary of them.
fn previous() -> Result<(PathBuf, PathBuf)> {
    let repository = scenario::repository();
    let mut log = Command::new("git");
    log.arg("-C").arg(&repository).args(["log", "-2", "--format=%H", "--", "src", "deploy", "Cargo.toml"]);
    let commits = String::from_utf8(log.output().context("git")?.stdout)?;
    let commit = commits.lines().nth(1).context("no commit before this one: a whole clone is needed")?;
    let place = repository.canonicalize()?.join("target/previous");
    let (source, built) = (place.join(commit), place.join("target"));
    if !source.exists() {
        std::fs::create_dir_all(&source)?;
        let mut unpack = Command::new("bash");
        unpack.args(["-euo", "pipefail", "-c", "git -C \"$0\" archive \"$1\" | tar -x -C \"$2\""]);
        unpack.arg(&repository).arg(commit).arg(&source);
        run(unpack)?;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--locked", "--quiet", "--bin", "gwmon", "--target-dir"]).arg(&built).current_dir(&source);
    run(build)?;
    Ok((source, built.join("debug/gwmon")))
}

/// Counts what happens to the objects that gwmon has made, while the value lives.
struct Watched(Vec<Child>);

impl Watched {
    fn new(kubectl: &Kubectl) -> Result<Self> {
        let watch = |kind: &str| {
            Command::new(gwmon_cluster::program("kubectl"))
                .args(["get", kind, "-n", "edge", "-l", "gwmon.io/metrics-for", "--watch-only", "-o", "name"])
                .env("KUBECONFIG", kubectl.kubeconfig())
                .stdout(Stdio::piped())
                .spawn()
        };
        Ok(Self(vec![watch("services")?, watch("servicemonitors")?]))
    }

    fn changes(self) -> Result<usize> {
        let mut changes = 0;
        for mut child in self.0 {
            ensure!(child.try_wait()?.is_none(), "kubectl stopped watching");
            child.kill()?;
            changes += String::from_utf8(child.wait_with_output()?.stdout)?.lines().count();
        }
        Ok(changes)
    }
}

pub(crate) fn no_pod_is_missed_while_gwmon_is_upgraded() -> Result<()> {
    let (source, binary) = previous()?;
    gwmon_cluster::build_helm()?;
    let fixture = Fixture::new()?;
    let Fixture { node, kubectl, shell, .. } = &fixture;
    node.load_image(&scenario::image()?, Path::new(env!("CARGO_BIN_EXE_gwmon")))?;
    node.load_image(PREVIOUS, &binary)?;
    for kind in ["prometheuses", "servicemonitors"] {
        let file = gwmon_cluster::operators_crds().join(format!("monitoring.coreos.com_{kind}.yaml"));
        kubectl.run(&format!("apply --server-side -f {}", file.display()))?;
    }
    kubectl.wait_established()?;
    let selects =
        json!({"serviceMonitorSelector": {"matchLabels": {"release": "one"}}, "serviceMonitorNamespaceSelector": {}});
    let prometheus = json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": "k8s", "namespace": "default"}, "spec": selects});
    kubectl.apply(&prometheus.to_string())?;

    // By apply. The gateway is annotated under the version before.
    let before = std::fs::read_to_string(source.join("deploy/install.yaml"))?;
    let image = scenario::image()?;
    let image = image.rsplit('/').next().unwrap_or_default();
    ensure!(before.contains(&format!("image: {image}\n")), "the version before has another tag than {image}");
    kubectl.apply(&before.replace(&format!("image: {image}\n"), &format!("image: {PREVIOUS}\n")))?;
    kubectl.run("-n gwmon rollout status deployment gwmon --timeout=90s")?;
    scenario::deploy_gateway(kubectl)?;
    kubectl.run("-n edge annotate deployment edge gwmon.io/inject=true")?;
    wait_for("the monitor", Duration::from_mins(1), || kubectl.get("-n edge servicemonitor edge-gwmon").map(Some))?;
    kubectl.run("-n edge rollout status deployment edge --timeout=90s")?;
    let generation =
        || Ok::<_, anyhow::Error>(kubectl.get("-n edge deployment edge")?["metadata"]["generation"].clone());
    let (annotated, watched) = (generation()?, Watched::new(kubectl)?);
    let apply = || {
        shell.command(
            "kubectl apply -f deploy/install.yaml && kubectl -n gwmon rollout status deployment gwmon --timeout=90s",
        )
    };
    fixture.under_load(LOAD, &[(2, &apply)]).context("kubectl apply")?;
    ensure!(generation()? == annotated, "the upgrade rolled the gateway out");
    let changes = watched.changes()?;
    ensure!(changes <= 2, "the Service and the ServiceMonitor were changed {changes} times");

    // By Helm.
    shell.command("gwmon uninstall --yes --keep-workloads")?;
    let chart = source.join("deploy/chart");
    let old = "image.repository=localhost/gwmon,image.tag=previous";
    shell.command(&format!(
        "helm install gwmon {} -n gwmon --create-namespace --set {old} --wait --timeout 5m",
        chart.display()
    ))?;
    let upgrade = || shell.command("helm upgrade gwmon deploy/chart -n gwmon --wait --timeout 5m");
    fixture.under_load(LOAD, &[(2, &upgrade)]).context("helm upgrade")?;
    ensure!(generation()? == annotated, "the upgrade rolled the gateway out");
    Ok(())
}
