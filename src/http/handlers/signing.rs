//! Signing and verifying.

use axum::Json;
use axum::extract::State;

use super::Answer;
use crate::domain::binary::encode_base64;
use crate::http::HttpState;
use crate::http::dto::{SignBody, SignedAnswer, VerifiedAnswer, VerifyBody};
use crate::http::extract::FromBody;
use crate::service::{SignRequest, VerifyRequest};

/// `POST /kms/v1/sign`
pub(crate) async fn sign(
    State(state): State<HttpState>,
    asked: FromBody<SignBody>,
) -> Answer<SignedAnswer> {
    let request = SignRequest {
        scope: asked.scope,
        key: asked.body.key_id,
        data: asked.body.data.into_bytes(),
        algorithm: asked.body.algorithm,
    };
    let signed = state.service.sign(&asked.context, request).await?;
    Ok(Json(SignedAnswer {
        signature: encode_base64(&signed.signature),
        key_id: signed.key_id,
        algorithm: signed.algorithm,
        receipt_id: signed.receipt_id,
    }))
}

/// `POST /kms/v1/verify`
pub(crate) async fn verify(
    State(state): State<HttpState>,
    asked: FromBody<VerifyBody>,
) -> Answer<VerifiedAnswer> {
    let request = VerifyRequest {
        scope: asked.scope,
        key: asked.body.key_id,
        data: asked.body.data.into_bytes(),
        signature: asked.body.signature.into_bytes(),
        algorithm: asked.body.algorithm,
    };
    let verified = state.service.verify(&asked.context, request).await?;
    Ok(Json(VerifiedAnswer {
        valid: verified.valid,
        status: if verified.valid { "verified" } else { "failed" },
        key_id: verified.key_id,
        algorithm: verified.algorithm,
        receipt_id: verified.receipt_id,
    }))
}
