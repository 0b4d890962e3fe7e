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

use crate::cluster::request::api_error;

/// A field manager of its own, so that neither removes what the other has applied.
const FIELD_MANAGER: &str = "gwmon-certificates";

/// The webhook configuration of one installation.
pub struct CaBundle {
    configurations: Api<MutatingWebhookConfiguration>,
    name: String,
}

impl CaBundle {
    /// The configuration of this name.
    #[must_use]
    pub fn new(client: Client, name: &str) -> Self {
        Self { configurations: Api::all(client), name: name.to_owned() }
    }

    /// Yields when somebody may have changed it.
    pub(super) fn changes(&self) -> BoxStream<'static, ()> {
        let named = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        watcher(self.configurations.clone(), named).default_backoff().map(drop).boxed()
    }

    /// Writes these authorities, and nothing else, into every webhook of the configuration, where they are not there yet (R9).
    pub(super) async fn inject(&self, authorities: &str) -> Result<()> {
        let Self { configurations, name } = self;
        let what = || format!("MutatingWebhookConfiguration {name}");
        let Some(live) =
            configurations.get_opt(name).await.map_err(api_error).with_context(|| format!("cannot read {}", what()))?
        else {
            bail!("{} does not exist; apply deploy/install.yaml", what());
        };
        let webhooks = live.webhooks.unwrap_or_default();
        let is_there =
            |bundle: &Option<ByteString>| bundle.as_ref().is_some_and(|bundle| bundle.0 == authorities.as_bytes());
        if webhooks.iter().all(|webhook| is_there(&webhook.client_config.ca_bundle)) {
            return Ok(());
        }
        let bundle = ByteString(authorities.as_bytes().to_vec());
        let entries: Vec<_> = webhooks
            .iter()
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let body = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": entries,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        configurations
            .patch(name, &params, &Patch::Apply(&body))
            .await
            .map_err(api_error)
            .with_context(|| format!("cannot write caBundle of {}", what()))?;
        Ok(())
    }
}
