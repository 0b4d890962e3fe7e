//! gwmon puts an API gateway's metrics into the cluster's Prometheus.
//!
//! ```text
//!  API server ── AdmissionReview ──▶ webhook ──▶ injection::decide ──▶ JSON Patch
//!  API server ◀─ watch / apply ───── controller ─▶ monitoring::plan ──▶ Service, ServiceMonitor
//!  gwmon preview ─────────────────────────────────▶ the same two functions, offline
//! ```
//!
//! The core ([`annotations`], [`diagnosis`], [`injection`], [`labels`], [`manifest`], [`monitoring`], [`config`], [`quantity`], [`reason`],
//! [`suspension`]) is pure: it holds no client, does no I/O and reads no clock. The edges ([`webhook`], [`controller`], [`cluster`], [`server`], [`tls`],
//! [`admin`], [`log`], [`commands`]) call it and decide nothing themselves.

pub mod admin;
mod allowance;
pub mod annotations;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod controller;
pub mod diagnosis;
pub mod injection;
pub mod labels;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod monitoring;
pub mod quantity;
pub mod reason;
pub mod server;
pub mod suspension;
pub mod tls;
pub mod webhook;
