//! `gwmon certs`.

mod create;
mod status;

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::cli::{Certs, CertsCommand, Structured};

/// Runs one of the commands.
///
/// # Errors
/// No cluster, a right that is lacking, or files that cannot be read or written.
pub fn run(args: Certs) -> Result<ExitCode> {
    match args.command {
        CertsCommand::Status(args) => status::run(&args),
        CertsCommand::Create(args) => create::run(&args).map(|()| ExitCode::SUCCESS),
    }
}

/// An object in a format for programs.
pub(super) fn structured(format: Structured, object: &impl Serialize) -> Result<String> {
    Ok(match format {
        Structured::Json => serde_json::to_string_pretty(object)? + "\n",
        Structured::Yaml => serde_saphyr::to_string(object)?,
    })
}
