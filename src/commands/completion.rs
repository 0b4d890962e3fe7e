//! `gwmon completion` and `gwmon man`, and the words that a shell completes by asking the cluster.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};

use super::connection::Connection;
use super::output;
use crate::cli::{Cli, ClusterArgs, Completion, Man, Shell};
use crate::cluster::request::api_resource;

/// The variable by which a shell asks for words.
pub const VARIABLE: &str = "GWMON_COMPLETE";
/// A shell that waits longer seems to hang.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most words of one kind.
const MOST: u32 = 500;

/// gwmon's commands, with what completes their arguments.
#[must_use]
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    for name in ["explain", "doctor", "status", "repair", "preview"] {
        command = command.mut_subcommand(name, |subcommand| {
            subcommand.mut_args(|argument| match argument.get_id().as_str() {
                "namespace" => {
                    argument.add(ArgValueCompleter::new(|typed: &OsStr| candidates(typed, &[("v1", "Namespace")])))
                }
                "workload" | "workloads" => {
                    argument.add(ArgValueCompleter::new(|typed: &OsStr| candidates(typed, &WORKLOADS)))
                }
                _ => argument,
            })
        });
    }
    command
}

const WORKLOADS: [(&str, &str); 3] = [("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet")];

/// The names of these kinds that begin with what was typed; none where the cluster does not answer.
fn candidates(typed: &OsStr, kinds: &[(&str, &str)]) -> Vec<CompletionCandidate> {
    let words: Vec<_> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let args = ClusterArgs {
        kubeconfig: value_of(&words, &["--kubeconfig"]).map(Into::into),
        context: value_of(&words, &["--context"]),
        request_timeout: Some(PATIENCE),
        ..ClusterArgs::default()
    };
    let Ok(connection) = Connection::open(&args) else { return vec![] };
    let namespace = value_of(&words, &["-n", "--namespace"]).unwrap_or_else(|| connection.namespace.clone());
    let asking = names(&connection.client, &namespace, kinds);
    let found = connection.run(async { tokio::time::timeout(PATIENCE, asking).await }).unwrap_or_default();
    let typed = typed.to_string_lossy();
    found.into_iter().filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// The value of a flag on the line that is being typed.
fn value_of(words: &[String], flags: &[&str]) -> Option<String> {
    let value = |(index, word): (usize, &String)| {
        let flag = flags.iter().find_map(|flag| word.strip_prefix(flag))?;
        flag.strip_prefix('=').map(str::to_owned).or_else(|| words.get(index + 1).filter(|_| flag.is_empty()).cloned())
    };
    words.iter().enumerate().find_map(value).filter(|value| !value.is_empty())
}

async fn names(client: &Client, namespace: &str, kinds: &[(&str, &str)]) -> Vec<String> {
    let mut names = Vec::new();
    for (api_version, kind) in kinds {
        let resource = api_resource(api_version, kind);
        let is_namespace = *kind == "Namespace";
        let api: Api<DynamicObject> = if is_namespace {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), namespace, &resource)
        };
        let Ok(list) = api.list_metadata(&ListParams::default().limit(MOST)).await else { continue };
        let prefix = if is_namespace { String::new() } else { format!("{}/", kind.to_lowercase()) };
        names.extend(list.items.iter().map(|object| format!("{prefix}{}", object.name_any())));
    }
    names
}

/// Prints what a shell reads.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Completion) -> Result<ExitCode> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "gwmon", "gwmon", "gwmon", &mut script)?;
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints manual pages, or writes them.
///
/// # Errors
/// A folder that cannot be written.
pub fn man(args: &Man) -> Result<ExitCode> {
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        output::print(&String::from_utf8_lossy(&page))?;
        return Ok(ExitCode::SUCCESS);
    };
    write_pages(folder).with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    Ok(clap_mangen::generate_to(Cli::command(), folder)?)
}

/// Prints the words for `kubectl gwmon`, as kubectl asks for them: by running `kubectl_complete-gwmon` with what was typed
/// (kubectl's plugin documentation). The last line tells kubectl to complete no file names.
///
/// # Errors
/// Standard output cannot be written.
pub fn for_kubectl(words: Vec<OsString>) -> Result<ExitCode> {
    let index = words.len().saturating_sub(1);
    let candidates = clap_complete::engine::complete(&mut command(), words, index, None).unwrap_or_default();
    let lines = candidates.iter().map(|candidate| format!("{}\n", candidate.get_value().to_string_lossy()));
    output::print(&(lines.collect::<String>() + ":4\n"))?;
    Ok(ExitCode::SUCCESS)
}
