//! Kubernetes labels: what they may be (the API conventions' "Labels and Selectors").

use std::collections::BTreeMap;

use crate::reason::cut;

/// Labels of one object.
pub type Labels = BTreeMap<String, String>;

/// A label's value: nothing, or a name.
#[must_use]
pub fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// A label's key: a name, or a DNS subdomain, `/` and a name.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    is_name(name) && prefix.is_none_or(is_dns_subdomain)
}

/// A DNS subdomain (RFC 1123): parts with dots between them, 253 characters at the most.
pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_part)
}

/// One part of a DNS name: lower case letters, digits and inner hyphens, of any length.
pub(crate) fn is_dns_part(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
}

/// 1 to 63 characters, letters and digits at both ends.
fn is_name(name: &str) -> bool {
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// Why a text is not a list of labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Such as `team`.
    #[error("{0:?} lacks =; use key=value, such as release=prometheus")]
    NoEquals(String),
    /// Such as `-team=edge`.
    #[error("{0:?} is not a key: letters, digits, -, _ and ., 63 characters at most, after an optional domain and /")]
    Key(String),
    /// Such as `team=a b`.
    #[error("{0:?} is not a value: letters, digits, -, _ and ., 63 characters at most")]
    Value(String),
    /// Such as `team=a,team=b`.
    #[error("the key {0} is given twice")]
    Twice(String),
}

/// Reads labels as kubectl takes them: `key=value,key=value`.
///
/// # Errors
/// The first part that is not a label.
pub fn parse(text: &str) -> Result<Labels, LabelError> {
    let mut labels = Labels::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let cut = |text: &str| cut(text, 24).into_owned();
        let (key, value) = part.split_once('=').ok_or_else(|| LabelError::NoEquals(cut(part)))?;
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(LabelError::Key(cut(key)));
        }
        if !is_value(value) {
            return Err(LabelError::Value(cut(value)));
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(LabelError::Twice(cut(key)));
        }
    }
    Ok(labels)
}
