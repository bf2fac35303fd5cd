//! The ledger, for whoever checks it (C2SP tlog-tiles and tlog-checkpoint).

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};

use super::Answer;
use crate::domain::ledger::{TileKind, TreeHash};
use crate::http::HttpState;
use crate::http::dto::{ConsistencyAnswer, ConsistencyQuery, LedgerKeyEntry, LedgerKeysAnswer};
use crate::http::error::ApiError;
use crate::http::extract::{AnyCaller, FromUnscopedQuery, TileInPath};
use crate::http::stack::CacheFor;

/// Notes are UTF-8 text.
const NOTE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// `GET /kms/v1/ledger/checkpoint`
pub(crate) async fn checkpoint(State(state): State<HttpState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, NOTE)], state.service.checkpoint())
}

/// `GET /kms/v1/ledger/tile/<L>/<N>[.p/<W>]` and `…/tile/entries/<N>[.p/<W>]`
pub(crate) async fn tile(
    State(state): State<HttpState>,
    AnyCaller(caller): AnyCaller,
    TileInPath(path): TileInPath,
) -> Result<impl IntoResponse, ApiError> {
    let bytes = state.service.tile(&caller, &path).await?;
    let cache = match path.kind {
        TileKind::Hashes { .. } => CacheFor::Everybody,
        TileKind::Entries => CacheFor::CallerOnly,
    };
    Ok((Extension(cache), [(header::CONTENT_TYPE, BYTES)], bytes))
}

/// `GET /kms/v1/ledger/consistency`
pub(crate) async fn consistency(
    State(state): State<HttpState>,
    FromUnscopedQuery(query): FromUnscopedQuery<ConsistencyQuery>,
) -> Answer<ConsistencyAnswer> {
    let to = query.to.map(|size| size.0);
    let proved = state.service.prove_consistency(query.from.0, to).await?;
    Ok(Json(ConsistencyAnswer {
        from: proved.from,
        to: proved.to,
        consistency_proof: proved.proof.iter().map(TreeHash::to_string).collect(),
        checkpoint: proved.note,
    }))
}

/// `GET /kms/v1/ledger/keys`
pub(crate) async fn keys(State(state): State<HttpState>) -> Answer<LedgerKeysAnswer> {
    let keys = state.service.ledger_keys().await?;
    Ok(Json(LedgerKeysAnswer {
        keys: keys
            .into_iter()
            .map(|one| LedgerKeyEntry {
                verifier_key: one.key.to_string(),
                from_size: one.kept.from_size,
                handover: one.kept.handover,
            })
            .collect(),
    }))
}
