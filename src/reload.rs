//! The configuration in use, and the file that it comes from, which is read again when it changes.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::future::{Either, select};
use kube::Client;
use tokio::sync::watch;

use crate::cluster::events::{EventRecorder, Published};
use crate::cluster::installation::own_deployment;
use crate::config::{Config, ConfigFile, Installation, InvalidFile};
use crate::metrics::Metrics;
use crate::reason::{Finding, Reason};

/// The interval at which the file is read. The kubelet swaps a symbolic link above it, which a file watch does not see.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// kube's client has no read timeout.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration in use. Whoever holds it sees each change.
#[derive(Clone, Debug)]
pub struct LiveConfig(watch::Receiver<Arc<Config>>);

impl LiveConfig {
    /// The configuration at this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        Arc::clone(&self.0.borrow())
    }

    /// Runs `work` with the configuration, and again from the beginning with each new one that differs in more than the exporter's
    /// container. Ends where `work` does.
    pub(crate) async fn run<W: Future<Output = ()>>(mut self, mut work: impl FnMut(Arc<Config>) -> W) {
        loop {
            let config = Arc::clone(&self.0.borrow_and_update());
            let before = Arc::clone(&config);
            let changed = async {
                // One whose file is not read never changes.
                if self.0.wait_for(|now| !now.has_same_rules(&before)).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            if let Either::Left(_) = select(pin!(work(config)), pin!(changed)).await {
                return;
            }
        }
    }
}

impl From<Config> for LiveConfig {
    /// One that does not change.
    fn from(config: Config) -> Self {
        Self(watch::channel(Arc::new(config)).1)
    }
}

/// Reads a configuration file.
///
/// # Errors
/// It cannot be read, or is not valid: with the line and the column.
pub fn read(file: &Path) -> Result<ConfigFile> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the configuration file {name}"))?;
    parse(&name.to_string(), &text)
}

/// Reads a configuration from a text of that name.
///
/// # Errors
/// As for [`read`].
pub fn parse(name: &str, text: &str) -> Result<ConfigFile> {
    text.parse().map_err(|error: InvalidFile| anyhow!("{name}:{error}"))
}

/// Reads the file of a mounted ConfigMap. One that is not there, in a folder that is empty, means that there is no ConfigMap: the
/// defaults hold.
///
/// # Errors
/// As for [`read`]; and other files where that one should be.
pub(crate) fn read_mounted(file: &Path) -> Result<ConfigFile> {
    // The link itself: while the kubelet swaps what is behind it, there may be nothing for a moment.
    let is_absent = std::fs::symlink_metadata(file).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let entries = file.parent().filter(|_| is_absent).and_then(|folder| std::fs::read_dir(folder).ok());
    let Some(entries) = entries else { return read(file) };
    // The kubelet's own begin with two dots.
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let others: Vec<_> = names.filter(|name| !name.starts_with("..")).collect();
    if others.is_empty() {
        return Ok(ConfigFile::default());
    }
    bail!("there is no {}; beside it is {}: give the ConfigMap's key that name", file.display(), others.join(", "))
}

/// Reads the file again and again, and changes the configuration with it.
pub(crate) struct Reloader {
    file: PathBuf,
    known: ConfigFile,
    config: Box<dyn Fn(&ConfigFile) -> Config + Send + Sync>,
    live: watch::Sender<Arc<Config>>,
}

impl Reloader {
    /// Begins with the content of the file; `config` makes the configuration of it.
    ///
    /// # Errors
    /// As for [`read_mounted`].
    pub(crate) fn new(
        file: PathBuf,
        config: impl Fn(&ConfigFile) -> Config + Send + Sync + 'static,
    ) -> Result<(Self, LiveConfig)> {
        let known = read_mounted(&file)?;
        let is_default = known == ConfigFile::default();
        tracing::info!(file = %file.display(), is_default, "read the configuration");
        let (live, receiver) = watch::channel(Arc::new(config(&known)));
        Ok((Self { file, known, config: Box::new(config), live }, LiveConfig(receiver)))
    }

    /// Reads until `stop` is done. A file that is not valid leaves the configuration in use, with an Event on gwmon's Deployment.
    pub(crate) async fn run(
        mut self,
        (client, installation): (Client, Installation),
        metrics: Metrics,
        identity: String,
        stop: impl Future<Output = ()>,
    ) {
        let events = EventRecorder::new(client.clone(), identity);
        let (mut stop, mut published, mut failure) = (pin!(stop), Published::default(), None);
        loop {
            let pause = pin!(tokio::time::sleep(POLL_INTERVAL));
            if let Either::Left(_) = select(&mut stop, pause).await {
                return;
            }
            let file = self.file.clone();
            let read = tokio::task::spawn_blocking(move || read_mounted(&file)).await.map_err(anyhow::Error::from);
            let text = match read.flatten() {
                Ok(found) => {
                    metrics.configuration_update_fails(false);
                    if failure.take().is_some() {
                        tracing::info!("the configuration can be read again");
                    }
                    published.clear();
                    self.take(found);
                    continue;
                }
                // The line itself is for a terminal.
                Err(error) => format!("{error:#}").lines().next().unwrap_or_default().to_owned(),
            };
            metrics.configuration_update_fails(true);
            if failure.as_ref() != Some(&text) {
                tracing::warn!("the configuration stays as it was: {text}");
                failure = Some(text.clone());
            }
            let finding = Finding::new(Reason::ConfigurationNotUpdated, text);
            // Says each finding once, and tries again where the API server did not take it.
            let publishing = async {
                if let Ok(Some(deployment)) = own_deployment(&client, &installation).await {
                    events.publish_new(&installation.namespace, &deployment, vec![finding], &mut published).await;
                }
            };
            let publishing = pin!(tokio::time::timeout(REQUEST_TIMEOUT, publishing));
            if let Either::Left(_) = select(&mut stop, publishing).await {
                return;
            }
        }
    }

    fn take(&mut self, found: ConfigFile) {
        if found != self.known {
            self.known = found;
            self.live.send_replace(Arc::new((self.config)(&self.known)));
            tracing::info!(file = %self.file.display(), "the configuration has changed");
        }
    }
}
