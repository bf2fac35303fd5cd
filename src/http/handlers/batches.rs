//! Many uses of one key in one request.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::choose;
use super::encryption::bytes_or_none;
use crate::domain::binary::encode_base64;
use crate::domain::error::KmsError;
use crate::http::HttpState;
use crate::http::dto::{
    BatchAnswer, DecryptBatchBody, DecryptedItem, EncryptBatchBody, EncryptedItem, ItemAnswer,
    ItemOutcome, Reference, SignBatchBody, SignedItem, Verdict, VerifiedItem, VerifyBatchBody,
};
use crate::http::error::{ApiError, failure_body};
use crate::http::extract::FromBody;
use crate::service::{Ciphertext, Plaintext, SignedMessage, UsedBatch};

/// `POST /kms/v1/sign/batch`
pub(crate) async fn sign(
    State(state): State<HttpState>,
    asked: FromBody<SignBatchBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (references, messages) = body
        .items
        .0
        .split(|item| (item.reference, item.data.into_bytes()));
    let service = &state.service;
    let signed = service
        .sign_batch(&asked.context, &choice, messages)
        .await?;
    answer(references, signed, |signature| SignedItem {
        signature: encode_base64(signature),
    })
    .await
}

/// `POST /kms/v1/verify/batch`
pub(crate) async fn verify(
    State(state): State<HttpState>,
    asked: FromBody<VerifyBatchBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (references, messages) = body.items.0.split(|item| {
        let message = SignedMessage {
            data: item.data.into_bytes(),
            signature: item.signature.into_bytes(),
        };
        (item.reference, message)
    });
    let service = &state.service;
    let verified = service
        .verify_batch(&asked.context, &choice, messages)
        .await?;
    answer(references, verified, |valid| VerifiedItem {
        valid,
        status: Verdict::of(valid).as_str(),
    })
    .await
}

/// `POST /kms/v1/encrypt/batch`
pub(crate) async fn encrypt(
    State(state): State<HttpState>,
    asked: FromBody<EncryptBatchBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (references, messages) = body.items.0.split(|item| {
        let message = Plaintext {
            plaintext: item.plaintext.into_bytes(),
            aad: bytes_or_none(item.aad),
        };
        (item.reference, message)
    });
    let service = &state.service;
    let encrypted = service
        .encrypt_batch(&asked.context, &choice, messages)
        .await?;
    answer(references, encrypted, |encrypted| EncryptedItem {
        ciphertext: encode_base64(&encrypted.ciphertext),
        iv: encode_base64(encrypted.nonce),
    })
    .await
}

/// `POST /kms/v1/decrypt/batch`
pub(crate) async fn decrypt(
    State(state): State<HttpState>,
    asked: FromBody<DecryptBatchBody>,
) -> Result<Response, ApiError> {
    let body = asked.body;
    let choice = choose(asked.scope, body.key_id, body.algorithm);
    let (references, sealed) = body.items.0.split(|item| {
        let sealed = Ciphertext {
            ciphertext: item.ciphertext.into_bytes(),
            nonce: item.iv.0,
            aad: bytes_or_none(item.aad),
        };
        (item.reference, sealed)
    });
    let service = &state.service;
    let decrypted = service
        .decrypt_batch(&asked.context, &choice, sealed)
        .await?;
    answer(references, decrypted, |plaintext| DecryptedItem {
        plaintext: encode_base64(plaintext.expose()),
    })
    .await
}

/// How many results are written where the request is: about 50 µs' worth.
const WRITTEN_HERE: usize = 100;

/// The answer of a batch. A thousand results in base64 and JSON take longer than an
/// async worker may be kept busy.
async fn answer<T: Send + 'static, A: Serialize>(
    references: Vec<Option<Reference>>,
    used: UsedBatch<T>,
    done: impl Fn(T) -> A + Send + 'static,
) -> Result<Response, ApiError> {
    let is_short = used.uses.len() <= WRITTEN_HERE;
    let write = move || serde_json::to_vec(&each_with_reference(references, used, done));
    let body = match is_short {
        true => write(),
        false => tokio::task::spawn_blocking(write)
            .await
            .map_err(KmsError::internal)?,
    };
    let body = body.map_err(KmsError::internal)?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

/// Each result with the caller's own name for it.
fn each_with_reference<T, A>(
    references: Vec<Option<Reference>>,
    used: UsedBatch<T>,
    done: impl Fn(T) -> A,
) -> BatchAnswer<A> {
    let (mut succeeded, mut failed) = (0, 0);
    let uses = references.into_iter().zip(used.uses);
    let results = uses
        .map(|(reference, one)| ItemAnswer {
            reference: reference.map(Reference::into_text),
            outcome: match one.outcome {
                Ok(output) => {
                    succeeded += 1;
                    ItemOutcome::Done(done(output))
                }
                Err(error) => {
                    failed += 1;
                    ItemOutcome::Failed {
                        error: failure_body(&error),
                    }
                }
            },
            receipt_id: one.receipt_id,
        })
        .collect();
    BatchAnswer {
        key_id: used.key_id,
        algorithm: used.algorithm,
        results,
        succeeded,
        failed,
    }
}
