//! `gwmon serve`.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use kube::Client;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::certs::issue::Certificates;
use crate::certs::{self, CertManagerSecret, CurrentLeaf, Files, Served, SharedSecret, Source, Updater};
use crate::cli::{CertificateSource, Serve};
use crate::cluster::version::oldest_version;
use crate::config::{ConfigFile, Installation};
use crate::controller::{self, leader_election};
use crate::kubernetes::Version;
use crate::log;
use crate::metrics::Metrics;
use crate::reload::{self, LiveConfig, Reloader};
use crate::server::{self, ConnectionLimits};
use crate::suspension::Timing;
use crate::webhook::admission_state::{self, AdmissionState};
use crate::webhook::{self, Admission};

/// The API server goes on calling a replica until it has seen that the replica left the Service's endpoints (R30).
const SHUTDOWN_DELAY: Duration = Duration::from_secs(10);
/// For all nodes of a large cluster, page by page; kube's client has no limit of its own.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The address is in use, there is no cluster, or a file cannot be read or written.
pub fn run(args: Serve) -> Result<()> {
    let log = log::start(&args.log, args.log_format)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            served = serve(args) => served,
            () = log.report_dropped() => Ok(()),
        }
    })
}

/// The state that the servers and the background tasks share.
struct Process {
    metrics: Metrics,
    readiness: Readiness,
    leaf: Arc<CurrentLeaf>,
    admission_state: Arc<AdmissionState>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

async fn serve(args: Serve) -> Result<()> {
    let (metrics, registry) = Metrics::new();
    let mut process = Process {
        metrics,
        readiness: Readiness::default(),
        leaf: Arc::default(),
        admission_state: Arc::default(),
        tasks: JoinSet::new(),
        stop: CancellationToken::new(),
    };
    let address = |typed: Option<SocketAddr>, port| {
        let host = if args.standalone { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
        typed.unwrap_or_else(|| SocketAddr::from((host, port)))
    };
    let clients = args.client_ca.as_ref().map(|file| {
        let read = std::fs::read(file).map_err(anyhow::Error::from);
        let authorities = read.and_then(|pem| Ok(certs::serving::client_authorities(&pem)?));
        authorities.with_context(|| format!("--client-ca {}", file.display()))
    });
    let clients = clients.transpose()?;
    let webhook = listen(address(args.bind, 8443), "--bind")?;
    let admin = listen(address(args.admin_bind, 8080), "--admin-bind")?;

    // Not stopped with the rest: the admin port reports readiness to the end.
    let end = CancellationToken::new();
    let leaf = Arc::clone(&process.leaf);
    let admin_router = admin::router(process.readiness.clone(), registry, move || leaf.chain());
    let limits = ConnectionLimits::of_this_process();
    let admin = tokio::spawn(server::serve(admin, None, admin_router, limits.admin, end.clone().cancelled_owned()));

    let (delay, config) = if args.standalone {
        process.start_standalone(args.ca_out.as_deref())?;
        let file = args.config.config.as_deref().map(reload::read).transpose()?.unwrap_or_default();
        (Duration::ZERO, LiveConfig::from(args.config(&file, None)))
    } else {
        let Some(config) = process.start_in_cluster(&args).await? else { return Ok(()) };
        (SHUTDOWN_DELAY, config)
    };
    let Process { metrics, readiness, leaf, admission_state, mut tasks, stop } = process;

    let router = webhook::router(&Arc::new(Admission::new(config, admission_state, metrics)));
    let leaving = CancellationToken::new();
    let router = {
        let leaving = leaving.clone();
        server::leaving(router, move || leaving.is_cancelled())
    };
    tracing::info!(webhook = %webhook.local_addr()?, version = env!("CARGO_PKG_VERSION"), connections = ?limits, "serving");
    let tls = Arc::new(certs::serving::server_config(leaf, clients)?);
    tasks.spawn(server::serve(webhook, Some(tls), router, limits.webhook, stop.clone().cancelled_owned()));

    interrupted()?.await;
    tracing::info!("stopping; signal again to exit now");
    readiness.stopping();
    leaving.cancel();
    let second = interrupted()?;
    let drain = async {
        tokio::time::sleep(delay).await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    };
    tokio::select! {
        () = drain => {}
        () = second => tracing::warn!("exiting now"),
    }
    end.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    Ok(())
}

impl Process {
    fn stopped(&self) -> impl Future<Output = ()> + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// Makes a certificate, which is kept in memory only and not renewed.
    fn start_standalone(&self, ca_out: Option<&Path>) -> Result<()> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let Certificates { authorities, leaf, leaf_key, .. } = Certificates::new(&names, OffsetDateTime::now_utc())?;
        if let Some(file) = ca_out {
            std::fs::write(file, &authorities).with_context(|| format!("--ca-out {}", file.display()))?;
        }
        let served = Served { leaf, leaf_key, authorities: None };
        certs::serve(&served, &self.leaf, &self.metrics)?;
        tracing::info!("the certificate is self-signed, for localhost and 127.0.0.1");
        self.readiness.certificate_trusted(true);
        self.readiness.admission_state_known();
        Ok(())
    }

    /// Serves the certificate of this source.
    fn serve_from(&mut self, client: &Client, installation: &Installation, source: impl Source + 'static) {
        let (readiness, metrics) = (self.readiness.clone(), self.metrics.clone());
        let (client, installation) = (client.clone(), installation.clone());
        let updater =
            Updater::new(client, installation, source, Arc::clone(&self.leaf), readiness, metrics, identity());
        self.tasks.spawn(updater.run(self.stopped()));
    }

    /// The configuration, which follows its file if there is one.
    fn configure(
        &mut self,
        args: &Serve,
        version: Option<Version>,
        client: &Client,
        installation: &Installation,
    ) -> Result<LiveConfig> {
        let Some(file) = args.config.config.clone() else {
            return Ok(args.config(&ConfigFile::default(), version).into());
        };
        let flags = args.clone();
        let (reloader, live) = Reloader::new(file, move |file| flags.config(file, version))?;
        let cluster = (client.clone(), installation.clone());
        self.tasks.spawn(reloader.run(cluster, self.metrics.clone(), identity(), self.stopped()));
        Ok(live)
    }

    /// Starts what needs a cluster: certificates, the watches that admission reads, and the controller. `None` if a
    /// signal ends the wait for the API server.
    async fn start_in_cluster(&mut self, args: &Serve) -> Result<Option<LiveConfig>> {
        // Said before anything waits for a cluster.
        if let Some(file) = &args.config.config {
            reload::read_mounted(file)?;
        }
        let client = connect().await?;
        let version = tokio::select! {
            version = kubernetes(&client) => version,
            () = interrupted()? => return Ok(None),
        };
        let installation = Installation { namespace: args.namespace.clone(), name: args.name.clone() };
        let config = self.configure(args, version, &client, &installation)?;
        let sidecar = config.current().sidecar.as_str();
        tracing::info!(kubernetes = version.map(|v| v.to_string()), sidecar, "configured");
        match args.certificates {
            CertificateSource::SelfSigned => {
                self.serve_from(&client, &installation, SharedSecret::new(client.clone(), installation.clone()));
            }
            CertificateSource::Files => {
                self.serve_from(&client, &installation, Files::new(args.certificate_dir.clone()));
            }
            CertificateSource::CertManager => {
                self.serve_from(&client, &installation, CertManagerSecret::new(client.clone(), installation.clone()));
            }
        }
        self.tasks.spawn(admission_state::run(
            client.clone(),
            installation.namespace.clone(),
            installation.suspensions(),
            Arc::clone(&self.admission_state),
            self.readiness.clone(),
            self.stopped(),
        ));
        let timing = Timing { suspend_after: args.suspend_after, first_retry: args.suspend_for };
        let (metrics, admission_state, stopped) =
            (self.metrics.clone(), Arc::clone(&self.admission_state), self.stopped());
        let for_controller = config.clone();
        self.tasks.spawn(async move {
            let identity = identity();
            let work = || {
                for_controller.clone().run(|config| {
                    controller::run(
                        client.clone(),
                        installation.clone(),
                        config,
                        Arc::clone(&admission_state),
                        timing,
                        metrics.clone(),
                        identity.clone(),
                    )
                })
            };
            leader_election::run(&installation, &identity, work, stopped).await;
        });
        Ok(Some(config))
    }
}

/// A client of the cluster in which gwmon runs, or of the current context.
async fn connect() -> Result<Client> {
    match Client::try_default().await {
        Ok(client) => Ok(client),
        // As its own cause it would be printed twice.
        Err(error @ kube::Error::InferConfig(_)) => {
            let what = error.to_string();
            let (in_cluster, kubeconfig) = what.split_once(", kubeconfig: ").unwrap_or((&what, ""));
            if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
                bail!("no cluster: {in_cluster}");
            }
            let kubeconfig = kubeconfig.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(kubeconfig);
            bail!("no cluster: not in a pod, and {kubeconfig}; set KUBECONFIG, or run with --standalone")
        }
        Err(error) => Err(error).context("cannot make a client of the cluster"),
    }
}

/// The version of the cluster's oldest component, on which depends what may be injected. Waits until the API server answers.
async fn kubernetes(client: &Client) -> Option<Version> {
    loop {
        match tokio::time::timeout(VERSION_TIMEOUT, oldest_version(client)).await {
            Ok(Ok(version)) => return version,
            Err(_) => tracing::warn!("the API server does not tell its version and the nodes'"),
            Ok(Err(error)) => tracing::warn!("cannot ask the API server for its version: {error:#}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Identifies this process in the Lease and in Events: the pod's name and, for processes on one host, the process id. A
/// restarted container has the same identity, and keeps its Lease.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "gwmon".to_owned());
    format!("{host}-{}", std::process::id())
}

fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    server::listen(address).with_context(|| format!("cannot listen on {address} ({flag})"))
}

/// Completes at the next SIGTERM (from the kubelet) or SIGINT (from a person).
fn interrupted() -> Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        futures::future::select(term.recv().boxed(), int.recv().boxed()).await;
    })
}
