//! A bundle for a bug report: the objects that a diagnosis reads, without secrets.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::annotations::{BOOTSTRAP, MAPPING, METRICS_FOR, MONITORED_BY};
use crate::cluster::observe::Scope;
use crate::cluster::request::{api_resource, each_of_list};

/// Objects of one kind in a bundle.
const MOST: usize = 500;
/// Lines of the log of each of gwmon's pods.
const LINES: i64 = 2000;

/// Of all workloads those whose text has one of these: gateways, gwmon, and operators.
const RELATED: [&str; 2] = ["gwmon", "prometheus-operator"];

/// What is collected: the API version and the kind, the label selector, and whether it is of the scope's namespace.
const KINDS: [(&str, &str, &str, bool); 16] = [
    ("v1", "Pod", MONITORED_BY, true),
    ("v1", "Service", METRICS_FOR, true),
    ("discovery.k8s.io/v1", "EndpointSlice", METRICS_FOR, true),
    ("monitoring.coreos.com/v1", "ServiceMonitor", "", false),
    ("monitoring.coreos.com/v1", "Prometheus", "", false),
    ("monitoring.coreos.com/v1alpha1", "PrometheusAgent", "", false),
    ("monitoring.coreos.com/v1", "PodMonitor", "", false),
    ("monitoring.coreos.com/v1", "PrometheusRule", "", false),
    ("v1", "Event", "", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "", true),
    ("v1", "LimitRange", "", true),
    ("v1", "Namespace", "", false),
    ("apps/v1", "Deployment", "", true),
    ("apps/v1", "StatefulSet", "", true),
    ("apps/v1", "DaemonSet", "", true),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", false),
];

/// Writes the bundle. A part that the caller may not read is a note in it.
///
/// # Errors
/// A file that cannot be written.
pub(super) async fn write(file: &Path, client: &Client, scope: Scope<'_>, gwmon: &str, report: &str) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Under another name until it is complete.
    let part = tempfile::NamedTempFile::new_in(folder)?;
    let compressed = GzEncoder::new(part.reopen()?, Compression::default());
    let mut bundle = Bundle(tar::Builder::new(compressed));
    bundle.add("doctor.json", report)?;
    for (api_version, kind, labels, is_scoped) in KINDS {
        let resource = api_resource(api_version, kind);
        let namespace = scope.namespace.filter(|_| is_scoped);
        let (mut items, mut left_out) = (Vec::new(), 0);
        let mut take = |object: &RawValue| {
            let is_filtered = ["Deployment", "StatefulSet", "DaemonSet", "Event"].contains(&kind);
            if is_filtered && !RELATED.iter().any(|word| object.get().contains(word)) {
                // Other people's.
                return;
            }
            if items.len() >= MOST {
                left_out += 1;
            } else if let Ok(mut object) = serde_json::from_str::<Value>(object.get()) {
                redact(&mut object);
                items.push(object);
            }
        };
        let params = ListParams::default().labels(labels);
        let listed = each_of_list(client, namespace, &resource, params, false, &mut take).await;
        let not_read = listed.err().map(|error| error.to_string());
        let list = json!({"kind": kind, "items": items, "leftOut": left_out, "notRead": not_read});
        bundle.add(&format!("{}.json", resource.plural), &format!("{list:#}"))?;
    }
    let pods = Api::<Pod>::namespaced(client.clone(), gwmon);
    let own = ListParams::default().labels("app.kubernetes.io/part-of=gwmon");
    for pod in pods.list_metadata(&own).await.map(|list| list.items).unwrap_or_default() {
        let log = LogParams { container: Some("gwmon".to_owned()), tail_lines: Some(LINES), ..LogParams::default() };
        let log = pods.logs(&pod.name_any(), &log).await.unwrap_or_else(|error| format!("not read: {error}\n"));
        bundle.add(&format!("logs/{}.log", pod.name_any()), &log)?;
    }
    bundle.0.into_inner()?.finish()?;
    part.persist(file).map_err(|error| error.error)?;
    Ok(())
}

struct Bundle(tar::Builder<GzEncoder<File>>);

impl Bundle {
    fn add(&mut self, name: &str, text: &str) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len().try_into().context("too large")?);
        header.set_mode(0o600);
        Ok(self.0.append_data(&mut header, format!("gwmon/{name}"), text.as_bytes())?)
    }
}

/// Annotations that stay: of the others nobody knows what they hold, and some hold a copy of the object.
const ANNOTATIONS: [&str; 5] =
    ["gwmon.io/", "prometheus.io/", "sidecar.istio.io/", "traffic.sidecar.istio.io/", "deployment.kubernetes.io/"];
/// Annotations with files of the gateway's.
const FILES: [&str; 2] = [BOOTSTRAP, MAPPING];
/// Fields whose values may be secret, whatever object holds them.
const SECRET: [&str; 6] = ["headers", "httpHeaders", "params", "basicAuth", "bearerToken", "password"];

/// Takes out what may be secret: values of environment variables and of flags, headers, what stands before the host in an address,
/// and annotations that may hold any of it.
fn redact(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            fields.remove("managedFields");
            for (name, value) in fields.iter_mut() {
                match (name.as_str(), &mut *value) {
                    ("annotations", Value::Object(annotations)) => annotations.retain(|key, _| {
                        ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)) && !FILES.contains(&key.as_str())
                    }),
                    ("env", Value::Array(variables)) => {
                        for variable in variables.iter_mut().filter(|variable| variable.get("value").is_some()) {
                            variable["value"] = json!(REDACTED);
                        }
                    }
                    ("args" | "command", Value::Array(words)) => words.iter_mut().for_each(redact_word),
                    (name, value) if SECRET.contains(&name) => *value = json!(REDACTED),
                    (_, value) => redact(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((_, host)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
            {
                *text = format!("{scheme}://{REDACTED}@{host}");
            }
        }
        _ => {}
    }
}

const REDACTED: &str = "redacted";

/// A word of a command line: of a flag its name stays, and of a configuration nothing.
fn redact_word(word: &mut Value) {
    let Some(text) = word.as_str() else { return };
    let is_file = text.contains(['\n', '{']);
    let kept = if is_file { "" } else { text.split_once('=').map_or(text, |(flag, _)| flag) };
    if kept.len() < text.len() {
        *word = json!(format!("{kept}{}{REDACTED}", if is_file { "" } else { "=" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_stays() {
        let container = json!({"name": "envoy", "env": [{"name": "TOKEN", "value": "hunter2"}, {"name": "POD", "valueFrom": {}}], "args": ["--token=hunter2", "--config-yaml", "{a: hunter2}"], "livenessProbe": {"httpGet": {"httpHeaders": [{"value": "hunter2"}]}}});
        let annotations =
            json!({"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "gwmon.io/inject": "true"});
        let mut object = json!({
            "metadata": {"annotations": annotations, "managedFields": [{"fieldsV1": {"hunter2": {}}}]},
            "remoteWrite": [{"url": "https://user:hunter2@example.org/write"}],
            "spec": {"template": {"spec": {"containers": [container.clone()], "initContainers": [container]}}},
        });
        redact(&mut object);
        let text = object.to_string();
        assert!(
            !text.contains("hunter2")
                && ["TOKEN", "--token=", "gwmon.io/inject", "example.org"].iter().all(|kept| text.contains(kept)),
            "{text}"
        );
    }
}
