//! Encrypting and decrypting.

use bytes::Bytes;

use super::pipeline::{UseRequest, Work};
use super::{KmsService, RequestContext};
use crate::domain::algorithm::{AeadAlgorithm, Algorithm};
use crate::domain::error::KmsError;
use crate::domain::ids::{KeyId, KeyRef, ReceiptId};
use crate::domain::permit::{Decrypt, Encrypt, Permit};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Encrypted, HsmBackend, HsmError, Nonce};

/// What to encrypt.
pub struct EncryptRequest {
    /// Where the key lives.
    pub scope: Scope,
    /// With which key.
    pub key: KeyRef,
    /// The message.
    pub plaintext: Bytes,
    /// What is authenticated beside it and must come again to decrypt.
    pub aad: Bytes,
    /// The algorithm; the key's default where absent.
    pub algorithm: Option<AeadAlgorithm>,
}

/// A ciphertext, given out.
pub struct EncryptedMessage {
    /// The ciphertext with its tag at the end, and its nonce.
    pub encrypted: Encrypted,
    /// The key.
    pub key_id: KeyId,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// What to decrypt.
pub struct DecryptRequest {
    /// Where the key lives.
    pub scope: Scope,
    /// With which key.
    pub key: KeyRef,
    /// The ciphertext with its tag at the end.
    pub ciphertext: Bytes,
    /// The nonce that the encryption answered.
    pub nonce: Nonce,
    /// What was authenticated beside it.
    pub aad: Bytes,
    /// The algorithm; the key's default where absent.
    pub algorithm: Option<AeadAlgorithm>,
}

/// A plaintext, given out.
pub struct Decrypted {
    /// The message.
    pub plaintext: SecretBytes,
    /// The key.
    pub key_id: KeyId,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

struct EncryptWork {
    plaintext: Bytes,
    aad: Bytes,
}

impl Work<Encrypt> for EncryptWork {
    type Output = Encrypted;
    const RECEIPT: ReceiptOperation = ReceiptOperation::Encrypt;

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Encrypt>,
    ) -> Result<Self::Output, HsmError> {
        hsm.encrypt(permit, self.plaintext.clone(), self.aad.clone())
            .await
    }
}

struct DecryptWork {
    ciphertext: Bytes,
    nonce: Nonce,
    aad: Bytes,
}

impl Work<Decrypt> for DecryptWork {
    type Output = SecretBytes;
    const RECEIPT: ReceiptOperation = ReceiptOperation::Decrypt;

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Decrypt>,
    ) -> Result<Self::Output, HsmError> {
        hsm.decrypt(
            permit,
            self.nonce,
            self.ciphertext.clone(),
            self.aad.clone(),
        )
        .await
    }
}

impl KmsService {
    /// Encrypts under a nonce of the service's own making.
    ///
    /// # Errors
    /// Those of the pipeline: see `pipeline::KmsService::use_key`.
    pub async fn encrypt(
        &self,
        context: &RequestContext,
        request: EncryptRequest,
    ) -> Result<EncryptedMessage, KmsError> {
        let work = EncryptWork {
            plaintext: request.plaintext,
            aad: request.aad,
        };
        let used = self
            .use_key(
                UseRequest {
                    context,
                    scope: &request.scope,
                    key: &request.key,
                    algorithm: request.algorithm,
                },
                &work,
            )
            .await?;
        Ok(EncryptedMessage {
            encrypted: used.output,
            key_id: used.key_id,
            algorithm: used.algorithm,
            receipt_id: used.receipt_id,
        })
    }

    /// Decrypts.
    ///
    /// # Errors
    /// Those of the pipeline, and one fixed refusal whatever of the ciphertext,
    /// nonce, associated data or key was wrong.
    pub async fn decrypt(
        &self,
        context: &RequestContext,
        request: DecryptRequest,
    ) -> Result<Decrypted, KmsError> {
        let work = DecryptWork {
            ciphertext: request.ciphertext,
            nonce: request.nonce,
            aad: request.aad,
        };
        let used = self
            .use_key(
                UseRequest {
                    context,
                    scope: &request.scope,
                    key: &request.key,
                    algorithm: request.algorithm,
                },
                &work,
            )
            .await?;
        Ok(Decrypted {
            plaintext: used.output,
            key_id: used.key_id,
            algorithm: used.algorithm,
            receipt_id: used.receipt_id,
        })
    }
}
