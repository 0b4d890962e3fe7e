//! gwmon itself: whether the API server calls it, trusts it, and goes on without it.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};

use super::check::{Check, Step};
use crate::config::Installation;
use crate::reason::{Finding, Reason};
use crate::suspension::Stop;

/// The webhooks without which nothing is injected, in `deploy/base/webhook.yaml`.
const WEBHOOKS: [&str; 2] = ["pods.gwmon.io", "workloads.gwmon.io"];

/// What was read of an installation. What could not be read holds the reason.
#[derive(Debug)]
pub struct InstallationState {
    /// Its place.
    pub installation: Installation,
    /// Its webhook configuration.
    pub webhooks: Result<Option<MutatingWebhookConfiguration>, String>,
    /// The ready addresses of its Service.
    pub addresses: Result<usize, String>,
    /// Why the API server does not accept its certificate, if it does not.
    pub certificate: Result<Option<String>, String>,
    /// The image of each of its pods.
    pub images: Result<Vec<String>, String>,
    /// Where injection is stopped.
    pub stops: Vec<Stop>,
}

/// Checks an installation, for a command of this version.
#[must_use]
pub fn check(state: &InstallationState, version: &str) -> Vec<Check> {
    let Installation { namespace, name } = &state.installation;
    let configuration = format!("mutatingwebhookconfiguration/{name}");
    let service = format!("service/{name} -n {namespace}");
    let deployment = format!("deployment.apps/{name} -n {namespace}");
    let found = |step, object: &str, reason, detail: String| Check::found(step, object, Finding::new(reason, detail));
    let mut checks = Vec::new();
    match &state.webhooks {
        Err(why) => checks.push(Check::skip(Step::Webhook, &configuration, why)),
        Ok(None) => {
            let detail = "there is no such webhook configuration: the API server does not call gwmon".to_owned();
            checks.push(found(Step::Webhook, &configuration, Reason::WebhookMissing, detail));
        }
        Ok(Some(found)) => checks.extend(webhooks(&configuration, found.webhooks.as_deref().unwrap_or_default())),
    }
    checks.push(match &state.addresses {
        Err(why) => Check::skip(Step::Webhook, &service, why),
        Ok(0) => {
            let detail = "it has no ready address: the API server admits pods without calling gwmon".to_owned();
            found(Step::Webhook, &service, Reason::WebhookUnreachable, detail)
                .fix(format!("kubectl -n {namespace} get pods -l app.kubernetes.io/name={name}"))
        }
        Ok(ready) => Check::ok(Step::Webhook, &service, format!("{ready} ready addresses")),
    });
    checks.push(match &state.certificate {
        Err(why) => Check::skip(Step::Webhook, &configuration, why),
        Ok(Some(why)) => found(Step::Webhook, &configuration, Reason::CertificateNotUpdated, why.clone())
            .fix(format!("gwmon certs status -n {namespace} --name {name}")),
        Ok(None) => {
            Check::ok(Step::Webhook, &configuration, "every caBundle verifies the certificate that gwmon serves")
        }
    });
    checks.push(match &state.images {
        Err(why) => Check::skip(Step::Installation, &deployment, why),
        Ok(images) => versions(&deployment, images, version),
    });
    let stops = state.stops.iter();
    checks.extend(stops.map(|stop| found(Step::Installation, &deployment, Reason::InjectionStopped, stop.to_string())));
    checks
}

fn webhooks(object: &str, webhooks: &[MutatingWebhook]) -> Vec<Check> {
    let found = |reason, detail: String| Check::found(Step::Webhook, object, Finding::new(reason, detail));
    let missing: Vec<_> =
        WEBHOOKS.into_iter().filter(|name| webhooks.iter().all(|webhook| webhook.name != *name)).collect();
    if !missing.is_empty() {
        return vec![found(Reason::WebhookMissing, format!("it lacks {}", missing.join(", ")))];
    }
    let blocking = webhooks.iter().filter(|webhook| webhook.failure_policy.as_deref() != Some("Ignore"));
    let blocking: Vec<_> = blocking.map(|webhook| webhook.name.as_str()).collect();
    if !blocking.is_empty() {
        let detail =
            format!("failurePolicy of {} is not Ignore: without gwmon no pod is admitted", blocking.join(", "));
        return vec![found(Reason::WebhookBlocksPods, detail)];
    }
    vec![Check::ok(Step::Webhook, object, "the API server calls gwmon, and goes on without it (failurePolicy: Ignore)")]
}

