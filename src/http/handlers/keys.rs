//! Keys: made, found, listed, changed, replaced, revoked.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Answer;
use crate::domain::error::KmsError;
use crate::domain::ids::KeyId;
use crate::domain::key::KeyUpdate;
use crate::http::HttpState;
use crate::http::dto::{
    ArchivedAnswer, Cursor, GenerateKeyBody, GeneratedAnswer, KeyAnswer, KeyListAnswer,
    KeyStepBody, LineCursor, ListKeysQuery, ListVersionsQuery, PageLimit, RevokeKeyBody,
    RevokedAnswer, RotateKeyBody, RotatedAnswer, ScopeQuery, UpdateKeyBody, UpdatedAnswer,
    VersionsAnswer,
};
use crate::http::error::ApiError;
use crate::http::extract::{FromBody, FromQuery, KeyInPath};
use crate::service::{GenerateKeyRequest, KeyChanged, ListKeysRequest, RevokeKeyRequest, Rotation};

/// `POST /kms/v1/keys`
pub(crate) async fn generate(
    State(state): State<HttpState>,
    asked: FromBody<GenerateKeyBody>,
) -> Result<(StatusCode, Json<GeneratedAnswer>), ApiError> {
    let body = asked.body;
    let request = GenerateKeyRequest {
        scope: asked.scope,
        key_type: body.key_type,
        key_usage: body.key_usage,
        key_alias: body.key_alias,
        access_policy: body.access_policy.map(Into::into).unwrap_or_default(),
        rotation_period: body.rotation_period.map(|field| field.0),
    };
    let made = state.service.generate_key(&asked.context, request).await?;
    let answer = GeneratedAnswer {
        key_id: made.record.key_id,
        public_key: made.record.public_key,
        key_type: made.record.key_type,
        key_state: made.record.key_state,
        algorithms: made.record.algorithms,
        valid_until: made.record.valid_until,
        receipt_id: made.receipt_id,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// `GET /kms/v1/keys`
pub(crate) async fn list(
    State(state): State<HttpState>,
    asked: FromQuery<ListKeysQuery>,
) -> Answer<KeyListAnswer> {
    let query = asked.query;
    let request = ListKeysRequest {
        scope: asked.scope,
        key_state: query.key_state,
        key_type: query.key_type,
        key_alias: query.alias,
        after: query.cursor.map(|cursor| KeyId::from_bytes(cursor.0)),
        limit: query.limit.unwrap_or(PageLimit::DEFAULT).0,
    };
    let listing = state.service.list_keys(&asked.context, request).await?;
    Ok(Json(KeyListAnswer {
        keys: listing.keys.into_iter().map(KeyAnswer::from).collect(),
        next_cursor: listing.next.map(|after| Cursor::encode(after.as_bytes())),
    }))
}

/// `GET /kms/v1/keys/{key_id}`
pub(crate) async fn show(
    State(state): State<HttpState>,
    KeyInPath(key): KeyInPath,
    asked: FromQuery<ScopeQuery>,
) -> Answer<KeyAnswer> {
    let service = &state.service;
    let (record, usage) = service.get_key(&asked.context, &asked.scope, &key).await?;
    Ok(Json(KeyAnswer::with_usage(record, usage)))
}

/// `GET /kms/v1/keys/{key_id}/versions`
pub(crate) async fn versions(
    State(state): State<HttpState>,
    KeyInPath(key): KeyInPath,
    asked: FromQuery<ListVersionsQuery>,
) -> Answer<VersionsAnswer> {
    let query = asked.query;
    let after = query.cursor.map(|cursor| cursor.0);
    let limit = query.limit.unwrap_or(PageLimit::DEFAULT).0;
    let listing = state
        .service
        .key_versions(&asked.context, &asked.scope, &key, after, limit)
        .await?;
    Ok(Json(VersionsAnswer {
        next_cursor: listing.next.map(LineCursor::encode),
        versions: listing.keys.into_iter().map(Into::into).collect(),
    }))
}

/// `PATCH /kms/v1/keys/{key_id}`
pub(crate) async fn update(
    State(state): State<HttpState>,
    KeyInPath(key): KeyInPath,
    asked: FromBody<UpdateKeyBody>,
) -> Answer<UpdatedAnswer> {
    let update = KeyUpdate {
        key_alias: asked.body.key_alias.into_change(),
        access_policy: asked.body.access_policy.map(Into::into).unwrap_or_default(),
    };
    if update.is_empty() {
        let what = "this or a part of access_policy: nothing is to change";
        return Err(KmsError::field("key_alias", what).into());
    }
    let service = &state.service;
    let changed = service
        .update_key(&asked.context, &asked.scope, &key, &update)
        .await?;
    Ok(Json(UpdatedAnswer {
        key: changed.record.into(),
        receipt_id: changed.receipt_id,
    }))
}

/// `POST /kms/v1/keys/{key_id}/archive`
pub(crate) async fn archive(
    State(state): State<HttpState>,
    KeyInPath(key): KeyInPath,
    asked: FromBody<KeyStepBody>,
) -> Answer<ArchivedAnswer> {
    let service = &state.service;
    let archived = service
        .archive_key(&asked.context, &asked.scope, &key)
        .await?;
    Ok(Json(archived_answer(archived)))
}

/// `POST /kms/v1/keys/{key_id}/restore`
pub(crate) async fn restore(
    State(state): State<HttpState>,
    KeyInPath(key): KeyInPath,
    asked: FromBody<KeyStepBody>,
) -> Answer<ArchivedAnswer> {
    let service = &state.service;
    let restored = service
        .restore_key(&asked.context, &asked.scope, &key)
        .await?;
    Ok(Json(archived_answer(restored)))
}

fn archived_answer(changed: KeyChanged) -> ArchivedAnswer {
    ArchivedAnswer {
        key_id: changed.record.key_id,
        key_state: changed.record.key_state,
        archived_at: changed.record.archived_at,
        receipt_id: changed.receipt_id,
    }
}

/// `POST /kms/v1/keys/{key_id}/rotate`
pub(crate) async fn rotate(
    State(state): State<HttpState>,
    KeyInPath(key): KeyInPath,
    asked: FromBody<RotateKeyBody>,
) -> Answer<RotatedAnswer> {
    let service = &state.service;
    let rotation = match asked.body.emergency {
        Some(true) => Rotation::Emergency,
        Some(false) | None => Rotation::Planned,
    };
    let rotated = service
        .rotate_key(&asked.context, &asked.scope, &key, rotation)
        .await?;
    Ok(Json(RotatedAnswer {
        old_key_id: rotated.old.key_id,
        new_key_id: rotated.new.key_id,
        new_public_key: rotated.new.public_key,
        grace_until: rotated.old.grace_until,
        receipt_id: rotated.receipt_id,
    }))
}

/// `POST /kms/v1/keys/{key_id}/revoke`
pub(crate) async fn revoke(
    State(state): State<HttpState>,
    KeyInPath(key): KeyInPath,
    asked: FromBody<RevokeKeyBody>,
) -> Answer<RevokedAnswer> {
    let request = RevokeKeyRequest {
        scope: asked.scope,
        key,
        reason: asked.body.revocation_reason,
    };
    let revoked = state.service.revoke_key(&asked.context, request).await?;
    Ok(Json(RevokedAnswer {
        key_id: revoked.record.key_id,
        revoked_at: revoked.revoked_at,
        key_state: revoked.record.key_state,
        erase_at: revoked.record.erase_at,
        receipt_id: revoked.receipt_id,
    }))
}
