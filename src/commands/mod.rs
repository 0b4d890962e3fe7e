//! One file a command: wiring and printing only.

pub mod preview;
pub mod serve;
