//! One module per command: wiring and printing only.

pub mod preview;
pub mod serve;
