//! A certificate from files, as the kubelet mounts a Secret of type `kubernetes.io/tls`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use time::OffsetDateTime;

use super::{Served, Source};

/// The interval at which the files are read. The kubelet swaps a symbolic link above them, which a file watch does not see.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The files `tls.crt`, `tls.key` and `ca.crt` in a folder. Without `ca.crt`, or with an empty one, somebody else writes the `caBundle`.
pub(crate) struct Files(PathBuf);

impl Files {
    /// The files in this folder.
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }
}

impl Source for Files {
    async fn current(&self, _: OffsetDateTime) -> Result<Served> {
        // The link may be swapped between two files.
        let mut before = read(&self.0).await?;
        for _ in 0..5 {
            let now = read(&self.0).await?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
        bail!("the files in {} change all the time", self.0.display())
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let known = (self.0.clone(), None);
        let next = |(folder, known): (PathBuf, Option<Served>)| async move {
            loop {
                tokio::time::sleep(POLL_INTERVAL).await;
                // One that cannot be read is looked at as one that has changed: `current` tells why.
                let found = read(&folder).await.ok();
                if found.is_none() || found != known {
                    return Some(((), (folder, found)));
                }
            }
        };
        stream::unfold(known, next).boxed()
    }
}

async fn read(folder: &Path) -> Result<Served> {
    let text = |name: &str| {
        let file = folder.join(name);
        async move { tokio::fs::read_to_string(&file).await.with_context(|| format!("cannot read {}", file.display())) }
    };
    let is_absent = |error: &anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let (leaf, leaf_key) = (text("tls.crt").await?, text("tls.key").await?);
    let authorities = match text("ca.crt").await {
        // An issuer without a CA of its own leaves the key empty.
        Ok(authorities) => Some(authorities).filter(|text| !text.trim().is_empty()),
        Err(error) if is_absent(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(Served { leaf, leaf_key, authorities })
}
