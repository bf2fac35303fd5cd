//! Encrypting and decrypting.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;

use super::choose;
use crate::domain::binary::Base64Bytes;
use crate::http::HttpState;
use crate::http::dto::{DecryptBody, EncryptBody, PlainAnswer};
use crate::http::error::ApiError;
use crate::http::extract::FromBody;
use crate::service::Ciphertext;

/// `POST /kms/v1/encrypt`
pub(crate) async fn encrypt(
    State(state): State<HttpState>,
    asked: FromBody<EncryptBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (plaintext, aad) = (body.plaintext.into_bytes(), bytes_or_none(body.aad));
    let service = &state.service;
    let encrypted = service
        .encrypt(&asked.context, &choice, plaintext, aad)
        .await?;
    let sealed = &encrypted.output;
    let answer = PlainAnswer::with_room_for(sealed.ciphertext.len())
        .bytes("ciphertext", &sealed.ciphertext)
        .bytes("iv", &sealed.nonce);
    Ok(answer.finish(encrypted.key_id, encrypted.algorithm, encrypted.receipt_id))
}

/// `POST /kms/v1/decrypt`
pub(crate) async fn decrypt(
    State(state): State<HttpState>,
    asked: FromBody<DecryptBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let sealed = Ciphertext {
        ciphertext: body.ciphertext.into_bytes(),
        nonce: body.iv.0,
        aad: bytes_or_none(body.aad),
    };
    let service = &state.service;
    let decrypted = service.decrypt(&asked.context, &choice, sealed).await?;
    let plaintext = decrypted.output.expose();
    let answer = PlainAnswer::with_room_for(plaintext.len()).bytes("plaintext", plaintext);
    Ok(answer.finish(decrypted.key_id, decrypted.algorithm, decrypted.receipt_id))
}

/// No associated data is the same as none of any length.
pub(super) fn bytes_or_none(field: Option<Base64Bytes>) -> Bytes {
    field.map(Base64Bytes::into_bytes).unwrap_or_default()
}
