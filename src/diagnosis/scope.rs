//! The namespaces in which gwmon's webhook is called. Cluster administrators may exclude some.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use crate::kubernetes::labels::Labels;
use crate::monitoring::selector::Selector;
use crate::reason::{Finding, Reason};

/// The webhook that is called for workloads, in `deploy/base/webhook.yaml`.
const WORKLOADS: &str = "workloads.gwmon.io";

/// The `namespaceSelector` of the webhook.
#[derive(Debug)]
pub struct WebhookScope(Selector);

impl WebhookScope {
    /// Reads the selector; without a webhook configuration, or a selector in it, every namespace is in scope.
    ///
    /// # Errors
    /// A selector that no API server would take.
    pub fn of(configuration: Option<MutatingWebhookConfiguration>) -> Result<Self, String> {
        let mut webhooks = configuration.and_then(|found| found.webhooks).into_iter().flatten();
        let selector = webhooks.find(|webhook| webhook.name == WORKLOADS).and_then(|found| found.namespace_selector);
        Selector::parse(&selector.unwrap_or_default()).map(Self)
    }

    /// Checks that the webhook is called for a namespace with these labels.
    ///
    /// # Errors
    /// The finding that it is not, with the mismatch.
    pub fn check(&self, namespace: &str, labels: &Labels) -> Result<(), Finding> {
        self.0.check(labels).map_err(|mismatch| {
            let detail = format!(
                "nothing in namespace {namespace} is injected: the namespaceSelector of gwmon's MutatingWebhookConfiguration {mismatch}"
            );
            Finding::new(Reason::NamespaceExcluded, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_workloads_webhook_decides() {
        let exclude = json!({"matchExpressions": [{"key": "gwmon.io/ignore", "operator": "DoesNotExist"}]});
        let webhook = |name: &str, selector: &serde_json::Value| json!({"name": name, "namespaceSelector": selector, "admissionReviewVersions": ["v1"], "clientConfig": {}, "sideEffects": "None"});
        let webhooks = json!([webhook("pods.gwmon.io", &json!({})), webhook(WORKLOADS, &exclude)]);
        let found = serde_json::from_value(json!({"metadata": {}, "webhooks": webhooks})).unwrap();
        let scope = WebhookScope::of(Some(found)).unwrap();
        assert!(scope.check("edge", &Labels::new()).is_ok());
        let ignored = Labels::from([("gwmon.io/ignore".to_owned(), String::new())]);
        let finding = scope.check("edge", &ignored).unwrap_err();
        assert!(finding.reason == Reason::NamespaceExcluded && finding.detail.contains("gwmon.io/ignore"), "{finding}");
        assert!(WebhookScope::of(None).unwrap().check("edge", &ignored).is_ok());
    }
}
