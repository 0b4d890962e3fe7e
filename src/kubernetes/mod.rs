//! The shapes of Kubernetes objects, as far as gwmon reads them: pods, labels, amounts, versions.

pub mod bounded;
pub mod labels;
pub mod pod;
pub mod quantity;
pub mod rollout;
mod version;

use std::collections::BTreeMap;

pub use version::{Version, VersionError};

/// Annotations of one object, as Kubernetes stores them.
pub type Annotations = BTreeMap<String, String>;
