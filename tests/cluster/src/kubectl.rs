//! kubectl, the real one, as tests and the demo use it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// kubectl for one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

/// What kubectl said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its standard output.
    pub out: String,
    /// Its standard error: warnings of the API server are here.
    pub err: String,
}

impl Kubectl {
    pub(crate) fn new(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig }
    }

    /// The cluster's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl with words separated by spaces.
    ///
    /// # Errors
    /// Where kubectl fails, with what it said.
    pub fn run(&self, words: &str) -> Result<Said> {
        self.run_with(&words.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Runs kubectl with some arguments and an input.
    ///
    /// # Errors
    /// Where kubectl fails, with what it said.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut child = Command::new(crate::program("kubectl"))
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.kubeconfig.with_file_name("kubecache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let said = Said { out: text(&output.stdout), err: text(&output.stderr) };
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), said.err.trim());
        }
        Ok(said)
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// Where the API server refuses them.
    pub fn apply(&self, manifests: &str) -> Result<Said> {
        self.run_with(&["apply", "-f", "-"], manifests)
    }

    /// Waits until every kind that was defined is served.
    ///
    /// # Errors
    /// Where one is not within a minute.
    pub fn wait_established(&self) -> Result<()> {
        // kubectl fails where it comes before the first condition does.
        wait_for("the kinds", Duration::from_mins(1), || {
            self.run("wait --for=condition=Established crd --all --timeout=60s").map(Some)
        })
        .map(drop)
    }

    /// What a `kubectl get` prints as JSON.
    ///
    /// # Errors
    /// Where there is no such object.
    pub fn get(&self, words: &str) -> Result<Value> {
        let said = self.run(&format!("get -o json {words}"))?;
        serde_json::from_str(&said.out).context("kubectl printed no JSON")
    }
}

/// Tries until there is a value; errors count as "not yet" until time is up.
///
/// # Errors
/// Where time is up: what was waited for, and the last error.
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let tried = attempt();
        match tried {
            Ok(Some(value)) => return Ok(value),
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            Ok(None) => bail!("waited {} s for {what}", limit.as_secs()),
            Err(error) => return Err(error).with_context(|| format!("waited {} s for {what}", limit.as_secs())),
        }
    }
}
