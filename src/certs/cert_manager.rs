//! The certificate that cert-manager issues, in a Secret. It is read from the API server, not from a mounted volume: the kubelet
//! would bring a new one up to two minutes after the CA injector has changed the `caBundle`.

use anyhow::{Context, Result};
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use time::OffsetDateTime;

use super::secret::{changes_of, text};
use super::{Served, Source};
use crate::cluster::request::api_error;
use crate::config::Installation;

/// The Secret of a cert-manager `Certificate`. cert-manager's CA injector writes the `caBundle`.
pub(crate) struct CertManagerSecret {
    secrets: Api<Secret>,
    installation: Installation,
}

impl CertManagerSecret {
    /// The Secret of this installation.
    pub(crate) fn new(client: Client, installation: Installation) -> Self {
        Self { secrets: Api::namespaced(client, &installation.namespace), installation }
    }
}

impl Source for CertManagerSecret {
    async fn current(&self, _: OffsetDateTime) -> Result<Served> {
        let name = self.installation.provided_secret();
        let what = || format!("Secret {}/{name}", self.installation.namespace);
        let found =
            self.secrets.get_opt(&name).await.map_err(api_error).with_context(|| format!("cannot read {}", what()))?;
        let secret = found.with_context(|| {
            format!(
                "{} does not exist; cert-manager creates it for the Certificate that names it: kubectl -n {} describe certificate",
                what(),
                self.installation.namespace
            )
        })?;
        let part = |key| text(&secret, key).with_context(|| format!("{} has no {key}", what()));
        Ok(Served { leaf: part("tls.crt")?, leaf_key: part("tls.key")?, authorities: None })
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        changes_of(&self.secrets, &self.installation.provided_secret())
    }
}
