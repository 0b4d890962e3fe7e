//! `gwmon doctor`: every gateway's way, and gwmon itself. Read-only.

mod collect;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::connection::Connection;
use super::diagnose::{Progress, Read};
use super::output::{self, structured};
use crate::cli::Doctor;
use crate::cluster::observe::Scope;
use crate::diagnosis::check::{Check, Verdict};

/// Prints what is not as it must be.
///
/// # Errors
/// No cluster, or a bundle that cannot be written.
pub fn run(args: &Doctor) -> Result<ExitCode> {
    let connection = Connection::open(&args.cluster)?;
    let progress = Progress::new();
    let scope = Scope { namespace: args.namespace.as_deref(), selector: args.selector.as_deref() };
    let read = connection.run(Read::all(&connection.client, scope, &progress))?;
    let findings = Findings::of(&read);
    if let Some(file) = &args.collect {
        progress.says("collecting what was read");
        let report = structured(crate::cli::Structured::Json, &findings.report(&read))?;
        let namespace = &read.installation.installation.namespace;
        connection
            .run(collect::write(file, &connection.client, scope, namespace, &report))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    drop(progress);
    match args.output {
        Some(format) => output::print(&structured(format, &findings.report(&read))?)?,
        None => output::print(&findings.text(args.all, read.gateways().len()))?,
    }
    if let (Some(why), None) = (&read.config_note, args.output) {
        anstream::eprintln!("{why}");
    }
    if let Some(file) = &args.collect {
        anstream::eprintln!("wrote {}: look through it before you pass it on", file.display());
    }
    Ok(output::exit_code(&findings.0.iter().map(|(check, _)| check.clone()).collect::<Vec<_>>()))
}

/// Each check once, with the gateways that it concerns; empty for gwmon itself.
struct Findings(Vec<(Check, Vec<String>)>);

impl Findings {
    fn of(read: &Read) -> Self {
        let mut findings: Vec<(Check, Vec<String>)> =
            read.installation_checks().into_iter().chain(read.rule_checks()).map(|check| (check, vec![])).collect();
        let mut known: BTreeMap<(Verdict, String, String), usize> = BTreeMap::new();
        for (key, gateway) in read.gateways() {
            let name = format!("{} -n {}", gateway.resource(), key.0);
            for check in read.checks(key) {
                // A right that is lacking, or a Prometheus that is paused, concerns many.
                let object = if check.verdict == Verdict::Skip { String::new() } else { check.object.clone() };
                let same = known.entry((check.verdict, object, check.fact.clone())).or_insert(findings.len());
                if let Some((_, gateways)) = findings.get_mut(*same) {
                    gateways.push(name.clone());
                } else {
                    findings.push((check, vec![name.clone()]));
                }
            }
        }
        // The worst last, where somebody looks first.
        findings.sort_by_key(|(check, _)| check.verdict);
        Self(findings)
    }

    fn report(&self, read: &Read) -> Value {
        let checks = self.0.iter().map(|(check, gateways)| {
            let mut check = json!(check);
            check["gateways"] = json!(gateways);
            check
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "kubernetes": read.observation.snapshot.kubernetes.map(|version| version.to_string()),
            "gateways": read.gateways().len(),
            "checks": checks.collect::<Vec<_>>(),
        })
    }

    fn text(&self, shows_all: bool, gateways: usize) -> String {
        let mut text = String::new();
        for (check, concerned) in &self.0 {
            if check.verdict == Verdict::Ok && !shows_all {
                continue;
            }
            text += &output::check(check, false);
            let is_named = concerned.len() == 1 && check.object == concerned[0];
            if !is_named && !concerned.is_empty() {
                let shown: Vec<_> = concerned.iter().take(3).map(String::as_str).collect();
                let more =
                    if concerned.len() > 3 { format!(" and {} more", concerned.len() - 3) } else { String::new() };
                let _ = writeln!(text, "{:21}For {}{more}", "", shown.join(", "));
            }
        }
        let count = |verdict| self.0.iter().filter(|(check, _)| check.verdict == verdict).count();
        let [ok, skipped, warnings, failures] = [Verdict::Ok, Verdict::Skip, Verdict::Warn, Verdict::Fail].map(count);
        text + &format!(
            "{gateways} gateways; {ok} checks are well, {failures} fail, {warnings} warn, {skipped} were skipped\n"
        )
    }
}
