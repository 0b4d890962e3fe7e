//! gwmon puts an API gateway's metrics into the cluster's Prometheus.
//!
//! ```text
//!  API server ── AdmissionReview ──▶ webhook ──▶ injection::decide ──▶ JSON Patch
//!  API server ◀─ watch / apply ───── controller ─▶ monitoring::plan ──▶ Service, ServiceMonitor
//!  gwmon preview ─────────────────────────────────▶ the same two functions
//! ```
//!
//! The core ([`annotations`], [`dashboards`], [`diagnosis`], [`injection`], [`kubernetes`], [`manifest`], [`monitoring`], [`config`], [`reason`],
//! [`suspension`]) is pure: it holds no client, does no I/O and reads no clock. The edges ([`webhook`], [`controller`], [`cluster`], [`server`], [`certs`],
//! [`admin`], [`log`], [`commands`]) call it and decide nothing themselves.

pub mod admin;
mod allowance;
pub mod annotations;
pub mod certs;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod controller;
pub mod dashboards;
pub mod diagnosis;
pub mod injection;
pub mod kubernetes;
mod lock;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod monitoring;
pub mod reason;
pub mod reload;
pub mod server;
pub mod suspension;
pub mod webhook;
