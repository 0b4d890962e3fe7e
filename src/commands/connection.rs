//! A command's connection to a cluster, with the caller's own rights.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use http::{Request, Response};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Runtime;
use tower::timeout::TimeoutLayer;
use tower::util::Either;
use tower::{Layer, Service};

use crate::cli::ClusterArgs;
use crate::cluster::version::REQUEST_TIMEOUT;

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
    pub(super) fn open(args: &ClusterArgs) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (client, namespace, server) = runtime.block_on(async {
            let mut config = config(args).await?;
            act_as(&mut config, args);
            let timeout = args.request_timeout.unwrap_or(REQUEST_TIMEOUT);
            let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            (config.connect_timeout, config.read_timeout) = (timeout, timeout);
            let (namespace, server) = (config.default_namespace.clone(), config.cluster_url.to_string());
            let builder = ClientBuilder::try_from(config)?;
            let layer = Requests { timeout: timeout.unwrap_or(Duration::MAX / 2), is_verbose: args.verbose };
            anyhow::Ok((builder.with_layer(&layer).build(), namespace, server))
        })?;
        Ok(Self { runtime, client, namespace, server })
    }

    /// Waits for an answer.
    pub(super) fn run<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }
}

async fn config(args: &ClusterArgs) -> Result<Config> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let Some(file) = &args.kubeconfig else {
        return match Config::from_kubeconfig(&options).await {
            Ok(config) => Ok(config),
            // As kubectl does in a pod that has no kubeconfig at all.
            Err(_) if options.context.is_none() && is_pod_without_kubeconfig() => {
                Config::incluster().context("cannot use the pod's service account")
            }
            Err(error) => bail!("cannot use the kubeconfig: {error}"),
        };
    };
    let what = || format!("--kubeconfig {}", file.display());
    // Its cause would be printed twice.
    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| anyhow!("{}: {error}", what()))?;
    Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(what)
}

/// Has the API server treat the requests as another user's (Kubernetes, "User impersonation").
fn act_as(config: &mut Config, args: &ClusterArgs) {
    if args.user.is_none() {
        return;
    }
    let auth = &mut config.auth_info;
    auth.impersonate.clone_from(&args.user);
    auth.impersonate_groups = Some(args.groups.clone()).filter(|groups| !groups.is_empty());
    (auth.impersonate_uid, auth.impersonate_user_extra) = (None, None);
}

fn is_pod_without_kubeconfig() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let default = std::env::home_dir().map(|home| home.join(".kube/config"));
    is_set("KUBERNETES_SERVICE_HOST") && !is_set("KUBECONFIG") && !default.is_some_and(|file| file.exists())
}

/// Limits how long each request may take and, with `--verbose`, says each on standard error.
struct Requests {
    timeout: Duration,
    is_verbose: bool,
}

impl<S> Layer<S> for Requests {
    type Service = Either<Said<tower::timeout::Timeout<S>>, tower::timeout::Timeout<S>>;

    fn layer(&self, inner: S) -> Self::Service {
        let limited = TimeoutLayer::new(self.timeout).layer(inner);
        if self.is_verbose { Either::Left(Said(limited)) } else { Either::Right(limited) }
    }
}

struct Said<S>(S);

impl<S, B, R> Service<Request<B>> for Said<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (what, started) = (format!("{} {}", request.method(), request.uri()), Instant::now());
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let took = started.elapsed().as_millis();
            match &answer {
                Ok(response) => anstream::eprintln!("{what} {} in {took} ms", response.status()),
                Err(_) => anstream::eprintln!("{what} no answer in {took} ms"),
            }
            answer
        })
    }
}
