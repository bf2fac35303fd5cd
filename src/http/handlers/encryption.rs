//! Encrypting and decrypting.

use axum::Json;
use axum::extract::State;
use bytes::Bytes;

use super::Answer;
use crate::domain::binary::{Base64Bytes, encode_base64};
use crate::http::HttpState;
use crate::http::dto::{DecryptBody, DecryptedAnswer, EncryptBody, EncryptedAnswer};
use crate::http::extract::FromBody;
use crate::service::{DecryptRequest, EncryptRequest};

/// `POST /kms/v1/encrypt`
pub(crate) async fn encrypt(
    State(state): State<HttpState>,
    asked: FromBody<EncryptBody>,
) -> Answer<EncryptedAnswer> {
    let request = EncryptRequest {
        scope: asked.scope,
        key: asked.body.key_id,
        plaintext: asked.body.plaintext.into_bytes(),
        aad: bytes_or_none(asked.body.aad),
        algorithm: asked.body.algorithm,
    };
    let message = state.service.encrypt(&asked.context, request).await?;
    Ok(Json(EncryptedAnswer {
        ciphertext: encode_base64(&message.encrypted.ciphertext),
        iv: encode_base64(message.encrypted.nonce),
        key_id: message.key_id,
        algorithm: message.algorithm,
        receipt_id: message.receipt_id,
    }))
}

/// `POST /kms/v1/decrypt`
pub(crate) async fn decrypt(
    State(state): State<HttpState>,
    asked: FromBody<DecryptBody>,
) -> Answer<DecryptedAnswer> {
    let request = DecryptRequest {
        scope: asked.scope,
        key: asked.body.key_id,
        ciphertext: asked.body.ciphertext.into_bytes(),
        nonce: asked.body.iv.0,
        aad: bytes_or_none(asked.body.aad),
        algorithm: asked.body.algorithm,
    };
    let decrypted = state.service.decrypt(&asked.context, request).await?;
    Ok(Json(DecryptedAnswer {
        plaintext: encode_base64(decrypted.plaintext.expose()),
        key_id: decrypted.key_id,
        algorithm: decrypted.algorithm,
        receipt_id: decrypted.receipt_id,
    }))
}

/// No associated data is the same as none of any length.
fn bytes_or_none(field: Option<Base64Bytes>) -> Bytes {
    field.map(Base64Bytes::into_bytes).unwrap_or_default()
}
