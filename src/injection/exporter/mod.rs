//! The sidecar: a statsd_exporter that listens on the pod's loopback and serves `/metrics`.

pub mod mapping;
mod tags;

use std::sync::LazyLock;

use serde_json::json;

use super::patch::{Json, Template, quoted};
use super::resources::{Fitted, to_json};
use crate::annotations::{BOOTSTRAP, MAPPING, Sidecar};
use crate::config::{Config, PullPolicy};
use crate::kubernetes::quantity::Quantity;
use mapping::Mapping;

/// The sidecar's container name.
pub const CONTAINER: &str = "gwmon-statsd-exporter";
/// The name of its metrics port, in the pod, on the Service and in the monitor.
pub const PORT_NAME: &str = "gwmon-metrics";
/// The default port of `/metrics`, which is statsd_exporter's own.
pub const DEFAULT_METRICS_PORT: u16 = 9102;

/// The volume that holds the mapping. The sidecar also mounts it at the service account token's path, so that no token is
/// mounted; an `emptyDir` there would block `kubectl drain` and the cluster autoscaler.
pub const MAPPING_VOLUME: &str = "gwmon-mapping";
/// The volume that a gateway mounts if it is configured by a file.
pub const BOOTSTRAP_VOLUME: &str = "gwmon-bootstrap";

/// The volumes that hold an annotation of the pod, and which.
pub const READ_FROM_ANNOTATIONS: [(&str, &str); 2] = [(MAPPING_VOLUME, MAPPING), (BOOTSTRAP_VOLUME, BOOTSTRAP)];

const FOLDER: &str = "/etc/gwmon";
/// The file from which a gateway's container reads its Envoy configuration. Envoy detects the format by the
/// extension.
pub const BOOTSTRAP_FILE: &str = "/etc/gwmon/bootstrap.json";

/// The parameters of a sidecar.
#[derive(Debug)]
pub struct Exporter {
    /// The kind of container.
    pub kind: Sidecar,
    /// The UDP port on loopback.
    pub statsd_port: u16,
    /// The port of `/metrics`.
    pub metrics_port: u16,
    /// The mapping of statsd names to metrics.
    pub mapping: Mapping,
    /// The statsd server to which it forwards everything, as `host:port`.
    pub relay: Option<String>,
    /// True if it sets its user: when the pod's user is root, or the one whose traffic Istio does not intercept.
    /// Otherwise the image's user is as good, and `OpenShift` assigns one to each namespace (R25).
    pub is_user_set: bool,
    /// Its CPU and memory.
    pub resources: Fitted,
}

/// Runs the exporter, its name and arguments being the script's own, and starts it again when it ends: a pod is ready only
/// while each of its containers runs, so an exporter that cannot (a port that is taken, a mapping that it refuses, more
/// series than fit) must not end its container.
///
/// Go's runtime ends a program that gets no more memory. The data limit makes that happen before the kernel kills the whole
/// container, the shell included (`memory.oom.group`, which the kubelet sets with cgroup v2). Go maps more than it uses,
/// by 28 MiB with Go 1.25 and by 66 MiB with Go 1.26: hence the least data limit, without which no exporter would start.
fn script(memory_limit: Quantity) -> String {
    const LEAST: u128 = 96 << 10;
    let kibibytes = (memory_limit.units() >> 10).max(LEAST);
    format!(
        r#"trap 'kill "$child"; exit' TERM INT
ulimit -d {kibibytes}
while :; do
  "$0" "$@" & child=$!
  wait "$child"
  echo "gwmon: $0 ended with code $?; starting it again in 5 seconds" >&2
  sleep 5 & child=$!
  wait "$child"
done"#
    )
}

/// A soft limit for Go's heap, below the data limit of [`script`], so that garbage is collected before memory runs out.
fn soft_memory_limit(memory_limit: Quantity) -> String {
    format!("{}MiB", (memory_limit.units() >> 20) * 3 / 5)
}

const PULL_POLICIES: [Option<PullPolicy>; 4] =
    [None, Some(PullPolicy::Always), Some(PullPolicy::IfNotPresent), Some(PullPolicy::Never)];

/// No probes. A readiness probe would take the pod out of its Services when only its telemetry is slow; a liveness probe
/// would end the container, which does the same; and a mesh that sends probes to its own proxy (Istio), which starts
/// after this one, would wait with a start-up probe for ever.
fn template(kind: Sidecar, is_user_set: bool, policy: Option<PullPolicy>) -> Template {
    let mut sidecar = json!({
        "name": CONTAINER,
        "image": "$image",
        "command": "$command",
        "args": "$args",
        "env": [{"name": "GOMEMLIMIT", "value": "$softMemoryLimit"}],
        "ports": [{"name": PORT_NAME, "containerPort": "$metricsPort", "protocol": "TCP"}],
        "resources": "$resources",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": MAPPING_VOLUME, "mountPath": FOLDER, "readOnly": true},
            {"name": MAPPING_VOLUME, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
        ],
    });
    if kind == Sidecar::Native {
        // Starts before the gateway and stops after it.
        sidecar["restartPolicy"] = json!("Always");
    }
    if let Some(policy) = policy {
        sidecar["imagePullPolicy"] = json!(policy.as_str());
    }
    if is_user_set {
        sidecar["securityContext"]["runAsUser"] = json!(65534);
    }
    Template::new(&sidecar, &["image", "command", "args", "softMemoryLimit", "metricsPort", "resources"])
}

impl Exporter {
    /// The sidecar's container, as JSON.
    #[must_use]
    pub fn container(&self, config: &Config) -> String {
        static TEMPLATES: LazyLock<[[[Template; 2]; 2]; 4]> = LazyLock::new(|| {
            let kinds = [Sidecar::Native, Sidecar::Regular];
            PULL_POLICIES
                .map(|policy| kinds.map(|kind| [false, true].map(|is_user_set| template(kind, is_user_set, policy))))
        });
        let policy = PULL_POLICIES.iter().position(|policy| *policy == config.image_pull_policy).unwrap_or_default();
        let command = json!(["/bin/sh", "-c", script(self.resources.memory_limit), "statsd_exporter"]);
        TEMPLATES[policy][self.kind as usize][usize::from(self.is_user_set)].fill(&[
            ("image", &quoted(config.exporter_image.as_str())),
            ("command", &command.to_string()),
            ("args", &json!(self.args()).to_string()),
            ("softMemoryLimit", &quoted(&soft_memory_limit(self.resources.memory_limit))),
            ("metricsPort", &self.metrics_port.to_string()),
            ("resources", &to_json(self.resources.requirements)),
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
        args.extend(self.relay.as_ref().map(|address| format!("--statsd.relay.address={address}")));
        args
    }
}

/// The volume behind the sidecar's mounts, as JSON: the mapping out of the pod's own annotation.
pub(crate) static MAPPING_VOLUME_OBJECT: LazyLock<String> =
    LazyLock::new(|| annotation_volume(MAPPING_VOLUME, MAPPING, "mapping.yaml"));

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
