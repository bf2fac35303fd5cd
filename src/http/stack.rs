//! The tower stack: every layer, in order, with its reason.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::HttpState;
use super::middleware::{
    InFlight, answer_in_time, authenticate, frame, limit_in_flight, panic_answer,
};

/// Wraps the routes that work with keys. The last layer added is the outermost,
/// so read from the bottom up to follow a request in.
pub(crate) fn guarded(routes: Router<HttpState>, state: &HttpState) -> Router<HttpState> {
    let room: InFlight = Arc::new(Semaphore::new(state.limits.max_in_flight));
    routes
        // Innermost: nothing behind this line runs for nobody.
        .layer(from_fn_with_state(state.clone(), authenticate))
        // Whatever waits in there, the caller gets an answer.
        .layer(from_fn_with_state(state.clone(), answer_in_time))
        // Full is full, and said at once. Probes and scrapes are not counted:
        // an orchestrator must not restart a service for being busy.
        .layer(from_fn_with_state(room, limit_in_flight))
}

/// Wraps everything, what is not found included.
pub(crate) fn framed(routes: Router<HttpState>, state: &HttpState) -> Router<HttpState> {
    routes
        // A panic is a 500 in the envelope and not a dropped connection.
        .layer(CatchPanicLayer::custom(panic_answer))
        // Outside of everything that can fail: ids, envelope, log, metrics.
        .layer(from_fn_with_state(state.clone(), frame))
        // Outside of where failures are rendered, so that they get these too.
        .layer(from_fn(harden))
        // Outermost, so that a browser may read failures as well.
        .layer(cors(&state.limits.cors_origins))
}

async fn harden(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("x-approval-token"),
            HeaderName::from_static("x-module-id"),
        ])
        .expose_headers([
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("x-trace-id"),
            HeaderName::from_static("x-span-id"),
            header::RETRY_AFTER,
        ])
}
