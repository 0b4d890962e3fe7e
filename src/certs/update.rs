//! Keeps the served certificate current, in an order in which the API server trusts every leaf that it receives.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::{Either, select};
use futures::{FutureExt, StreamExt, stream};
use kube::Client;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::certificate::{CertificateInfo, Unusable, check, date, verify};
use super::{CaBundle, CurrentLeaf, Served, Source};
use crate::admin::Readiness;
use crate::cluster::events::{EventRecorder, Published};
use crate::cluster::installation::own_deployment;
use crate::cluster::version::server_time;
use crate::config::Installation;
use crate::metrics::Metrics;
use crate::reason::{Finding, Reason};

/// The interval at which the wall clock is compared: a monotonic timer stops while a machine is suspended.
const CHECK_INTERVAL: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(2);
/// kube's client has no read timeout.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The time in which a new `caBundle` reaches every API server. Until then they refuse a leaf of a new authority.
const PROPAGATION: Duration = Duration::from_secs(5);
/// The time after which a failure is worth an Event: a Secret and the `caBundle` that belongs to it never change at the same moment.
const FAILING_FOR: Duration = Duration::from_secs(10);

/// Serves what a [`Source`] has.
pub(crate) struct Updater<S> {
    source: S,
    ca_bundle: CaBundle,
    client: Client,
    installation: Installation,
    leaf: Arc<CurrentLeaf>,
    readiness: Readiness,
    metrics: Metrics,
    events: EventRecorder,
}

/// The state between two updates.
#[derive(Default)]
struct Progress {
    serving: Option<Served>,
    /// The `caBundle` of each webhook.
    bundles: Option<Vec<String>>,
    /// When it last changed, while this process has looked.
    bundles_changed: Option<Instant>,
    /// The API server's clock minus this machine's.
    clock_difference: time::Duration,
    failure: Option<Failure>,
    published: Published,
}

struct Failure {
    text: String,
    since: Instant,
    pause: Duration,
}

/// What becomes of a certificate that is not served yet.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Serve,
    Wait(Duration),
    Keep,
}

/// Decides by whether the API server trusts what is served, if anything is, and the newest, and by the time until every API server
/// has seen the `caBundle`.
fn step(is_served_trusted: Option<bool>, is_newest_trusted: bool, propagation: Duration) -> Step {
    match (is_served_trusted, is_newest_trusted) {
        (Some(true), true) if !propagation.is_zero() => Step::Wait(propagation),
        (Some(true), false) => Step::Keep,
        _ => Step::Serve,
    }
}

impl Progress {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + self.clock_difference
    }

    fn bundles_are(&mut self, bundles: Vec<String>) {
        // Where there was none, no API server trusts anything else in the meantime.
        if self.bundles.as_ref().is_some_and(|known| *known != bundles && known.iter().any(|one| !one.is_empty())) {
            self.bundles_changed = Some(Instant::now());
        }
        self.bundles = Some(bundles);
    }

    /// The time until every API server has seen the bundles.
    fn propagation(&self) -> Duration {
        self.bundles_changed.map_or(Duration::ZERO, |changed| PROPAGATION.saturating_sub(changed.elapsed()))
    }

    /// Checks that every webhook's `caBundle` verifies a leaf.
    fn trusts(&self, served: &Served) -> Result<(), Unusable> {
        let mut bundles = self.bundles.iter().flatten();
        bundles.try_for_each(|bundle| verify(("caBundle", bundle), &served.leaf, self.now()))
    }

    fn is_serving_trusted(&self) -> Option<bool> {
        self.serving.as_ref().map(|served| self.bundles.is_some() && self.trusts(served).is_ok())
    }
}

impl<S: Source> Updater<S> {
    /// Serves from this source through `leaf`. `identity` names this process in Events.
    pub(crate) fn new(
        client: Client,
        installation: Installation,
        source: S,
        leaf: Arc<CurrentLeaf>,
        readiness: Readiness,
        metrics: Metrics,
        identity: String,
    ) -> Self {
        let ca_bundle = CaBundle::new(client.clone(), &installation.name);
        let events = EventRecorder::new(client.clone(), identity);
        Self { source, ca_bundle, client, installation, leaf, readiness, metrics, events }
    }

