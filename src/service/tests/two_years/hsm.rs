//! A backend without cryptography, which knows which keys it has.

use std::collections::HashSet;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle};
use crate::domain::lifecycle_permit::{ErasePermit, GeneratePermit};
use crate::domain::permit::{Decrypt, Encrypt, Permit, Sign, Verify};
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Claim, Encrypted, GeneratedKey, HsmBackend, HsmError, HsmFault, Nonce};

pub(super) struct HollowHsm {
    name: HsmBackendName,
    holds: Mutex<HashSet<KeyId>>,
}

impl HollowHsm {
    pub(super) fn new(name: HsmBackendName) -> Self {
        Self {
            name,
            holds: Mutex::default(),
        }
    }

    pub(super) fn holds(&self) -> HashSet<KeyId> {
        self.holds.lock().unwrap().clone()
    }

    fn require(&self, key_id: KeyId) -> Result<(), HsmError> {
        match self.holds.lock().unwrap().contains(&key_id) {
            true => Ok(()),
            false => Err(HsmError::Fault(HsmFault::SealBroken)),
        }
    }
}

#[async_trait]
impl HsmBackend for HollowHsm {
    fn name(&self) -> HsmBackendName {
        self.name
    }

    fn algorithms(&self, key_type: KeyType) -> Result<Vec<Algorithm>, HsmError> {
        Ok(key_type.algorithms().to_vec())
    }

    async fn generate(&self, _: &GeneratePermit, key_id: KeyId) -> Result<GeneratedKey, HsmError> {
        assert!(self.holds.lock().unwrap().insert(key_id));
        Ok(GeneratedKey {
            backend: self.name,
            handle: KeyHandle::from_bytes(key_id.as_bytes().to_vec()),
            public_key: None,
            claim: Claim::default(),
        })
    }

    async fn discard(&self, key_id: KeyId) -> Result<(), HsmError> {
        self.holds.lock().unwrap().remove(&key_id);
        Ok(())
    }

    async fn sign(&self, permit: &Permit<Sign>, _: Bytes) -> Result<Vec<u8>, HsmError> {
        let key_id = permit.record().key_id;
        self.require(key_id)?;
        Ok(key_id.as_bytes().to_vec())
    }

    async fn verify(
        &self,
        permit: &Permit<Verify>,
        _: Bytes,
        signature: Bytes,
    ) -> Result<bool, HsmError> {
        let key_id = permit.record().key_id;
        self.require(key_id)?;
        Ok(signature == key_id.as_bytes().as_slice())
    }

    async fn encrypt(
        &self,
        _: &Permit<Encrypt>,
        _: Bytes,
        _: Bytes,
    ) -> Result<Encrypted, HsmError> {
        Err(HsmError::Fault(HsmFault::Refused))
    }

    async fn decrypt(
        &self,
        _: &Permit<Decrypt>,
        _: Nonce,
        _: Bytes,
        _: Bytes,
    ) -> Result<SecretBytes, HsmError> {
        Err(HsmError::Fault(HsmFault::Refused))
    }

    async fn erase(&self, permit: &ErasePermit) -> Result<(), HsmError> {
        self.holds.lock().unwrap().remove(&permit.record().key_id);
        Ok(())
    }

    async fn self_test(&self) -> Result<(), HsmError> {
        Ok(())
    }
}
