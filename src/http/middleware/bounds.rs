//! How many requests at once, and how long each.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;

use crate::domain::error::{Dependency, KmsError};
use crate::http::HttpState;
use crate::http::error::ApiError;

/// Room for requests that are being worked on.
pub(crate) type InFlight = Arc<Semaphore>;

/// Turns a request away at once when the service is full: a queue would only
/// make everyone late.
pub(crate) async fn limit_in_flight(
    State(room): State<InFlight>,
    request: Request,
    next: Next,
) -> Response {
    match room.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => away(Dependency::Load),
    }
}

/// Answers in the time allowed, one way or the other.
pub(crate) async fn answer_in_time(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Response {
    tokio::time::timeout(state.limits.request_timeout, next.run(request))
        .await
        .unwrap_or_else(|_| away(Dependency::Deadline))
}

fn away(dependency: Dependency) -> Response {
    ApiError::from(KmsError::DependencyUnavailable {
        dependency,
        source: None,
    })
    .into_response()
}
