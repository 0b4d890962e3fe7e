//! The state of an installation's certificates, for `gwmon certs status`.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use time::OffsetDateTime;

use super::CaBundle;
use super::certificate::{CertificateInfo, Unusable, check_leaf, date, verify};
use super::secret::text;
use crate::cluster::request::callers_error;
use crate::cluster::version::server_time;
use crate::config::Installation;

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The source of the certificate: the value of `--certificates`.
    pub(crate) source: String,
    /// The webhooks of the configuration.
    pub(crate) webhooks: Vec<Webhook>,
    /// The certificates: that of each replica, or of the Secret where the replicas cannot be asked.
    pub(crate) served: Vec<ServedBy>,
    /// What could not be read, and why.
    pub(crate) notes: Vec<String>,
}

/// A webhook, and the authorities by which the API server trusts it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Webhook {
    /// Its name.
    pub(crate) name: String,
    /// Its `caBundle`.
    pub(crate) ca_bundle: Vec<Certificate>,
}

/// A certificate chain, and where it was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServedBy {
    /// The object.
    pub(crate) by: String,
    /// The leaf first.
    pub(crate) chain: Vec<Certificate>,
    /// Whether the API server accepts it.
    pub(crate) verdict: Verdict,
}

/// Whether the API server accepts a certificate.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    /// It does.
    Ok,
    /// It does not, for this reason.
    Fail(String),
}

/// The fields of a certificate that people look at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Certificate {
    /// The subject's distinguished name.
    pub(crate) subject: String,
    /// The issuer's distinguished name.
    pub(crate) issuer: String,
    /// The names that it is for.
    pub(crate) names: Vec<String>,
    /// The first moment of its validity, as RFC 3339.
    pub(crate) not_before: String,
    /// The last moment of its validity, as RFC 3339.
    pub(crate) not_after: String,
    /// The time until then.
    pub(crate) remaining: String,
}

impl Certificate {
    fn new(info: CertificateInfo, now: OffsetDateTime) -> Self {
        let CertificateInfo { subject, issuer, names, not_before, not_after } = info;
        let remaining = match (not_after - now).whole_days() {
            ..0 => "expired".to_owned(),
            0 if not_after < now => "expired".to_owned(),
            0 => "less than a day left".to_owned(),
            1 => "1 day left".to_owned(),
            days => format!("{days} days left"),
        };
        Self { subject, issuer, names, not_before: date(not_before), not_after: date(not_after), remaining }
    }
}

impl Report {
    /// Returns true if something is served, and the API server accepts all of it.
    #[must_use]
    pub(crate) fn is_healthy(&self) -> bool {
        let is_all_known = self.notes.is_empty() && !self.webhooks.is_empty() && !self.served.is_empty();
        is_all_known && self.served.iter().all(|served| served.verdict == Verdict::Ok)
    }

    /// Judges chains against the bundles of the webhooks.
    fn new(
        source: String,
        name: &str,
        bundles: &[(String, String)],
        chains: Vec<(String, String)>,
        notes: Vec<String>,
        now: OffsetDateTime,
    ) -> Self {
        let certificates = |part, pem: &str| -> Result<Vec<_>, Unusable> {
            let all = CertificateInfo::all(part, pem)?;
            Ok(all.into_iter().map(|info| Certificate::new(info, now)).collect())
        };
        let judge = |leaf: &str| {
            check_leaf(leaf, name, now)?;
            bundles.iter().try_for_each(|(_, bundle)| verify(("caBundle", bundle), leaf, now))
        };
        // One that cannot be read is in the verdicts.
        let webhooks = bundles.iter().map(|(name, bundle)| Webhook {
            name: name.clone(),
            ca_bundle: certificates("caBundle", bundle).unwrap_or_default(),
        });
        let webhooks = webhooks.collect();
        let served = chains.into_iter().map(|(by, pem)| {
            let verdict = judge(&pem).map_or_else(|why| Verdict::Fail(why.to_string()), |()| Verdict::Ok);
            ServedBy { by, chain: certificates("tls.crt", &pem).unwrap_or_default(), verdict }
        });
        Self { source, webhooks, served: served.collect(), notes }
    }
}