    /// Updates until `stop` is done: at once after a change to the source or to the `caBundle` (R7), and once a minute.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let mut changes = stream::select(self.source.changes(), self.ca_bundle.changes());
        let (mut stop, mut progress) = (pin!(stop), Progress::default());
        loop {
            let turn = async {
                let updated = tokio::time::timeout(REQUEST_TIMEOUT, self.update(&mut progress)).await;
                let updated = updated.unwrap_or_else(|_| {
                    bail!("no answer from the API server, or from the files' disk, in {REQUEST_TIMEOUT:?}")
                });
                let is_trusted = progress.is_serving_trusted() == Some(true);
                // One that is ready stays so: it serves a leaf of before.
                let is_settled = self.readiness.is_certificate_trusted() || progress.propagation().is_zero();
                self.readiness.certificate_trusted(is_trusted && is_settled);
                match updated {
                    Ok(pause) => {
                        self.succeeded(&mut progress);
                        tokio::time::timeout(pause, changes.next()).map(drop).await;
                    }
                    Err(error) => {
                        let pause = self.failed(&mut progress, format!("{error:#}")).await;
                        // Changes shorten the pause, and not to nothing.
                        tokio::time::sleep(RETRY).await;
                        tokio::time::timeout(pause.saturating_sub(RETRY), changes.next()).map(drop).await;
                    }
                }
            };
            if let Either::Left(_) = select(&mut stop, pin!(turn)).await {
                return;
            }
        }
    }

    /// Renews the certificate where due, completes the `caBundle`, and serves the leaf once it is trusted. Returns the time
    /// after which to look again.
    async fn update(&self, progress: &mut Progress) -> Result<Duration> {
        let now = server_time(&self.client).await?;
        progress.clock_difference = now - OffsetDateTime::now_utc();
        let live = self.ca_bundle.live().await?;
        progress.bundles_are(live.bundles());
        let newest = self.newest(now).await;
        // Where the source fails, what is served must stay trusted all the same.
        let needed =
            newest.as_ref().ok().or(progress.serving.as_ref()).and_then(|served| served.authorities.as_deref());
        if let Some(completed) = needed.and_then(|authorities| live.completed(authorities, now)) {
            self.ca_bundle.write(&completed).await?;
            progress.bundles_are(completed.bundles());
        }
        let newest = newest?;
        let trusted = progress.trusts(&newest);
        if progress.serving.as_ref() != Some(&newest) {
            match step(progress.is_serving_trusted(), trusted.is_ok(), progress.propagation()) {
                Step::Serve => {
                    serve(&newest, &self.leaf, &self.metrics)?;
                    progress.serving = Some(newest);
                }
                Step::Wait(pause) => return Ok(pause),
                Step::Keep => {}
            }
        }
        trusted?;
        let propagation = progress.propagation();
        Ok(if propagation.is_zero() { CHECK_INTERVAL } else { propagation })
    }

    /// The source's certificate, checked.
    async fn newest(&self, now: OffsetDateTime) -> Result<Served> {
        let newest = self.source.current(now).await?;
        check(&newest.leaf, &newest.leaf_key, &self.installation.service_name(), now)?;
        if let Some(authorities) = &newest.authorities {
            verify(("ca.crt", authorities), &newest.leaf, now)?;
        }
        Ok(newest)
    }

    fn succeeded(&self, progress: &mut Progress) {
        self.metrics.certificate_update_fails(false);
        progress.failure = None;
        progress.published.clear();
    }

    /// Reports a failure, and returns the time after which to try again.
    async fn failed(&self, progress: &mut Progress, text: String) -> Duration {
        self.metrics.certificate_update_fails(true);
        let failure = progress.failure.get_or_insert_with(|| Failure {
            text: String::new(),
            since: Instant::now(),
            pause: RETRY,
        });
        if failure.text != text {
            tracing::warn!("the certificate is not updated: {text}");
            failure.text.clone_from(&text);
        }
        let pause = failure.pause;
        failure.pause = (pause * 2).min(CHECK_INTERVAL);
        if failure.since.elapsed() >= FAILING_FOR {
            let finding = Finding::new(Reason::CertificateNotUpdated, text);
            let publishing = async {
                // One that does not run from its Deployment has only its log.
                if let Ok(Some(deployment)) = own_deployment(&self.client, &self.installation).await {
                    let namespace = &self.installation.namespace;
                    self.events.publish_new(namespace, &deployment, vec![finding], &mut progress.published).await;
                }
            };
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, publishing).await;
        }
        pause
    }
}

/// Serves a certificate from the next handshake on.
///
/// # Errors
/// A certificate and a key that do not parse, or do not belong together. The one before stays in use.
pub(crate) fn serve(served: &Served, leaf: &CurrentLeaf, metrics: &Metrics) -> Result<()> {
    leaf.put(&served.leaf, &served.leaf_key)?;
    let ends = CertificateInfo::of("tls.crt", &served.leaf)?.not_after;
    metrics.certificate_ends(ends.unix_timestamp());
    tracing::info!(ends = date(ends), "serving a new certificate");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_served_once_every_api_server_trusts_it() {
        let seconds = Duration::from_secs;
        for (is_served_trusted, is_newest_trusted, propagation, expected) in [
            (None, true, 5, Step::Serve),
            (None, false, 5, Step::Serve),
            (Some(true), true, 3, Step::Wait(seconds(3))),
            (Some(true), true, 0, Step::Serve),
            (Some(true), false, 0, Step::Keep),
            (Some(false), true, 5, Step::Serve),
            (Some(false), false, 5, Step::Serve),
        ] {
            let given = (is_served_trusted, is_newest_trusted, propagation);
            assert_eq!(step(is_served_trusted, is_newest_trusted, seconds(propagation)), expected, "{given:?}");
        }
    }
}
