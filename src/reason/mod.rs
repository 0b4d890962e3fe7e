//! Reasons, shared by warnings, Events, logs and metrics.

mod list;

use std::borrow::Cow;
use std::fmt;

pub use list::Reason;

/// The need for a person to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong. Events of this severity have the type `Normal`, the others `Warning`.
    Info,
    /// gwmon did what was asked, and something about it needs attention.
    Warning,
    /// gwmon did not do what was asked, or it does not work.
    Error,
}

impl Reason {
    /// Returns true if only the exporter can be the cause, not a node, a queue or a quota.
    #[must_use]
    pub const fn is_of_the_exporter(self) -> bool {
        matches!(self, Self::ImageNotPulled | Self::ExporterNotRunning | Self::GatewayNotStarting)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A [`Reason`] with the sentence that names the object, the field and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Finding {
    /// The word from the closed list.
    pub reason: Reason,
    /// The object, the field and the fix.
    pub detail: String,
}

impl Finding {
    /// A finding. Its detail may quote other people's text, so it is cut: an Event's note has 1,024 characters at the most.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        const MOST: usize = 1000;
        let detail = detail.into();
        // In bytes, the more cautious measure, so that a short one is not gone through.
        let detail = if detail.len() > MOST { cut(&detail, MOST).into_owned() } else { detail };
        Self { reason, detail }
    }

    /// Returns true if somebody has to act on it.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.reason.severity() > Severity::Info
    }
}

/// A text, or as much of it as this many characters, visibly cut.
#[must_use]
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// A value as it is shown in a message: quoted, control characters escaped, and cut, since Kubernetes
/// truncates an admission warning at 256 characters.
#[must_use]
pub fn shown(value: &str) -> String {
    const MOST: usize = 48;
    match value.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", &value[..cut]),
        None => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_camel_case_and_stands_once() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert!(words.iter().all(|w| w.starts_with(char::is_uppercase) && w.chars().all(char::is_alphanumeric)));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn a_shown_value_is_short_and_printable() {
        assert_eq!(shown("yes"), "\"yes\"");
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"ü".repeat(500)).chars().count() <= 51);
    }
}
