//! The outermost layer: gives the request its ids, renders what failed into the
//! one envelope, and writes the two log lines and the metrics.

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse as _, Response};

use super::around::Around;
use super::rate_table::Standing;
use super::rates::write_standing;
use crate::domain::error::KmsError;
use crate::domain::ids::{ModuleId, RequestId, TenantId};
use crate::http::error::{ApiError, log_cause, render};
use crate::http::router::operation_of;
use crate::telemetry::metrics::{Metrics, RequestOperation};
use crate::telemetry::trace_context::TraceContext;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const SPAN_ID: HeaderName = HeaderName::from_static("x-span-id");

/// What becomes known of a request on its way in, for its answer's head and the
/// log line at its end.
pub(crate) struct RequestFacts {
    /// The request's id.
    pub(crate) request_id: RequestId,
    tenant: OnceLock<TenantId>,
    module: OnceLock<ModuleId>,
    standing: OnceLock<Standing>,
}

impl RequestFacts {
    /// The tenant that the request names.
    pub(crate) fn note_tenant(&self, tenant: &TenantId) {
        let _ = self.tenant.set(tenant.clone());
    }

    /// The module that calls.
    pub(crate) fn note_module(&self, module: &ModuleId) {
        let _ = self.module.set(module.clone());
    }

    /// Where the caller stands with its rate.
    pub(crate) fn note_standing(&self, standing: Standing) {
        let _ = self.standing.set(standing);
    }
}

/// Frames each request; see above.
#[derive(Clone)]
pub(crate) struct Frame(pub(crate) Arc<Metrics>);

/// What is said of a request at its beginning and at its end.
pub(crate) struct Framed {
    started: Instant,
    facts: Arc<RequestFacts>,
    trace: TraceContext,
    method: Method,
    route: Option<MatchedPath>,
    operation: RequestOperation,
}

impl Framed {
    /// The template and never the path itself, which may hold anything.
    fn route(&self) -> &str {
        self.route.as_ref().map_or("unmatched", MatchedPath::as_str)
    }
}

impl Around for Frame {
    type Passage = Framed;

    fn enter(&self, request: &mut Request) -> ControlFlow<Response, Framed> {
        let traceparent = request.headers().get("traceparent");
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let framed = Framed {
            started: Instant::now(),
            facts: Arc::new(RequestFacts {
                request_id: RequestId::generate(),
                tenant: OnceLock::new(),
                module: OnceLock::new(),
                standing: OnceLock::new(),
            }),
            trace: TraceContext::continue_from(traceparent.and_then(|value| value.to_str().ok())),
            operation: operation_of(&method, route.as_ref().map_or("", MatchedPath::as_str)),
            method,
            route,
        };
        if !is_probe(framed.operation) {
            tracing::info!(
                request_id = %framed.facts.request_id,
                trace_id = framed.trace.trace_id,
                span_id = framed.trace.span_id,
                method = framed.method.as_str(),
                route = framed.route(),
                "request.start"
            );
        }
        request.extensions_mut().insert(Arc::clone(&framed.facts));
        ControlFlow::Continue(framed)
    }

    fn leave(&self, framed: Framed, mut response: Response) -> Response {
        let Framed { facts, trace, .. } = &framed;
        let failure = failure_of(&mut response);
        if let Some(ApiError(error)) = &failure {
            log_cause(error, facts.request_id, &trace.trace_id);
            self.0.count_error(error);
            response = with_allow_header(render(error, facts.request_id), &response);
        }
        identify(&mut response, facts, trace);
        if let Some(standing) = facts.standing.get() {
            write_standing(*standing, response.headers_mut());
        }

        let (status, took) = (response.status().as_u16(), framed.started.elapsed());
        self.0.observe_request(framed.operation, status, took);
        if !is_probe(framed.operation) {
            tracing::info!(
                request_id = %facts.request_id,
                trace_id = trace.trace_id,
                span_id = trace.span_id,
                method = framed.method.as_str(),
                route = framed.route(),
                status,
                duration_ms = duration_ms(took),
                tenant = facts.tenant.get().map(TenantId::as_str),
                module = facts.module.get().map(ModuleId::as_str),
                error_code = failure.as_ref().map(|failure| failure.0.code().as_str()),
                "request.end"
            );
        }
        response
    }
}

/// Whether it is asked every few seconds by a machine that no one waits for.
fn is_probe(operation: RequestOperation) -> bool {
    matches!(
        operation,
        RequestOperation::Health | RequestOperation::Metrics
    )
}

/// The failure that a response stands for. A failure that none of ours made (a
/// bare status from a library) is one too.
fn failure_of(response: &mut Response) -> Option<ApiError> {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        return Some(error);
    }
    let is_ours =
        response.status().is_success() || response.extensions().get::<Deliberate>().is_some();
    (!is_ours).then(|| KmsError::internal("a layer answered outside the envelope").into())
}

/// Marks an answer that is not 2xx and still is no failure: an unhealthy report.
#[derive(Clone, Copy)]
pub(crate) struct Deliberate;

/// RFC 9110 §15.5.6: a 405 says which methods there are; axum knows them.
fn with_allow_header(mut rendered: Response, original: &Response) -> Response {
    use axum::http::header::ALLOW;
    if let Some(allow) = original.headers().get(ALLOW) {
        rendered.headers_mut().insert(ALLOW, allow.clone());
    }
    rendered
}

fn identify(response: &mut Response, facts: &RequestFacts, trace: &TraceContext) {
    let ids = [
        (REQUEST_ID, facts.request_id.to_string()),
        (TRACE_ID, trace.trace_id.clone()),
        (SPAN_ID, trace.span_id.clone()),
    ];
    for (name, value) in ids {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn duration_ms(took: Duration) -> f64 {
    // Microseconds are as fine as anyone reads.
    (took.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// What a handler that panicked answers.
pub(crate) fn panic_answer(_: Box<dyn Any + Send>) -> Response {
    ApiError::from(KmsError::internal("a handler panicked")).into_response()
}
