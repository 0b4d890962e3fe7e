//! The dashboards beside the demo, in a browser: `tests/pictures`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use gwmon_cluster::scenario;

/// The page, ready to be served.
pub(crate) struct Dashboards(PathBuf);

impl Dashboards {
    /// Installs what it needs and bundles it.
    pub(crate) fn build() -> Result<Self> {
        let folder = scenario::repository().join("tests/pictures");
        let run = |program: &str, arguments: &[&str]| -> Result<()> {
            let output = Command::new(program).args(arguments).current_dir(&folder).output();
            let output = output.with_context(|| format!("--dashboards needs Node 20 or newer with npm: {program}"))?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
            Ok(())
        };
        println!("  building the dashboards' page");
        run("npm", &["ci", "--no-audit", "--no-fund"])?;
        run("node", &["build.mjs"])?;
        Ok(Self(folder))
    }

    /// Serves them with data of the Prometheus at this port, until that is gone; returns the address.
    pub(crate) fn serve(&self, prometheus: u16) -> Result<String> {
        let mut server = Command::new("setsid")
            .args(["node", "live.mjs", &format!("http://127.0.0.1:{prometheus}")])
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot serve the dashboards")?;
        let mut address = String::new();
        BufReader::new(server.stdout.take().context("no output")?).read_line(&mut address)?;
        Ok(address.trim().to_owned())
    }
}
