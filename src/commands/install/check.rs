//! `gwmon install --check`: whether the cluster will do, before anything is installed.

use anyhow::{Context, Result};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::Value;

use crate::cluster::request::{api_resource, callers_error};
use crate::config::Installation;
use crate::diagnosis::check::Verdict;
use crate::kubernetes::Version;

/// The first Kubernetes that knows `matchConditions`, without which every pod of the cluster would be sent to gwmon.
const OLDEST: Version = Version(1, 28);
/// The kinds by which the Prometheus Operator is told what to scrape.
const MONITORING: [(&str, &str); 2] =
    [("monitoring.coreos.com/v1", "ServiceMonitor"), ("monitoring.coreos.com/v1", "Prometheus")];
/// The verbs on roles of whoever may grant rights that are not their own.
const GRANTING: [&str; 2] = ["escalate", "bind"];
const WEBHOOKS: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");

/// One thing that was looked at.
pub(super) type Checked = (Verdict, String);

/// Looks at all of it, with the caller's rights. Nothing is changed.
///
/// # Errors
/// An API server that does not answer.
pub(super) async fn check(client: &Client, installation: &Installation, objects: &[Value]) -> Result<Vec<Checked>> {
    let info = client.apiserver_version().await.map_err(callers_error).context("cannot ask for the version")?;
    let mut checked = vec![version(&info.major, &info.minor, &info.git_version)];
    checked.extend(private_gke(&info.git_version));
    checked.push(webhooks(client, installation).await);
    checked.extend(rights(client, installation, objects).await?);
    checked.extend(monitoring(client).await);
    Ok(checked)
}

fn version(major: &str, minor: &str, git_version: &str) -> Checked {
    // Some providers write `29+`.
    match format!("{major}.{}", minor.trim_end_matches('+')).parse::<Version>() {
        Ok(version) if version < OLDEST => {
            (Verdict::Fail, format!("Kubernetes {git_version} is older than {OLDEST}; upgrade the cluster"))
        }
        Ok(_) => (Verdict::Ok, format!("Kubernetes {git_version}")),
        Err(_) => (Verdict::Skip, format!("Kubernetes {git_version}: the version cannot be read")),
    }
}

/// The firewall of a private cluster lets its control plane reach nodes on few ports.
fn private_gke(git_version: &str) -> Option<Checked> {
    git_version.contains("-gke.").then(|| {
        let why = "GKE: the firewall of a private cluster lets the API server reach ports 443 and 10250 only; install with \
                   -- --bind=0.0.0.0:10250, or add a firewall rule for port 8443";
        (Verdict::Warn, why.to_owned())
    })
}

/// Whether the API server calls webhooks, and whose there are.
async fn webhooks(client: &Client, installation: &Installation) -> Checked {
    let api = Api::<kube::api::DynamicObject>::all_with(client.clone(), &api_resource(WEBHOOKS.0, WEBHOOKS.1));
    let others = match api.list_metadata(&ListParams::default().labels("app.kubernetes.io/part-of=gwmon")).await {
        Ok(list) => list.items.into_iter().filter_map(|found| found.metadata.name),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let why = "the API server serves no MutatingWebhookConfigurations; it must run the admission plugin MutatingAdmissionWebhook";
            return (Verdict::Fail, why.to_owned());
        }
        Err(error) => return (Verdict::Skip, format!("webhooks: {:#}", callers_error(error))),
    };
    let others: Vec<_> = others.filter(|name| *name != installation.name).collect();
    if others.is_empty() {
        return (
            Verdict::Ok,
            "the API server serves MutatingWebhookConfigurations, and there is no other gwmon's".to_owned(),
        );
    }
    let why = format!(
        "another gwmon is installed, by the name {}; both would inject the same pods unless their namespaceSelectors differ",
        others.join(", ")
    );
    (Verdict::Warn, why)
}

/// The rights to apply the manifests.
async fn rights(client: &Client, installation: &Installation, objects: &[Value]) -> Result<Vec<Checked>> {
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let mut lacking = Vec::new();
    let needed = objects.iter().map(|object| {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        (group, format!("{}s", text("kind").to_lowercase()), namespace)
    });
    let kinds: Vec<_> = needed.collect();
    // A second apply is a patch. A role may not grant what its creator does not have, nor a binding.
    let applied = kinds.iter().flat_map(|kind| ["create", "patch"].map(|verb| (kind, verb)));
    let roles = kinds.iter().filter(|(_, resource, _)| resource.ends_with("roles"));
    let granted = roles.flat_map(|kind| GRANTING.map(|verb| (kind, verb)));
    for ((group, resource, namespace), verb) in applied.chain(granted) {
        let attributes = ResourceAttributes {
            group: Some((*group).to_owned()),
            namespace: namespace.clone(),
            resource: Some(resource.clone()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let review = reviews.create(&PostParams::default(), &review).await.map_err(callers_error);
        let review = review.context("cannot ask for your own rights")?;
        if !review.status.is_some_and(|status| status.allowed) {
            lacking.push(format!("{verb} {resource}"));
        }
    }
    Ok(vec![match lacking.as_slice() {
        [] => (
            Verdict::Ok,
            format!("you may apply all objects, in namespace {} and cluster-wide", installation.namespace),
        ),
        lacking if lacking.iter().all(|right| GRANTING.iter().any(|verb| right.starts_with(verb))) => {
            (Verdict::Warn, format!("you may not {}: you need each right that gwmon's roles grant", lacking.join(", ")))
        }
        _ => (Verdict::Fail, format!("you may not {}; ask for cluster-admin", lacking.join(", "))),
    }])
}

/// The Prometheus Operator's kinds, and somebody who reads them.
async fn monitoring(client: &Client) -> Vec<Checked> {
    let mut checked = Vec::new();
    for (api_version, kind) in MONITORING {
        let api = Api::<kube::api::DynamicObject>::all_with(client.clone(), &api_resource(api_version, kind));
        checked.push(match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) if kind == "Prometheus" && list.items.is_empty() => {
                (Verdict::Warn, "no Prometheus object: gwmon makes ServiceMonitors when there is one".to_owned())
            }
            Ok(_) => (Verdict::Ok, format!("the cluster serves {api_version} {kind}")),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let fix = "install the Prometheus Operator; until then pods are injected, and nobody scrapes them";
                (Verdict::Warn, format!("the cluster does not serve {api_version} {kind}; {fix}"))
            }
            Err(error) => (Verdict::Skip, format!("{kind}: {:#}", callers_error(error))),
        });
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_providers_are_read() {
        for (major, minor, git_version, expected) in [
            ("1", "27", "v1.27.16", Verdict::Fail),
            ("1", "28+", "v1.28.15-eks-1", Verdict::Ok),
            ("1", "36", "v1.36.3", Verdict::Ok),
            ("", "", "unknown", Verdict::Skip),
        ] {
            assert_eq!(version(major, minor, git_version).0, expected, "{git_version}");
        }
        assert_eq!(private_gke("v1.33.2-gke.1240000").unwrap().0, Verdict::Warn);
        assert!(private_gke("v1.33.2").is_none());
    }
}
