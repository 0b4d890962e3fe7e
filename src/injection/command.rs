//! The command line of a container: `command` and `args` as Kubernetes puts them together, read as Envoy's parser reads
//! them.

use crate::kubernetes::pod::Container;
use crate::reason::{Finding, Reason, shown};

/// One word of a command line, and where the pod writes it.
#[derive(Clone, Copy, Debug)]
struct Word<'c> {
    list: &'static str,
    index: usize,
    text: &'c str,
}

/// The words after the program.
#[derive(Debug)]
pub(crate) struct CommandLine<'c> {
    container: &'c str,
    words: Vec<Word<'c>>,
    /// True if the pod sets neither command nor arguments, so that the image's own `CMD` runs.
    pub(crate) is_empty: bool,
}

/// The value of a flag, and what it takes to write another in its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FlagValue<'c> {
    /// The value.
    pub(crate) value: &'c str,
    /// The path of the argument, such as `args/3`.
    pub(crate) path: String,
    /// The text before it in the same argument: Envoy also accepts a flag and its value in one, separated by a space.
    pub(crate) before: &'c str,
}

impl<'c> CommandLine<'c> {
    /// Every word, whatever runs.
    #[must_use]
    pub(crate) fn whole(container: &'c Container) -> Self {
        let words = |list, texts: &'c [String]| {
            texts.iter().enumerate().map(move |(index, text)| Word { list, index, text: text.as_str() })
        };
        let args = container.args.as_deref().unwrap_or_default();
        let words: Vec<_> = words("command", &container.command).chain(words("args", args)).collect();
        Self { container: &container.name, is_empty: words.is_empty(), words }
    }

    /// The words after `program`, which the image's entrypoint runs too where the pod names no command.
    ///
    /// # Errors
    /// [`Reason::UnpatchableCommand`] where something else runs, which may not pass arguments on.
    pub(crate) fn of(container: &'c Container, program: &str) -> Result<Self, Finding> {
        let mut line = Self::whole(container);
        let named = |word: &Word| word.text.rsplit('/').next() == Some(program);
        match line.words.first() {
            Some(first) if named(first) => drop(line.words.remove(0)),
            // The images' entrypoints put the program before a flag and run anything else as it is.
            Some(first) if container.command.is_empty() && first.text.starts_with('-') => {}
            None => {}
            Some(first) => {
                let detail = format!(
                    "container {} runs {}, which may not pass arguments on; run {program} itself",
                    container.name,
                    shown(first.text)
                );
                return Err(Finding::new(Reason::UnpatchableCommand, detail));
            }
        }
        Ok(line)
    }

    /// Refuses a line that ends its flags, after which nothing can be added.
    ///
    /// # Errors
    /// [`Reason::UnpatchableCommand`].
    pub(crate) fn open_ended(self) -> Result<Self, Finding> {
        if self.has("--") {
            let detail = format!("container {} ends its flags with --; remove that", self.container);
            return Err(Finding::new(Reason::UnpatchableCommand, detail));
        }
        Ok(self)
    }

    /// Returns true if this argument is there.
    #[must_use]
    pub(crate) fn has(&self, text: &str) -> bool {
        self.words.iter().any(|word| word.text == text)
    }

    /// The value of a flag, which may have several names.
    #[must_use]
    pub(crate) fn value(&self, names: &[&str]) -> Option<FlagValue<'c>> {
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            let path = |word: &Word| format!("{}/{}", word.list, word.index);
            if names.contains(&word.text) {
                let value = words.next()?;
                return Some(FlagValue { value: value.text, path: path(value), before: "" });
            }
            if let Some((flag, value)) = word.text.split_once([' ', '='])
                && names.contains(&flag)
            {
                return Some(FlagValue { value, path: path(word), before: &word.text[..=flag.len()] });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(extra: &Value) -> Container<'static> {
        let mut all = json!({"name": "edge", "image": "x"});
        json_patch::merge(&mut all, extra);
        serde_json::from_str(all.to_string().leak()).unwrap()
    }

    #[test]
    fn a_value_is_found_where_envoy_finds_it() {
        for (extra, path, before) in [
            (json!({"args": ["-l", "debug", "-c", "/e"]}), "args/3", ""),
            (json!({"args": ["envoy", "-c /e"]}), "args/1", "-c "),
            (json!({"command": ["/bin/envoy", "--config-path", "/e"]}), "command/2", ""),
            (json!({"command": ["envoy"], "args": ["-c", "/e", "x"]}), "args/1", ""),
            (json!({"command": ["envoy", "-c"], "args": ["/e"]}), "args/0", ""),
        ] {
            let container = container(&extra);
            let found = CommandLine::of(&container, "envoy").unwrap().value(&["-c", "--config-path"]);
            assert_eq!(found, Some(FlagValue { value: "/e", path: path.to_owned(), before }), "{extra}");
        }
        let without = container(&json!({"args": ["-l", "debug", "-c"]}));
        assert_eq!(CommandLine::of(&without, "envoy").unwrap().value(&["-c"]), None);
    }

    #[test]
    fn whatever_else_runs_is_refused() {
        for extra in [
            json!({"command": ["sh", "-c", "envoy -c /e"]}),
            json!({"args": ["sh"]}),
            json!({"command": ["-c", "/e"]}),
            json!({"command": ["python", "hot-restarter.py"]}),
        ] {
            assert!(CommandLine::of(&container(&extra), "envoy").is_err(), "{extra}");
        }
        assert!(CommandLine::of(&container(&json!({})), "envoy").unwrap().is_empty);
        let ended = container(&json!({"args": ["-c", "/e", "--", "x"]}));
        assert!(CommandLine::of(&ended, "envoy").unwrap().open_ended().is_err());
    }
}
