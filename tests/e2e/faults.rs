//! Faults on the real node: a gateway never pays for its metrics. All rows: `cargo bench --bench faults`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gwmon_cluster::{scenario, wait_for};
use serde_json::Value;

use crate::rows::{Fixture, Load, fault};

pub(crate) fn no_request_is_lost() -> Result<()> {
    let fixture = Fixture::new("GWMON_SUSPEND_AFTER=5s GWMON_SUSPEND_FOR=5s")?;
    // A policy that refuses the exporter, an exporter that is killed, a gateway that refuses what gwmon adds, and a mesh of each
    // kind.
    let meshes = ["W10", "W10e", "W10g"].map(|number| (number, 2));
    for (number, exporters) in [("W4", 0), ("W6", 2), ("W8b", 0)].into_iter().chain(meshes) {
        let measured = fixture.measure(fault(number)?, true)?;
        ensure!(measured.failed == 0 && measured.sent > 500, "{number}: {measured:?}");
        let rollout = measured.rollout.with_context(|| format!("{number}: the roll-out never ended: {measured:?}"))?;
        ensure!(rollout < Duration::from_mins(1), "{number}: {measured:?}");
        ensure!(measured.exporters == exporters, "{number}: {measured:?}");
    }
    it_comes_back(&fixture)?;
    a_new_gwmon_waits(&fixture)
}

/// A registry that lacks the exporter's image, or an image without a shell: the new gwmon does not become ready, and the old
/// one goes on.
fn a_new_gwmon_waits(fixture: &Fixture) -> Result<()> {
    let kubectl = &fixture.kubectl;
    for (image, said) in [("registry.invalid/x:v1", "ImagePull"), ("localhost/pause:1", "StartError")] {
        kubectl.run(&format!("-n gwmon set image deployment/gwmon exporter-image={image}"))?;
        wait_for(said, Duration::from_mins(1), || {
            let pods = kubectl.run("-n gwmon get pods -o json")?.out;
            Ok(pods.contains(said).then_some(()))
        })?;
        let status = kubectl.get("-n gwmon deployment gwmon")?["status"].clone();
        ensure!(status["unavailableReplicas"] == 1 && status["availableReplicas"] == 2, "{image}: {status}");
        kubectl.run("-n gwmon rollout undo deployment gwmon")?;
        kubectl.run("-n gwmon rollout status deployment gwmon --timeout=60s")?;
    }
    Ok(())
}

/// An image that cannot be pulled, and then can: without, one pod with, all with.
fn it_comes_back(fixture: &Fixture) -> Result<()> {
    const LATE: &str = "registry.invalid/late-exporter:v1";
    let kubectl = &fixture.kubectl;
    fixture.set(&format!("GWMON_EXPORTER_IMAGE={LATE}"))?;
    let namespace = "late";
    fixture.deploy(namespace)?;
    let load = Load::start(fixture, namespace)?;
    kubectl.run("-n late annotate deployment edge gwmon.io/inject=true")?;
    let phase = |wanted: &str| {
        wait_for(&format!("the phase {wanted}"), Duration::from_mins(1), || {
            let entry = kubectl.get("-n gwmon configmap gwmon-suspensions")?["data"]["late.edge-gwmon"].clone();
            let entry: Value = serde_json::from_str(entry.as_str().unwrap_or("{}"))?;
            Ok((entry["phase"] == wanted).then_some(entry))
        })
    };
    let entry = phase("suspended")?;
    ensure!(entry["reason"] == "ImageNotPulled", "{entry}");
    let command = wait_for("the command", Duration::from_secs(20), || fixture.told_command(namespace))?;
    kubectl.run(&command)?;
    kubectl.run("-n late rollout status deployment edge --timeout=60s")?;

    let mut tag = fixture.node.inside("ctr");
    tag.args(["-n", "k8s.io", "images", "tag", &scenario::exporter_image()?, LATE]);
    gwmon_cluster::run(tag)?;
    phase("trial")?;
    kubectl.run("-n late rollout restart deployment edge")?;
    kubectl.run("-n late rollout status deployment edge --timeout=60s")?;
    let exporters =
        || Ok::<_, anyhow::Error>(kubectl.run("-n late get pods -l gwmon.io/exporter -o name")?.out.lines().count());
    ensure!(exporters()? == 1, "one pod is tried, not {}", exporters()?);
    phase("resumed")?;
    kubectl.run("-n late rollout restart deployment edge")?;
    kubectl.run("-n late rollout status deployment edge --timeout=60s")?;
    wait_for("the pods from before to go", Duration::from_secs(20), || Ok((exporters()? == 2).then_some(())))?;
    let counts = load.end()?;
    ensure!(counts.failed == 0 && counts.sent > 2000, "{counts:?}");
    Ok(())
}
