//! Encrypting and decrypting.

use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use super::{Answer, choose};
use crate::domain::binary::{Base64Bytes, encode_base64};
use crate::http::HttpState;
use crate::http::dto::{DecryptBody, DecryptedAnswer, EncryptBody, EncryptedAnswer};
use crate::http::extract::FromBody;
use crate::service::Ciphertext;

/// `POST /kms/v1/encrypt`
pub(crate) async fn encrypt(
    State(state): State<HttpState>,
    asked: FromBody<EncryptBody>,
) -> Answer<EncryptedAnswer> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (plaintext, aad) = (body.plaintext.into_bytes(), bytes_or_none(body.aad));
    let service = &state.service;
    let encrypted = service
        .encrypt(&asked.context, &choice, plaintext, aad)
        .await?;
    Ok(Json(EncryptedAnswer {
        ciphertext: encode_base64(&encrypted.output.ciphertext),
        iv: encode_base64(encrypted.output.nonce),
        key_id: encrypted.key_id,
        algorithm: encrypted.algorithm,
        receipt_id: encrypted.receipt_id,
    }))
}

/// `POST /kms/v1/decrypt`
pub(crate) async fn decrypt(
    State(state): State<HttpState>,
    asked: FromBody<DecryptBody>,
) -> Answer<DecryptedAnswer> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let sealed = Ciphertext {
        ciphertext: body.ciphertext.into_bytes(),
        nonce: body.iv.0,
        aad: bytes_or_none(body.aad),
    };
    let service = &state.service;
    let decrypted = service.decrypt(&asked.context, &choice, sealed).await?;
    Ok(Json(DecryptedAnswer {
        plaintext: encode_base64(decrypted.output.expose()),
        key_id: decrypted.key_id,
        algorithm: decrypted.algorithm,
        receipt_id: decrypted.receipt_id,
    }))
}

/// No associated data is the same as none of any length.
pub(super) fn bytes_or_none(field: Option<Base64Bytes>) -> Bytes {
    field.map(Base64Bytes::into_bytes).unwrap_or_default()
}
