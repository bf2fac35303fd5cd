//! Encrypting and decrypting.

use bytes::Bytes;

use super::pipeline::{KeyChoice, Used, Work};
use super::{KmsService, RequestContext};
use crate::domain::algorithm::AeadAlgorithm;
use crate::domain::error::KmsError;
use crate::domain::permit::{Decrypt, Encrypt, Permit};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Ciphertext, Encrypted, HsmBackend, HsmError, opened_or_not};

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
    ) -> Result<Vec<Option<Encrypted>>, HsmError> {
        let (plaintext, aad) = (self.plaintext.clone(), self.aad.clone());
        let encrypted = hsm.encrypt(permit, plaintext, aad).await?;
        Ok(vec![Some(encrypted)])
    }
}

impl Work<Decrypt> for Ciphertext {
    type Output = SecretBytes;
    const RECEIPT: ReceiptOperation = ReceiptOperation::Decrypt;

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Decrypt>,
    ) -> Result<Vec<Option<SecretBytes>>, HsmError> {
        let (ciphertext, aad) = (self.ciphertext.clone(), self.aad.clone());
        let opened = hsm.decrypt(permit, self.nonce, ciphertext, aad).await;
        Ok(vec![opened_or_not(opened)?])
    }
}

impl KmsService {
    /// Encrypts a message, authenticating `aad` beside it, under a nonce of the
    /// service's own making.
    ///
    /// # Errors
    /// As for [`KmsService::sign`].
    pub async fn encrypt(
        &self,
        context: &RequestContext,
        key: &KeyChoice<AeadAlgorithm>,
        plaintext: Bytes,
        aad: Bytes,
    ) -> Result<Used<Encrypted>, KmsError> {
        self.use_key(context, key, &EncryptWork { plaintext, aad })
            .await
    }

    /// Decrypts a message.
    ///
    /// # Errors
    /// As for [`KmsService::sign`], and one fixed refusal whatever of the
    /// ciphertext, nonce, associated data or key was wrong.
    pub async fn decrypt(
        &self,
        context: &RequestContext,
        key: &KeyChoice<AeadAlgorithm>,
        sealed: Ciphertext,
    ) -> Result<Used<SecretBytes>, KmsError> {
        self.use_key(context, key, &sealed).await
    }
}
