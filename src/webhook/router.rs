//! Routes and the fail-open rule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::{field, info_span};

use super::admission_state::{AdmissionState, Admitted};
use super::body::{self, Budget, Received};
use super::review::{BadReview, Reply, Request};
use crate::injection::gateway::EMBEDDED_YAML;
use crate::injection::patch::Patch;
use crate::injection::{self, Injection, workload};
use crate::metrics::{Metrics, Outcome};
use crate::reason::{Finding, Reason, cut};
use crate::reload::LiveConfig;

/// No name or UID of Kubernetes' has more characters; whoever reaches the port may send others.
const LOGGED: usize = 253;
/// Below the webhook's `timeoutSeconds`, so that it is gwmon that gives up (R11).
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// The webhook that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `POST /mutate/pods`.
    Pods,
    /// `POST /mutate/workloads`.
    Workloads,
    /// `POST /mutate/labelled-namespaces`: pods without an annotation, in namespaces whose label asks for all gateways.
    LabelledNamespaces,
}

impl Route {
    /// The word in paths and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Workloads => "workloads",
            Self::LabelledNamespaces => "labelled-namespaces",
        }
    }

    /// Returns true if the shipped configuration's rules send such an object to this webhook.
    fn expects(self, request: &Request) -> bool {
        let kind = (request.kind.group.as_str(), request.kind.kind.as_str());
        match self {
            Self::Pods | Self::LabelledNamespaces => kind == ("", "Pod") && request.operation == "CREATE",
            Self::Workloads => {
                matches!(kind, ("apps", "Deployment" | "StatefulSet" | "DaemonSet"))
                    && matches!(request.operation.as_str(), "CREATE" | "UPDATE")
            }
        }
    }
}

/// The state that reviews share.
#[derive(Debug)]
pub struct Admission {
    /// The configuration.
    pub config: LiveConfig,
    /// The state of the cluster.
    pub admission_state: Arc<AdmissionState>,
    /// The metrics.
    pub metrics: Metrics,
    budget: Budget,
}

/// The decision on one object.
struct Verdict {
    patch: Patch,
    warnings: Vec<Finding>,
    /// The reason why the object, or a workload's pods, are not injected.
    refusal: Option<Finding>,
}

impl From<Finding> for Verdict {
    fn from(refusal: Finding) -> Self {
        Self { patch: Patch::default(), warnings: vec![], refusal: Some(refusal) }
    }
}

impl Admission {
    /// Creates the shared state.
    #[must_use]
    pub fn new(config: impl Into<LiveConfig>, admission_state: Arc<AdmissionState>, metrics: Metrics) -> Self {
        Self { config: config.into(), admission_state, metrics, budget: Budget::new() }
    }
}

/// The webhook as a service; `oneshot` can call it without a socket.
pub fn router(admission: &Arc<Admission>) -> Router {
    let route = |route: Route| {
        let admission = Arc::clone(admission);
        post(move |request| mutate(State(admission), route, request))
    };
    Router::new()
        .route("/mutate/pods", route(Route::Pods))
        .route("/mutate/workloads", route(Route::Workloads))
        .route("/mutate/labelled-namespaces", route(Route::LabelledNamespaces))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, TIME_LIMIT))
        // A bug in one review must not end the process, nor the API server's other calls.
        .layer(CatchPanicLayer::new())
}

async fn mutate(State(admission): State<Arc<Admission>>, route: Route, request: HttpRequest) -> Response {
    let json = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
    });
    if !json {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the Content-Type must be application/json");
    }
    let Received { bytes, is_complete, share } = match admission.budget.read(request.into_body()).await {
        Ok(received) => received,
        Err(error @ body::Error::Broken(_)) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error @ body::Error::Stalled(_)) => return refuse(StatusCode::REQUEST_TIMEOUT, &error.to_string()),
    };
    let has_yaml = may_hold_yaml(&bytes);
    let decide = {
        let admission = Arc::clone(&admission);
        move || {
            let reviewed = if is_complete {
                admission.review(route, &bytes)
            } else {
                let why = format!("the review is larger than {} MiB", body::LARGEST >> 20);
                Err(BadReview::of(&bytes, Reason::TooLarge, why))
            };
            reviewed.map_or_else(|bad| admission.answer_bad(route, &bad), |reply| answer(&reply))
        }
    };
    if share.is_none() && !has_yaml {
        return decide();
    }
    // One at a time, on a thread of its own: small reviews continue meanwhile, and the time limit holds.
    let turn = admission.budget.turn().await;
    let deciding = tokio::task::spawn_blocking(move || {
        let _held = (turn, share);
        decide()
    });
    deciding.await.unwrap_or_else(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}

/// Returns true if a review may hold YAML, which takes longer to read. In a body with other escapes than those of
/// Go's encoder (`<`, `>`, `&` and control characters) anything may be hidden.
fn may_hold_yaml(body: &[u8]) -> bool {
    let is_odd = |place: usize| {
        let digits = body.get(place + 4..place + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        code.is_some_and(|code| code >= b' ' && !b"<>&".contains(&code))
    };
    EMBEDDED_YAML.iter().any(|sign| memchr::memmem::find(body, sign.as_bytes()).is_some())
        || memchr::memmem::find_iter(body, br"\u00").any(is_odd)
}

fn refuse(status: StatusCode, why: &str) -> Response {
    tracing::warn!(status = status.as_u16(), why, "refused a request");
    (status, format!("gwmon: {why}\n")).into_response()
}

fn answer(reply: &Reply) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], reply.to_json()).into_response()
}

