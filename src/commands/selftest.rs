//! `gwmon selftest`: whether a pod that asks for injection would get it, tried on the API server.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};

use super::connection::Connection;
use crate::annotations::INJECT;
use crate::cli::Selftest;
use crate::cluster::request::{api_resource, callers_error};
use crate::injection::exporter::CONTAINER;

/// The time in which rights that were just granted, and a certificate that was just made, reach every API server.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Creates a pod, as a dry run, and looks at what the API server made of it.
///
/// # Errors
/// No cluster, no right to create pods, or a pod that the API server refuses.
pub fn run(args: &Selftest) -> Result<ExitCode> {
    let connection = Connection::open(&args.cluster)?;
    let pod: DynamicObject = serde_json::from_value(pod())?;
    let pods =
        Api::<DynamicObject>::namespaced_with(connection.client.clone(), &args.namespace, &api_resource("v1", "Pod"));
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let is_injected = connection.run(async {
        let started = Instant::now();
        loop {
            let created = pods.create(&params, &pod).await.map(|pod| is_injected(&pod));
            let may_settle = match &created {
                Ok(is_injected) => !is_injected,
                Err(kube::Error::Api(status)) => status.code == 403,
                Err(_) => false,
            };
            if !may_settle || started.elapsed() > SETTLED_AFTER {
                return created;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    });
    let is_injected = is_injected.map_err(callers_error);
    if is_injected.with_context(|| format!("cannot create a pod in {} as a dry run", args.namespace))? {
        println!("OK: a pod that asks for injection in namespace {} gets the container {CONTAINER}", args.namespace);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "FAIL: a pod that asks for injection in namespace {} is admitted without the container {CONTAINER}; see gwmon certs status, the log of gwmon, and the namespaceSelector of its MutatingWebhookConfiguration",
        args.namespace
    );
    Ok(ExitCode::FAILURE)
}

fn is_injected(pod: &DynamicObject) -> bool {
    let lists = ["/spec/initContainers", "/spec/containers"].into_iter().filter_map(|list| pod.data.pointer(list));
    lists.filter_map(Value::as_array).flatten().any(|container| container["name"] == CONTAINER)
}

/// A gateway that Pod Security's `restricted` admits. It never runs.
fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "gwmon-selftest", "annotations": {INJECT: "true"}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "envoy",
                "image": "envoyproxy/envoy:v1.34.0",
                "args": ["-c", "/etc/envoy/envoy.yaml"],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::injection::decide;

    #[test]
    fn its_pod_is_one_that_is_injected() {
        let injection = decide(&Config::default(), &[], &pod().to_string()).injection().unwrap();
        assert!(injection.adds_exporter());
    }
}
