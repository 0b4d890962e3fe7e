//! `gwmon uninstall`: what deleting gwmon's manifests would leave, and its removal in an order that hurts nobody.

mod find;
mod remove;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::connection::Connection;
use crate::cli::Uninstall;
use find::{Found, find};
use remove::Removal;

/// Lists what is there; with `--yes` removes it.
///
/// # Errors
/// No cluster, a right that is lacking, or a workload that does not come up without the sidecar.
pub fn run(args: &Uninstall) -> Result<ExitCode> {
    let connection = Connection::open(&args.cluster)?;
    let installation = args.installation.installation();
    let found = connection.run(find(&connection.client, &installation))?;
    if found.is_empty() {
        println!("nothing of gwmon was found");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        println!("On {}:", connection.server);
        print(&found, args.keep_workloads);
        return Ok(ExitCode::SUCCESS);
    }
    let timeout = Duration::from_secs(args.timeout.unsigned_abs());
    let removal = Removal { client: &connection.client, installation: &installation, timeout };
    connection.run(removal.run(&found, args.keep_workloads))?;
    Ok(ExitCode::SUCCESS)
}

fn print(found: &Found, keeps_workloads: bool) {
    let section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            println!("{title}");
            for line in lines {
                println!("  {line}");
            }
        }
    };
    let shown = |objects: &[find::Object]| objects.iter().map(ToString::to_string).collect::<Vec<_>>();
    section("The webhook, which goes first:", shown(&found.webhooks));
    section("The controller:", shown(&found.deployments));
    let title = if keeps_workloads {
        "Workloads that keep gwmon's annotations in their pod templates, and the sidecar until their next roll-out:"
    } else {
        "Workloads that are rolled out without gwmon's annotations (--keep-workloads leaves them):"
    };
    section(title, shown(&found.workloads));
    section("What gwmon made for gateways:", shown(&found.made));
    section("The rest of the installation:", shown(&found.rest));
    if let Some(other) = &found.other {
        println!("{other} is another installation of gwmon; what was made for gateways is left to it.");
    }
    if !found.shared.is_empty() {
        section("Left, and the namespace with it, since gwmon did not make these:", shown(&found.shared));
    }
    println!("Nothing was changed. To remove all of this, run the command again with --yes.");
}
