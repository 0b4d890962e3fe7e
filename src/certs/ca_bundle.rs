//! The `caBundle` of gwmon's webhook configuration: the CAs that the API server trusts for the webhook.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use serde_json::json;
use time::OffsetDateTime;

use super::certificate::{certificates_of, joined, still_valid};
use crate::cluster::request::api_error;

/// A field manager of its own, so that neither removes what the other has applied.
const FIELD_MANAGER: &str = "gwmon-certificates";

/// The webhook configuration of one installation.
pub(crate) struct CaBundle {
    configurations: Api<MutatingWebhookConfiguration>,
    name: String,
}

impl CaBundle {
    /// The configuration of this name.
    pub(crate) fn new(client: Client, name: &str) -> Self {
        Self { configurations: Api::all(client), name: name.to_owned() }
    }

    /// Yields when somebody may have changed it.
    pub(super) fn changes(&self) -> BoxStream<'static, ()> {
        let named = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        watcher(self.configurations.clone(), named).default_backoff().map(drop).boxed()
    }

    /// The bundles as they are.
    pub(super) async fn live(&self) -> Result<Bundles> {
        let live = self.configurations.get_opt(&self.name).await.map_err(api_error);
        let Some(live) = live.with_context(|| format!("cannot read {}", self.what()))? else {
            bail!("{} does not exist; apply deploy/install.yaml", self.what());
        };
        let webhooks = live.webhooks.unwrap_or_default().into_iter();
        Ok(Bundles(webhooks.map(|webhook| (webhook.name, text(webhook.client_config.ca_bundle))).collect()))
    }

    /// Writes these bundles, and nothing else (R9).
    pub(super) async fn write(&self, bundles: &Bundles) -> Result<()> {
        let entry = |(name, bundle): &(String, String)| {
            let bundle = ByteString(bundle.clone().into_bytes());
            json!({"name": name, "clientConfig": {"caBundle": bundle}})
        };
        let body = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.name},
            "webhooks": bundles.0.iter().map(entry).collect::<Vec<_>>(),
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.configurations.patch(&self.name, &params, &Patch::Apply(&body)).await;
        written.map_err(api_error).with_context(|| format!("cannot write caBundle of {}", self.what()))?;
        Ok(())
    }

    fn what(&self) -> String {
        format!("MutatingWebhookConfiguration {}", self.name)
    }
}

fn text(bundle: Option<ByteString>) -> String {
    bundle.map(|bundle| String::from_utf8_lossy(&bundle.0).into_owned()).unwrap_or_default()
}

/// Each webhook's name and its `caBundle`.
pub(super) struct Bundles(pub(super) Vec<(String, String)>);

impl Bundles {
    /// The texts only.
    pub(super) fn bundles(&self) -> Vec<String> {
        self.0.iter().map(|(_, bundle)| bundle.clone()).collect()
    }

    /// The same with these authorities; `None` where none are missing.
    pub(super) fn completed(&self, authorities: &str, now: OffsetDateTime) -> Option<Self> {
        let completed: Vec<_> = self.0.iter().map(|(_, bundle)| completed(authorities, bundle, now)).collect();
        completed.iter().any(Option::is_some).then(|| {
            let pairs = self.0.iter().zip(completed);
            Self(pairs.map(|((name, live), new)| (name.clone(), new.unwrap_or_else(|| live.clone()))).collect())
        })
    }
}

/// The bundle to write; `None` if this one holds all of these authorities. Others stay while they are valid: another replica may
/// still serve a leaf of theirs, and during a change of the source another writer counts on them.
fn completed(wanted: &str, live: &str, now: OffsetDateTime) -> Option<String> {
    let has = |bundle: &str, pem: &str| certificates_of(bundle).any(|other| other == pem);
    if certificates_of(wanted).all(|pem| has(live, pem)) {
        return None;
    }
    let others = still_valid(live, now).filter(|pem| !has(wanted, pem));
    Some(joined(certificates_of(wanted).chain(others)))
}

#[cfg(test)]
mod tests {
    use super::super::issue::Certificates;
    use super::*;
    use time::Duration;

    #[test]
    fn authorities_are_added_to_those_that_are_valid() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let made = || Certificates::new(&["gwmon.gwmon.svc".to_owned()], now).unwrap().authorities;
        let (one, two) = (made(), made());
        let added = completed(&two, &one, now).unwrap();
        assert_eq!(certificates_of(&added).collect::<Vec<_>>(), [two.trim(), one.trim()]);
        assert_eq!(completed(&two, &added, now), None);
        assert_eq!(completed(&one, &added, now), None, "a replica with the former files");
        assert_eq!(completed(&two, "", now).unwrap(), two);
        assert_eq!(completed(&two, &one, now + Duration::days(366)).unwrap(), two, "what has ended goes");
    }
}
