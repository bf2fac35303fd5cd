//! Trust anchors: taken in, listed, removed.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Answer;
use crate::domain::ids::TrustAnchorId;
use crate::http::HttpState;
use crate::http::dto::{
    AddTrustAnchorBody, Cursor, ListTrustAnchorsQuery, PageLimit, ScopeQuery, TrustAnchorAnswer,
    TrustAnchorEntry, TrustAnchorListAnswer, TrustAnchorRemovedAnswer,
};
use crate::http::error::ApiError;
use crate::http::extract::{FromApprovableQuery, FromBody, FromQuery, TrustAnchorInPath};
use crate::service::{AddTrustAnchorRequest, ListTrustAnchorsRequest};

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

/// `GET /kms/v1/trust-anchors`
pub(crate) async fn list(
    State(state): State<HttpState>,
    asked: FromQuery<ListTrustAnchorsQuery>,
) -> Answer<TrustAnchorListAnswer> {
    let query = asked.query;
    let request = ListTrustAnchorsRequest {
        scope: asked.scope,
        after: query
            .cursor
            .map(|cursor| TrustAnchorId::from_bytes(cursor.0)),
        limit: query.limit.unwrap_or(PageLimit::DEFAULT).0,
    };
    let service = &state.service;
    let listing = service.list_trust_anchors(&asked.context, request).await?;
    let anchors = listing.anchors.into_iter();
    Ok(Json(TrustAnchorListAnswer {
        trust_anchors: anchors.map(TrustAnchorEntry::from).collect(),
        next_cursor: listing.next.map(|after| Cursor::encode(after.as_bytes())),
    }))
}

/// `DELETE /kms/v1/trust-anchors/{trust_anchor_id}`
pub(crate) async fn remove(
    State(state): State<HttpState>,
    TrustAnchorInPath(trust_anchor_id): TrustAnchorInPath,
    FromApprovableQuery(asked): FromApprovableQuery<ScopeQuery>,
) -> Answer<TrustAnchorRemovedAnswer> {
    let service = &state.service;
    let removed = service
        .remove_trust_anchor(&asked.context, &asked.scope, trust_anchor_id)
        .await?;
    Ok(Json(TrustAnchorRemovedAnswer {
        trust_anchor_id: removed.trust_anchor_id,
        removed_at: removed.removed_at,
        receipt_id: removed.receipt_id,
    }))
}
