//! The webhook behind a real API server.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use gwmon_cluster::{ControlPlane, Kubectl, wait_for};
use serde_json::{Value, json};

use super::Gwmon;

static CLUSTER: LazyLock<ControlPlane> = LazyLock::new(|| ControlPlane::start(false).unwrap());

/// The shipped webhook configuration.
pub(crate) fn shipped() -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string("deploy/base/webhook.yaml").unwrap()).unwrap()
}

/// A namespace with a gwmon of its own, so that tests do not count each other's calls.
pub(crate) struct Fixture {
    pub(crate) kubectl: Kubectl,
    pub(crate) namespace: String,
    pub(crate) gwmon: Gwmon,
}

impl Fixture {
    pub(crate) fn new(namespace: &str) -> Self {
        Self::of(CLUSTER.kubectl(), namespace, Gwmon::standalone())
    }

    /// The same in another cluster, or with another gwmon.
    pub(crate) fn of(kubectl: Kubectl, namespace: &str, gwmon: Gwmon) -> Self {
        kubectl.run(&format!("create namespace {namespace}")).unwrap();
        kubectl.run(&format!("label namespace {namespace} pod-security.kubernetes.io/enforce=restricted")).unwrap();
        wait_for("the service account", Duration::from_secs(20), || {
            kubectl.get(&format!("-n {namespace} serviceaccount default")).map(Some)
        })
        .unwrap();
        let mut configuration = shipped();
        configuration["metadata"]["name"] = json!(namespace);
        let authority = base64::engine::general_purpose::STANDARD.encode(std::fs::read(gwmon.authority()).unwrap());
        for webhook in configuration["webhooks"].as_array_mut().unwrap() {
            let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap();
            let url = format!("https://127.0.0.1:{}{path}", gwmon.webhook);
            webhook["clientConfig"] = json!({"url": url, "caBundle": authority});
            // Beside the shipped exclusions, this test's namespace only.
            webhook["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] = json!(namespace);
        }
        kubectl.apply(&configuration.to_string()).unwrap();
        let fixture = Self { kubectl, namespace: namespace.to_owned(), gwmon };
        // The API server takes a moment to see a new configuration.
        wait_for("the webhook to be called", Duration::from_secs(20), || {
            fixture.run_with(
                &["apply", "--dry-run=server", "-f", "-"],
                &gateway("probe", &json!({"gwmon.io/inject": "true"})).to_string(),
            )?;
            Ok((fixture.gwmon.metric("gwmon_reviews_total") > 0.).then_some(()))
        })
        .unwrap();
        fixture
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<gwmon_cluster::Said> {
        self.kubectl.run_with(&[&["-n", &self.namespace], arguments].concat(), input)
    }

    pub(crate) fn apply(&self, object: &Value) -> gwmon_cluster::Said {
        self.run_with(&["apply", "-f", "-"], &object.to_string()).unwrap()
    }

    pub(crate) fn get(&self, words: &str) -> Value {
        self.kubectl.get(&format!("-n {} {words}", self.namespace)).unwrap()
    }

    /// The one pod of the gateway's newest template that the real controller manager made.
    pub(crate) fn pod(&self, selector: &str) -> Value {
        wait_for("a pod", Duration::from_secs(20), || {
            let pods = self.kubectl.get(&format!("-n {} pods -l {selector}", self.namespace))?;
            Ok(pods["items"].as_array().and_then(|pods| pods.first()).cloned())
        })
        .unwrap()
    }

    pub(crate) fn calls(&self, route: &str) -> f64 {
        self.gwmon.metric(&format!("gwmon_reviews_total{{route=\"{route}\""))
    }
}

/// A gateway that Pod Security's `restricted` admits.
pub(crate) fn gateway(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "envoy",
                        "image": "envoyproxy/envoy:v1.34.0",
                        "args": ["-c", "/etc/envoy/envoy.yaml"],
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            },
        },
    })
}