/// Reads an installation's certificates: from each replica by the API server's proxy, or from the Secret where the caller may not
/// do that.
///
/// # Errors
/// No answer, or a webhook configuration that is not there or cannot be read.
pub(crate) async fn read(client: &Client, installation: &Installation) -> Result<Report> {
    let Installation { namespace, name } = installation;
    let now = server_time(client).await.context("cannot ask the API server")?;
    let bundles = CaBundle::new(client.clone(), name).live().await?.0;
    let mut notes = Vec::new();
    let deployment =
        Api::<Deployment>::namespaced(client.clone(), namespace).get_opt(name).await.map_err(callers_error);
    let source = deployment
        .inspect_err(|error| notes.push(format!("cannot read Deployment {namespace}/{name}: {error:#}")))
        .ok()
        .flatten()
        .map_or_else(|| "unknown".to_owned(), |deployment| source_of(&deployment));
    let mut chains = replicas(client, installation, &mut notes).await;
    if chains.is_empty() {
        let secret = secret_of(&source, installation);
        match Api::<Secret>::namespaced(client.clone(), namespace).get_opt(&secret).await.map_err(callers_error) {
            Ok(Some(found)) => {
                chains.push((format!("secret/{secret}"), text(&found, "tls.crt").unwrap_or_default()));
            }
            Ok(None) => notes.push(format!("there is no Secret {namespace}/{secret}")),
            Err(error) => notes.push(format!("cannot read Secret {namespace}/{secret}: {error:#}")),
        }
    }
    Ok(Report::new(source, &installation.service_name(), &bundles, chains, notes, now))
}

/// The chain that each running replica serves.
async fn replicas(client: &Client, installation: &Installation, notes: &mut Vec<String>) -> Vec<(String, String)> {
    let pods = Api::<Pod>::namespaced(client.clone(), &installation.namespace);
    let own = ListParams::default().labels(&format!("app.kubernetes.io/name={}", installation.name));
    let list = match pods.list(&own).await.map_err(callers_error) {
        Ok(list) => list.items,
        Err(error) => {
            notes.push(format!("cannot list pods in {}: {error:#}", installation.namespace));
            return vec![];
        }
    };
    let mut chains = Vec::new();
    for pod in list {
        let by = format!("pod/{}", pod.name_any());
        let path =
            format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/certificate", installation.namespace, pod.name_any());
        let asked = async {
            let request = http::Request::get(path).body(vec![]).map_err(kube::Error::HttpError)?;
            client.request_text(request).await
        };
        match asked.await.map_err(callers_error) {
            Ok(pem) => chains.push((by, pem)),
            Err(error) => notes.push(format!("cannot ask {by}: {error:#}")),
        }
    }
    chains
}

/// The Secret with the certificate of a source.
fn secret_of(source: &str, installation: &Installation) -> String {
    if source == "self-signed" { installation.secret() } else { installation.provided_secret() }
}

/// The value of `--certificates`, by the Deployment's arguments or environment.
fn source_of(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let container = template.and_then(|spec| spec.containers.iter().find(|container| container.name == "gwmon"));
    let arguments = container.and_then(|container| container.args.as_deref()).unwrap_or_default();
    let by_flag = arguments.iter().zip(arguments.iter().skip(1).map(Some).chain([None])).find_map(|(flag, next)| {
        flag.strip_prefix("--certificates=").or_else(|| next.filter(|_| flag == "--certificates").map(String::as_str))
    });
    let environment = container.and_then(|container| container.env.as_deref()).unwrap_or_default();
    let by_variable = environment.iter().find(|variable| variable.name == "GWMON_CERTIFICATES");
    by_flag.or_else(|| by_variable?.value.as_deref()).unwrap_or("self-signed").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::issue::Certificates;
    use super::*;
    use time::Duration;

    #[test]
    fn each_replica_is_judged_by_every_webhook() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let made = || Certificates::new(&["gwmon.gwmon.svc".to_owned()], now).unwrap();
        let (one, other) = (made(), made());
        let report = |bundles: &[&str], days| {
            let bundles: Vec<_> =
                bundles.iter().map(|bundle| ("pods.gwmon.io".to_owned(), (*bundle).to_owned())).collect();
            let chains = vec![("pod/a".to_owned(), one.leaf.clone())];
            let now = now + Duration::days(days);
            Report::new("self-signed".to_owned(), "gwmon.gwmon.svc", &bundles, chains, vec![], now)
        };
        let trusted = report(&[&one.authorities], 30);
        assert!(trusted.is_healthy());
        assert_eq!(trusted.served[0].chain[0].remaining, "60 days left");
        for (bundles, days, words) in [
            (vec![one.authorities.as_str(), &other.authorities], 0, "caBundle does not verify the certificate"),
            (vec![""], 0, "caBundle holds no certificate of a CA that is valid now"),
            (vec![&one.authorities], 91, "the certificate is valid from"),
        ] {
            let report = report(&bundles, days);
            assert!(!report.is_healthy());
            let Verdict::Fail(why) = &report.served[0].verdict else { panic!("{words}") };
            assert!(why.contains(words), "{why}");
        }
    }
}
