//! The sidecar: a statsd_exporter that listens on the pod's loopback and serves `/metrics`.

use std::sync::LazyLock;

use serde_json::json;

use super::patch::{Template, quoted};
use crate::annotations::{MAPPING, Resources};
use crate::policy::Policy;

/// The sidecar's container name.
pub const CONTAINER: &str = "gwmon-statsd-exporter";
/// The name of its metrics port, in the pod, on the Service and in the monitor.
pub const PORT_NAME: &str = "gwmon-metrics";
/// Where `/metrics` is served by default: statsd_exporter's own default.
pub const METRICS_PORT: u16 = 9102;

const MAPPING_VOLUME: &str = "gwmon-mapping";
const NO_TOKEN_VOLUME: &str = "gwmon-no-token";
/// The volumes that the sidecar mounts.
pub const VOLUMES: [&str; 2] = [MAPPING_VOLUME, NO_TOKEN_VOLUME];

/// A native sidecar (init container with `restartPolicy: Always`, Kubernetes 1.29): it is listening before
/// the gateway sends its first packet, and ends after it.
///
/// No readiness probe: the pod would leave its Services when only its telemetry is slow. The start-up probe
/// holds the gateway back until the exporter listens; the liveness probe restarts a stuck exporter alone.
static SIDECAR: LazyLock<Template> = LazyLock::new(|| {
    let probe = |path: &str| json!({"path": path, "port": "$metricsPort"});
    let sidecar = json!({
        "name": CONTAINER,
        "image": "$image",
        "restartPolicy": "Always",
        "args": [
            // Loopback only: the exporter believes whoever reaches it.
            "$listenStatsd",
            "--statsd.listen-tcp=",
            "$listenMetrics",
            // These tag styles tear Envoy's names apart, IPv6 listeners' above all.
            "--no-statsd.parse-influxdb-tags",
            "--no-statsd.parse-librato-tags",
            "--no-statsd.parse-signalfx-tags",
            "--statsd.cache-size=5000",
            "--statsd.mapping-config=/etc/gwmon/mapping.yaml",
        ],
        "ports": [{"name": PORT_NAME, "containerPort": "$metricsPort", "protocol": "TCP"}],
        "startupProbe": {"httpGet": probe("/-/ready"), "periodSeconds": 1, "failureThreshold": 30},
        "livenessProbe": {"httpGet": probe("/-/healthy"), "periodSeconds": 10, "timeoutSeconds": 5},
        "resources": {
            "requests": {"cpu": "$cpuRequest", "memory": "$memoryRequest"},
            "limits": {"cpu": "$cpuLimit", "memory": "$memoryLimit"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": MAPPING_VOLUME, "mountPath": "/etc/gwmon", "readOnly": true},
            {"name": NO_TOKEN_VOLUME, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
        ],
    });
    let ports = ["listenStatsd", "listenMetrics", "metricsPort"];
    Template::new(
        &sidecar,
        &[&ports[..], &["image", "cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit"]].concat(),
    )
});

/// The sidecar's container, as JSON.
#[must_use]
pub fn container(policy: &Policy, statsd_port: u16, metrics_port: u16, resources: &Resources) -> String {
    SIDECAR.fill(&[
        ("image", &quoted(policy.exporter_image.as_str())),
        ("listenStatsd", &format!("\"--statsd.listen-udp=127.0.0.1:{statsd_port}\"")),
        ("listenMetrics", &format!("\"--web.listen-address=:{metrics_port}\"")),
        ("metricsPort", &metrics_port.to_string()),
        ("cpuRequest", &quoted(&resources.cpu.0)),
        ("cpuLimit", &quoted(&resources.cpu.1)),
        ("memoryRequest", &quoted(&resources.memory.0)),
        ("memoryLimit", &quoted(&resources.memory.1)),
    ])
}

/// The volumes behind its mounts, as JSON: the mapping out of the pod's own annotation, and nothing at all over
/// the place where the API server would mount the pod's service account token.
pub(crate) static VOLUME_OBJECTS: LazyLock<[String; 2]> = LazyLock::new(|| {
    let mapping =
        json!({"path": "mapping.yaml", "fieldRef": {"fieldPath": format!("metadata.annotations['{MAPPING}']")}});
    [
        json!({"name": MAPPING_VOLUME, "downwardAPI": {"items": [mapping]}}).to_string(),
        json!({"name": NO_TOKEN_VOLUME, "emptyDir": {}}).to_string(),
    ]
});
