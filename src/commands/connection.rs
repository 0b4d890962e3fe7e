//! A command's connection to a cluster, with the caller's own rights.

use std::future::Future;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Runtime;

/// The cluster of a kubeconfig's context.
pub(super) struct Connection {
    runtime: Runtime,
    pub(super) client: Client,
    /// The context's namespace.
    pub(super) namespace: String,
    /// The API server's address.
    pub(super) server: String,
}

impl Connection {
    /// Makes a client. No request is sent yet.
    pub(super) fn open(kubeconfig: Option<&Path>, context: Option<String>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (client, namespace, server) = runtime.block_on(async {
            let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
            let config = match kubeconfig {
                None => match Config::from_kubeconfig(&options).await {
                    Ok(config) => config,
                    // As kubectl does in a pod that has no kubeconfig at all.
                    Err(_) if options.context.is_none() && is_pod_without_kubeconfig() => {
                        Config::incluster().context("cannot use the pod's service account")?
                    }
                    Err(error) => bail!("cannot use the kubeconfig: {error}"),
                },
                Some(file) => {
                    let what = || format!("--kubeconfig {}", file.display());
                    // Its cause would be printed twice.
                    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| anyhow!("{}: {error}", what()))?;
                    Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(what)?
                }
            };
            let (namespace, server) = (config.default_namespace.clone(), config.cluster_url.to_string());
            anyhow::Ok((Client::try_from(config)?, namespace, server))
        })?;
        Ok(Self { runtime, client, namespace, server })
    }

    /// Waits for an answer.
    pub(super) fn run<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }
}

fn is_pod_without_kubeconfig() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let default = std::env::home_dir().map(|home| home.join(".kube/config"));
    is_set("KUBERNETES_SERVICE_HOST") && !is_set("KUBECONFIG") && !default.is_some_and(|file| file.exists())
}
