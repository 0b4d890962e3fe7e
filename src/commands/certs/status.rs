//! `gwmon certs status`: what is served, and whether the API server trusts it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Result;

use crate::certs::status::{Report, Verdict, read};
use crate::cli::CertsStatus;
use crate::commands::connection::Connection;
use crate::commands::output::structured;

pub(super) fn run(args: &CertsStatus) -> Result<ExitCode> {
    let connection = Connection::open(&args.cluster)?;
    let installation = args.installation.installation();
    let report = connection.run(read(&connection.client, &installation))?;
    let mut out = anstream::AutoStream::auto(std::io::stdout());
    match args.output {
        Some(format) => out.write_all(structured(format, &report)?.as_bytes())?,
        None => print(&report, &mut out)?,
    }
    Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report, out: &mut impl Write) -> Result<()> {
    let heading = |title: &str| {
        let bold = if std::io::stdout().is_terminal() { Style::new().bold() } else { Style::new() };
        format!("{bold}{title}{bold:#}")
    };
    writeln!(out, "{}  {}", heading("SOURCE"), report.source)?;
    for webhook in &report.webhooks {
        writeln!(out, "\n{}  {}", heading("TRUSTED BY"), webhook.name)?;
        if webhook.ca_bundle.is_empty() {
            writeln!(out, "  no certificate in caBundle")?;
        }
        for authority in &webhook.ca_bundle {
            writeln!(out, "  {}  until {} ({})", authority.subject, authority.not_after, authority.remaining)?;
        }
    }
    for served in &report.served {
        writeln!(out, "\n{}  {}", heading("SERVED BY"), served.by)?;
        for certificate in &served.chain {
            writeln!(out, "  {}  until {} ({})", certificate.subject, certificate.not_after, certificate.remaining)?;
            if !certificate.names.is_empty() {
                writeln!(out, "    for {}", certificate.names.join(", "))?;
            }
        }
        let (colour, text) = match &served.verdict {
            Verdict::Ok => (AnsiColor::Green, "OK: every caBundle verifies it".to_owned()),
            Verdict::Fail(why) => (AnsiColor::Red, format!("FAIL: {why}")),
        };
        let style = colour.on_default();
        writeln!(out, "  {style}{text}{style:#}")?;
    }
    for note in &report.notes {
        writeln!(out, "\n{note}")?;
    }
    Ok(())
}
