//! The chart on a real cluster: installed, tested, upgraded, rolled back, uninstalled; by two names.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::Shell;
use crate::rows::Fixture;

/// Takes a cluster without gwmon, and leaves it so.
pub(crate) fn a_release_lives_and_dies(fixture: &Fixture) -> Result<()> {
    gwmon_cluster::build_helm()?;
    let kubectl = &fixture.kubectl;
    let shell = Shell::new(kubectl)?;
    let bundle = || -> Result<Value> {
        let configuration = kubectl.get("mutatingwebhookconfiguration gwmon")?;
        Ok(configuration["webhooks"][0]["clientConfig"]["caBundle"].clone())
    };
    let has_flag = || -> Result<bool> {
        let deployment = kubectl.get("-n gwmon deployment gwmon")?;
        Ok(deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string().contains("--suspend-after=40s"))
    };
    shell.command("helm install gwmon deploy/chart -n gwmon --create-namespace --wait --timeout 5m")?;
    shell.command("helm test gwmon -n gwmon --timeout 60s")?;
    shell.command("gwmon certs status")?;
    let before = bundle()?;
    shell.command("helm upgrade gwmon deploy/chart -n gwmon --set suspendAfter=40s --wait --timeout 5m")?;
    ensure!(has_flag()? && bundle()? == before, "an upgrade leaves the caBundle alone");
    shell.command("helm rollback gwmon 1 -n gwmon --wait --timeout 5m")?;
    ensure!(!has_flag()? && bundle()? == before, "so does a rollback");
    shell.command("helm test gwmon -n gwmon --timeout 60s")?;

    // Another release is another installation, which the first one's removal leaves alone.
    shell.command("helm install metrics deploy/chart -n obs --create-namespace --wait --timeout 5m")?;
    shell.command("gwmon uninstall --yes | tee done.txt | grep 'deployment/gwmon -n gwmon deleted'")?;
    ensure!(!shell.read("done.txt")?.contains("metrics"), "{}", shell.read("done.txt")?);
    shell.command("helm uninstall gwmon -n gwmon --wait")?;
    shell.command("gwmon certs status -n obs --name metrics")?;
    shell.command("helm test metrics -n obs --timeout 60s")?;
    shell.command("helm uninstall metrics -n obs --wait")?;
    shell.command("gwmon uninstall -n obs --name metrics | grep 'secret/metrics-tls -n obs'")?;
    shell.command("gwmon uninstall -n obs --name metrics --yes")?;
    shell.command("gwmon uninstall -n obs --name metrics | grep 'nothing of gwmon was found'")
}
