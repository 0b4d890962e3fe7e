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
}

impl Connection {
    /// Makes a client. No request is sent yet.
    pub(super) fn open(kubeconfig: Option<&Path>, context: Option<String>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (client, namespace) = runtime.block_on(async {
            let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
            let config = match kubeconfig {
                None => match Config::from_kubeconfig(&options).await {
                    Ok(config) => config,
                    // As kubectl does in a pod.
                    Err(_) if options.context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
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
            let namespace = config.default_namespace.clone();
            anyhow::Ok((Client::try_from(config)?, namespace))
        })?;
        Ok(Self { runtime, client, namespace })
    }

    /// Waits for an answer.
    pub(super) fn run<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }
}
