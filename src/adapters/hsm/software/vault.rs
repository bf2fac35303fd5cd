//! From a record and its sealed secret to a key that is ready to be used, and
//! back to nothing when the key is erased. Knows nothing of permits and of where
//! the work runs.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::{NewSecret, ParsedKey};
use super::kek::KeyEncryptionKey;
use super::seal::{self, SecretBinding};
use crate::adapters::cache::CoherentCache;
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle, KeyRecord};
use crate::ports::hsm::{GeneratedKey, HsmFault};

/// How many erased keys are remembered. A use that was permitted before its key
/// was erased ends within the deadline of its request, long before so many others
/// are erased.
const ERASED_REMEMBERED: usize = 65_536;

/// The key-encryption key, and the keys that it has opened lately.
pub(super) struct Vault {
    kek: KeyEncryptionKey,
    ready: CoherentCache<KeyId, Arc<ReadyKey>>,
    erased: Mutex<RecentlyErased>,
}

/// A parsed key, and what it was opened for.
pub(super) struct ReadyKey {
    binding: SecretBinding,
    pub(super) key: ParsedKey,
}

impl Vault {
    /// Keeps at most `capacity` keys ready, an RSA key taking about 8 KiB.
    pub(super) fn new(kek: KeyEncryptionKey, capacity: usize) -> Self {
        Self {
            kek,
            ready: CoherentCache::new(capacity),
            erased: Mutex::default(),
        }
    }

    /// The key of a record, if it is ready.
    ///
    /// # Errors
    /// [`HsmFault::SealBroken`] when the key of that id was opened for another
    /// scope or type than the record's.
    pub(super) fn ready(&self, record: &KeyRecord) -> Result<Option<Arc<ReadyKey>>, HsmFault> {
        match self.ready.get(&record.key_id) {
            // What the seal checks when a key is opened holds for a key that
            // is open already.
            Some(ready) if !ready.binding.is_of(record) => Err(HsmFault::SealBroken),
            ready => Ok(ready),
        }
    }

    /// Opens a sealed secret, parses it and keeps the key ready.
    ///
    /// # Errors
    /// [`HsmFault::SealBroken`] when it does not open for what it is said to be,
    /// and when the key was erased; [`HsmFault::MalformedKey`].
    pub(super) fn open(
        &self,
        binding: &SecretBinding,
        handle: &KeyHandle,
    ) -> Result<Arc<ReadyKey>, HsmFault> {
        // The ticket before the question: an erasure in between voids the one, an
        // earlier one answers the other.
        let ticket = self.ready.begin_fill();
        if self.lock_erased().contains(&binding.key_id) {
            return Err(HsmFault::SealBroken);
        }
        let ready = Arc::new(self.unseal(binding.clone(), handle)?);
        self.ready.fill(ticket, binding.key_id, Arc::clone(&ready));
        Ok(ready)
    }

    /// Makes a key, seals it, opens what was sealed and lets that prove itself. It
    /// is not kept ready, so that a key that no store takes is gone by being
    /// dropped.
    ///
    /// # Errors
    /// [`HsmFault::ProofFailed`]; [`HsmFault::Refused`].
    pub(super) fn make(&self, binding: SecretBinding) -> Result<GeneratedKey, HsmFault> {
        let new = NewSecret::generate(binding.key_type)?;
        self.seal_proven(binding, new)
    }

    fn seal_proven(
        &self,
        binding: SecretBinding,
        new: NewSecret,
    ) -> Result<GeneratedKey, HsmFault> {
        let handle = seal::seal(&self.kek, &binding, &new.secret)?;
        let stored = self.unseal(binding, &handle)?;
        new.prove(&stored.key)?;
        Ok(GeneratedKey {
            backend: HsmBackendName::Software,
            handle,
            public_key: new.public_key,
        })
    }

    /// Forgets a key for good: it is no longer ready, and what is still around of
    /// its sealed secret does not open here again.
    pub(super) fn erase(&self, key_id: KeyId) {
        self.lock_erased().remember(key_id);
        self.ready.invalidate(&key_id);
    }

    fn unseal(&self, binding: SecretBinding, handle: &KeyHandle) -> Result<ReadyKey, HsmFault> {
        let secret = seal::open(&self.kek, &binding, handle).map_err(|fault| {
            // The port's error has no room for the reason, and whoever restores a
            // backup with the wrong key needs it.
            tracing::error!(
                key_id = %binding.key_id,
                kek_id = %self.kek.id(),
                reason = %fault,
                "a sealed secret does not open"
            );
            HsmFault::SealBroken
        })?;
        let key = ParsedKey::parse(binding.key_type, &secret)?;
        Ok(ReadyKey { binding, key })
    }

