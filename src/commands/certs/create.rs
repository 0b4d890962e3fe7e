//! `gwmon certs create`: certificates for those who bring their own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::certs::issue::{Authority, Certificates};
use crate::cli::CertsCreate;
use crate::commands::output::structured;

pub(super) fn run(args: &CertsCreate) -> Result<()> {
    let installation = args.installation.installation();
    let (now, life) = (OffsetDateTime::now_utc(), Duration::days(args.days.into()));
    let authority = match (&args.ca_cert, &args.ca_key) {
        (Some(certificate), Some(key)) => {
            let read =
                |file: &Path| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
            Authority { certificates: read(certificate)?, key: read(key)? }
        }
        _ => Authority::new(now, life * 10)?,
    };
    let is_new = args.ca_cert.is_none();
    let made = authority.issue(&installation.service_names(), now, life).context("--ca-cert, --ca-key")?;
    if let Some(folder) = &args.dir {
        write(folder, &made, is_new)?;
    }
    if is_new && args.dir.is_none() {
        eprintln!("note: the CA's key is not kept; add --dir to renew the certificate with the same CA");
    }
    if let Some(format) = args.output {
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": installation.provided_secret(), "namespace": installation.namespace},
            "type": "kubernetes.io/tls",
            "data": {
                "ca.crt": encoded(&made.authorities),
                "tls.crt": encoded(&made.leaf),
                "tls.key": encoded(&made.leaf_key),
            },
        });
        std::io::stdout().write_all(structured(format, &secret)?.as_bytes())?;
    }
    Ok(())
}

/// Writes all files or none.
fn write(folder: &Path, made: &Certificates, is_new: bool) -> Result<()> {
    let files = [
        ("ca.crt", &made.authorities, 0o644),
        ("ca.key", &made.authority_key, 0o600),
        ("tls.crt", &made.leaf, 0o644),
        ("tls.key", &made.leaf_key, 0o600),
    ];
    // One's own CA stays where it is.
    let files = files.into_iter().filter(|(name, ..)| is_new || *name != "ca.key");
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, ..) in files.clone() {
        let file = folder.join(name);
        if file.symlink_metadata().is_ok() {
            bail!("{} exists; move it away, or choose another --dir", file.display());
        }
    }
    let mut written = Vec::new();
    for (name, text, mode) in files {
        let file = folder.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&file);
        let result = opened.and_then(|mut opened| {
            written.push(file.clone());
            opened.write_all(text.as_bytes())
        });
        if let Err(error) = result {
            for file in &written {
                let _ = fs::remove_file(file);
            }
            return Err(error).with_context(|| format!("cannot write {}", file.display()));
        }
    }
    Ok(())
}
