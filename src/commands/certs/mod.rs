//! `gwmon certs`.

mod create;
mod status;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Certs, CertsCommand};

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
