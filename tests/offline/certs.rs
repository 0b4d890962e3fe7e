//! `gwmon certs create`, with openssl as the judge of what it makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use tempfile::TempDir;

/// Runs `gwmon certs create` in a folder: the exit code, and both outputs.
fn create(folder: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gwmon"))
        .args(["certs", "create"])
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn openssl(folder: &TempDir, words: &str) -> String {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_are_for_the_name_and_keys_are_for_their_owner() {
    let folder = TempDir::new().unwrap();
    assert_eq!(create(&folder, &["--dir", "new", "-n", "edge", "--name", "metrics", "--days", "30"]).0, 0);
    openssl(&folder, "verify -CAfile new/ca.crt -verify_hostname metrics.edge.svc -purpose sslserver new/tls.crt");
    openssl(&folder, "x509 -in new/tls.crt -noout -checkend 2500000");
    assert!(openssl(&folder, "x509 -in new/ca.crt -noout -ext basicConstraints").contains("CA:TRUE"));
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("new/ca.key"), mode("new/tls.key")), (0o600, 0o600));

    // A second run takes nothing away.
    let before = fs::read(folder.path().join("new/ca.key")).unwrap();
    let (code, _, said) = create(&folder, &["--dir", "new"]);
    assert_eq!((code, said.as_str()), (2, "error: new/ca.crt exists; move it away, or choose another --dir\n"));
    assert_eq!(fs::read(folder.path().join("new/ca.key")).unwrap(), before);
}

#[test]
fn a_secret_of_a_ca_that_is_there_holds_no_key_of_it() {
    let folder = TempDir::new().unwrap();
    create(&folder, &["--dir", "ca"]);
    let own = ["--ca-cert", "ca/ca.crt", "--ca-key", "ca/ca.key"];
    let (code, json, _) = create(&folder, &[&own[..], &["-o", "json"]].concat());
    let secret: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, secret["type"].as_str()), (0, Some("kubernetes.io/tls")));
    let data = secret["data"].as_object().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
    for (key, value) in data {
        fs::write(folder.path().join(key), BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap();
    }
    openssl(&folder, "verify -CAfile ca/ca.crt -verify_hostname gwmon.gwmon.svc tls.crt");
    let (_, yaml, _) = create(&folder, &[&own[..], &["-o", "yaml"]].concat());
    let secret: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(secret["metadata"]["name"], "gwmon-webhook-tls");
}

#[test]
fn what_is_wrong_with_a_ca_is_said() {
    let folder = TempDir::new().unwrap();
    create(&folder, &["--dir", "ca"]);
    fs::write(folder.path().join("empty"), "").unwrap();
    for (certificate, key, words) in [
        ("ca/ca.crt", "ca/tls.key", "ca.crt does not verify the certificate"),
        ("ca/tls.crt", "ca/tls.key", "ca.crt holds no certificate of a CA that is valid now"),
        ("empty", "ca/ca.key", "ca.crt holds no certificate"),
        ("ca/ca.crt", "empty", "cannot make a certificate"),
        ("none", "ca/ca.key", "cannot read none"),
    ] {
        let (code, out, said) = create(&folder, &["--ca-cert", certificate, "--ca-key", key, "--dir", "x"]);
        assert!(code == 2 && out.is_empty() && said.contains(words), "{certificate} {key}: {said}");
        assert!(!folder.path().join("x").exists(), "nothing is half-done");
    }
    for arguments in [
        &["--days", "0", "-o", "yaml"][..],
        &["--ca-cert", "ca/ca.crt", "-o", "yaml"],
        &["--name", "X", "-o", "yaml"],
        &[],
    ] {
        assert_eq!(create(&folder, arguments).0, 2, "{arguments:?}");
    }
}
