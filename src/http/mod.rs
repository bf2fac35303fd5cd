//! One request in, one answer out. The only room that knows axum.

mod drain;
mod dto;
mod endurance;
mod error;
mod extract;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod handlers;
mod middleware;
mod openapi;
mod opening;
mod router;
pub mod server;
mod stack;
mod wire_object;

pub use openapi::document as openapi_document;
pub use router::{api_router, operations_router};

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::rate::RatePolicy;
use crate::service::KmsService;
use crate::telemetry::metrics::Metrics;

/// What the HTTP room works with: cheap to copy, as axum does for each request.
#[derive(Clone)]
pub struct HttpState(Arc<HttpParts>);

/// The parts of [`HttpState`].
pub struct HttpParts {
    /// The service.
    pub service: Arc<KmsService>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The limits.
    pub limits: HttpLimits,
    /// Whether there is a page that shows the OpenAPI document.
    pub has_docs: bool,
}

impl From<HttpParts> for HttpState {
    fn from(parts: HttpParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for HttpState {
    type Target = HttpParts;

    fn deref(&self) -> &HttpParts {
        &self.0
    }
}

/// How much of what a request may take.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// The largest body, in bytes.
    pub max_body_bytes: usize,
    /// From the request's head to the answer.
    pub request_timeout: Duration,
    /// Requests at once; more are told to come back.
    pub max_in_flight: usize,
    /// How fast one caller may go.
    pub rates: RatePolicy,
    /// Which browser origins may call; `*` for any.
    pub cors_origins: Vec<String>,
}
