//! Kubernetes labels: what they may be (the API conventions' "Labels and Selectors").

use std::collections::BTreeMap;

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
    let is_part = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    is_name(name) && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_part))
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

/// Reads labels as they are written on a command line: `key=value,key=value`.
///
/// # Errors
/// The part that is no label.
pub fn parse(text: &str) -> Result<Labels, String> {
    let pair = |part: &str| {
        let pair = part.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        pair.filter(|(key, value)| is_key(key) && is_value(value))
            .ok_or_else(|| format!("{part:?} is not a label such as release=prometheus"))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect()
}
