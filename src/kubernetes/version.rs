//! Versions of Kubernetes and of gateways.

use std::fmt;
use std::str::FromStr;

/// A `major.minor` version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl FromStr for Version {
    type Err = VersionError;

    /// Reads `1.34`, `v1.34` or `1.34.2`; ignores what follows a `-`.
    fn from_str(s: &str) -> Result<Self, VersionError> {
        let mut numbers = s.strip_prefix('v').unwrap_or(s).split(['.', '-']).map(str::parse);
        let Some(Ok(major)) = numbers.next() else { return Err(VersionError::NotAVersion) };
        match numbers.next() {
            Some(Ok(minor)) => Ok(Self(major, minor)),
            Some(Err(_)) => Err(VersionError::NotAVersion),
            None => Err(VersionError::WithoutMinor(major)),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Why a text is not a version. The message follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// No numbers.
    #[error("is not a version; use major.minor, such as 1.34")]
    NotAVersion,
    /// Only the first number.
    #[error("lacks the minor version; use major.minor, such as {0}.0")]
    WithoutMinor(u32),
}
