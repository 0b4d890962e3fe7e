//! Kinds that are other people's.
#![allow(dead_code, reason = "every test program takes its part of this")]

use serde_json::{Value, json};

/// Kinds of other people's definitions that gwmon reads: group, versions, kind, plural, scope.
pub(crate) const KINDS: [(&str, &[&str], &str, &str, &str); 8] = [
    ("monitoring.coreos.com", &["v1"], "Prometheus", "prometheuses", "Namespaced"),
    ("monitoring.coreos.com", &["v1alpha1"], "PrometheusAgent", "prometheusagents", "Namespaced"),
    ("monitoring.coreos.com", &["v1"], "ServiceMonitor", "servicemonitors", "Namespaced"),
    ("operator.victoriametrics.com", &["v1beta1"], "VMAgent", "vmagents", "Namespaced"),
    ("opentelemetry.io", &["v1alpha1"], "TargetAllocator", "targetallocators", "Namespaced"),
    ("opentelemetry.io", &["v1beta1"], "OpenTelemetryCollector", "opentelemetrycollectors", "Namespaced"),
    ("configuration.konghq.com", &["v1"], "KongClusterPlugin", "kongclusterplugins", "Cluster"),
    ("argoproj.io", &["v1alpha1"], "Rollout", "rollouts", "Namespaced"),
];

/// A definition of such a kind whose objects may have any content.
pub(crate) fn definition((group, versions, kind, plural, scope): (&str, &[&str], &str, &str, &str)) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let versions: Vec<_> = versions
        .iter()
        .map(|version| json!({"name": version, "served": true, "storage": true, "schema": schema}))
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "names": {"kind": kind, "plural": plural}, "scope": scope, "versions": versions},
    })
}
