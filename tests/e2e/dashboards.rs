//! Dashboards and rules as docs/dashboards.md says, in the cluster of the main job.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use gwmon::dashboards;
use gwmon_cluster::{Kubectl, Prometheus, wait_for};

use crate::Shell;

/// The Prometheus loads the rules, and records what the gateway does.
pub(crate) fn are_loaded(kubectl: &Kubectl, prometheus: &Prometheus) -> Result<()> {
    let rules = || {
        let mut gwmon = Command::new(env!("CARGO_BIN_EXE_gwmon"));
        gwmon.args(["rules", "--cluster"]).env("KUBECONFIG", kubectl.kubeconfig()).output()
    };
    let refused = rules()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    ensure!(said.contains("Prometheus monitoring/k8s: loads no rules: it has no spec.ruleSelector"), "{said}");
    let selector = r#"{"spec": {"ruleSelector": {"matchLabels": {"role": "alerts"}}}}"#;
    kubectl.run_with(&["-n", "monitoring", "patch", "prometheus", "k8s", "--type=merge", "-p", selector], "")?;

    Shell::new(kubectl)?.run("docs/dashboards.md", "install")?;
    let boards = kubectl.get("-n monitoring configmaps -l grafana_dashboard=1")?;
    ensure!(boards["items"].as_array().map(Vec::len) == Some(dashboards::all().len()), "{boards}");
    // The Prometheus reads rules of its own namespace only.
    let rule = kubectl.get("-n monitoring prometheusrule gwmon")?;
    ensure!(rule["metadata"]["labels"]["role"] == "alerts", "{}", rule["metadata"]);
    let mut looked = 0;
    wait_for("the rules in Prometheus", Duration::from_mins(3), || {
        // Has the kubelet look at the pod's ConfigMaps now, and not within two minutes.
        looked += 1;
        kubectl.run(&format!("-n monitoring annotate pod prometheus-k8s-0 --overwrite looked={looked}"))?;
        prometheus.query("sum(namespace_job:gwmon_gateway_requests:rate5m{job=\"edge-gwmon\", namespace=\"edge\"} > 0)")
    })?;
    let loaded = prometheus.ask("rules")?;
    let groups = loaded["groups"].as_array().into_iter().flatten();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    ensure!(rules.len() > 30 && rules.iter().all(|rule| rule["health"] != "err"), "{loaded:#}");
    Ok(())
}
