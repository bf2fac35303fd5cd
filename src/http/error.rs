//! From the one error to the one envelope. The only place that names a
//! failure's HTTP status.
//!
//! A handler, an extractor or a layer answers an [`ApiError`], which travels as a
//! response extension; the outermost layer renders it, since it alone knows the
//! request's id, and logs its cause, once.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::error::{AuthenticationFault, ErrorCode, FieldFault, KmsError, RequestFault};
use crate::domain::ids::RequestId;

/// A failure on its way to the envelope.
#[derive(Clone, Debug)]
pub(crate) struct ApiError(pub(crate) Arc<KmsError>);

impl<E: Into<KmsError>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(Arc::new(error.into()))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(&self.0);
        response.extensions_mut().insert(self);
        response
    }
}

/// The HTTP status of a failure.
pub(crate) fn status(error: &KmsError) -> StatusCode {
    match error.code() {
        ErrorCode::InvalidRequest => match error {
            KmsError::InvalidRequest(fault) => request_status(fault),
            _ => StatusCode::BAD_REQUEST,
        },
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Unauthorized | ErrorCode::PolicyViolation => StatusCode::FORBIDDEN,
        ErrorCode::KeyNotFound => StatusCode::NOT_FOUND,
        ErrorCode::KeyInactive | ErrorCode::KeyRevoked => StatusCode::CONFLICT,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::DependencyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn request_status(fault: &RequestFault) -> StatusCode {
    match fault {
        RequestFault::Fields(_)
        | RequestFault::NotJson { .. }
        | RequestFault::NotAnObject
        | RequestFault::BodyIncomplete
        | RequestFault::Undecryptable
        | RequestFault::Certificate(_) => StatusCode::BAD_REQUEST,
        RequestFault::UnknownPath
        | RequestFault::UnknownReceipt
        | RequestFault::UnknownTile
        | RequestFault::UnknownTrustAnchor => StatusCode::NOT_FOUND,
        RequestFault::UnknownMethod => StatusCode::METHOD_NOT_ALLOWED,
        RequestFault::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        RequestFault::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    }
}

/// Whether the same request may succeed later.
pub(crate) fn retryable(code: ErrorCode) -> bool {
    match code {
        ErrorCode::RateLimited | ErrorCode::InternalError | ErrorCode::DependencyUnavailable => {
            true
        }
        ErrorCode::InvalidRequest
        | ErrorCode::Unauthenticated
        | ErrorCode::Unauthorized
        | ErrorCode::PolicyViolation
        | ErrorCode::KeyNotFound
        | ErrorCode::KeyInactive
        | ErrorCode::KeyRevoked => false,
    }
}

#[derive(Serialize)]
struct Envelope {
    error: ErrorBody,
}

/// What stands under `error`.
#[derive(Serialize)]
pub(crate) struct ErrorBody {
    #[serde(flatten)]
    failure: FailureBody,
    request_id: RequestId,
}

/// What there is to say of a failure, whatever failed: a request, or an item of one.
#[derive(Serialize)]
pub(crate) struct FailureBody {
    code: &'static str,
    message: String,
    details: Value,
    retryable: bool,
}

/// The answer for a failure, with what a client needs to go on.
pub(crate) fn render(error: &KmsError, request_id: RequestId) -> Response {
    let envelope = Envelope {
        error: error_body(error, request_id),
    };
    let mut response = axum::Json(envelope).into_response();
    *response.status_mut() = status(error);
    if let Some(seconds) = retry_after_seconds(error) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let KmsError::Unauthenticated(AuthenticationFault::Token(_)) = error {
        // RFC 6750 §3; which rule failed is in the body.
        let challenge = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// What a failure's `error` says.
pub(crate) fn error_body(error: &KmsError, request_id: RequestId) -> ErrorBody {
    ErrorBody {
        failure: failure_body(error),
        request_id,
    }
}

/// The same without the request, for one item among others.
pub(crate) fn failure_body(error: &KmsError) -> FailureBody {
    let code = error.code();
    FailureBody {
        code: code.as_str(),
        message: message(error),
        details: details(error),
        retryable: retryable(code),
    }
}

/// What the client reads. What went wrong inside is for the log.
fn message(error: &KmsError) -> String {
    match error {
        KmsError::Internal(_) => "an internal error occurred".to_owned(),
        KmsError::DependencyUnavailable { dependency, .. } => format!(
            "{} is unavailable; nothing was done, try again later",
            dependency.as_str()
        ),
        other => other.to_string(),
    }
}

fn details(error: &KmsError) -> Value {
    match error {
        KmsError::InvalidRequest(RequestFault::Fields(faults)) => {
            json!({ "errors": faults.iter().map(field_fault).collect::<Vec<_>>() })
        }
        KmsError::InvalidRequest(RequestFault::Certificate(fault)) => json!({
            "errors": [{ "field": "certificate", "problem": "invalid", "expected": "a CA certificate that can be a trust anchor", "reason": fault.to_string() }]
        }),
        KmsError::InvalidRequest(RequestFault::BodyTooLarge { limit_bytes }) => {
            json!({ "limit_bytes": limit_bytes })
        }
        KmsError::KeyInactive {
            key_state,
            successor_key_id,
            ..
        } => {
            let mut details = Map::new();
            details.insert("key_state".to_owned(), json!(key_state));
            if let Some(successor) = successor_key_id {
                details.insert("successor_key_id".to_owned(), json!(successor));
            }
            Value::Object(details)
        }
        KmsError::KeyRevoked => json!({ "key_state": "destroyed" }),
        KmsError::DailyLimitReached { limit, retry_after } => json!({
            "limit": limit,
            "limit_kind": "max_usage_per_day",
            "retry_after_seconds": retry_after.as_secs(),
        }),
        KmsError::TooManyRequests {
            requests_per_second,
            burst,
            retry_after,
        } => json!({
            "limit": requests_per_second,
            "limit_kind": "requests_per_second",
            "burst": burst,
            "retry_after_seconds": whole_seconds(*retry_after),
        }),
        KmsError::DependencyUnavailable { dependency, .. } => {
            json!({ "dependency": dependency.as_str() })
        }
        KmsError::InvalidRequest(_)
        | KmsError::Unauthenticated(_)
        | KmsError::Unauthorized(_)
        | KmsError::PolicyViolation(_)
        | KmsError::KeyNotFound
        | KmsError::Internal(_) => json!({}),
    }
}

fn field_fault(fault: &FieldFault) -> Value {
    json!({
        "field": fault.field,
        "problem": fault.problem.as_str(),
        "expected": fault.expected,
    })
}

/// Rounded up: whoever comes back then is let in.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

pub(crate) fn retry_after_seconds(error: &KmsError) -> Option<u64> {
    match error {
        KmsError::DailyLimitReached { retry_after, .. } => Some(retry_after.as_secs().max(1)),
        KmsError::TooManyRequests { retry_after, .. } => Some(whole_seconds(*retry_after)),
        KmsError::DependencyUnavailable { .. } => Some(1),
        _ => None,
    }
}

/// Logs the cause of a failure of ours. Refusals are answers and not logged here.
pub(crate) fn log_cause(error: &KmsError, request_id: RequestId, trace_id: &str) {
    let Some(cause) = error.source() else { return };
    match error {
        KmsError::Internal(_) => {
            tracing::error!(%request_id, trace_id, error = cause, "request failed");
        }
        KmsError::DependencyUnavailable { dependency, .. } => {
            tracing::warn!(%request_id, trace_id, dependency = dependency.as_str(), error = cause, "dependency unavailable");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error::{Dependency, TokenFault};

    #[test]
    fn an_inner_message_never_reaches_the_client() {
        for error in [
            KmsError::internal("the disk is on fire"),
            KmsError::unavailable(Dependency::Store, "the disk is on fire"),
        ] {
            assert!(!message(&error).contains("fire"));
            assert!(!details(&error).to_string().contains("fire"));
        }
    }

    #[test]
    fn a_refused_token_is_challenged_for_another() {
        let challenge_of = |fault: AuthenticationFault| {
            let response = render(&fault.into(), RequestId::generate());
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            response.headers().get(header::WWW_AUTHENTICATE).cloned()
        };
        let challenge = challenge_of(TokenFault::Expired.into());
        assert_eq!(challenge, Some(HeaderValue::from_static("Bearer")));
        // A token would not help where a certificate is missing.
        assert_eq!(challenge_of(AuthenticationFault::NoCertificate), None);
    }

    #[test]
    fn the_statuses_of_the_contract() {
        use RequestFault::{BodyTooLarge, MediaType, UnknownMethod, UnknownPath};
        for (error, wanted) in [
            (KmsError::field("a", "b"), 400),
            (UnknownPath.into(), 404),
            (UnknownMethod.into(), 405),
            (BodyTooLarge { limit_bytes: 1 }.into(), 413),
            (MediaType.into(), 415),
            (KmsError::KeyNotFound, 404),
            (KmsError::KeyRevoked, 409),
            (KmsError::internal("x"), 500),
            (KmsError::unavailable(Dependency::Hsm, "x"), 503),
        ] {
            assert_eq!(status(&error).as_u16(), wanted, "{error}");
        }
    }
}
