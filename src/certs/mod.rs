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

pub use ca_bundle::CaBundle;
pub use cert_manager::CertManagerSecret;
pub use files::Files;
pub use secret::SharedSecret;
pub use serving::CurrentLeaf;
pub(crate) use update::Updater;
pub use update::serve;

/// A certificate to serve, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Served {
    /// The leaf and its intermediates.
    pub leaf: String,
    /// The leaf's key.
    pub leaf_key: String,
    /// The authorities that clients need.
    pub authorities: Authorities,
}

/// The authorities that `caBundle` is to hold, as PEM, and who writes them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// gwmon writes these where one of them is missing, and removes others.
    Own(String),
    /// gwmon adds those that are missing to the others.
    Provided(String),
    /// Somebody else writes the `caBundle`, such as cert-manager's CA injector.
    WrittenByOthers,
}

/// A source of the webhook's certificate.
pub trait Source: Send + Sync {
    /// The certificate to serve at this time: made, renewed or read first where that is due.
    ///
    /// # Errors
    /// None can be had at the moment. The one that is served stays in use.
    fn current(&self, now: OffsetDateTime) -> impl Future<Output = Result<Served>> + Send;

    /// Yields when the source may have another certificate.
    fn changes(&self) -> BoxStream<'static, ()>;
}
