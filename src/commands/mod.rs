//! One module per command: wiring and printing only.

pub mod certs;
pub mod config;
mod connection;
pub mod install;
pub mod preview;
pub mod selftest;
pub mod serve;
pub mod uninstall;
