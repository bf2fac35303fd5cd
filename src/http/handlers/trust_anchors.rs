//! Trust anchors.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::http::HttpState;
use crate::http::dto::{AddTrustAnchorBody, TrustAnchorAnswer};
use crate::http::error::ApiError;
use crate::http::extract::FromBody;
use crate::service::AddTrustAnchorRequest;

/// `POST /kms/v1/trust-anchors`
pub(crate) async fn add(
    State(state): State<HttpState>,
    asked: FromBody<AddTrustAnchorBody>,
) -> Result<(StatusCode, Json<TrustAnchorAnswer>), ApiError> {
    let request = AddTrustAnchorRequest {
        scope: asked.scope,
        certificate: asked.body.certificate.into_bytes(),
        anchor_type: asked.body.anchor_type,
    };
    let service = &state.service;
    let added = service.add_trust_anchor(&asked.context, request).await?;
    let answer = TrustAnchorAnswer {
        trust_anchor_id: added.anchor.trust_anchor_id,
        anchor_type: added.anchor.anchor_type,
        fingerprint: added.anchor.certificate.fingerprint,
        subject: added.anchor.certificate.subject,
        not_after: added.anchor.certificate.not_after,
        receipt_id: added.receipt_id,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}
