//! The output of a preview: objects on standard output, messages on standard error, each as soon as it is known.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use anstyle::AnsiColor;
use anyhow::{Context, Result};
use serde_json::Value;
use similar::TextDiff;

use super::workload::Previewed;
use crate::cli::Output;
use crate::manifest::display_name;
use crate::reason::Finding;

pub(super) struct Report {
    output: Output,
    /// False if neither a cluster nor a file told which Prometheus there is.
    is_prometheus_known: bool,
    /// The colours of standard output.
    colour: ColorChoice,
    /// Objects that have been printed.
    printed: usize,
    outcome: Outcome,
    /// Standard output is closed, as by `head`.
    is_closed: bool,
}

/// What the exit code tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nothing would change.
    Same,
    /// Something would change.
    WouldChange,
    /// Something could not be done.
    Failed,
}

impl Report {
    pub(super) fn new(output: Output, is_prometheus_known: bool) -> Self {
        let colour = AutoStream::choice(&io::stdout());
        Self { output, is_prometheus_known, colour, printed: 0, outcome: Outcome::Same, is_closed: false }
    }

    /// Returns true once standard output is closed.
    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// A workload that is injected, and the objects that are made for it.
    pub(super) fn add(&mut self, name: &str, namespace: &str, before: &Value, previewed: Previewed) -> Result<()> {
        let Previewed { after, injection, plan, closed } = previewed;
        note(name, &injection.status.summary())?;
        for warning in injection.warnings.iter().chain(&closed) {
            warn(name, &warning.to_string())?;
        }
        if self.output == Output::Patch {
            self.write(&format!("{}\n", injection.patch.to_json()))?;
        }
        self.print(name, Some(before), &after)?;
        let Some(plan) = plan else { return Ok(()) };
        let monitors = plan.monitors.as_deref().unwrap_or_default();
        for object in plan.service.iter().chain(monitors) {
            self.print(&display_name(object, namespace), None, object)?;
        }
        if !self.is_prometheus_known {
            return warn(
                name,
                "its ServiceMonitor may need labels; name the Prometheus objects with --prometheus FILE or --cluster",
            );
        }
        for warning in &plan.warnings {
            warn(name, &warning.to_string())?;
        }
        match plan.monitors {
            Ok(_) => note(name, &plan.why),
            Err(refusal) => self.refuse(name, &refusal),
        }
    }

    fn print(&mut self, name: &str, before: Option<&Value>, after: &Value) -> Result<()> {
        if before != Some(after) {
            self.outcome = self.outcome.max(Outcome::WouldChange);
        }
        let text = match self.output {
            Output::Patch => return Ok(()),
            Output::Names => format!("{name}\n"),
            Output::Diff => diff(name, before, after, self.colour),
            Output::Yaml => format!("{}{}", if self.printed == 0 { "" } else { "---\n" }, yaml(after)),
            Output::Json => {
                let begin = if self.printed == 0 { LIST_BEGINS } else { "," };
                format!("{begin}\n    {}", format!("{after:#}").replace('\n', "\n    "))
            }
        };
        self.printed += 1;
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        // Colours are decided at the start: looking for colours to take out takes longer than all the rest.
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_closed = true,
            written => written.context("cannot write to standard output")?,
        }
        Ok(())
    }

    pub(super) fn refuse(&mut self, name: &str, refusal: &Finding) -> Result<()> {
        self.outcome = Outcome::Failed;
        warn(name, &refusal.to_string())
    }

    /// A document that cannot be read.
    pub(super) fn unreadable(&mut self, place: &str, why: &str) -> Result<()> {
        self.outcome = Outcome::Failed;
        unreadable(place, why)
    }

    /// The exit code: 1 where something could not be done; 3, if that is asked for, where something would change.
    pub(super) fn finish(mut self, tells_changes: bool) -> Result<ExitCode> {
        if self.output == Output::Json {
            let begin = if self.printed == 0 { LIST_BEGINS } else { "" };
            self.write(&format!("{begin}\n  ]\n}}\n"))?;
        }
        Ok(match self.outcome {
            Outcome::Failed => ExitCode::FAILURE,
            Outcome::WouldChange if tells_changes => ExitCode::from(WOULD_CHANGE),
            Outcome::Same | Outcome::WouldChange => ExitCode::SUCCESS,
        })
    }
}

/// Prints why a place of a manifest cannot be used.
pub(in crate::commands) fn unreadable(place: &str, why: &str) -> Result<()> {
    let red = AnsiColor::Red.on_default();
    say(&format!("{red}error:{red:#} {place}: {why}\n"))
}

/// Prints a message about an object.
pub(in crate::commands) fn note(name: &str, text: &str) -> Result<()> {
    say(&format!("{name}: {text}\n"))
}

pub(in crate::commands) fn warn(name: &str, text: &str) -> Result<()> {
    let yellow = AnsiColor::Yellow.on_default();
    say(&format!("{yellow}Warning:{yellow:#} {name}: {text}\n"))
}

/// All at once: standard error has no buffer.
fn say(text: &str) -> Result<()> {
    Ok(anstream::stderr().write_all(text.as_bytes())?)
}

/// The exit code with `--exit-code` where something would change.
const WOULD_CHANGE: u8 = 3;
const LIST_BEGINS: &str = "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"List\",\n  \"items\": [";

fn diff(name: &str, before: Option<&Value>, after: &Value, colour: ColorChoice) -> String {
    let (old, new) = (before.map(yaml).unwrap_or_default(), yaml(after));
    let from = if before.is_some() { name } else { "/dev/null" };
    let diff = TextDiff::from_lines(&old, &new);
    let mut text = String::new();
    let plain = diff.unified_diff().header(from, name).to_string();
    if colour == ColorChoice::Never {
        return plain;
    }
    for line in plain.lines() {
        let colour = match line.as_bytes().first() {
            _ if line.starts_with("---") || line.starts_with("+++") => None,
            Some(b'+') => Some(AnsiColor::Green),
            Some(b'-') => Some(AnsiColor::Red),
            Some(b'@') => Some(AnsiColor::Cyan),
            _ => None,
        };
        let style = colour.map(AnsiColor::on_default).unwrap_or_default();
        let _ = writeln!(text, "{style}{line}{style:#}");
    }
    text
}

fn yaml(object: &Value) -> String {
    // A JSON value has nothing that YAML could not hold.
    let mut text = serde_saphyr::to_string(object).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
