//! How many requests at once, and how long each.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::around::{Answering, Around};
use crate::domain::error::{Dependency, KmsError};
use crate::http::error::ApiError;

/// Room for requests that are being worked on. One that comes when it is full is
/// turned away at once: a queue would only make everyone late.
#[derive(Clone)]
pub(crate) struct InFlight(Arc<Semaphore>);

impl InFlight {
    /// Room for so many.
    pub(crate) fn at_most(requests: usize) -> Self {
        Self(Arc::new(Semaphore::new(requests)))
    }
}

impl Around for InFlight {
    type Passage = OwnedSemaphorePermit;

    fn enter(&self, _: &mut Request) -> ControlFlow<Response, OwnedSemaphorePermit> {
        match Arc::clone(&self.0).try_acquire_owned() {
            Ok(place) => ControlFlow::Continue(place),
            Err(_) => ControlFlow::Break(away(Dependency::Load)),
        }
    }
}

/// Answers in the time allowed, one way or the other.
#[derive(Clone, Copy)]
pub(crate) struct InTime(pub(crate) Duration);

impl<S> Layer<S> for InTime {
    type Service = TimedService<S>;

    fn layer(&self, inner: S) -> TimedService<S> {
        TimedService {
            allowed: self.0,
            inner,
        }
    }
}

/// A service that answers in time.
#[derive(Clone)]
pub(crate) struct TimedService<S> {
    allowed: Duration,
    inner: S,
}

impl<S> Service<Request> for TimedService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Answering {
        let answering = tokio::time::timeout(self.allowed, self.inner.call(request));
        Box::pin(async move {
            answering
                .await
                .unwrap_or_else(|_| Ok(away(Dependency::Deadline)))
        })
    }
}

fn away(dependency: Dependency) -> Response {
    ApiError::from(KmsError::DependencyUnavailable {
        dependency,
        source: None,
    })
    .into_response()
}
