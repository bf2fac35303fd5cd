//! Every route, once.

use axum::Router;
use axum::http::Method;
use axum::routing::{delete, get, post};

use super::HttpState;
use super::error::ApiError;
use super::handlers::{
    batches, encryption, keys, ledger, operations, receipts, signing, trust_anchors,
};
use super::stack;
use crate::domain::error::RequestFault;
use crate::telemetry::metrics::RequestOperation;

/// The API: everything.
pub fn api_router(state: HttpState) -> Router {
    let guarded = Router::new()
        .route("/kms/v1/keys", post(keys::generate).get(keys::list))
        .route("/kms/v1/keys/{key_id}", get(keys::show).patch(keys::update))
        .route("/kms/v1/keys/{key_id}/rotate", post(keys::rotate))
        .route("/kms/v1/keys/{key_id}/revoke", post(keys::revoke))
        .route("/kms/v1/keys/{key_id}/archive", post(keys::archive))
        .route("/kms/v1/keys/{key_id}/restore", post(keys::restore))
        .route("/kms/v1/keys/{key_id}/versions", get(keys::versions))
        // An alias has a slash in it; these spare callers its escape (%2F).
        .route(
            "/kms/v1/keys/alias/{alias}",
            get(keys::show).patch(keys::update),
        )
        .route("/kms/v1/keys/alias/{alias}/rotate", post(keys::rotate))
        .route("/kms/v1/keys/alias/{alias}/revoke", post(keys::revoke))
        .route("/kms/v1/keys/alias/{alias}/archive", post(keys::archive))
        .route("/kms/v1/keys/alias/{alias}/versions", get(keys::versions))
        .route("/kms/v1/sign", post(signing::sign))
        .route("/kms/v1/verify", post(signing::verify))
        .route("/kms/v1/encrypt", post(encryption::encrypt))
        .route("/kms/v1/decrypt", post(encryption::decrypt))
        .route("/kms/v1/sign/batch", post(batches::sign))
        .route("/kms/v1/verify/batch", post(batches::verify))
        .route("/kms/v1/encrypt/batch", post(batches::encrypt))
        .route("/kms/v1/decrypt/batch", post(batches::decrypt))
        .route(
            "/kms/v1/trust-anchors",
            post(trust_anchors::add).get(trust_anchors::list),
        )
        .route(
            "/kms/v1/trust-anchors/{trust_anchor_id}",
            delete(trust_anchors::remove),
        )
        .route("/kms/v1/receipts", get(receipts::list))
        .route("/kms/v1/receipts/{receipt_id}", get(receipts::show))
        .route("/kms/v1/ledger/checkpoint", get(ledger::checkpoint))
        .route("/kms/v1/ledger/consistency", get(ledger::consistency))
        .route("/kms/v1/ledger/keys", get(ledger::keys))
        .route("/kms/v1/ledger/tile/{*tile}", get(ledger::tile))
        .route("/kms/v1/config", get(operations::config));
    let routes = stack::guarded(guarded, &state).merge(probes());
    finish(routes, state)
}

/// The operations listener: probes and metrics, and nothing that needs a caller.
pub fn operations_router(state: HttpState) -> Router {
    finish(probes(), state)
}

fn probes() -> Router<HttpState> {
    Router::new()
        .route("/health", get(operations::liveness))
        .route("/kms/v1/health", get(operations::readiness))
        .route("/kms/v1/metrics", get(operations::metrics))
}

fn finish(routes: Router<HttpState>, state: HttpState) -> Router {
    let routes = routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method);
    stack::framed(routes, &state).with_state(state)
}

async fn unknown_path() -> ApiError {
    RequestFault::UnknownPath.into()
}

async fn unknown_method() -> ApiError {
    RequestFault::UnknownMethod.into()
}

/// Which operation a route is, for the metrics.
pub(crate) fn operation_of(method: &Method, route: &str) -> RequestOperation {
    use RequestOperation as Operation;
    let post = method == Method::POST;
    match route {
        "/kms/v1/keys" if post => Operation::GenerateKey,
        "/kms/v1/keys" => Operation::ListKeys,
        "/kms/v1/keys/{key_id}" | "/kms/v1/keys/alias/{alias}" if method == Method::PATCH => {
            Operation::UpdateKey
        }
        "/kms/v1/keys/{key_id}" | "/kms/v1/keys/alias/{alias}" => Operation::GetKey,
        "/kms/v1/keys/{key_id}/versions" | "/kms/v1/keys/alias/{alias}/versions" => {
            Operation::ListVersions
        }
        "/kms/v1/keys/{key_id}/archive" | "/kms/v1/keys/alias/{alias}/archive" => {
            Operation::ArchiveKey
        }
        "/kms/v1/keys/{key_id}/restore" => Operation::RestoreKey,
        "/kms/v1/keys/{key_id}/rotate" | "/kms/v1/keys/alias/{alias}/rotate" => {
            Operation::RotateKey
        }
        "/kms/v1/keys/{key_id}/revoke" | "/kms/v1/keys/alias/{alias}/revoke" => {
            Operation::RevokeKey
        }
        "/kms/v1/sign" => Operation::Sign,
        "/kms/v1/verify" => Operation::Verify,
        "/kms/v1/encrypt" => Operation::Encrypt,
        "/kms/v1/decrypt" => Operation::Decrypt,
        "/kms/v1/sign/batch" => Operation::SignBatch,
        "/kms/v1/verify/batch" => Operation::VerifyBatch,
        "/kms/v1/encrypt/batch" => Operation::EncryptBatch,
        "/kms/v1/decrypt/batch" => Operation::DecryptBatch,
        "/kms/v1/trust-anchors" if post => Operation::AddTrustAnchor,
        "/kms/v1/trust-anchors" => Operation::ListTrustAnchors,
        "/kms/v1/trust-anchors/{trust_anchor_id}" => Operation::RemoveTrustAnchor,
        "/kms/v1/receipts" => Operation::ListReceipts,
        "/kms/v1/receipts/{receipt_id}" => Operation::GetReceipt,
        "/kms/v1/ledger/checkpoint" | "/kms/v1/ledger/consistency" | "/kms/v1/ledger/keys" => {
            Operation::ReadLedger
        }
        "/kms/v1/ledger/tile/{*tile}" => Operation::ReadLedgerTile,
        "/kms/v1/config" => Operation::Config,
        "/health" | "/kms/v1/health" => Operation::Health,
        "/kms/v1/metrics" => Operation::Metrics,
        _ => Operation::Unknown,
    }
}
