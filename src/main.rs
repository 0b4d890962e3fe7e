//! The `gwmon` binary: parse, run one command, exit code.

use std::process::ExitCode;

use clap::Parser;
use gwmon::cli::{Cli, Command};
use gwmon::commands::{certs, config, install, preview, selftest, serve, uninstall};
use gwmon::manifest;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before anything makes TLS: rustls has no default of its own once two crates could bring one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match cli.command {
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
        Command::Certs(args) => certs::run(args),
        Command::Config(args) => config::run(&args.command).map(|()| ExitCode::SUCCESS),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::Preview(args) => {
            manifest::hide_parser_panics();
            preview::run(args)
        }
    };
    result.unwrap_or_else(|error| {
        anstream::eprintln!("{red}error:{red:#} {error:#}", red = anstyle::AnsiColor::Red.on_default().bold());
        ExitCode::from(2)
    })
}
