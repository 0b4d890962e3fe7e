//! Ten thousand Deployments in one stream through `gwmon preview`: how long it takes, and how much memory, against a tenth of
//! them. `cargo bench --bench preview`
//!
//! Goals: 2 s for each output; memory that does not grow with the stream.
#![allow(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

const DEPLOYMENT: &str = "---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: edge-NUMBER
  namespace: gateways
  labels: {app: edge, team: ingress}
  annotations: {gwmon.io/inject: \"true\", description: an API gateway}
spec:
  replicas: 3
  selector: {matchLabels: {app: edge}}
  template:
    metadata:
      labels: {app: edge, team: ingress}
    spec:
      serviceAccountName: edge
      containers:
      - name: envoy
        image: envoyproxy/envoy:v1.34.0
        args: [-c, /etc/envoy/envoy.yaml, --log-level, info]
        ports:
        - {name: http, containerPort: 8080}
        - {name: https, containerPort: 8443}
        resources: {requests: {cpu: 500m, memory: 256Mi}, limits: {memory: 1Gi}}
        readinessProbe: {httpGet: {path: /ready, port: 8080}}
        volumeMounts: [{name: config, mountPath: /etc/envoy}]
      volumes: [{name: config, configMap: {name: envoy, defaultMode: 0644}}]
";

fn main() {
    let folder = tempfile::tempdir().unwrap();
    for count in [1_000, 10_000] {
        let stream: String = (0..count).map(|number: u32| DEPLOYMENT.replace("NUMBER", &number.to_string())).collect();
        let path = folder.path().join("stream.yaml");
        fs::write(&path, stream).unwrap();
        for output in ["patch", "json", "yaml", "diff"] {
            let started = Instant::now();
            let mut command = Command::new(env!("CARGO_BIN_EXE_gwmon"));
            command.args(["preview", "-o", output, "-f"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut peak = String::new();
            // The last look before it ends is the highest.
            while child.try_wait().unwrap().is_none() {
                let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
                peak = status
                    .lines()
                    .find_map(|line| line.strip_prefix("VmHWM:"))
                    .map_or(peak, |peak| peak.trim().to_owned());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            println!("{count} Deployments as {output}: {:.2} s, {peak} at the most", started.elapsed().as_secs_f64());
        }
    }
}