    fn lock_erased(&self) -> std::sync::MutexGuard<'_, RecentlyErased> {
        // A set of ids is consistent, whoever panicked elsewhere.
        self.erased.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys that were erased last, so that a use permitted before does not bring
/// one back.
#[derive(Default)]
struct RecentlyErased {
    ids: HashSet<KeyId>,
    in_order: VecDeque<KeyId>,
}

impl RecentlyErased {
    fn remember(&mut self, key_id: KeyId) {
        if !self.ids.insert(key_id) {
            return;
        }
        self.in_order.push_back(key_id);
        if self.in_order.len() > ERASED_REMEMBERED
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    fn contains(&self, key_id: &KeyId) -> bool {
        self.ids.contains(key_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::algorithm::{KeyType, SigningAlgorithm};
    use crate::domain::key::tests::active_key;

    fn vault() -> Vault {
        let kek = KeyEncryptionKey::derive(&[1; 32]).expect("derives");
        Vault::new(kek, 10)
    }

    #[test]
    fn an_opened_key_is_ready_until_it_is_erased() {
        let vault = vault();
        let record = active_key();
        let binding = SecretBinding::of(&record);
        let made = vault.make(binding.clone()).expect("makes");
        assert!(matches!(vault.ready(&record), Ok(None)), "not by making it");
        vault.open(&binding, &made.handle).expect("opens");
        assert!(matches!(vault.ready(&record), Ok(Some(_))));
        vault.erase(record.key_id);
        assert!(matches!(vault.ready(&record), Ok(None)));
        let opened = vault.open(&binding, &made.handle).err();
        assert_eq!(opened, Some(HsmFault::SealBroken));
        assert!(matches!(vault.ready(&record), Ok(None)));
        vault.erase(record.key_id);
    }

    #[test]
    fn a_ready_key_is_not_found_for_another_scope_or_type() {
        let vault = vault();
        let record = active_key();
        let binding = SecretBinding::of(&record);
        let made = vault.make(binding.clone()).expect("makes");
        vault.open(&binding, &made.handle).expect("opens");
        let mut other = record.clone();
        other.scope.tenant_id = "other".parse().expect("valid");
        assert_eq!(vault.ready(&other).err(), Some(HsmFault::SealBroken));
        let mut other = record.clone();
        other.key_type = KeyType::Rsa2048;
        assert_eq!(vault.ready(&other).err(), Some(HsmFault::SealBroken));
        assert!(matches!(vault.ready(&record), Ok(Some(_))));
    }

    #[test]
    fn a_key_whose_halves_do_not_fit_is_not_handed_out() {
        let vault = vault();
        for key_type in [KeyType::Rsa2048, KeyType::Ed25519] {
            let binding = SecretBinding {
                key_type,
                ..SecretBinding::of(&active_key())
            };
            let mut new = NewSecret::generate(key_type).expect("generates");
            new.public_key = NewSecret::generate(key_type).expect("generates").public_key;
            let sealed = vault.seal_proven(binding, new).err();
            assert_eq!(sealed, Some(HsmFault::ProofFailed), "{key_type}");
        }
    }

    #[test]
    fn what_was_made_opens_as_the_key_that_was_proven() {
        let vault = vault();
        let binding = SecretBinding::of(&active_key());
        let made = vault.make(binding.clone()).expect("makes");
        let opened = vault.open(&binding, &made.handle).expect("opens");
        let signature = opened.key.sign(SigningAlgorithm::Ed25519, b"data");
        assert_eq!(signature.map(|signature| signature.len()), Ok(64));
    }

    #[test]
    fn only_so_many_erased_keys_are_remembered() {
        let mut erased = RecentlyErased::default();
        let id = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            KeyId::from_bytes(bytes)
        };
        let many = u32::try_from(ERASED_REMEMBERED).expect("fits") + 1;
        for number in 0..many {
            erased.remember(id(number));
            erased.remember(id(number));
        }
        assert!(!erased.contains(&id(0)));
        assert!(erased.contains(&id(1)) && erased.contains(&id(many - 1)));
        assert_eq!(erased.ids.len(), ERASED_REMEMBERED);
        assert_eq!(erased.in_order.len(), ERASED_REMEMBERED);
    }
}
