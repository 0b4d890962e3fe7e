//! `gwmon config`.

use std::io::Read;

use anyhow::{Context, Result};

use crate::cli::ConfigCommand;
use crate::config::{DEFAULT, schema};
use crate::reload;

/// Checks a file, or prints the defaults or the schema.
///
/// # Errors
/// A file that cannot be read, or is not valid: with the place of the mistake.
pub fn run(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check { filename } if filename.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            reload::parse("standard input", &text)?;
            anstream::println!("standard input is valid");
        }
        ConfigCommand::Check { filename } => {
            reload::read(filename)?;
            anstream::println!("{} is valid", filename.display());
        }
        ConfigCommand::Default => anstream::print!("{DEFAULT}"),
        ConfigCommand::Schema => anstream::println!("{}", serde_json::to_string_pretty(&schema())?),
    }
    Ok(())
}
