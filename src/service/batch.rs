//! Many uses of one key in one request: authorized once, each with a result and a
//! receipt of its own, and all receipts in one transaction.

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::pipeline::{KeyChoice, UsedBatch, Work};
use super::{KmsService, RequestContext};
use crate::domain::algorithm::{AeadAlgorithm, SigningAlgorithm};
use crate::domain::batch::{Batch, LARGEST_BATCH};
use crate::domain::error::KmsError;
use crate::domain::permit::{Decrypt, Encrypt, Permit, Sign, Verify};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Ciphertext, Encrypted, HsmBackend, HsmError, Plaintext, SignedMessage};

/// One batch may be signed for while another is written down.
const MOST_UNDER_WAY: usize = 2 * LARGEST_BATCH;

/// The receipts of batches that are being signed or wait for the store. They are
/// bounded, since a single use waits for all that were there before it: for the
/// async workers, and for the writer.
pub(super) struct ReceiptsUnderWay(Semaphore);

impl Default for ReceiptsUnderWay {
    fn default() -> Self {
        Self(Semaphore::new(MOST_UNDER_WAY))
    }
}

impl ReceiptsUnderWay {
    /// Waits for room for so many, in the order of asking. One alone needs none.
    pub(super) async fn room_for(&self, receipts: usize) -> Option<SemaphorePermit<'_>> {
        match u32::try_from(receipts.min(MOST_UNDER_WAY)) {
            // It is never closed.
            Ok(receipts) if receipts > 1 => self.0.acquire_many(receipts).await.ok(),
            _ => None,
        }
    }
}

/// Some only: nothing of these does not open.
fn all_there<T>(results: Vec<T>) -> Vec<Option<T>> {
    results.into_iter().map(Some).collect()
}

impl Work<Sign> for Batch<Bytes> {
    type Output = Vec<u8>;
    const RECEIPT: ReceiptOperation = ReceiptOperation::SignatureCreated;
    const HSM_CALL: &'static str = "sign_batch";

    fn uses(&self) -> usize {
        self.size()
    }

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Sign>,
    ) -> Result<Vec<Option<Vec<u8>>>, HsmError> {
        let batch = permit.batch(self.items().iter().cloned());
        hsm.sign_batch(batch).await.map(all_there)
    }
}

impl Work<Verify> for Batch<SignedMessage> {
    type Output = bool;
    const RECEIPT: ReceiptOperation = ReceiptOperation::SignatureVerified;
    const HSM_CALL: &'static str = "verify_batch";

    fn uses(&self) -> usize {
        self.size()
    }

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Verify>,
    ) -> Result<Vec<Option<bool>>, HsmError> {
        let batch = permit.batch(self.items().iter().cloned());
        hsm.verify_batch(batch).await.map(all_there)
    }

    fn succeeded(valid: &bool) -> bool {
        *valid
    }
}

impl Work<Encrypt> for Batch<Plaintext> {
    type Output = Encrypted;
    const RECEIPT: ReceiptOperation = ReceiptOperation::Encrypt;
    const HSM_CALL: &'static str = "encrypt_batch";

    fn uses(&self) -> usize {
        self.size()
    }

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Encrypt>,
    ) -> Result<Vec<Option<Encrypted>>, HsmError> {
        let batch = permit.batch(self.items().iter().cloned());
        hsm.encrypt_batch(batch).await.map(all_there)
    }
}

impl Work<Decrypt> for Batch<Ciphertext> {
    type Output = SecretBytes;
    const RECEIPT: ReceiptOperation = ReceiptOperation::Decrypt;
    const HSM_CALL: &'static str = "decrypt_batch";

    fn uses(&self) -> usize {
        self.size()
    }

    async fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<Decrypt>,
    ) -> Result<Vec<Option<SecretBytes>>, HsmError> {
        let batch = permit.batch(self.items().iter().cloned());
        hsm.decrypt_batch(batch).await
    }
}

impl KmsService {
    /// Signs each of these messages.
    ///
    /// # Errors
    /// As for [`KmsService::sign`], for what concerns all of them. A message that was
    /// past the daily limit has that error alone.
    pub async fn sign_batch(
        &self,
        context: &RequestContext,
        key: &KeyChoice<SigningAlgorithm>,
        messages: Batch<Bytes>,
    ) -> Result<UsedBatch<Vec<u8>>, KmsError> {
        self.use_key_for_each(context, key, &messages).await
    }

    /// Verifies each of these signatures.
    ///
    /// # Errors
    /// As for [`KmsService::sign_batch`].
    pub async fn verify_batch(
        &self,
        context: &RequestContext,
        key: &KeyChoice<SigningAlgorithm>,
        messages: Batch<SignedMessage>,
    ) -> Result<UsedBatch<bool>, KmsError> {
        self.use_key_for_each(context, key, &messages).await
    }

    /// Encrypts each of these messages, each under a nonce of its own.
    ///
    /// # Errors
    /// As for [`KmsService::sign_batch`]; the limit of encryptions ever, too, concerns
    /// one message.
    pub async fn encrypt_batch(
        &self,
        context: &RequestContext,
        key: &KeyChoice<AeadAlgorithm>,
        messages: Batch<Plaintext>,
    ) -> Result<UsedBatch<Encrypted>, KmsError> {
        self.use_key_for_each(context, key, &messages).await
    }

    /// Decrypts each of these.
    ///
    /// # Errors
    /// As for [`KmsService::sign_batch`]; a ciphertext that does not open has that
    /// error alone.
    pub async fn decrypt_batch(
        &self,
        context: &RequestContext,
        key: &KeyChoice<AeadAlgorithm>,
        sealed: Batch<Ciphertext>,
    ) -> Result<UsedBatch<SecretBytes>, KmsError> {
        self.use_key_for_each(context, key, &sealed).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_batches_of_the_largest_size_are_under_way_and_a_third_waits() {
        let under_way = ReceiptsUnderWay::default();
        let first = under_way.room_for(LARGEST_BATCH).await;
        let second = under_way.room_for(LARGEST_BATCH).await;
        assert!(first.is_some() && second.is_some());
        let mut third = Box::pin(under_way.room_for(2));
        tokio::select! {
            biased;
            _ = &mut third => panic!("there is no room"),
            // A single use waits for nobody.
            alone = under_way.room_for(1) => assert!(alone.is_none()),
        }
        drop(first);
        assert!(third.await.is_some());
    }
}
