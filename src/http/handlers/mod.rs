//! One function a route: extract, call the service, answer.

pub(crate) mod batches;
pub(crate) mod docs;
pub(crate) mod encryption;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod operations;
pub(crate) mod receipts;
pub(crate) mod signing;
pub(crate) mod trust_anchors;

use axum::Json;

use super::error::ApiError;
use crate::domain::ids::KeyRef;
use crate::domain::scope::Scope;
use crate::service::KeyChoice;

/// What a handler answers.
pub(crate) type Answer<T> = Result<Json<T>, ApiError>;

/// The key that a request names, in its scope.
fn choose<A>(scope: Scope, key: KeyRef, algorithm: Option<A>) -> KeyChoice<A> {
    KeyChoice {
        scope,
        key,
        algorithm,
    }
}
