//! The arguments of `gwmon completion` and `gwmon man`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `gwmon completion`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(gwmon completion bash)       # in ~/.bashrc
  source <(gwmon completion zsh)        # in ~/.zshrc
  gwmon completion fish | source        # in ~/.config/fish/config.fish";

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}

/// `gwmon man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for each command to this folder, instead of one page on standard output.
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}
