//! The certificate that gwmon issues, in one Secret of all replicas; the first that finds it due renews it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use time::OffsetDateTime;

use super::issue::Certificates;
use super::{Served, Source};
use crate::cluster::request::api_error;
use crate::config::Installation;
use crate::monitoring::objects::MANAGED_BY;

/// The certificate in the Secret of an installation.
pub(crate) struct SharedSecret {
    secrets: Api<Secret>,
    installation: Installation,
}

impl SharedSecret {
    /// The Secret of this installation.
    pub(crate) fn new(client: Client, installation: Installation) -> Self {
        Self { secrets: Api::namespaced(client, &installation.namespace), installation }
    }
}

impl Source for SharedSecret {
    async fn current(&self, now: OffsetDateTime) -> Result<Served> {
        let certificates = certificates(&self.secrets, &self.installation, now).await?;
        let Certificates { authorities, leaf, leaf_key, .. } = certificates;
        Ok(Served { leaf, leaf_key, authorities: Some(authorities) })
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        changes_of(&self.secrets, &self.installation.secret())
    }
}

/// Yields when somebody may have changed a Secret.
pub(super) fn changes_of(secrets: &Api<Secret>, name: &str) -> BoxStream<'static, ()> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(secrets.clone(), config).default_backoff().map(drop).boxed()
}

/// One text of a Secret.
pub(super) fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

/// The shared certificates, made or renewed first where that is due. If two replicas write at once, one gets a conflict and
/// reads again.
async fn certificates(secrets: &Api<Secret>, installation: &Installation, now: OffsetDateTime) -> Result<Certificates> {
    let (names, name) = (installation.service_names(), installation.secret());
    let what = || format!("Secret {}/{name}", installation.namespace);
    for _ in 0..5 {
        let existing =
            secrets.get_opt(&name).await.map_err(api_error).with_context(|| format!("cannot read {}", what()))?;
        let found = existing.as_ref().and_then(read);
        if found.is_none() && existing.as_ref().is_some_and(|secret| !is_own(secret)) {
            bail!(
                "{} holds no certificates and was not made by gwmon; remove it, or start gwmon with another --name",
                what()
            );
        }
        let renewed = match &found {
            Some(certificates) => certificates.renewed(&names, now)?,
            None => Some(Certificates::new(&names, now)?),
        };
        let Some(renewed) = renewed else { return found.context("no certificates") };
        let secret = write(&renewed, installation, existing.as_ref());
        let written = match existing {
            Some(_) => secrets.replace(&name, &PostParams::default(), &secret).await,
            None => secrets.create(&PostParams::default(), &secret).await,
        };
        match written {
            Ok(_) => return Ok(renewed),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
            Err(error) => return Err(api_error(error)).with_context(|| format!("cannot write {}", what())),
        }
    }
    bail!("{} conflicts with another writer; tried 5 times", what())
}

fn is_own(secret: &Secret) -> bool {
    secret.labels().get(MANAGED_BY.0).is_some_and(|manager| manager == MANAGED_BY.1)
}

fn read(secret: &Secret) -> Option<Certificates> {
    Some(Certificates {
        authorities: text(secret, "ca.crt")?,
        authority_key: text(secret, "ca.key")?,
        leaf: text(secret, "tls.crt")?,
        leaf_key: text(secret, "tls.key")?,
    })
}

/// The Secret with these certificates; just this version of it, where there is one, and of its type, which cannot change.
fn write(certificates: &Certificates, installation: &Installation, existing: Option<&Secret>) -> Secret {
    let entry = |key: &str, text: &str| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta {
            name: Some(installation.secret()),
            namespace: Some(installation.namespace.clone()),
            resource_version: existing.and_then(ResourceExt::resource_version),
            labels: Some(BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])),
            ..ObjectMeta::default()
        },
        type_: existing.map_or_else(|| Some("kubernetes.io/tls".to_owned()), |secret| secret.type_.clone()),
        data: Some(BTreeMap::from([
            entry("ca.crt", &certificates.authorities),
            entry("ca.key", &certificates.authority_key),
            entry("tls.crt", &certificates.leaf),
            entry("tls.key", &certificates.leaf_key),
        ])),
        ..Secret::default()
    }
}
