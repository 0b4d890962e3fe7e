//! Certificates are renewed while the API server creates pods, and it misses none of them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon::certs::certificate::CertificateInfo;
use gwmon::certs::issue::Certificates;
use gwmon_cluster::{scenario, wait_for};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::load::Fixture;

/// Pods that are created a second, and for how many seconds.
const LOAD: (u64, u64) = (100, 60);
const NAMES: [&str; 2] = ["gwmon.gwmon.svc.cluster.local", "gwmon.gwmon.svc"];

impl Fixture {
    /// The leaf that each replica serves, by `gwmon certs status`, which finds that all is well.
    fn served(&self) -> Result<Vec<String>> {
        self.shell.command("gwmon certs status -o json > status.json")?;
        let status: Value = serde_json::from_str(&self.shell.read("status.json")?)?;
        let replicas = status["served"].as_array().cloned().unwrap_or_default();
        ensure!(replicas.len() == 2, "{status}");
        ensure!(
            replicas.iter().all(|replica| replica["by"].as_str().is_some_and(|by| by.starts_with("pod/"))),
            "{status}"
        );
        Ok(replicas.iter().map(|replica| replica["chain"][0]["notBefore"].to_string()).collect())
    }

    /// Waits until both replicas serve another leaf than one of these.
    fn all_but(&self, before: &[String]) -> Result<Vec<String>> {
        wait_for("both replicas to serve another certificate", Duration::from_mins(2), || {
            let served = self.served()?;
            Ok(served.iter().all(|leaf| !before.contains(leaf)).then_some(served))
        })
    }
}

/// Certificates of which the leaf is due in half a minute, and the authority in a minute.
fn aged() -> Result<Certificates> {
    let (names, now) = (NAMES.map(str::to_owned), OffsetDateTime::now_utc());
    let fresh = Certificates::new(&names, now)?;
    let made = |pem: &str, due: i64| -> Result<OffsetDateTime> {
        let age = CertificateInfo::of("a certificate", pem)?.renewal() - now;
        Ok(now - age + time::Duration::seconds(due))
    };
    let authority = Certificates::new(&names, made(&fresh.authorities, 55)?)?;
    // Its first leaf has ended months ago.
    authority.renewed(&names, made(&fresh.leaf, 35)?)?.context("nothing was due")
}

pub(crate) fn no_pod_is_missed_while_certificates_are_renewed() -> Result<()> {
    let fixture = Fixture::new()?;
    let Fixture { node, kubectl, shell, .. } = &fixture;
    node.load_image(&scenario::image()?, std::path::Path::new(env!("CARGO_BIN_EXE_gwmon")))?;

    shell.run("certs/README.md", "self-signed")?;
    let first = fixture.served()?;
    let aged = aged()?;
    let encoded = |text: &str| json!(BASE64_STANDARD.encode(text));
    let data = json!({"data": {
        "ca.crt": encoded(&aged.authorities), "ca.key": encoded(&aged.authority_key),
        "tls.crt": encoded(&aged.leaf), "tls.key": encoded(&aged.leaf_key),
    }});
    kubectl.run_with(&["-n", "gwmon", "patch", "secret", "gwmon-tls", "-p", &data.to_string()], "")?;
    let second = fixture.all_but(&first)?;
    // What is due is looked at once a minute, and when the Secret changes.
    let when_due = |pem: &str| {
        let due = CertificateInfo::of("a certificate", pem)?.renewal() - OffsetDateTime::now_utc();
        ensure!(due.is_positive(), "the machine is too slow: a certificate was due before the load");
        std::thread::sleep(due.try_into()?);
        kubectl.run("-n gwmon annotate secret gwmon-tls looked-").map(drop)?;
        kubectl.run("-n gwmon annotate secret gwmon-tls looked=at").map(drop)
    };
    fixture.under_load(LOAD, &[(0, &|| when_due(&aged.leaf)), (0, &|| when_due(&aged.authorities))])?;
    let third = fixture.all_but(&second)?;
    let stored = kubectl.get("-n gwmon secret gwmon-tls")?["data"]["ca.crt"].as_str().unwrap_or_default().to_owned();
    let stored = String::from_utf8(BASE64_STANDARD.decode(stored)?)?;
    ensure!(stored.matches("BEGIN").count() == 2 && stored.contains(aged.authorities.trim()), "the CA was not renewed");

    // cert-manager's: the change of the source, and then each of its certificates.
    scenario::serve_cert_managers_kinds(kubectl)?;
    let mut cert_manager = node.inside("sh");
    // It ends with the node.
    std::mem::forget(cert_manager.args(["-c", "exec cert-manager $KUBECONFIG"]).stderr(Stdio::null()).spawn()?);
    let change = || shell.run("certs/README.md", "cert-manager");
    let renew_leaf = || scenario::renew_certificate(kubectl, "gwmon", "gwmon-webhook-tls");
    let renew_authority = || scenario::renew_certificate(kubectl, "gwmon-ca", "gwmon-ca");
    let change_back = || shell.run("certs/README.md", "self-signed");
    // Each change of the source ends when the last replica of before has gone.
    fixture.under_load(
        LOAD,
        &[(1, &change), (25, &renew_leaf), (27, &renew_authority), (29, &renew_leaf), (32, &change_back)],
    )?;
    let fourth = wait_for("the replicas of before to go", Duration::from_mins(1), || fixture.served().map(Some))?;
    ensure!(fourth == third, "the certificate of before is still in its Secret");

    shell.run("certs/README.md", "files")?;
    let before = fixture.all_but(&fourth)?;
    shell.run("certs/README.md", "renew")?;
    // The kubelet would bring it within a minute and a half; it looks at once at a pod that has changed.
    kubectl.run("-n gwmon annotate pods --all looked=at")?;
    fixture.all_but(&before).map(drop)
}
