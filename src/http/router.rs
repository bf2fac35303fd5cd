//! Every route, once.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{delete, get, patch, post};

use super::HttpState;
use super::error::ApiError;
use super::handlers::{
    batches, docs, encryption, keys, ledger, operations, receipts, signing, trust_anchors,
};
use super::stack;
use crate::domain::error::RequestFault;
use crate::telemetry::metrics::RequestOperation;

/// The API: everything.
pub fn api_router(state: HttpState) -> Router {
    let mut routes = stack::guarded(guarded().router, &state).merge(probes().router);
    if state.has_docs {
        routes = routes.merge(docs());
    }
    finish(routes, state)
}

/// What works with keys and receipts, or says something about them: for known callers.
fn guarded() -> Routes {
    Routes::new()
        .on(Method::POST, "/kms/v1/keys", keys::generate)
        .on(Method::GET, "/kms/v1/keys", keys::list)
        .on(Method::GET, "/kms/v1/keys/{key_id}", keys::show)
        .on(Method::PATCH, "/kms/v1/keys/{key_id}", keys::update)
        .on(Method::POST, "/kms/v1/keys/{key_id}/rotate", keys::rotate)
        .on(Method::POST, "/kms/v1/keys/{key_id}/revoke", keys::revoke)
        .on(Method::POST, "/kms/v1/keys/{key_id}/archive", keys::archive)
        .on(Method::POST, "/kms/v1/keys/{key_id}/restore", keys::restore)
        .on(
            Method::GET,
            "/kms/v1/keys/{key_id}/versions",
            keys::versions,
        )
        // An alias has a slash in it; these spare callers its escape (%2F).
        .on(Method::GET, "/kms/v1/keys/alias/{alias}", keys::show)
        .on(Method::PATCH, "/kms/v1/keys/alias/{alias}", keys::update)
        .on(
            Method::POST,
            "/kms/v1/keys/alias/{alias}/rotate",
            keys::rotate,
        )
        .on(
            Method::POST,
            "/kms/v1/keys/alias/{alias}/revoke",
            keys::revoke,
        )
        .on(
            Method::POST,
            "/kms/v1/keys/alias/{alias}/archive",
            keys::archive,
        )
        .on(
            Method::GET,
            "/kms/v1/keys/alias/{alias}/versions",
            keys::versions,
        )
        .on(Method::POST, "/kms/v1/sign", signing::sign)
        .on(Method::POST, "/kms/v1/verify", signing::verify)
        .on(Method::POST, "/kms/v1/encrypt", encryption::encrypt)
        .on(Method::POST, "/kms/v1/decrypt", encryption::decrypt)
        .on(Method::POST, "/kms/v1/sign/batch", batches::sign)
        .on(Method::POST, "/kms/v1/verify/batch", batches::verify)
        .on(Method::POST, "/kms/v1/encrypt/batch", batches::encrypt)
        .on(Method::POST, "/kms/v1/decrypt/batch", batches::decrypt)
        .on(Method::POST, "/kms/v1/trust-anchors", trust_anchors::add)
        .on(Method::GET, "/kms/v1/trust-anchors", trust_anchors::list)
        .on(
            Method::DELETE,
            "/kms/v1/trust-anchors/{trust_anchor_id}",
            trust_anchors::remove,
        )
        .on(Method::GET, "/kms/v1/receipts", receipts::list)
        .on(Method::GET, "/kms/v1/receipts/{receipt_id}", receipts::show)
        .on(Method::GET, "/kms/v1/ledger/checkpoint", ledger::checkpoint)
        .on(
            Method::GET,
            "/kms/v1/ledger/consistency",
            ledger::consistency,
        )
        .on(Method::GET, "/kms/v1/ledger/keys", ledger::keys)
        .on(Method::GET, "/kms/v1/ledger/tile/{*tile}", ledger::tile)
        .on(Method::GET, "/kms/v1/config", operations::config)
        .on(Method::GET, "/kms/v1/openapi.json", operations::openapi)
}

/// The operations listener: probes and metrics, and nothing that needs a caller.
pub fn operations_router(state: HttpState) -> Router {
    finish(probes().router, state)
}

fn probes() -> Routes {
    Routes::new()
        .on(Method::GET, "/health", operations::liveness)
        .on(Method::GET, "/kms/v1/health", operations::readiness)
        .on(Method::GET, "/kms/v1/metrics", operations::metrics)
}

/// The page that shows the OpenAPI document, on a developer's machine. It is about the
/// interface and no part of it, so the document does not have it. A browser that asks for
/// a page has no token to show, so nobody is asked for one; there is nothing in it that
/// `kms openapi` does not print.
fn docs() -> Router<HttpState> {
    Router::new()
        .route("/kms/v1/docs", get(docs::page))
        .route("/kms/v1/docs/{file}", get(docs::file))
}

/// Routes, and the list of them: a router does not tell what is in it, and the OpenAPI
/// document is held to that.
struct Routes {
    router: Router<HttpState>,
    #[cfg(test)]
    listed: Vec<(Method, &'static str)>,
}

impl Routes {
    fn new() -> Self {
        Self {
            router: Router::new(),
            #[cfg(test)]
            listed: Vec::new(),
        }
    }

    /// Lets a handler answer this method of this path.
    fn on<H: Handler<T, HttpState>, T: 'static>(
        mut self,
        method: Method,
        path: &'static str,
        handler: H,
    ) -> Self {
        let answers = match method {
            Method::POST => post(handler),
            Method::PATCH => patch(handler),
            Method::DELETE => delete(handler),
            _ => get(handler),
        };
        self.router = self.router.route(path, answers);
        #[cfg(test)]
        self.listed.push((method, path));
        self
    }
}

/// Every route of the API listener: what the document is held to.
#[cfg(test)]
pub(crate) fn every_route() -> Vec<(Method, &'static str)> {
    [guarded().listed, probes().listed].concat()
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
        "/kms/v1/openapi.json" | "/kms/v1/docs" | "/kms/v1/docs/{file}" => Operation::OpenApi,
        "/health" | "/kms/v1/health" => Operation::Health,
        "/kms/v1/metrics" => Operation::Metrics,
        _ => Operation::Unknown,
    }
}
