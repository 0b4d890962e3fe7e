//! The `gwmon` binary: parse, run one command, exit code. As `kubectl-gwmon` it is a plugin of kubectl's.

use std::path::Path;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap_complete::CompleteEnv;
use gwmon::cli::{Cli, Command};
use gwmon::commands::{
    certs, completion, config, dashboards, doctor, explain, inject, install, preview, repair, selftest, serve, status,
    uninstall,
};
use gwmon::manifest;

fn main() -> ExitCode {
    // Before anything makes TLS: rustls has no default of its own once two crates could bring one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match program().as_str() {
        "kubectl_complete-gwmon" => completion::for_kubectl(std::env::args_os().collect()),
        "kubectl-gwmon" => parse("kubectl gwmon").map_or_else(|error| error.exit(), run),
        _ => {
            CompleteEnv::with_factory(completion::command).var(completion::VARIABLE).complete();
            parse("gwmon").map_or_else(|error| error.exit(), run)
        }
    };
    result.unwrap_or_else(|error| {
        anstream::eprintln!("{red}error:{red:#} {error:#}", red = anstyle::AnsiColor::Red.on_default().bold());
        ExitCode::from(2)
    })
}

/// The name by which the binary was called.
fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    Path::new(&path).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads the arguments, and shows this name in the help.
fn parse(name: &'static str) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&completion::command().bin_name(name).try_get_matches()?)
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => explain::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Dashboards(args) => dashboards::run(&args),
        Command::Rules(args) => dashboards::print_rules(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => completion::man(&args),
        Command::Certs(args) => certs::run(args),
        Command::Config(args) => config::run(&args.command).map(|()| ExitCode::SUCCESS),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::Inject(args) => {
            manifest::hide_parser_panics();
            inject::run(&args)
        }
        Command::Uninject(args) => inject::undo(&args),
        Command::Preview(args) => {
            manifest::hide_parser_panics();
            preview::run(args)
        }
    }
}