/// Compares the versions in the tags of images, where the tags are versions.
fn versions(object: &str, images: &[String], version: &str) -> Check {
    let mut tags: Vec<_> = images.iter().map(|image| tag(image).unwrap_or(image)).collect();
    tags.sort_unstable();
    tags.dedup();
    let warn = |detail: String| Check::found(Step::Installation, object, Finding::new(Reason::VersionSkew, detail));
    match tags.as_slice() {
        [] => Check::skip(Step::Installation, object, "it has no pods"),
        [one] if is_version(one) && *one != version => {
            warn(format!("gwmon {one} runs in the cluster; this command is {version}"))
        }
        [one] => Check::ok(Step::Installation, object, format!("{} pods of gwmon {one}", images.len())),
        several => warn(format!("its pods are of several versions: {}", several.join(", "))),
    }
}

/// The tag of an image.
#[must_use]
pub fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next()?.rsplit('/').next()?;
    name.split_once(':').map(|(_, tag)| tag)
}

/// Returns true for `1.2.3` and the like.
#[must_use]
pub fn is_version(tag: &str) -> bool {
    let numbers: Vec<_> = tag.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::check::Verdict;
    use serde_json::{Value, json};

    fn state(webhooks: &Value) -> InstallationState {
        InstallationState {
            installation: Installation { namespace: "gwmon".to_owned(), name: "gwmon".to_owned() },
            webhooks: Ok(serde_json::from_value(json!({"metadata": {}, "webhooks": webhooks})).unwrap()),
            addresses: Ok(2),
            certificate: Ok(None),
            images: Ok(vec!["r/gwmon:0.1.0".to_owned(); 2]),
            stops: vec![],
        }
    }

    fn webhook(name: &str, policy: &str) -> Value {
        json!({"name": name, "failurePolicy": policy, "admissionReviewVersions": ["v1"], "clientConfig": {}, "sideEffects": "None"})
    }

    fn reasons(state: &InstallationState) -> Vec<Reason> {
        check(state, "0.1.0")
            .into_iter()
            .filter(|check| check.verdict > Verdict::Skip)
            .filter_map(|check| check.reason)
            .collect()
    }

    #[test]
    fn each_fault_has_its_reason() {
        let good = json!([webhook("pods.gwmon.io", "Ignore"), webhook("workloads.gwmon.io", "Ignore")]);
        assert!(reasons(&state(&good)).is_empty());
        assert_eq!(reasons(&state(&json!([webhook("pods.gwmon.io", "Ignore")]))), [Reason::WebhookMissing]);
        let strict = json!([webhook("pods.gwmon.io", "Fail"), webhook("workloads.gwmon.io", "Ignore")]);
        assert_eq!(reasons(&state(&strict)), [Reason::WebhookBlocksPods]);
        let mut broken = state(&good);
        broken.webhooks = Ok(None);
        broken.addresses = Ok(0);
        broken.certificate = Ok(Some("expired".to_owned()));
        broken.images = Ok(vec!["r/gwmon:0.1.0".to_owned(), "r/gwmon:0.2.0@sha256:ab".to_owned()]);
        let expected =
            [Reason::WebhookMissing, Reason::WebhookUnreachable, Reason::CertificateNotUpdated, Reason::VersionSkew];
        assert_eq!(reasons(&broken), expected);
        broken.images = Ok(vec!["localhost:5000/gwmon:test".to_owned()]);
        assert!(!reasons(&broken).contains(&Reason::VersionSkew), "a tag of one's own tells no version");
    }

    #[test]
    fn what_cannot_be_read_is_skipped() {
        let unread = || "no".to_owned();
        let state = InstallationState {
            webhooks: Err(unread()),
            addresses: Err(unread()),
            certificate: Err(unread()),
            images: Err(unread()),
            ..state(&json!([]))
        };
        assert!(check(&state, "0.1.0").iter().all(|check| check.verdict == Verdict::Skip));
    }
}
