//! Reading request bodies within one budget of memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Nearly every review is smaller than this. Each connection may hold this much; connections are limited
/// (`server::ConnectionLimits`).
pub(super) const SMALL: usize = 16 << 10;
/// More than any object that fits into etcd (1.5 MiB), twice: an UPDATE carries two.
pub(super) const LARGEST: usize = 4 << 20;
/// Nearly every other review is smaller than this.
const MEDIUM: usize = 256 << 10;
/// For all medium reviews together, and for all larger ones: neither waits for the other. Parsing takes a few times as much
/// again, one at a time.
const BUDGET: usize = 4 << 20;
/// The time in which a body that holds a part of a budget must arrive, besides the time that its length takes.
const BODY_TIMEOUT: Duration = Duration::from_millis(250);
const BYTES_PER_SECOND: usize = 8 << 20;

/// The memory for larger reviews, and their turns.
#[derive(Debug)]
pub(super) struct Budget {
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// A body as it was read.
#[derive(Debug)]
pub(super) struct Received {
    /// All of it, or the start of a body that is too large.
    pub(super) bytes: Bytes,
    /// True if the body is complete.
    pub(super) is_complete: bool,
    /// Its part of the budget, where it is not small.
    pub(super) share: Option<OwnedSemaphorePermit>,
}

/// A body could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The connection ended, or what came is not HTTP.
    #[error("the body cannot be read: {0}")]
    Broken(#[from] axum::Error),
    /// It stalled.
    #[error("the body did not come within {0:?}")]
    Stalled(Duration),
}

impl Budget {
    pub(super) fn new() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { medium: semaphore(BUDGET), large: semaphore(BUDGET), turn: semaphore(1) }
    }

    /// Waits until this larger review is the one that is decided on.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed, so never `None`.
        Arc::clone(&self.turn).acquire_owned().await.ok()
    }

    async fn share(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.min(LARGEST)).unwrap_or(u32::MAX);
        let budget = if bytes <= MEDIUM { &self.medium } else { &self.large };
        Arc::clone(budget).acquire_many_owned(permits).await.ok()
    }

    /// Reads a body. A larger one waits for its share of the budget, and fails if it stalls. A body that is too large is
    /// truncated, and the rest is read and discarded: a client that is still sending would not read an answer.
    pub(super) async fn read(&self, body: Body) -> Result<Received, Error> {
        let told = body.size_hint();
        // Chunked, so of unknown length: as much as may come.
        let length = told.exact().and_then(|length| usize::try_from(length).ok());
        let mut stream = body.into_data_stream();
        // Most reviews come in one piece, which needs no copy.
        let first = stream.try_next().await?.unwrap_or_default();
        if first.len() <= SMALL && length.is_some_and(|length| length <= first.len()) {
            return Ok(Received { bytes: first, is_complete: true, share: None });
        }
        let mut bytes = Vec::with_capacity(first.len() * 2);
        let mut rest = stream::iter([Ok(first)]).chain(stream);
        if length.is_none_or(|length| length <= SMALL) && take(&mut rest, &mut bytes, SMALL).await? {
            return Ok(Received { bytes: bytes.into(), is_complete: true, share: None });
        }
        if length.is_none_or(|length| length <= LARGEST) {
            let length = length.unwrap_or(LARGEST);
            let share = self.share(length).await;
            let timeout = BODY_TIMEOUT + Duration::from_millis((length * 1000 / BYTES_PER_SECOND) as u64);
            let whole = tokio::time::timeout(timeout, take(&mut rest, &mut bytes, LARGEST)).await;
            if whole.map_err(|_| Error::Stalled(timeout))?? {
                return Ok(Received { bytes: bytes.into(), is_complete: true, share });
            }
        } else {
            take(&mut rest, &mut bytes, SMALL).await?;
        }
        bytes.truncate(SMALL);
        bytes.shrink_to_fit();
        while rest.try_next().await?.is_some() {}
        Ok(Received { bytes: bytes.into(), is_complete: false, share: None })
    }
}

/// Reads until there are more than so many bytes. Returns true at the end of the body.
async fn take(
    stream: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
    bytes: &mut Vec<u8>,
    most: usize,
) -> Result<bool, axum::Error> {
    while bytes.len() <= most {
        let Some(piece) = stream.try_next().await? else { return Ok(true) };
        bytes.extend_from_slice(&piece);
    }
    Ok(false)
}
