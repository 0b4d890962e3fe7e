//! What needs real parts beside gwmon but no cluster: Envoy, statsd_exporter, kubectl's reader, the operator's packages.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test ends where it fails")]

mod chart;
mod dashboards;
mod envoy;
mod manifest;
mod oracle;
mod parity;
mod pictures;
mod release;
#[path = "../support/mod.rs"]
mod support;

use support::pods;
