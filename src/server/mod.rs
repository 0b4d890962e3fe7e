//! Accept, shake hands, serve, drain: the one loop of both ports. HTTP/1.1 only: the API server speaks nothing else to
//! webhooks, nor does the kubelet to probes, so HTTP/2 is no attack surface.

mod connections;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::map_response;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::io::InspectReader;
use tower::ServiceExt;

use connections::{Connections, Slot};

/// The time in which open connections may end.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptor left, as a rule), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The buffer of a connection for a request that is not read yet: a head, or the next part of a body.
const BUFFER: usize = 16 << 10;

/// The maximum number of connections of each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The webhook's: a few API servers with a few connections each, many times over.
    pub webhook: usize,
    /// The admin port's: a kubelet and a Prometheus, many times over.
    pub admin: usize,
}

impl ConnectionLimits {
    const MOST: Self = Self { webhook: 128, admin: 64 };
    /// File descriptors for the controller's own connections, the log and the runtime.
    const KEPT: u64 = 128;

    /// The limits that `RLIMIT_NOFILE` of this process allows.
    #[must_use]
    pub fn of_this_process() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::with(files)
    }

    fn with(files: u64) -> Self {
        let room = usize::try_from(files.saturating_sub(Self::KEPT)).unwrap_or(usize::MAX);
        let part = |most: usize, fifths: usize| (room / 5).saturating_mul(fifths).clamp(8, most);
        Self { webhook: part(Self::MOST.webhook, 4), admin: part(Self::MOST.admin, 1) }
    }
}

/// Listens on an address. Connections of a burst wait in the backlog; a dropped SYN would be retried after a second.
///
/// # Errors
/// An address that is in use, or not this machine's.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

/// The same router; once `is_leaving` returns true, each answer ends its connection. A client that keeps connections, as the API server
/// does, would otherwise send its next request on one at the very moment at which it is closed (R30).
pub fn leaving(router: Router, is_leaving: impl Fn() -> bool + Clone + Send + Sync + 'static) -> Router {
    router.layer(map_response(move |mut response: Response| {
        if is_leaving() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(response)
    }))
}

/// Serves on one port, with TLS where it is configured, until `stop` is done; then ends open connections gracefully.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    most: usize,
    stop: impl Future<Output = ()>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let (connections, graceful) = (Connections::new(most), GracefulShutdown::new());
    let mut stop = pin!(stop);
    for number in 0.. {
        connections.settle().await;
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let slot = Arc::new(connections.admit(peer.ip(), number));
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let served = async {
                // Replies are small and waited for.
                let _ = stream.set_nodelay(true);
                match acceptor {
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => answer(stream, router, &slot, watcher).await,
                        Err(error) => tracing::debug!(%error, "handshake failed"),
                    },
                    None => answer::<TcpStream>(stream, router, &slot, watcher).await,
                }
            };
            tokio::select! {
                () = served => {}
                why = slot.ends() => tracing::debug!(%peer, why, "connection ended"),
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_LIMIT, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open after {} s", DRAIN_LIMIT.as_secs());
    }
}

/// Serves one connection.
async fn answer<S>(stream: S, router: Router, slot: &Arc<Slot>, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    slot.opened();
    let (heard, slot) = (Arc::clone(slot), Arc::clone(slot));
    let service = service_fn(move |request| {
        let (router, slot) = (router.clone(), Arc::clone(&slot));
        async move {
            slot.request_started();
            // hyper would answer up to 16 pipelined requests before any other connection's.
            tokio::task::yield_now().await;
            let response = router.oneshot(request).await;
            slot.request_answered();
            response as Result<_, Infallible>
        }
    });
    let stream = TokioIo::new(InspectReader::new(stream, move |_| heard.received_data()));
    let connection = http1::Builder::new().max_buf_size(BUFFER).serve_connection(stream, service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_places_than_files() {
        assert_eq!(ConnectionLimits::with(1_048_576), ConnectionLimits::MOST);
        for files in [300, 400, 1024] {
            let ConnectionLimits { webhook, admin } = ConnectionLimits::with(files);
            assert!(webhook + admin + 128 <= usize::try_from(files).unwrap(), "{files}");
        }
        assert_eq!(
            ConnectionLimits::with(64),
            ConnectionLimits { webhook: 8, admin: 8 },
            "it serves, however little there is"
        );
    }
}
