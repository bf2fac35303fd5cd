//! One function a route: extract, call the service, answer.

pub(crate) mod encryption;
pub(crate) mod keys;
pub(crate) mod operations;
pub(crate) mod receipts;
pub(crate) mod signing;
pub(crate) mod trust_anchors;

use axum::Json;

use super::error::ApiError;

/// What a handler answers.
pub(crate) type Answer<T> = Result<Json<T>, ApiError>;
