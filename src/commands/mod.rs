//! One file a command: wiring and printing only.

pub mod preview;
pub mod serve;

use k8s_openapi::apimachinery::pkg::version::Info;

use crate::annotations::Version;

/// The version that an API server tells; some providers write `29+`.
fn version(info: &Info) -> Option<Version> {
    format!("{}.{}", info.major, info.minor.trim_end_matches('+')).parse().ok()
}
