//! The sidecar: a statsd_exporter that listens on the pod's loopback and serves `/metrics`.

pub mod mapping;
mod tags;

use std::sync::LazyLock;

use serde_json::json;

use super::patch::{Json, Template, quoted};
use crate::annotations::{BOOTSTRAP, MAPPING, Resources, Sidecar};
use crate::policy::Policy;
use mapping::Mapping;

/// The sidecar's container name.
pub const CONTAINER: &str = "gwmon-statsd-exporter";
/// The name of its metrics port, in the pod, on the Service and in the monitor.
pub const PORT_NAME: &str = "gwmon-metrics";
/// Where `/metrics` is served by default: statsd_exporter's own default.
pub const METRICS_PORT: u16 = 9102;

const MAPPING_VOLUME: &str = "gwmon-mapping";
const NO_TOKEN_VOLUME: &str = "gwmon-no-token";
/// The volume that a gateway mounts where it is told by a file.
pub const BOOTSTRAP_VOLUME: &str = "gwmon-bootstrap";
/// The volumes that the sidecar mounts.
pub const VOLUMES: [&str; 2] = [MAPPING_VOLUME, NO_TOKEN_VOLUME];

const FOLDER: &str = "/etc/gwmon";
/// Where a gateway's container finds the Envoy configuration that is for it. Envoy tells the format by the ending.
pub const BOOTSTRAP_FILE: &str = "/etc/gwmon/bootstrap.json";

/// What varies from one sidecar to the other.
#[derive(Debug)]
pub struct Exporter<'a> {
    /// As what kind of container it runs.
    pub kind: Sidecar,
    /// Where it takes statsd, on loopback.
    pub statsd_port: u16,
    /// Where it serves `/metrics`.
    pub metrics_port: u16,
    /// What it makes of what it takes.
    pub mapping: Mapping,
    /// Where it passes everything on to, as `host:port`.
    pub relay: Option<&'a str>,
    /// Whether it says as which user it runs: where the pod's would be root, or the one whose traffic Istio lets by. Else
    /// the image's user is as good, and `OpenShift` gives each namespace its own (R25).
    pub is_user_set: bool,
    /// Its requests and limits.
    pub resources: &'a Resources,
}

/// No readiness probe: the pod would leave its Services when only its telemetry is slow. The start-up probe
/// holds the gateway back until a native sidecar listens; the liveness probe restarts a stuck exporter alone.
fn template(kind: Sidecar, is_user_set: bool) -> Template {
    let probe = |path: &str| json!({"path": path, "port": "$metricsPort"});
    let mut sidecar = json!({
        "name": CONTAINER,
        "image": "$image",
        "args": "$args",
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
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": MAPPING_VOLUME, "mountPath": FOLDER, "readOnly": true},
            {"name": NO_TOKEN_VOLUME, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
        ],
    });
    if kind == Sidecar::Native {
        // Listening before the gateway sends its first packet, and ended after it.
        sidecar["restartPolicy"] = json!("Always");
    }
    if is_user_set {
        sidecar["securityContext"]["runAsUser"] = json!(65534);
    }
    let gaps = ["image", "args", "metricsPort", "cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit"];
    Template::new(&sidecar, &gaps)
}

impl Exporter<'_> {
    /// The sidecar's container, as JSON.
    #[must_use]
    pub fn container(&self, policy: &Policy) -> String {
        static TEMPLATES: LazyLock<[[Template; 2]; 2]> = LazyLock::new(|| {
            [Sidecar::Native, Sidecar::Container]
                .map(|kind| [false, true].map(|is_user_set| template(kind, is_user_set)))
        });
        let Resources { cpu, memory } = self.resources;
        TEMPLATES[self.kind as usize][usize::from(self.is_user_set)].fill(&[
            ("image", &quoted(policy.exporter_image.as_str())),
            ("args", &json!(self.args()).to_string()),
            ("metricsPort", &self.metrics_port.to_string()),
            ("cpuRequest", &quoted(&cpu.0)),
            ("cpuLimit", &quoted(&cpu.1)),
            ("memoryRequest", &quoted(&memory.0)),
            ("memoryLimit", &quoted(&memory.1)),
        ])
    }

    fn args(&self) -> Vec<String> {
        let mut args = vec![
            // Loopback only: the exporter believes whoever reaches it.
            format!("--statsd.listen-udp=127.0.0.1:{}", self.statsd_port),
            "--statsd.listen-tcp=".to_owned(),
            // As much as the node allows (net.core.rmem_max): Envoy sends at once what it has gathered.
            "--statsd.read-buffer=4194304".to_owned(),
            format!("--web.listen-address=:{}", self.metrics_port),
            // These tag styles tear Envoy's names apart, IPv6 listeners' above all.
            "--no-statsd.parse-influxdb-tags".to_owned(),
            "--no-statsd.parse-librato-tags".to_owned(),
            "--no-statsd.parse-signalfx-tags".to_owned(),
            format!("--statsd.cache-size={}", self.mapping.cache_size()),
            format!("--statsd.mapping-config={FOLDER}/mapping.yaml"),
        ];
        args.extend(self.relay.map(|address| format!("--statsd.relay.address={address}")));
        args
    }
}

/// The volumes behind the sidecar's mounts, as JSON: the mapping out of the pod's own annotation, and nothing at all
/// over the place where the API server would mount the pod's service account token.
pub(crate) static VOLUME_OBJECTS: LazyLock<[String; 2]> = LazyLock::new(|| {
    [
        annotation_volume(MAPPING_VOLUME, MAPPING, "mapping.yaml"),
        json!({"name": NO_TOKEN_VOLUME, "emptyDir": {}}).to_string(),
    ]
});

/// The volume and the mount that bring [`BOOTSTRAP_FILE`] into the gateway's container, as JSON.
pub(crate) fn bootstrap_file() -> (Json, Json) {
    let mount = json!({"name": BOOTSTRAP_VOLUME, "mountPath": FOLDER, "readOnly": true});
    (annotation_volume(BOOTSTRAP_VOLUME, BOOTSTRAP, "bootstrap.json").into(), mount.to_string().into())
}

/// A volume with an annotation of the pod as its only file.
fn annotation_volume(name: &str, annotation: &str, file: &str) -> String {
    let item = json!({"path": file, "fieldRef": {"fieldPath": format!("metadata.annotations['{annotation}']")}});
    json!({"name": name, "downwardAPI": {"items": [item]}}).to_string()
}
