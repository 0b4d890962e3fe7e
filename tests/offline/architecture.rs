//! The architecture: the core names no client, no runtime, no file, no network and no clock, and no module is longer than one
//! sitting.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The modules of the core. It may name itself and nothing else of the crate.
const CORE: &[&str] = &[
    "annotations",
    "dashboards",
    "diagnosis",
    "injection",
    "kubernetes",
    "manifest",
    "monitoring",
    "config",
    "reason",
    "suspension",
];

/// What the core may name of other crates. Everything else is refused, whether or not it does I/O.
const ALLOWED: &[&str] = &[
    "base64",
    // Network addresses are values; `std::net` has sockets too.
    "core::net::Ipv4Addr",
    "encoding_rs_io",
    "granit_parser",
    "json_patch",
    "k8s_openapi",
    "libyaml_safer",
    "memchr",
    "ring::digest",
    "schemars",
    "serde",
    "serde_json",
    "serde_path_to_error",
    "serde_saphyr",
    "std::borrow",
    "std::cell",
    "std::cmp",
    "std::collections",
    "std::fmt",
    // Readers and cursors over memory. What opens a file is in `std::fs`.
    "std::io",
    "std::iter",
    "std::marker",
    "std::ops",
    "std::panic",
    "std::ptr",
    "std::str",
    "std::sync",
    "thiserror",
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

/// Every path of two or more parts in the code, those within `use` groups and macros too, as `a::b::c`.
fn paths(tokens: TokenStream, prefix: &str, found: &mut Vec<String>) {
    let mut path = prefix.to_owned();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons < 2 {
                    finish(&mut path, prefix, found);
                }
                path = if path.is_empty() { name.to_string() } else { format!("{path}::{name}") };
                colons = 0;
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => {
                let is_use_group = colons == 2 && group.delimiter() == Delimiter::Brace;
                paths(group.stream(), if is_use_group { &path } else { "" }, found);
                if is_use_group {
                    path.clear();
                }
                finish(&mut path, prefix, found);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => finish(&mut path, prefix, found),
        }
        colons = 0;
    }
    finish(&mut path, prefix, found);
}

fn finish(path: &mut String, prefix: &str, found: &mut Vec<String>) {
    if path.contains("::") && path != prefix {
        found.push(std::mem::take(path));
    }
    prefix.clone_into(path);
}

/// The crates that the manifest names, as code writes them, and those that come with the compiler.
fn crates() -> Vec<String> {
    let manifest = fs::read_to_string(source().with_file_name("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap().to_owned();
    let named = dependencies.lines().filter_map(|line| line.split_once(['=', '.'])).map(|(name, _)| name.trim());
    let named = named.filter(|name| !name.is_empty() && !name.starts_with('#')).map(|name| name.replace('-', "_"));
    named.chain(["std", "core", "alloc"].map(str::to_owned)).collect()
}

/// Returns true if a module of the core, so many levels below the crate's root, may not name this.
fn is_refused(path: &str, depth: usize, crates: &[String]) -> bool {
    let parts: Vec<_> = path.split("::").collect();
    let supers = parts.iter().take_while(|part| **part == "super").count();
    if parts[0] == "crate" || supers >= depth {
        let module = parts.get(supers.max(1));
        return module.is_some_and(|module| !CORE.contains(module));
    }
    let is_within = |allowed: &str| path == allowed || path.starts_with(&format!("{allowed}::"));
    crates.iter().any(|name| name == parts[0]) && !ALLOWED.iter().any(|allowed| is_within(allowed))
}

fn refused(code: &str, depth: usize) -> Vec<String> {
    let crates = crates();
    // A crate under another name would pass.
    let renamed = crates
        .iter()
        .filter(|name| code.contains(&format!("use {name} as ")) || code.contains(&format!("extern crate {name}")));
    let paths = named(code).into_iter().filter(|path| is_refused(path, depth, &crates));
    paths.chain(renamed.cloned()).collect()
}

/// The levels of a module below the crate's root: 1 for `src/log.rs` and for `src/reason/mod.rs`.
fn depth(file: &Path) -> usize {
    let parts = file.strip_prefix(source()).unwrap().iter().count();
    if file.ends_with("mod.rs") { parts - 1 } else { parts }
}

fn named(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    paths(code.parse().unwrap(), "", &mut found);
    found
}

#[test]
fn the_core_names_no_edge() {
    let places = fs::read_dir(source()).unwrap().map(|entry| entry.unwrap().path());
    let is_core = |place: &PathBuf| CORE.contains(&place.file_stem().unwrap().to_str().unwrap());
    let core: Vec<_> = places.filter(is_core).flat_map(|place| files(&place)).collect();
    assert!(core.len() >= 50, "the core is elsewhere: {core:?}");
    let mut unused = ALLOWED.to_vec();
    for file in core {
        let code = fs::read_to_string(&file).unwrap();
        // Unit tests may read files.
        let code = code.split("\n#[cfg(test)]\nmod ").next().unwrap();
        assert_eq!(refused(code, depth(&file)), Vec::<String>::new(), "{}", file.display());
        for output in ["print!", "println!", "stdin()", "stdout()", "stderr()"] {
            assert!(!code.contains(output), "{} prints", file.display());
        }
        let named = named(code);
        unused.retain(|allowed| !named.iter().any(|path| path.starts_with(allowed)));
    }
    assert_eq!(unused, [""; 0], "allowed and not used");
}

#[test]
fn no_way_around_the_wall_is_open() {
    for (code, expected) in [
        ("use std::{fmt, fs::File};", "std::fs::File"),
        ("use std::{collections::{BTreeMap, HashMap}, net};", "std::net"),
        ("fn f() { std::env::var(\"X\") }", "std::env::var"),
        ("fn f() { vec![std::time::Instant::now()] }", "std::time::Instant::now"),
        ("use crate::controller::run;", "crate::controller::run"),
        ("use kube::Client as C;", "kube::Client"),
        ("type T = core::net::TcpStream;", "core::net::TcpStream"),
        ("use super::controller::x;", "super::controller::x"),
        ("use kube as k;", "kube"),
    ] {
        assert_eq!(refused(code, 1), [expected], "{code}");
    }
    assert_eq!(refused("use super::controller::x; use super::reason::Finding;", 2), [""; 0]);
    assert_eq!(
        refused("use std::{fmt, sync::Arc}; use crate::reason::{Finding, Reason}; struct S { a: u8 }", 1),
        [""; 0]
    );
}

#[test]
fn a_module_is_read_in_one_sitting() {
    for file in files(&source()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 400, "{} has {lines} lines", file.display());
    }
}
