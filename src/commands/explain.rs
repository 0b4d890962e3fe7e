//! `gwmon explain`: the way of one gateway's metrics, step by step.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::json;

use super::connection::Connection;
use super::diagnose::{Progress, Read};
use super::output::{self, structured};
use super::workload_name::WorkloadName;
use crate::cli::Explain;
use crate::cluster::observe::{Observation, Scope};
use crate::diagnosis::check::cause;
use crate::diagnosis::gateway::Gateway;
use crate::diagnosis::workload::Workload;

/// Prints every step, and marks the one from which the others follow.
///
/// # Errors
/// No cluster, or no such workload.
pub fn run(args: &Explain) -> Result<ExitCode> {
    let wanted: WorkloadName = args.workload.parse()?;
    let connection = Connection::open(&args.cluster)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| connection.namespace.clone());
    let progress = Progress::new();
    let scope = Scope { namespace: Some(&namespace), selector: None };
    let mut read = connection.run(Read::all(&connection.client, scope, &progress))?;
    drop(progress);
    let key = find(&mut read.observation, &wanted, &namespace)?;
    let mut checks = read.installation_checks();
    checks.extend(read.checks(&key));
    checks.sort_by_key(|check| check.step);
    let cause = cause(&checks);
    if let Some(format) = args.output {
        let gateway = read.gateways().get(&key).map(Gateway::resource).unwrap_or_default();
        let report = json!({"gateway": format!("{gateway} -n {namespace}"), "checks": checks, "cause": cause});
        output::print(&structured(format, &report)?)?;
    } else {
        let lines =
            checks.iter().map(|check| output::check(check, cause.is_some_and(|cause| std::ptr::eq(cause, check))));
        output::print(&lines.collect::<String>())?;
        if let Some(why) = &read.config_note {
            anstream::eprintln!("{why}");
        }
    }
    Ok(output::exit_code(&checks))
}

/// The gateway of this name; one that nobody has annotated is added to the gateways.
fn find(observation: &mut Observation, wanted: &WorkloadName, namespace: &str) -> Result<(String, String)> {
    let is_it = |gateway: &Gateway| {
        let (kind, name) = gateway.workload_name();
        wanted.is(kind, name)
    };
    if let Some(key) = observation.gateways.iter().find(|(_, gateway)| is_it(gateway)).map(|(key, _)| key.clone()) {
        return Ok(key);
    }
    if let Some(at) = observation.others.iter().position(|other| wanted.is(&other.kind, &other.name)) {
        let workload = observation.others.swap_remove(at);
        let key = (workload.namespace.clone(), workload.monitor());
        observation.gateways.entry(key.clone()).or_default().workload = Some(workload);
        return Ok(key);
    }
    if let Some(why) = observation.unread.why("deployments") {
        bail!("cannot look for {wanted} in namespace {namespace}: {why}");
    }
    let known = observation.gateways.values().map(Gateway::resource);
    let known: Vec<_> = known.chain(observation.others.iter().map(Workload::resource)).collect();
    match wanted.nearest(&known) {
        Some(nearest) => bail!("there is no {wanted} in namespace {namespace}; did you mean {nearest}?"),
        None => bail!("there is no {wanted} in namespace {namespace}; see gwmon status -n {namespace} --all"),
    }
}
