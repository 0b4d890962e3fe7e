//! The webhook's certificate from each of its sources, what people and clocks do to it, and whether a client that trusts what the
//! API server trusts still accepts it. The judge is openssl.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use gwmon::certs::issue::Certificates;
use gwmon_cluster::{Kubectl, program, scenario, wait_for};
use serde_json::{Value, json};
use support::{Gwmon, Installed, settle};
use tempfile::TempDir;
use time::OffsetDateTime;

const NAME: &str = "gwmon.gwmon.svc";

/// The `caBundle` of each webhook, decoded.
fn bundles(installed: &Installed) -> Result<Vec<String>> {
    let configuration = installed.kubectl.get("mutatingwebhookconfiguration gwmon")?;
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    let bundle = |webhook: &Value| {
        let encoded = webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        Ok(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?)
    };
    webhooks.map(bundle).collect()
}

/// Has openssl connect as the API server does, by the webhook's name, trusting its `caBundle` only.
fn accepted(installed: &Installed, gwmon: &Gwmon) -> Result<()> {
    let folder = TempDir::new()?;
    for bundle in bundles(installed)? {
        let file = folder.path().join("bundle");
        fs::write(&file, bundle)?;
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", gwmon.webhook), "-servername", NAME])
            .args(["-verify_hostname", NAME, "-verify_return_error", "-no-CAfile", "-no-CApath", "-CAfile"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn made(now: OffsetDateTime) -> Certificates {
    Certificates::new(&[format!("{NAME}.cluster.local"), NAME.to_owned()], now).unwrap()
}

fn data(certificates: &Certificates) -> Value {
    let encoded = |text: &str| json!(BASE64_STANDARD.encode(text));
    json!({
        "ca.crt": encoded(&certificates.authorities),
        "ca.key": encoded(&certificates.authority_key),
        "tls.crt": encoded(&certificates.leaf),
        "tls.key": encoded(&certificates.leaf_key),
    })
}

#[test]
fn two_replicas_share_one_certificate_whatever_becomes_of_it() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    let install = fs::read_to_string("deploy/install.yaml").unwrap();
    // Started at once: both would make one.
    let replicas = [installed.start(&[], &[]), installed.start(&[], &[])];
    replicas.iter().for_each(Gwmon::wait_ready);
    let stored = |key: &str| -> Result<String> {
        let secret = kubectl.get("-n gwmon secret gwmon-tls")?;
        Ok(String::from_utf8(BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap_or_default())?)?)
    };
    let first = stored("ca.crt").unwrap();
    assert_eq!(bundles(&installed).unwrap(), vec![first.clone(); 3], "all webhooks trust the one authority");

    // The manifests again: nothing is lost, since they name no caBundle (R8).
    kubectl.apply(&install).unwrap();
    assert_eq!(bundles(&installed).unwrap(), vec![first.clone(); 3]);

    let overwritten = r#"[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": null}]"#;
    let now = OffsetDateTime::now_utc();
    let (own, other) = (made(now), made(now));
    let others_key = Certificates { leaf_key: other.leaf_key.clone(), ..own.clone() };
    let third = made(now);
    let others_leaf = Certificates { leaf: other.leaf, leaf_key: other.leaf_key, ..third };
    let written = |certificates: &Certificates| {
        let patch = json!({"data": data(certificates)}).to_string();
        kubectl.run_with(&["-n", "gwmon", "patch", "secret", "gwmon-tls", "-p", &patch], "").unwrap();
    };
    let strikes: [(&str, &dyn Fn()); 7] = [
        ("the caBundle is emptied", &|| {
            let patch = ["patch", "mutatingwebhookconfiguration", "gwmon", "--type=json", "-p", overwritten];
            kubectl.run_with(&patch, "").unwrap();
        }),
        ("the webhook configuration is replaced", &|| {
            let objects: Vec<Value> = serde_saphyr::from_multiple(&install).unwrap();
            let webhook = objects.iter().find(|object| object["kind"] == "MutatingWebhookConfiguration").unwrap();
            kubectl.run_with(&["replace", "-f", "-"], &webhook.to_string()).unwrap();
        }),
        ("the Secret is deleted", &|| {
            kubectl.run("-n gwmon delete secret gwmon-tls").unwrap();
        }),
        ("its values are emptied", &|| {
            let empty = json!({"data": {"ca.crt": "", "ca.key": "", "tls.crt": "", "tls.key": ""}}).to_string();
            kubectl.run_with(&["-n", "gwmon", "patch", "secret", "gwmon-tls", "-p", &empty], "").unwrap();
        }),
        ("its key is another certificate's", &|| written(&others_key)),
        ("its leaf is another authority's", &|| written(&others_leaf)),
        ("all of it has expired", &|| written(&made(now - time::Duration::days(400)))),
    ];
    for (what, strike) in strikes {
        let before = stored("tls.crt").unwrap();
        strike();
        let is_new = !what.contains("webhook") && !what.contains("caBundle");
        for replica in &replicas {
            // The API server's own clock and watch have their seconds.
            wait_for(what, Duration::from_secs(20), || {
                let (authorities, leaf) = (stored("ca.crt")?, stored("tls.crt")?);
                let is_made = [&others_key, &others_leaf].iter().all(|struck| struck.leaf != leaf);
                ensure!(is_made && is_new == (leaf != before), "not made anew");
                let bundles = bundles(&installed)?;
                let is_announced = bundles.iter().all(|bundle| bundle.contains(authorities.trim()));
                ensure!(!authorities.is_empty() && is_announced, "not announced");
                let shown = gwmon_cluster::local::get(replica.admin, "/certificate")?;
                ensure!(shown.contains(leaf.trim()), "not served");
                accepted(&installed, replica).map(Some)
            })
            .unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", replica.log()));
        }
    }
    // Others that were announced stay, until somebody empties the field.
    for line in scenario::commands("certs/README.md", "forget").unwrap() {
        let mut shell = Command::new("bash");
        shell.args(["-c", &line]).env("KUBECONFIG", kubectl.kubeconfig());
        let path = format!("{}:{}", program("kubectl").parent().unwrap().display(), std::env::var("PATH").unwrap());
        assert!(shell.env("PATH", path).status().unwrap().success());
    }
    settle("the present authority alone", || Ok((bundles(&installed)? == vec![stored("ca.crt")?; 3]).then_some(())));
    for replica in &replicas {
        replica.assert_never_forbidden();
        assert!(replica.metric("gwmon_certificate_update_failing") < 1.);
        replica.wait_ready();
    }
    let leaf = gwmon_cluster::local::get(replicas[0].admin, "/certificate").unwrap();
    assert!(leaf.contains(stored("tls.crt").unwrap().trim()), "{leaf}");
}

#[test]
fn a_secret_of_somebody_elses_is_left_alone() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    kubectl.run("-n gwmon create secret generic gwmon-tls --from-literal=password=hunter2").unwrap();
    let gwmon = installed.start(&[], &[]);
    let words = "Secret gwmon/gwmon-tls holds no certificates and was not made by gwmon";
    installed.event("gwmon", "gwmon", "CertificateNotUpdated", words);
    let secret = kubectl.get("-n gwmon secret gwmon-tls").unwrap();
    assert_eq!(secret["data"], json!({"password": BASE64_STANDARD.encode("hunter2")}));
    kubectl.run("-n gwmon delete secret gwmon-tls").unwrap();
    gwmon.wait_ready();
    accepted(&installed, &gwmon).unwrap();
}

#[test]
fn a_clock_that_is_wrong_by_months_renews_nothing() {
    gwmon_cluster::build_certificates().unwrap();
    let installed = Installed::new();
    let folder = TempDir::new().unwrap();
    let offset = folder.path().join("offset");
    fs::write(&offset, "+0").unwrap();
    let library = gwmon_cluster::cache().join("libfaketime.so");
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    // The clock moves for this very program.
    fs::write(&offset, "+61d").unwrap();
    let mut create = Command::new(env!("CARGO_BIN_EXE_gwmon"));
    create.args(["certs", "create", "--dir"]).arg(folder.path().join("later")).envs(environment);
    assert!(create.status().unwrap().success());
    let later = fs::read_to_string(folder.path().join("later/tls.crt")).unwrap();
    let begin = gwmon::certs::certificate::CertificateInfo::of("tls.crt", &later).unwrap().not_before;
    assert!(begin > OffsetDateTime::now_utc() + time::Duration::days(60), "{begin}");
    fs::write(&offset, "+0").unwrap();

    let gwmon = installed.start(&[], &environment);
    gwmon.wait_ready();
    let stored = || installed.kubectl.get("-n gwmon secret gwmon-tls").unwrap()["data"].clone();
    let before = stored();
    // At two thirds of 90 days the certificate is due, of 365 the authority; half an hour ago neither was valid. Further off, the
    // API server's own certificate would not be valid either.
    for shift in ["+61d", "+300d", "-30m", "+0"] {
        fs::write(&offset, shift).unwrap();
        installed.kubectl.run(&format!("-n gwmon annotate secret gwmon-tls --overwrite moved={shift}")).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        accepted(&installed, &gwmon).unwrap_or_else(|error| panic!("{shift}: {error:#}"));
        assert_eq!(stored(), before, "{shift}");
        gwmon.wait_ready();
        assert_eq!(gwmon.log().matches("ertificate").count(), 1, "{shift}: {}", gwmon.log());
    }
}

/// Files as the kubelet mounts them: behind a link that is swapped.
struct Mounted {
    folder: TempDir,
    count: u32,
}

impl Mounted {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.path().join(name)).unwrap();
        }
        Self { folder, count: 0 }
    }

    fn put(&mut self, authorities: &str, leaf: &str, key: &str) {
        self.count += 1;
        let (data, link) = (format!("..{}", self.count), self.folder.path().join("..next"));
        let folder = self.folder.path().join(&data);
        fs::create_dir(&folder).unwrap();
        for (name, text) in [("ca.crt", authorities), ("tls.crt", leaf), ("tls.key", key)] {
            fs::write(folder.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(&data, &link).unwrap();
        fs::rename(link, self.folder.path().join("..data")).unwrap();
    }
}

#[test]
fn files_are_served_and_a_bad_pair_leaves_the_good_one_in_use() {
    let installed = Installed::new();
    let now = OffsetDateTime::now_utc();
    let (one, two) = (made(now), made(now));
    let other_name = Certificates::new(&["other.svc".to_owned()], now).unwrap();
    let mut mounted = Mounted::new();
    let folder = mounted.folder.path().to_owned();
    let gwmon = installed.start(&["--certificates=files", "--certificate-dir", folder.to_str().unwrap()], &[]);
    let served = |certificates: &Certificates| {
        settle("the certificate to be served", || {
            let shown = gwmon_cluster::local::get(gwmon.admin, "/certificate")?;
            Ok(shown.contains(certificates.leaf.trim()).then_some(()))
        });
        accepted(&installed, &gwmon).unwrap();
    };
    // Nothing is mounted yet.
    installed.event("gwmon", "gwmon", "CertificateNotUpdated", "tls.crt: No such file or directory");
    assert!(gwmon_cluster::local::get(gwmon.admin, "/readyz").unwrap().starts_with("HTTP/1.1 503"));
    mounted.put(&one.authorities, &one.leaf, &one.leaf_key);
    served(&one);
    gwmon.wait_ready();
    assert_eq!(bundles(&installed).unwrap(), vec![one.authorities.clone(); 3]);

    for (what, (leaf, key)) in [
        ("tls.key is not the key of the first certificate in tls.crt", (&two.leaf, &one.leaf_key)),
        ("tls.crt cannot be read: ", (&two.leaf[..two.leaf.len() / 2].to_owned(), &two.leaf_key)),
        ("the certificate is for other.svc, and not for gwmon.gwmon.svc", (&other_name.leaf, &other_name.leaf_key)),
        ("ca.crt does not verify the certificate", (&two.leaf, &two.leaf_key)),
    ] {
        mounted.put(&one.authorities, leaf, key);
        installed.event("gwmon", "gwmon", "CertificateNotUpdated", what);
        assert!(gwmon.metric("gwmon_certificate_update_failing") > 0., "{what}");
        served(&one);
        gwmon.wait_ready();
    }

    mounted.put(&two.authorities, &two.leaf, &two.leaf_key);
    served(&two);
    settle("the failure to be over", || Ok((gwmon.metric("gwmon_certificate_update_failing") < 1.).then_some(())));
    let bundle = bundles(&installed).unwrap().remove(0);
    assert!(
        bundle.starts_with(&two.authorities) && bundle.contains(one.authorities.trim()),
        "the other replica may serve it"
    );
    gwmon.assert_never_forbidden();
}

/// The real cert-manager, on a cluster of its own.
struct CertManager(Child);

impl CertManager {
    fn start(kubectl: &Kubectl) -> Self {
        let mut command = Command::new(program("cert-manager"));
        Self(command.arg(kubectl.kubeconfig()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for CertManager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn cert_manager_issues_and_gwmon_leaves_the_rest_to_it() {
    let installed = Installed::new();
    let Installed { kubectl, .. } = &installed;
    scenario::serve_cert_managers_kinds(kubectl).unwrap();
    kubectl.run("apply -k deploy/overlays/cert-manager").unwrap();
    let gwmon = installed.start(&["--certificates=cert-manager"], &[]);
    installed.event(
        "gwmon",
        "gwmon",
        "CertificateNotUpdated",
        "Secret gwmon/gwmon-webhook-tls does not exist; cert-manager creates it",
    );
    let _cert_manager = CertManager::start(kubectl);
    settle("the certificate", || accepted(&installed, &gwmon).map(Some));
    gwmon.wait_ready();

    // Renewed by hand, as `cmctl renew` does it: the leaf, then the authority, whose key stays.
    for certificate in ["gwmon", "gwmon-ca", "gwmon"] {
        let name = if certificate == "gwmon" { "gwmon-webhook-tls" } else { certificate };
        scenario::renew_certificate(kubectl, certificate, name).unwrap();
        accepted(&installed, &gwmon).unwrap();
        settle("it to be served", || {
            let leaf = kubectl.get("-n gwmon secret gwmon-webhook-tls")?["data"]["tls.crt"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let leaf = String::from_utf8(BASE64_STANDARD.decode(leaf)?)?;
            let shown = gwmon_cluster::local::get(gwmon.admin, "/certificate")?;
            Ok(shown.contains(leaf.trim()).then_some(()))
        });
        accepted(&installed, &gwmon).unwrap();
    }
    let configuration =
        kubectl.run("get mutatingwebhookconfiguration gwmon -o yaml --show-managed-fields").unwrap().out;
    assert!(!configuration.contains("gwmon-certificates"), "{configuration}");
    gwmon.assert_never_forbidden();
}