impl Admission {
    /// Answers one review: one span, one count.
    ///
    /// # Errors
    /// [`BadReview`], where the body is no review.
    pub fn review(&self, route: Route, body: &[u8]) -> Result<Reply, BadReview> {
        let started = Instant::now();
        let (request, version) = Request::parse(body)?;
        let span = info_span!(
            "review",
            route = route.as_str(),
            uid = &*cut(&request.uid, LOGGED),
            namespace = &*cut(&request.namespace, LOGGED),
            name = &*cut(&request.name, LOGGED),
            dry_run = request.dry_run.unwrap_or_default(),
            outcome = field::Empty,
            reason = field::Empty,
        );
        let _entered = span.enter();
        let Verdict { patch, warnings, refusal } = self.decide(route, &request).unwrap_or_else(Verdict::from);
        let outcome = if patch.is_empty() { Outcome::unchanged } else { Outcome::patched };
        let reason = refusal.as_ref().map(|refusal| refusal.reason);

        span.record("outcome", field::debug(outcome));
        span.record("reason", reason.map(Reason::as_str));
        if let Some(refusal) = refusal.as_ref().filter(|refusal| refusal.is_warning()) {
            tracing::warn!("{}", refusal.detail);
        } else {
            tracing::info!("reviewed");
        }
        self.metrics.reviewed(route.as_str(), outcome, reason, started.elapsed());

        let mut reply = Reply::allow(&request.uid).version(version);
        if !patch.is_empty() {
            reply = reply.patch(&patch);
        }
        for finding in refusal.iter().filter(|refusal| refusal.is_warning()).chain(&warnings) {
            reply = reply.warn(finding);
        }
        Ok(reply)
    }

    /// Answers what is no review: allowed where there is a uid to answer to, else an HTTP error, which the API server ignores
    /// (`failurePolicy: Ignore`).
    fn answer_bad(&self, route: Route, bad: &BadReview) -> Response {
        self.metrics.reviewed(route.as_str(), Outcome::unchanged, Some(bad.refusal.reason), Duration::ZERO);
        let Some(uid) = &bad.uid else {
            let too_large = bad.refusal.reason == Reason::TooLarge;
            let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            return refuse(status, &bad.refusal.to_string());
        };
        tracing::warn!(uid = &*cut(uid, LOGGED), reason = bad.refusal.reason.as_str(), "{}", bad.refusal.detail);
        answer(&Reply::allow(uid).warn(&bad.refusal))
    }

    /// Decides on an object.
    ///
    /// # Errors
    /// The reason why it stays as it is.
    fn decide(&self, route: Route, request: &Request) -> Result<Verdict, Finding> {
        if !route.expects(request) {
            let what = format!("{} of {}/{}", request.operation, request.kind.group, request.kind.kind);
            let detail = format!(
                "{what} is not for /mutate/{}; fix the rules of the MutatingWebhookConfiguration",
                route.as_str()
            );
            return Err(Finding::new(Reason::UnexpectedObject, detail));
        }
        let object =
            request.object.ok_or_else(|| Finding::new(Reason::MalformedObject, "request.object is missing"))?.get();
        let config = self.config.current();
        let limits = self.admission_state.limits(&request.namespace);
        let is_dry_run = request.dry_run.unwrap_or_default();
        match route {
            Route::Pods | Route::LabelledNamespaces => {
                let decide = if route == Route::Pods { injection::decide } else { injection::decide_by_namespace };
                let mut injection = decide(&config, &limits, object).injection()?;
                config.check_namespace(&request.namespace)?;
                match self.admit(&injection, request, is_dry_run) {
                    Admitted::With => {}
                    Admitted::Trial(since) => injection.mark_trial(since),
                    Admitted::Without(finding) => return Err(finding),
                }
                Ok(Verdict { patch: injection.patch, warnings: injection.warnings, refusal: None })
            }
            Route::Workloads => {
                let change = workload::decide(&config, &limits, object)?;
                let before = request.old_object.filter(|_| !change.patch.is_empty());
                let kept = before.and_then(|before| workload::puts_back(&request.kind.kind, before.get(), object));
                let injection = match change.pods.injection() {
                    Ok(injection) => injection,
                    Err(refusal) => return Ok(Verdict { patch: change.patch, ..Verdict::from(refusal) }),
                };
                config.check_namespace(&request.namespace)?;
                // A workload is never a trial pod.
                let suspended = match self.admit(&injection, request, true) {
                    Admitted::Without(finding) => Some(finding),
                    Admitted::With | Admitted::Trial(_) => None,
                };
                let warnings = injection.warnings.into_iter().chain(suspended).chain(kept).collect();
                Ok(Verdict { patch: change.patch, warnings, refusal: None })
            }
        }
    }

    /// Decides whether a pod gets its exporter. A gateway scraped directly has no exporter.
    fn admit(&self, injection: &Injection, request: &Request, is_dry_run: bool) -> Admitted {
        if !injection.adds_exporter() {
            return Admitted::With;
        }
        self.admission_state.admit(&(request.namespace.clone(), injection.monitor.clone()), is_dry_run)
    }
}
