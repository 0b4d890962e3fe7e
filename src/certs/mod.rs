//! The webhook's certificate: where it comes from ([`Source`]), how the API server learns to trust it ([`CaBundle`]), when it is
//! served ([`Updater`]); and the certificates that the webhook accepts from clients.

mod ca_bundle;
mod cert_manager;
pub mod certificate;
mod files;
pub mod issue;
mod secret;
pub mod serving;
pub(crate) mod status;
mod update;

use std::future::Future;

use anyhow::Result;
use futures::stream::BoxStream;
use time::OffsetDateTime;

pub(crate) use ca_bundle::CaBundle;
pub(crate) use cert_manager::CertManagerSecret;
pub(crate) use files::Files;
pub(crate) use secret::SharedSecret;
pub use serving::CurrentLeaf;
pub(crate) use update::{Updater, serve};

/// A certificate to serve, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// The leaf and its intermediates.
    pub(crate) leaf: String,
    /// The leaf's key.
    pub(crate) leaf_key: String,
    /// The authorities that `caBundle` must hold, as PEM. `None` where somebody else writes it, such as cert-manager's CA injector.
    pub(crate) authorities: Option<String>,
}

/// A source of the webhook's certificate.
pub(crate) trait Source: Send + Sync {
    /// The certificate to serve at this time: made, renewed or read first where that is due.
    ///
    /// # Errors
    /// None can be had at the moment. The one that is served stays in use.
    fn current(&self, now: OffsetDateTime) -> impl Future<Output = Result<Served>> + Send;

    /// Yields when the source may have another certificate.
    fn changes(&self) -> BoxStream<'static, ()>;
}
