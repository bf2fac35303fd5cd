//! Receipts.

use axum::Json;
use axum::extract::State;
use serde_json::value::RawValue;

use super::Answer;
use crate::domain::error::KmsError;
use crate::http::HttpState;
use crate::http::dto::{ReceiptAnswer, ScopeQuery};
use crate::http::extract::{FromQuery, ReceiptInPath};

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
    let receipt = String::from_utf8(found.leaf).map_err(KmsError::internal)?;
    Ok(Json(ReceiptAnswer {
        receipt: RawValue::from_string(receipt).map_err(KmsError::internal)?,
        leaf_index: found.leaf_index,
    }))
}
