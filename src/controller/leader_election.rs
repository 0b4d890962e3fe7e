//! One controller at a time: the replica that holds the Lease. The webhook serves on every replica.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::{Either, select};
use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};

use crate::config::Installation;

/// Lease duration in seconds: how long a crashed leader blocks failover.
const DURATION: u64 = 12;
/// The leader renews when this much is left, with up to three requests. A request fails after twice [`REQUEST_TIMEOUT`]
/// (connect, answer), so the leader stops before another may take over: 4 + 3 × 2 < 12. This holds for clocks within two
/// seconds of each other, since a waiting replica uses its own clock; beyond that two may write for a moment, and write the
/// same.
const GRACE: u64 = 8;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Runs `work` for as long as this replica leads, until `stop` is done. Losing the lead drops the work where it stands.
pub async fn run<W: Future<Output = ()>>(
    installation: &Installation,
    identity: &str,
    work: impl Fn() -> W,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut pause = FIRST_RETRY;
    loop {
        let turn = pin!(hold_lease(installation, identity, &work));
        match select(&mut stop, turn).await {
            Either::Left(_) => break,
            Either::Right((Ok(()), _)) => pause = FIRST_RETRY,
            Either::Right((Err(error), _)) => {
                tracing::warn!("leader election failed: {error:#}");
                pause = (pause * 2).min(LAST_RETRY);
            }
        }
        if let Either::Left(_) = select(&mut stop, pin!(tokio::time::sleep(pause))).await {
            break;
        }
    }
    // So that another replica need not wait. It finds nothing to release where this one did not lead.
    if let Ok(manager) = manager(installation, identity).await
        && let Err(error) = manager.release().await
    {
        tracing::debug!("cannot release the Lease: {error}");
    }
}

/// Waits for the lead and works until it is lost; an error where it cannot be kept or sought.
async fn hold_lease<W: Future<Output = ()>>(
    installation: &Installation,
    identity: &str,
    work: &impl Fn() -> W,
) -> Result<()> {
    let manager = manager(installation, identity).await?;
    while !manager.changed().await? {}
    tracing::info!(identity, "acquired leadership");
    // What renews the lead comes first: it must never wait for the work.
    let (lost, work) = (pin!(manager.changed()), pin!(work()));
    let lost = select(lost, work).await;
    tracing::warn!(identity, "lost leadership");
    match lost {
        Either::Left((changed, _)) => changed.map(drop).context("lost the Lease"),
        Either::Right(_) => Ok(()),
    }
}

async fn manager(installation: &Installation, identity: &str) -> Result<LeaseManager> {
    let mut config = Config::infer().await?;
    // A retry within would stretch the bound above; an idle connection is not late.
    (config.default_retry, config.reset_reader_on_write) = (false, true);
    (config.connect_timeout, config.read_timeout, config.write_timeout) =
        (Some(REQUEST_TIMEOUT), Some(REQUEST_TIMEOUT), Some(REQUEST_TIMEOUT));
    LeaseManagerBuilder::new(Client::try_from(config)?, installation.name.clone())
        .with_namespace(installation.namespace.clone())
        .with_identity(identity)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .build()
        .await
        .with_context(|| format!("Lease {}/{}", installation.namespace, installation.name))
}
