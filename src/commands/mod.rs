//! One module per command: wiring and printing only.

pub mod certs;
pub mod completion;
pub mod config;
mod connection;
pub mod dashboards;
mod diagnose;
pub mod doctor;
pub mod explain;
pub mod inject;
pub mod install;
mod installation;
mod output;
pub mod preview;
pub mod repair;
pub mod selftest;
pub mod serve;
pub mod status;
pub mod uninstall;
mod workload_name;
