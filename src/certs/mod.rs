//! The webhook's certificate: where it comes from ([`Source`]), how the API server learns to trust it ([`CaBundle`]), and how it is
//! served; and the certificates that the webhook accepts from clients.

mod ca_bundle;
pub mod issue;
mod secret;
pub mod serving;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::{Either, select};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};

use crate::admin::Readiness;
use crate::metrics::Metrics;
pub use ca_bundle::CaBundle;
use issue::Validity;
pub use secret::SharedSecret;
pub use serving::CurrentLeaf;

/// The interval at which the wall clock is compared: a monotonic timer stops while a machine is suspended.
const CHECK_INTERVAL: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(2);
/// kube's client has no read timeout.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A certificate to serve, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Served {
    /// The leaf and its intermediates.
    pub leaf: String,
    /// The leaf's key.
    pub leaf_key: String,
    /// The authorities to announce; `None` where somebody else writes the `caBundle`.
    pub authorities: Option<String>,
}

/// A source of the webhook's certificate.
pub trait Source: Send + Sync {
    /// The certificate to serve now: made, renewed or read first where that is due.
    ///
    /// # Errors
    /// None can be had at the moment. The one that is served stays in use.
    fn current(&self) -> impl Future<Output = Result<Served>> + Send;

    /// Yields when the source may have another certificate.
    fn changes(&self) -> BoxStream<'static, ()>;
}

/// Keeps the served leaf and the announced authorities right until `stop` is done. Checks at once after a change to either
/// (R7), and once a minute.
pub async fn run(
    source: impl Source,
    ca_bundle: CaBundle,
    leaf: Arc<CurrentLeaf>,
    readiness: Readiness,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
) {
    let mut changes = stream::select(source.changes(), ca_bundle.changes());
    let (mut stop, mut serving) = (pin!(stop), None);
    loop {
        let renewing = renew(&source, &ca_bundle, &leaf, &mut serving, &metrics);
        let renewed = match select(&mut stop, pin!(tokio::time::timeout(REQUEST_TIMEOUT, renewing))).await {
            Either::Left(_) => return,
            Either::Right((renewed, _)) => {
                renewed.unwrap_or_else(|_| bail!("no answer from the API server in {REQUEST_TIMEOUT:?}"))
            }
        };
        let wake = match renewed {
            Ok(()) => {
                readiness.certificate_served();
                tokio::time::timeout(CHECK_INTERVAL, changes.next()).map(drop).left_future()
            }
            Err(error) => {
                tracing::warn!("certificate: {error:#}");
                // Changes do not shorten the pause.
                tokio::time::sleep(RETRY).right_future()
            }
        };
        if let Either::Left(_) = select(&mut stop, pin!(wake)).await {
            return;
        }
    }
}

/// Renews the certificate where due, writes the `caBundle`, then serves the leaf. In this order the API server trusts every
/// leaf that it receives.
async fn renew(
    source: &impl Source,
    ca_bundle: &CaBundle,
    leaf: &CurrentLeaf,
    serving: &mut Option<Served>,
    metrics: &Metrics,
) -> Result<()> {
    let served = source.current().await?;
    if let Some(authorities) = &served.authorities {
        ca_bundle.inject(authorities).await?;
    }
    if serving.as_ref() != Some(&served) {
        serve(&served, leaf, metrics)?;
        *serving = Some(served);
    }
    Ok(())
}

/// Serves a certificate from the next handshake on.
///
/// # Errors
/// A certificate and a key that do not parse, or do not belong together. The one before stays in use.
pub fn serve(served: &Served, leaf: &CurrentLeaf, metrics: &Metrics) -> Result<()> {
    leaf.put(&served.leaf, &served.leaf_key)?;
    let ends = Validity::of(&served.leaf)?.not_after;
    metrics.certificate_ends(ends.unix_timestamp());
    tracing::info!(%ends, "serving a new certificate");
    Ok(())
}
