//! What the commands have in common in their output: checks, tables, formats for programs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use comfy_table::{Cell, Color, ContentArrangement, Table};
use serde::Serialize;

use crate::cli::Structured;
use crate::diagnosis::check::{Check, Verdict};

/// An object in a format for programs.
pub(super) fn structured(format: Structured, object: &impl Serialize) -> Result<String> {
    Ok(match format {
        Structured::Json => serde_json::to_string_pretty(object)? + "\n",
        Structured::Yaml => serde_saphyr::to_string(object)?,
    })
}

/// Writes to standard output. A pipe that the reader has closed, as `head` does, is no error.
pub(super) fn print(text: &str) -> Result<()> {
    print_open(text).map(drop)
}

/// The same; false if nobody reads any more.
pub(super) fn print_open(text: &str) -> Result<bool> {
    let mut out = AutoStream::auto(io::stdout());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write to standard output"),
    }
}

/// A verdict in its colour, as wide as the longest.
pub(super) fn verdict(verdict: Verdict) -> String {
    let style = colour(verdict).on_default();
    format!("{style}{:<4}{style:#}", verdict.as_str())
}

const fn colour(verdict: Verdict) -> AnsiColor {
    match verdict {
        Verdict::Ok => AnsiColor::Green,
        Verdict::Skip => AnsiColor::Cyan,
        Verdict::Warn => AnsiColor::Yellow,
        Verdict::Fail => AnsiColor::Red,
    }
}

/// A check as lines: the verdict, the step, the reason, the object, what was found and, where that is not as it must be, what to
/// do. `cause` marks the one from which the others follow.
pub(super) fn check(check: &Check, is_cause: bool) -> String {
    let Check { step, object, fact, reason, .. } = check;
    let bold = Style::new().bold();
    let word =
        reason.filter(|_| check.verdict >= Verdict::Warn).map(|reason| format!("{reason}: ")).unwrap_or_default();
    let mut lines = format!("{} {:<15} {object}: {word}{fact}\n", verdict(check.verdict), step.as_str());
    let indented = " ".repeat(21);
    if is_cause {
        let _ = writeln!(lines, "{indented}{bold}This is the cause.{bold:#}");
    }
    if let Some(remedy) = check.remedy() {
        let _ = writeln!(lines, "{indented}Fix: {remedy}");
    }
    if let Some(page) = check.page() {
        let _ = writeln!(lines, "{indented}See {page}");
    }
    lines
}

/// 1 if a check has failed.
pub(super) fn exit_code(checks: &[Check]) -> ExitCode {
    let has_failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A row of a table, and the verdict that colours its first cell.
pub(super) type Row = (Verdict, Vec<String>);

/// A table as kubectl prints it: no lines, as wide as the terminal.
pub(super) fn table(head: &[&str], rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if AutoStream::choice(&io::stdout()) == ColorChoice::Never {
        table.force_no_tty();
    } else {
        table.enforce_styling();
    }
    if !io::stdout().is_terminal() {
        // Whoever reads it in a pipe wants a row on a line.
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(head);
    for (verdict, cells) in rows {
        let colour = match verdict {
            Verdict::Ok => Color::Green,
            Verdict::Skip => Color::Cyan,
            Verdict::Warn => Color::Yellow,
            Verdict::Fail => Color::Red,
        };
        table.add_row(cells.iter().enumerate().map(|(index, text)| {
            let cell = Cell::new(text);
            if index == 0 { cell.fg(colour) } else { cell }
        }));
    }
    let columns = head.len();
    for index in 0..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
