//! The webhook's own certificate: kept in one Secret that all replicas share, made and renewed by whichever
//! comes first, and announced to the API server as `caBundle`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::{Either, select};
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use time::OffsetDateTime;

use super::{Installation, REQUEST_TIMEOUT};
use crate::admin::Readiness;
use crate::cluster::request::api_error;
use crate::metrics::Metrics;
use crate::monitoring::objects::MANAGED_BY;
use crate::tls::CurrentLeaf;
use crate::tls::pki::{CertificateBundle, Validity};

/// Apart from the controller's, so that neither removes what the other has applied.
const FIELD_MANAGER: &str = "gwmon-certificates";
/// The interval at which the wall clock is compared: a monotonic timer stops while a machine is suspended.
const LOOK: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(2);

impl Installation {
    /// The Secret of the shared certificate.
    fn secret(&self) -> String {
        format!("{}-tls", self.name)
    }

    /// The names by which the API server may call the Service.
    fn names(&self) -> Vec<String> {
        let short = format!("{}.{}.svc", self.name, self.namespace);
        vec![format!("{short}.cluster.local"), short]
    }
}

/// Keeps the served leaf and the announced authority right until `stop` is done. A change to either object
/// is looked at within a moment (R7), everything else once a minute.
pub async fn run(
    client: Client,
    installation: Installation,
    leaf: Arc<CurrentLeaf>,
    readiness: Readiness,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
) {
    let secrets = Api::<Secret>::namespaced(client.clone(), &installation.namespace);
    let configurations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = stream::select(
        watcher(secrets.clone(), named(&installation.secret())).default_backoff().map(drop).boxed(),
        watcher(configurations.clone(), named(&installation.name)).default_backoff().map(drop).boxed(),
    );
    let mut stop = pin!(stop);
    let mut serving = None;
    loop {
        let settling = reconcile(&secrets, &configurations, &installation, &leaf, &mut serving, &metrics);
        let settled = match select(&mut stop, pin!(tokio::time::timeout(REQUEST_TIMEOUT, settling))).await {
            Either::Left(_) => return,
            Either::Right((settled, _)) => {
                settled.unwrap_or_else(|_| bail!("no answer from the API server in {REQUEST_TIMEOUT:?}"))
            }
        };
        let wake = match settled {
            Ok(()) => {
                readiness.certificate_served();
                tokio::time::timeout(LOOK, changes.next()).map(drop).left_future()
            }
            Err(error) => {
                tracing::warn!("certificate: {error:#}");
                // Whatever changes meanwhile: a look at a time.
                tokio::time::sleep(RETRY).right_future()
            }
        };
        if let Either::Left(_) = select(&mut stop, pin!(wake)).await {
            return;
        }
    }
}

/// One look: the Secret made or renewed where due, then announced, then served. In this order no caller ever
/// meets a leaf whose authority it has not been told of.
async fn reconcile(
    secrets: &Api<Secret>,
    configurations: &Api<MutatingWebhookConfiguration>,
    installation: &Installation,
    leaf: &CurrentLeaf,
    serving: &mut Option<CertificateBundle>,
    metrics: &Metrics,
) -> Result<()> {
    let certificates = certificates(secrets, installation).await?;
    inject_ca_bundle(configurations, &installation.name, &certificates.bundle).await?;
    if serving.as_ref() != Some(&certificates) {
        leaf.put(&certificates.leaf, &certificates.leaf_key)?;
        let ends = Validity::of(&certificates.leaf)?.not_after;
        metrics.certificate_ends(ends.unix_timestamp());
        tracing::info!(%ends, "serving a new certificate");
        *serving = Some(certificates);
    }
    Ok(())
}

/// The shared certificates, made or renewed first where that is due. Of two replicas that try at once the API
/// server lets one win; the other reads again.
async fn certificates(secrets: &Api<Secret>, installation: &Installation) -> Result<CertificateBundle> {
    let (names, now) = (installation.names(), OffsetDateTime::now_utc());
    let what = || format!("Secret {}/{}", installation.namespace, installation.secret());
    for _ in 0..5 {
        let existing = secrets
            .get_opt(&installation.secret())
            .await
            .map_err(api_error)
            .with_context(|| format!("cannot read {}", what()))?;
        let found = existing.as_ref().and_then(read);
        let renewed = match &found {
            Some(certificates) => certificates.renewed(&names, now)?,
            None => Some(CertificateBundle::new(&names, now)?),
        };
        let Some(renewed) = renewed else { return found.context("no certificates") };
        let secret = write(&renewed, installation, existing.as_ref());
        let written = match existing {
            Some(_) => secrets.replace(&installation.secret(), &PostParams::default(), &secret).await,
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

fn read(secret: &Secret) -> Option<CertificateBundle> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    Some(CertificateBundle {
        bundle: text("ca.crt")?,
        authority_key: text("ca.key")?,
        leaf: text("tls.crt")?,
        leaf_key: text("tls.key")?,
    })
}

/// The Secret with these certificates; just this version of it, where there is one, and of its type, which cannot change.
fn write(certificates: &CertificateBundle, installation: &Installation, existing: Option<&Secret>) -> Secret {
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
            entry("ca.crt", &certificates.bundle),
            entry("ca.key", &certificates.authority_key),
            entry("tls.crt", &certificates.leaf),
            entry("tls.key", &certificates.leaf_key),
        ])),
        ..Secret::default()
    }
}

/// Writes `caBundle`, and nothing else, into every webhook of the configuration, where it is not there yet (R9).
async fn inject_ca_bundle(configurations: &Api<MutatingWebhookConfiguration>, name: &str, bundle: &str) -> Result<()> {
    let what = || format!("MutatingWebhookConfiguration {name}");
    let Some(live) =
        configurations.get_opt(name).await.map_err(api_error).with_context(|| format!("cannot read {}", what()))?
    else {
        bail!("{} does not exist; apply deploy/install.yaml", what());
    };
    let webhooks = live.webhooks.unwrap_or_default();
    let told = |bundle_of: &Option<ByteString>| bundle_of.as_ref().is_some_and(|told| told.0 == bundle.as_bytes());
    if webhooks.iter().all(|webhook| told(&webhook.client_config.ca_bundle)) {
        return Ok(());
    }
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let entries: Vec<_> =
        webhooks.iter().map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})).collect();
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
