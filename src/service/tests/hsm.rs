//! A backend that keeps books: which keys it made, and which it threw away again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::adapters::hsm::software::SoftwareHsm;
use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::ids::KeyId;
use crate::domain::key::HsmBackendName;
use crate::domain::lifecycle_permit::{ErasePermit, GeneratePermit};
use crate::domain::permit::{Decrypt, Encrypt, Permit, PermittedBatch, Sign, Verify};
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Encrypted, GeneratedKey, HsmBackend, HsmError, HsmFault, Nonce};

pub(super) struct BookkeepingHsm {
    name: HsmBackendName,
    software: SoftwareHsm,
    /// Whether it makes and erases nothing for the moment.
    is_away: AtomicBool,
    /// The keys that it does not erase.
    stubborn: Mutex<BTreeSet<KeyId>>,
    /// The handles of the keys that are in the backend.
    holds: Mutex<BTreeMap<KeyId, Vec<u8>>>,
    /// The keys that were put away.
    put_away: Mutex<BTreeSet<KeyId>>,
    /// What goes wrong with the batches.
    batch_fault: Mutex<Option<BatchFault>>,
}

/// What can go wrong with a batch.
#[derive(Clone, Copy)]
pub(super) enum BatchFault {
    /// The key is not there.
    Missing,
    /// One result is.
    OneTooFew,
}

impl BookkeepingHsm {
    pub(super) fn new(name: HsmBackendName, software: SoftwareHsm) -> Self {
        Self {
            name,
            software,
            is_away: AtomicBool::new(false),
            stubborn: Mutex::default(),
            holds: Mutex::default(),
            put_away: Mutex::default(),
            batch_fault: Mutex::default(),
        }
    }

    /// Lets this go wrong with every batch from now on.
    pub(super) fn fail_batches(&self, fault: BatchFault) {
        *self.batch_fault.lock().unwrap() = Some(fault);
    }

    pub(super) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Does not erase this key any longer.
    pub(super) fn hold_on_to(&self, key_id: KeyId) {
        self.stubborn.lock().unwrap().insert(key_id);
    }

    fn require_there(&self) -> Result<(), HsmError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(HsmError::Unavailable("the token was pulled out".into())),
            false => Ok(()),
        }
    }

    /// The backend under the books.
    pub(super) fn software(&self) -> &SoftwareHsm {
        &self.software
    }

    /// Whether a key was put away.
    pub(super) fn has_put_away(&self, key_id: KeyId) -> bool {
        self.put_away.lock().unwrap().contains(&key_id)
    }

    /// The handles of the keys that were made and not thrown away or erased since.
    pub(super) fn holds(&self) -> BTreeSet<Vec<u8>> {
        self.holds.lock().unwrap().values().cloned().collect()
    }
}

#[async_trait]
impl HsmBackend for BookkeepingHsm {
    fn name(&self) -> HsmBackendName {
        self.name
    }

    fn algorithms(&self, key_type: KeyType) -> Result<Vec<Algorithm>, HsmError> {
        self.software.algorithms(key_type)
    }

    async fn generate(
        &self,
        permit: &GeneratePermit,
        key_id: KeyId,
    ) -> Result<GeneratedKey, HsmError> {
        self.require_there()?;
        let generated = self.software.generate(permit, key_id).await?;
        let handle = generated.handle.as_bytes().to_vec();
        self.holds.lock().unwrap().insert(key_id, handle);
        Ok(GeneratedKey {
            backend: self.name,
            ..generated
        })
    }

    async fn discard(&self, key_id: KeyId) -> Result<(), HsmError> {
        self.holds.lock().unwrap().remove(&key_id);
        self.software.discard(key_id).await
    }

    async fn sign(&self, permit: &Permit<Sign>, data: Bytes) -> Result<Vec<u8>, HsmError> {
        self.software.sign(permit, data).await
    }

    async fn sign_batch(
        &self,
        batch: PermittedBatch<'_, Sign, Bytes>,
    ) -> Result<Vec<Vec<u8>>, HsmError> {
        let mut signatures = self.software.sign_batch(batch).await?;
        let fault = *self.batch_fault.lock().unwrap();
        match fault {
            Some(BatchFault::Missing) => return Err(HsmError::Fault(HsmFault::Missing)),
            Some(BatchFault::OneTooFew) => drop(signatures.pop()),
            None => {}
        }
        Ok(signatures)
    }

    async fn verify(
        &self,
        permit: &Permit<Verify>,
        data: Bytes,
        signature: Bytes,
    ) -> Result<bool, HsmError> {
        self.software.verify(permit, data, signature).await
    }

    async fn encrypt(
        &self,
        permit: &Permit<Encrypt>,
        plaintext: Bytes,
        aad: Bytes,
    ) -> Result<Encrypted, HsmError> {
        self.software.encrypt(permit, plaintext, aad).await
    }

    async fn decrypt(
        &self,
        permit: &Permit<Decrypt>,
        nonce: Nonce,
        ciphertext: Bytes,
        aad: Bytes,
    ) -> Result<SecretBytes, HsmError> {
        self.software.decrypt(permit, nonce, ciphertext, aad).await
    }

    async fn erase(&self, permit: &ErasePermit) -> Result<(), HsmError> {
        self.require_there()?;
        let key_id = permit.record().key_id;
        if self.stubborn.lock().unwrap().contains(&key_id) {
            return Err(HsmError::Fault(HsmFault::Refused));
        }
        self.holds.lock().unwrap().remove(&key_id);
        self.software.erase(permit).await
    }

    fn put_away(&self, key_id: KeyId) {
        self.put_away.lock().unwrap().insert(key_id);
        self.software.put_away(key_id);
    }

    async fn self_test(&self) -> Result<(), HsmError> {
        self.software.self_test().await
    }
}
