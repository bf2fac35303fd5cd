//! The uses of keys.

use axum::http::Method;

use super::USES;
use crate::http::dto::{
    BatchAnswer, DecryptBatchBody, DecryptBody, DecryptedItem, EncryptBatchBody, EncryptBody,
    EncryptedItem, SignBatchBody, SignBody, SignedItem, VerifiedItem, VerifyBatchBody, VerifyBody,
};
use crate::http::openapi::describe::{Described, DescribedObject, Schemas};
use crate::http::openapi::failures;
use crate::http::openapi::operation::Operation;
use crate::http::openapi::texts::Used;

const BATCH: &str = "1 to 1,000 of them with one key. What concerns the key or the caller refuses all of \
    them; an item fails alone past the daily limit, and where its ciphertext does not open.";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        each::<Used<SignedItem>, SignBody>("/kms/v1/sign", "sign", "Signs"),
        each::<Used<VerifiedItem>, VerifyBody>("/kms/v1/verify", "verify", "Verifies a signature")
            .about("A signature that is wrong is a result: 200 with `valid` false."),
        each::<Used<EncryptedItem>, EncryptBody>("/kms/v1/encrypt", "encrypt", "Encrypts").about(
            "Under a nonce that the service makes, with what is authenticated beside it (`aad`).",
        ),
        each::<Used<DecryptedItem>, DecryptBody>("/kms/v1/decrypt", "decrypt", "Decrypts")
            .about("What does not open says so in one way, whatever was wrong.")
            .fails(failures::of_a_ciphertext()),
        each::<BatchAnswer<SignedItem>, SignBatchBody>(
            "/kms/v1/sign/batch",
            "signBatch",
            "Signs many",
        )
        .about(BATCH),
        each::<BatchAnswer<VerifiedItem>, VerifyBatchBody>(
            "/kms/v1/verify/batch",
            "verifyBatch",
            "Verifies many signatures",
        )
        .about(BATCH),
        each::<BatchAnswer<EncryptedItem>, EncryptBatchBody>(
            "/kms/v1/encrypt/batch",
            "encryptBatch",
            "Encrypts many",
        )
        .about(BATCH),
        each::<BatchAnswer<DecryptedItem>, DecryptBatchBody>(
            "/kms/v1/decrypt/batch",
            "decryptBatch",
            "Decrypts many",
        )
        .about(BATCH),
    ]
}

fn each<A: Described, B: DescribedObject>(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    Operation::new::<A>(USES, Method::POST, path, id, summary)
        .body(Schemas::asked::<B>)
        .scoped()
        .approvable()
        .fails(failures::of_a_use())
}
