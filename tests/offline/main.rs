//! What needs nothing but the built binary: no cluster, no other program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod architecture;
mod certs;
mod dashboards;
mod docs;
mod http;
mod inject;
mod preview;
mod properties;
mod selection;
mod standalone;
#[path = "../support/mod.rs"]
mod support;
