//! Signing and verifying.

use axum::extract::State;
use axum::response::Response;

use super::choose;
use crate::http::HttpState;
use crate::http::dto::{PlainAnswer, SignBody, Verdict, VerifyBody};
use crate::http::error::ApiError;
use crate::http::extract::FromBody;

/// `POST /kms/v1/sign`
pub(crate) async fn sign(
    State(state): State<HttpState>,
    asked: FromBody<SignBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let data = body.data.into_bytes();
    let signed = state.service.sign(&asked.context, &choice, data).await?;
    let answer = PlainAnswer::with_room_for(signed.output.len());
    Ok(answer.bytes("signature", &signed.output).finish(
        signed.key_id,
        signed.algorithm,
        signed.receipt_id,
    ))
}

/// `POST /kms/v1/verify`
pub(crate) async fn verify(
    State(state): State<HttpState>,
    asked: FromBody<VerifyBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (data, signature) = (body.data.into_bytes(), body.signature.into_bytes());
    let service = &state.service;
    let verified = service
        .verify(&asked.context, &choice, data, signature)
        .await?;
    let answer = PlainAnswer::with_room_for(0)
        .flag("valid", verified.output)
        .word("status", Verdict::of(verified.output).as_str());
    Ok(answer.finish(verified.key_id, verified.algorithm, verified.receipt_id))
}
