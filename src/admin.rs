//! The admin port, without TLS: `/livez`, `/readyz`, `/metrics` and `/certificate`, which is public anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

/// The replica's readiness. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<State>);

#[derive(Debug, Default)]
struct State {
    certificate: AtomicBool,
    watched: AtomicBool,
    stopping: AtomicBool,
}

impl Readiness {
    /// Reports whether a certificate is served that the `caBundle` verifies and that has not expired (R5, R7).
    pub fn certificate_trusted(&self, is_trusted: bool) {
        self.0.certificate.store(is_trusted, Ordering::Relaxed);
    }

    /// Returns what was last reported so.
    #[must_use]
    pub fn is_certificate_trusted(&self) -> bool {
        self.0.certificate.load(Ordering::Relaxed)
    }

    /// Reports that the state that admission reads has been listed; without it, a suspended workload would get the
    /// exporter.
    pub fn admission_state_known(&self) {
        self.0.watched.store(true, Ordering::Relaxed);
    }

    /// The process is shutting down.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// The first condition that is not met yet.
    #[must_use]
    pub fn obstacle(&self) -> Option<&'static str> {
        if self.0.stopping.load(Ordering::Relaxed) {
            Some("stopping")
        } else if !self.0.certificate.load(Ordering::Relaxed) {
            Some("no certificate that the API server trusts is served")
        } else if !self.0.watched.load(Ordering::Relaxed) {
            Some("the suspended workloads and the LimitRanges have not been listed yet")
        } else {
            None
        }
    }
}

/// The admin routes. `certificate` is the chain that the webhook serves, as PEM.
pub fn router(
    readiness: Readiness,
    registry: Registry,
    certificate: impl Fn() -> Option<String> + Clone + Send + Sync + 'static,
) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let obstacle = readiness.obstacle();
                async move {
                    match obstacle {
                        None => (StatusCode::OK, "ok\n".to_owned()),
                        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                    }
                }
            }),
        )
        .route(
            "/certificate",
            get(move || {
                std::future::ready(certificate().ok_or((StatusCode::NOT_FOUND, "no certificate is served yet\n")))
            }),
        )
        .route("/metrics", get(move || std::future::ready(metrics(&registry))))
}

fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, format)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
