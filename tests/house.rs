//! The house stays as it was drawn: the core knows no client, no runtime, no files and no clock, and modules stay
//! readable in one sitting.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

const CORE: &[&str] = &[
    "annotations",
    "injection",
    "labels.rs",
    "manifest",
    "monitoring",
    "policy.rs",
    "quantity.rs",
    "reason",
    "suspension",
];

fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    fs::read_dir(place).unwrap().flat_map(|entry| files(&entry.unwrap().path())).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn the_core_names_no_edge() {
    let forbidden = [
        "kube::",
        "tokio",
        "axum",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "SystemTime",
        "Instant",
        "now_utc",
        "crate::admin",
        "crate::commands",
        "crate::controller",
        "crate::log",
        "crate::metrics",
        "crate::server",
        "crate::tls",
        "crate::webhook",
    ];
    let core: Vec<_> = CORE.iter().flat_map(|part| files(&source().join(part))).collect();
    assert!(core.len() >= 14, "the core is elsewhere: {core:?}");
    for file in core {
        let text = fs::read_to_string(&file).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn a_module_is_read_in_one_sitting() {
    for file in files(&source()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines", file.display());
    }
}
