//! `gwmon serve`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use kube::Client;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::annotations::Version;
use crate::cli::Serve;
use crate::controller::{self, Site, certificates, lead};
use crate::log;
use crate::metrics::Metrics;
use crate::server::{self, ConnectionLimits};
use crate::suspension::Timing;
use crate::tls::pki::{Material, Validity};
use crate::tls::{self, CurrentLeaf};
use crate::webhook::surroundings::{self, Surroundings};
use crate::webhook::{self, Admission};

/// After SIGTERM the API server goes on calling this replica until the endpoints have reached it (R30).
const GOODBYE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the server from starting: an address in use, no cluster, a file that cannot be written.
pub fn run(args: Serve) -> Result<()> {
    let log = log::start(&args.log, args.log_format)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            served = serve(args) => served,
            () = log.tell_what_is_left_out() => Ok(()),
        }
    })
}

async fn serve(args: Serve) -> Result<()> {
    let (metrics, registry) = Metrics::new();
    let readiness = Readiness::default();
    let leaf = Arc::new(CurrentLeaf::default());
    let address = |typed: Option<SocketAddr>, port| {
        let host = if args.standalone { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
        typed.unwrap_or_else(|| SocketAddr::from((host, port)))
    };
    let clients = args.client_ca.as_ref().map(|file| {
        let read = std::fs::read(file).map_err(anyhow::Error::from);
        let authorities = read.and_then(|pem| Ok(tls::leaf::client_authorities(&pem)?));
        authorities.with_context(|| format!("--client-ca {}", file.display()))
    });
    let clients = clients.transpose()?;
    let webhook = listen(address(args.bind, 8443), "--bind")?;
    let admin = listen(address(args.admin_bind, 8080), "--admin-bind")?;

    // Apart from `stop`: the admin port tells the truth about readiness until the very end.
    let end = CancellationToken::new();
    let admin_router = admin::router(readiness.clone(), registry);
    let limits = ConnectionLimits::of_this_process();
    let admin = tokio::spawn(server::serve(admin, None, admin_router, limits.admin, end.clone().cancelled_owned()));

    let stop = CancellationToken::new();
    let stopped = |token: &CancellationToken| token.clone().cancelled_owned();
    let mut tasks = tokio::task::JoinSet::new();
    let surroundings = Arc::new(Surroundings::default());
    let (goodbye, policy) = if args.standalone {
        let material = Material::new(&["localhost".to_owned(), "127.0.0.1".to_owned()], OffsetDateTime::now_utc())?;
        leaf.put(&material.leaf, &material.leaf_key)?;
        if let Some(file) = &args.ca_out {
            std::fs::write(file, &material.bundle).with_context(|| format!("--ca-out {}", file.display()))?;
        }
        let ends = Validity::of(&material.leaf)?.not_after;
        metrics.certificate_ends(ends.unix_timestamp());
        tracing::info!(%ends, "serving a certificate of my own for localhost and 127.0.0.1");
        readiness.certificate_served();
        readiness.surroundings_known();
        (Duration::ZERO, args.policy(None))
    } else {
        let client = Client::try_default().await.context("no cluster; run with --standalone to serve without one")?;
        let version = tokio::select! {
            version = kubernetes(&client) => version,
            () = interrupted()? => return Ok(()),
        };
        let policy = args.policy(version);
        tracing::info!(kubernetes = version.map(|v| v.to_string()), sidecar = policy.sidecar.as_str(), "policy");
        let site = Site { namespace: args.namespace, name: "gwmon".to_owned() };
        let (leaf, ready) = (Arc::clone(&leaf), readiness.clone());
        tasks.spawn(certificates::keep(client.clone(), site.clone(), leaf, ready, metrics.clone(), stopped(&stop)));
        let (namespace, known, ready) = (site.namespace.clone(), Arc::clone(&surroundings), readiness.clone());
        tasks.spawn(surroundings::keep(client.clone(), namespace, site.suspensions(), known, ready, stopped(&stop)));
        let timing = Timing { patience: args.suspend_after, first_retry: args.suspend_for };
        let known = Arc::clone(&surroundings);
        let (for_controller, metrics, stop) = (policy.clone(), metrics.clone(), stopped(&stop));
        tasks.spawn(async move {
            let identity = identity();
            let work = || {
                let (client, site, policy) = (client.clone(), site.clone(), for_controller.clone());
                controller::run(client, site, policy, Arc::clone(&known), timing, metrics.clone(), identity.clone())
            };
            lead::lead(&site, &identity, work, stop).await;
        });
        (GOODBYE, policy)
    };

    let router = webhook::router(&Arc::new(Admission::new(policy, surroundings, metrics)));
    tracing::info!(webhook = %webhook.local_addr()?, version = env!("CARGO_PKG_VERSION"), connections = ?limits, "serving");
    let config = Arc::new(tls::leaf::server_config(leaf, clients)?);
    tasks.spawn(server::serve(webhook, Some(config), router, limits.webhook, stopped(&stop)));

    interrupted()?.await;
    tracing::info!("stopping; a second signal ends at once");
    readiness.stopping();
    let second = interrupted()?;
    let drain = async {
        tokio::time::sleep(goodbye).await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    };
    tokio::select! {
        () = drain => {}
        () = second => tracing::warn!("ended at once"),
    }
    end.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    Ok(())
}

/// The version of the cluster's oldest part that matters, as soon as it can be told: what may be injected depends on it.
async fn kubernetes(client: &Client) -> Option<Version> {
    loop {
        match super::oldest_version(client).await {
            Ok(version) => return version,
            Err(error) => tracing::warn!("cannot ask the API server for its version: {error:#}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Tells this process from its like in the Lease and in Events: the pod's name, and the process' number for those that run
/// on one host. A container that is started again in its pod is the same, and takes its own Lease up again.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "gwmon".to_owned());
    format!("{host}-{}", std::process::id())
}

fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    server::listen(address).with_context(|| format!("cannot listen on {address} ({flag})"))
}

/// Done at the next SIGTERM (the kubelet's) or SIGINT (a person's).
fn interrupted() -> Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        futures::future::select(term.recv().boxed(), int.recv().boxed()).await;
    })
}
