//! How fast one caller may go.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use super::RequestFacts;
use super::around::Around;
use super::callers::Caller;
use super::rate_table::{RateTable, Standing, Verdict};
use crate::domain::error::KmsError;
use crate::domain::rate::RateGroup;
use crate::http::error::ApiError;
use crate::http::router::operation_of;
use crate::telemetry::metrics::RequestOperation;

/// The three fields of draft-ietf-httpapi-ratelimit-headers-06, the last version
/// that has them one by one.
pub(crate) const RATE_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];

/// Counts a request, and refuses it when its caller goes too fast.
#[derive(Clone)]
pub(crate) struct Rates(pub(crate) Arc<RateTable>);

impl Around for Rates {
    type Passage = ();

    fn enter(&self, request: &mut Request) -> ControlFlow<Response, ()> {
        let route = request.extensions().get::<MatchedPath>();
        let operation = operation_of(request.method(), route.map_or("", MatchedPath::as_str));
        let (standing, verdict) = self.0.admit(Caller::of(request), group_of(operation));
        // Written by the frame, so that every answer bears it, however it came about.
        if let Some(facts) = request.extensions().get::<Arc<RequestFacts>>() {
            facts.note_standing(standing);
        }
        match verdict {
            Verdict::Admitted => ControlFlow::Continue(()),
            Verdict::Refused { rate, retry_after } => {
                let refused = KmsError::TooManyRequests {
                    requests_per_second: rate.requests_per_second.get(),
                    burst: rate.burst.get(),
                    retry_after,
                };
                ControlFlow::Break(ApiError::from(refused).into_response())
            }
        }
    }
}

fn group_of(operation: RequestOperation) -> RateGroup {
    use RequestOperation as Operation;
    match operation {
        Operation::GenerateKey
        | Operation::UpdateKey
        | Operation::ArchiveKey
        | Operation::RestoreKey
        | Operation::RotateKey
        | Operation::RevokeKey
        | Operation::AddTrustAnchor
        | Operation::RemoveTrustAnchor => RateGroup::Lifecycle,
        Operation::Sign | Operation::SignBatch => RateGroup::Sign,
        Operation::Verify | Operation::VerifyBatch => RateGroup::Verify,
        Operation::Encrypt | Operation::EncryptBatch => RateGroup::Encrypt,
        Operation::Decrypt | Operation::DecryptBatch => RateGroup::Decrypt,
        Operation::ListKeys
        | Operation::ListVersions
        | Operation::ListTrustAnchors
        | Operation::GetKey
        | Operation::GetReceipt
        | Operation::ListReceipts
        | Operation::ReadLedger
        | Operation::ReadLedgerTile
        | Operation::Config
        | Operation::OpenApi
        | Operation::Health
        | Operation::Metrics
        | Operation::Unknown => RateGroup::Read,
    }
}

/// Writes where a caller stands.
pub(crate) fn write_standing(standing: Standing, headers: &mut HeaderMap) {
    let values = [
        u64::from(standing.limit),
        u64::from(standing.remaining),
        seconds(standing.reset),
    ];
    for (name, value) in RATE_HEADERS.into_iter().zip(values) {
        headers.insert(name, HeaderValue::from(value));
    }
}

/// Rounded up: by then it is so.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
