//! Signing and verifying.

use axum::Json;
use axum::extract::State;

use super::{Answer, choose};
use crate::domain::binary::encode_base64;
use crate::http::HttpState;
use crate::http::dto::{SignBody, SignedAnswer, VerifiedAnswer, VerifyBody};
use crate::http::extract::FromBody;

/// `POST /kms/v1/sign`
pub(crate) async fn sign(
    State(state): State<HttpState>,
    asked: FromBody<SignBody>,
) -> Answer<SignedAnswer> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let data = body.data.into_bytes();
    let signed = state.service.sign(&asked.context, &choice, data).await?;
    Ok(Json(SignedAnswer {
        signature: encode_base64(&signed.output),
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
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (data, signature) = (body.data.into_bytes(), body.signature.into_bytes());
    let service = &state.service;
    let verified = service
        .verify(&asked.context, &choice, data, signature)
        .await?;
    Ok(Json(VerifiedAnswer {
        valid: verified.output,
        status: verdict(verified.output),
        key_id: verified.key_id,
        algorithm: verified.algorithm,
        receipt_id: verified.receipt_id,
    }))
}

/// The word that M27 reads.
pub(super) fn verdict(valid: bool) -> &'static str {
    match valid {
        true => "verified",
        false => "failed",
    }
}
