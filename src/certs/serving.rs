//! The certificate being served, swapped without a dropped connection.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use pem::{EncodeConfig, LineEnding, Pem, encode_config};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::certificate::{fault, provider};

/// Hands out the current leaf to every new handshake; none until the first is put.
#[derive(Debug, Default)]
pub struct CurrentLeaf(ArcSwapOption<CertifiedKey>);

/// A leaf that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not PEM.
    #[error("cannot read the certificate or its key: {}", fault(.0))]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A key of a type that is not supported, or of another certificate.
    #[error("cannot use the certificate with its key: {0}")]
    Tls(#[from] rustls::Error),
    /// A file without a certificate.
    #[error("there is no certificate in it")]
    NoAuthority,
    /// Client CAs that cannot be used.
    #[error("cannot check clients by it: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl CurrentLeaf {
    /// Serves this leaf from the next handshake on. If it cannot be used, the previous leaf stays.
    ///
    /// # Errors
    /// [`Error`], where the two do not parse or do not belong together.
    pub fn put(&self, leaf: &str, key: &str) -> Result<(), Error> {
        let chain = CertificateDer::pem_slice_iter(leaf.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        self.0.store(Some(Arc::new(CertifiedKey::from_der(chain, key, &provider())?)));
        Ok(())
    }

    /// The chain that is served, as PEM; the leaf first.
    #[must_use]
    pub fn chain(&self) -> Option<String> {
        let served = self.0.load();
        let certificates = served.as_ref()?.cert.iter();
        let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
        Some(certificates.map(|der| encode_config(&Pem::new("CERTIFICATE", der.to_vec()), lines)).collect())
    }
}

impl ResolvesServerCert for CurrentLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// A file of certificate authorities that clients' certificates must come from.
///
/// # Errors
/// [`Error`], where the file holds none that can be used.
pub fn client_authorities(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        authorities.add(certificate?)?;
    }
    if authorities.is_empty() { Err(Error::NoAuthority) } else { Ok(authorities) }
}

/// The server's configuration; with `clients`, only for clients that show a certificate of such an authority. No session is
/// resumed: a client that resumes does not see a new leaf.
///
/// # Errors
/// [`Error`], where the authorities cannot be used.
pub fn server_config(leaf: Arc<CurrentLeaf>, clients: Option<RootCertStore>) -> Result<ServerConfig, Error> {
    let config = ServerConfig::builder();
    let config = match clients {
        Some(authorities) => {
            config.with_client_cert_verifier(WebPkiClientVerifier::builder(authorities.into()).build()?)
        }
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(leaf);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
