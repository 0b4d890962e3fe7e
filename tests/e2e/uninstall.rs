//! `gwmon uninstall`, while the gateway answers requests.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gwmon_cluster::{Kubectl, scenario, wait_for};
use serde_json::Value;

use crate::Shell;
use crate::rows::{Fixture, Load};

/// Everything goes, no request is lost, and nothing of gwmon's is left in any kind of object.
pub(crate) fn nothing_is_left(fixture: &Fixture) -> Result<()> {
    let kubectl = &fixture.kubectl;
    let crds = gwmon_cluster::operators_crds();
    for kind in ["prometheuses", "servicemonitors"] {
        let file = crds.join(format!("monitoring.coreos.com_{kind}.yaml"));
        kubectl.run(&format!("apply --server-side -f {}", file.display()))?;
    }
    kubectl.wait_established()?;
    let prometheus = serde_json::json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus",
        "metadata": {"name": "k8s", "namespace": "default"},
        "spec": {"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}},
    });
    kubectl.apply(&prometheus.to_string())?;
    let namespace = "leaving";
    fixture.deploy(namespace)?;
    let load = Load::start(fixture, namespace)?;
    kubectl.run("-n leaving annotate deployment edge gwmon.io/inject=true")?;
    kubectl.run("-n leaving rollout status deployment edge --timeout=60s")?;
    wait_for("the monitor", Duration::from_mins(1), || kubectl.get("-n leaving servicemonitor edge-gwmon").map(Some))?;

    let shell = Shell::new(kubectl)?;
    shell.command("gwmon selftest")?;
    let commands = scenario::commands("docs/concepts.md", "uninstall")?;
    let [plan, removal] = &commands[..] else { bail!("{commands:?}") };
    shell.command(&format!("{plan} > plan.txt"))?;
    let plan = shell.read("plan.txt")?;
    for line in
        ["mutatingwebhookconfiguration/gwmon", "deployment/edge -n leaving", "servicemonitor/edge-gwmon -n leaving"]
    {
        ensure!(plan.lines().any(|said| said.trim() == line), "{line} is not in\n{plan}");
    }
    kubectl.get("mutatingwebhookconfiguration gwmon").context("the plan has changed something")?;
    shell.command(&format!("{removal} > done.txt"))?;
    kubectl.run("-n leaving rollout status deployment edge --timeout=60s")?;
    let counts = load.end()?;
    ensure!(counts.failed == 0 && counts.sent > 500, "{counts:?}\n{}", shell.read("done.txt")?);
    wait_for("the namespace to go", Duration::from_mins(1), || {
        Ok(kubectl.run("get namespace gwmon").is_err().then_some(()))
    })?;
    let left = left(kubectl)?;
    ensure!(left.is_empty(), "{left:#?}\n{}", shell.read("done.txt")?);
    shell.command("gwmon uninstall --yes | grep 'nothing of gwmon was found'")?;
    shell.command("gwmon selftest && exit 9 || [ $? -eq 1 ]")
}

/// Objects of any kind that are called gwmon or carry its labels or annotations; but for the history of workloads, Events, and the
/// annotation that the user set.
fn left(kubectl: &Kubectl) -> Result<Vec<String>> {
    let kinds = kubectl.run("api-resources --verbs=list -o name")?.out;
    let is_history =
        |kind: &str| ["events", "replicasets", "controllerrevisions"].iter().any(|one| kind.starts_with(one));
    let mut left = Vec::new();
    for kind in kinds.lines().filter(|kind| !is_history(kind)) {
        let objects = kubectl.get(&format!("{kind} -A"))?;
        for mut object in objects["items"].as_array().cloned().unwrap_or_default() {
            let metadata = &mut object["metadata"];
            metadata["managedFields"] = Value::Null;
            if let Some(annotations) = metadata["annotations"].as_object_mut() {
                annotations.retain(|key, value| key != "gwmon.io/inject" || value != "true");
            }
            let name = metadata["name"].to_string();
            if name.contains("gwmon") || object.to_string().contains("gwmon.io/") {
                left.push(format!("{kind} {name}: {object}"));
            }
        }
    }
    Ok(left)
}
