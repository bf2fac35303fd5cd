//! Receipts.

use axum::Json;
use axum::extract::State;
use serde_json::value::RawValue;

use super::Answer;
use crate::domain::error::KmsError;
use crate::domain::ledger::TreeHash;
use crate::http::HttpState;
use crate::http::dto::{
    Cursor, ListReceiptsQuery, PageLimit, ReceiptAnswer, ReceiptEntry, ReceiptListAnswer,
    ScopeQuery,
};
use crate::http::extract::{FromQuery, ReceiptInPath};
use crate::service::{ReceiptPlace, ReceiptQuery};

/// `GET /kms/v1/receipts/{receipt_id}`
pub(crate) async fn show(
    State(state): State<HttpState>,
    ReceiptInPath(receipt_id): ReceiptInPath,
    asked: FromQuery<ScopeQuery>,
) -> Answer<ReceiptAnswer> {
    let service = &state.service;
    let found = service
        .get_receipt(&asked.context, &asked.scope, receipt_id)
        .await?;
    let ReceiptEntry {
        receipt,
        leaf_index,
    } = entry(found.kept.leaf, found.kept.leaf_index)?;
    Ok(Json(ReceiptAnswer {
        receipt,
        leaf_index,
        tree_size: found.checkpoint.size,
        inclusion_proof: found
            .inclusion_proof
            .iter()
            .map(TreeHash::to_string)
            .collect(),
        checkpoint: found.note,
    }))
}

/// `GET /kms/v1/receipts`
pub(crate) async fn list(
    State(state): State<HttpState>,
    asked: FromQuery<ListReceiptsQuery>,
) -> Answer<ReceiptListAnswer> {
    let query = asked.query;
    let query = ReceiptQuery {
        scope: asked.scope,
        key_id: query.key_id.map(|key_id| key_id.to_string()),
        operation: query.operation,
        from: query.from,
        until: query.until,
        after: query.cursor.map(place),
        limit: query.limit.unwrap_or(PageLimit::DEFAULT).0,
    };
    let page = state.service.list_receipts(&asked.context, query).await?;
    Ok(Json(ReceiptListAnswer {
        receipts: page
            .receipts
            .into_iter()
            .map(|kept| entry(kept.leaf, kept.leaf_index))
            .collect::<Result<_, _>>()?,
        next_cursor: page.next.map(cursor),
    }))
}

/// A receipt as it is kept, byte for byte.
fn entry(leaf: Vec<u8>, leaf_index: u64) -> Result<ReceiptEntry, KmsError> {
    let receipt = String::from_utf8(leaf).map_err(KmsError::internal)?;
    Ok(ReceiptEntry {
        receipt: RawValue::from_string(receipt).map_err(KmsError::internal)?,
        leaf_index,
    })
}

fn cursor(after: ReceiptPlace) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&after.microseconds.to_be_bytes());
    bytes[8..].copy_from_slice(&after.leaf_index.to_be_bytes());
    Cursor::encode(&bytes)
}

fn place(Cursor(bytes): Cursor) -> ReceiptPlace {
    let number = u128::from_be_bytes(bytes);
    ReceiptPlace {
        // The upper half and the lower.
        microseconds: ((number >> 64) as u64).cast_signed(),
        leaf_index: number as u64,
    }
}
