//! From a record and its sealed secret to a key that is ready to be used, and
//! back to nothing when the key is erased. Knows nothing of permits and of where
//! the work runs.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::engine::{NewSecret, ParsedKey};
use super::kek::KeyEncryptionKey;
use super::ring::KekRing;
use super::seal::{self, SecretBinding};
use crate::adapters::cache::CoherentCache;
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle, KeyRecord};
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Claim, GeneratedKey, HsmFault};

/// How many erased keys are remembered. A use that was permitted before its key
/// was erased ends within the deadline of its request, long before so many others
/// are erased.
const ERASED_REMEMBERED: usize = 65_536;

/// What a key that is ready takes beside what was parsed, in bytes.
const READY_KEY_BYTES: u64 = 320;

/// The key-encryption keys, and the keys that they have opened lately.
pub(super) struct Vault {
    ring: ArcSwap<KekRing>,
    ready: CoherentCache<KeyId, Arc<ReadyKey>>,
    erased: Mutex<RecentlyErased>,
}

/// A parsed key, and what it was opened for.
pub(super) struct ReadyKey {
    binding: SecretBinding,
    pub(super) key: ParsedKey,
}

impl Vault {
    /// Keeps keys ready that together take about so many bytes.
    pub(super) fn new(ring: KekRing, bytes: usize) -> Self {
        let weight = |ready: &Arc<ReadyKey>| READY_KEY_BYTES + ready.key.bytes();
        Self {
            ring: ArcSwap::from_pointee(ring),
            ready: CoherentCache::weighing(bytes / (4 << 10), bytes as u64, weight),
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
        let ready = Arc::new(unseal(&self.ring.load(), binding.clone(), handle)?);
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

    /// Seals a secret that was just made, opens what was sealed and lets that prove
    /// itself.
    ///
    /// # Errors
    /// [`HsmFault::ProofFailed`]; [`HsmFault::Refused`].
    pub(super) fn seal_proven(
        &self,
        binding: SecretBinding,
        new: NewSecret,
    ) -> Result<GeneratedKey, HsmFault> {
        let ring = self.ring.load_full();
        let kek = Arc::clone(ring.sealing());
        let handle = seal::seal(&kek, &binding, &new.secret)?;
        let stored = unseal(&ring, binding, &handle)?;
        new.prove(&stored.key)?;
        Ok(GeneratedKey {
            backend: HsmBackendName::Software,
            handle,
            public_key: new.public_key,
            claim: Claim::on(kek),
        })
    }

    /// Keeps a key ready no longer, until it is opened again.
    pub(super) fn put_away(&self, key_id: KeyId) {
        self.ready.invalidate(&key_id);
    }

    /// Forgets a key for good: it is no longer ready, and what is still around of
    /// its sealed secret does not open here again.
    pub(super) fn erase(&self, key_id: KeyId) {
        self.lock_erased().remember(key_id);
        self.ready.invalidate(&key_id);
    }

    /// Seals a secret anew under the key that seals; `None` where it is already.
    /// What comes of it is as long as before, and was opened again.
    ///
    /// # Errors
    /// [`HsmFault::SealBroken`] when it does not open; [`HsmFault::Refused`].
    pub(super) fn reseal(
        &self,
        binding: &SecretBinding,
        handle: &KeyHandle,
    ) -> Result<Option<KeyHandle>, HsmFault> {
        let ring = self.ring.load_full();
        if is_sealed_by(ring.sealing(), handle) {
            return Ok(None);
        }
        let secret = open_sealed(&ring, binding, handle)?;
        let anew = seal::seal(ring.sealing(), binding, &secret)?;
        // The one copy there is will be overwritten by this.
        let proof = open_sealed(&ring, binding, &anew)?;
        if proof.expose() != secret.expose() || anew.as_bytes().len() != handle.as_bytes().len() {
            return Err(HsmFault::ProofFailed);
        }
        Ok(Some(anew))
    }

    /// Whether a secret is sealed under the key that seals.
    pub(super) fn is_sealed_anew(&self, handle: &KeyHandle) -> bool {
        is_sealed_by(self.ring.load().sealing(), handle)
    }

    /// From now on this key seals; those that were in use open.
    pub(super) fn seal_with(&self, kek: KeyEncryptionKey) {
        let kek = Arc::new(kek);
        self.ring.rcu(|ring| ring.led_by(Arc::clone(&kek)));
    }

    /// Forgets every key-encryption key but the one that seals.
    pub(super) fn forget_others(&self) {
        self.ring.rcu(|ring| ring.sealing_alone());
    }

    /// Whether a key may still come to be stored that is sealed under a key which
    /// no longer seals.
    pub(super) fn has_unsettled(&self) -> bool {
        // Whoever seals holds the key from before it seals until it is known whether
        // the store has what it made; a ring that was replaced counts while anybody
        // uses it. New holders come only through a ring in which the key seals.
        self.ring.load().others_are_held()
    }

    /// The key-encryption keys as they are now. Whoever holds them on holds up the end
    /// of those that no longer seal.
    pub(super) fn ring(&self) -> Arc<KekRing> {
        self.ring.load_full()
    }

    /// The id of the key that seals.
    pub(super) fn sealing_id(&self) -> String {
        self.ring.load().sealing().id()
    }

    fn lock_erased(&self) -> std::sync::MutexGuard<'_, RecentlyErased> {
        // A set of ids is consistent, whoever panicked elsewhere.
        self.erased.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_sealed_by(kek: &KeyEncryptionKey, handle: &KeyHandle) -> bool {
    seal::kek_id(handle.as_bytes()) == Some(&kek.id_bytes()[..])
}

fn unseal(
    ring: &KekRing,
    binding: SecretBinding,
    handle: &KeyHandle,
) -> Result<ReadyKey, HsmFault> {
    let secret = open_sealed(ring, &binding, handle)?;
    let key = ParsedKey::parse(binding.key_type, &secret)?;
    Ok(ReadyKey { binding, key })
}

fn open_sealed(
    ring: &KekRing,
    binding: &SecretBinding,
    handle: &KeyHandle,
) -> Result<SecretBytes, HsmFault> {
    seal::open(ring, binding, handle).map_err(|fault| {
        // The port's error has no room for the reason, and whoever restores a
        // backup with the wrong key needs it.
        tracing::error!(
            key_id = %binding.key_id,
            sealed_under = seal::sealed_under(handle.as_bytes()),
            kek_id = %ring.sealing().id(),
            reason = %fault,
            "a sealed secret does not open"
        );
        HsmFault::SealBroken
    })
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

    fn kek(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::derive(&[byte; 32]).expect("derives")
    }

    fn vault() -> Vault {
        Vault::new(KekRing::of(kek(1)), 1 << 20)
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
    fn a_key_that_was_put_away_is_not_ready_and_opens_again() {
        let vault = vault();
        let record = active_key();
        let binding = SecretBinding::of(&record);
        let made = vault.make(binding.clone()).expect("makes");
        vault.open(&binding, &made.handle).expect("opens");
        vault.put_away(record.key_id);
        assert!(matches!(vault.ready(&record), Ok(None)));
        assert!(vault.open(&binding, &made.handle).is_ok());
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
    fn several_keys_open_and_the_first_seals() {
        let vault = vault();
        let binding = SecretBinding::of(&active_key());
        let before = vault.make(binding.clone()).expect("makes").handle;
        assert!(vault.is_sealed_anew(&before));
        vault.seal_with(kek(2));
        let after = vault.make(binding.clone()).expect("makes").handle;
        let of_first = Some(kek(1).id());
        assert_eq!(seal::sealed_under(before.as_bytes()), of_first);
        assert_eq!(seal::sealed_under(after.as_bytes()), Some(kek(2).id()));
        assert!(!vault.is_sealed_anew(&before) && vault.is_sealed_anew(&after));
        for handle in [&before, &after] {
            vault.open(&binding, handle).expect("opens");
        }
        vault.forget_others();
        assert_eq!(
            vault.open(&binding, &before).err(),
            Some(HsmFault::SealBroken)
        );
        vault.open(&binding, &after).expect("opens");
    }

    #[test]
    fn a_key_that_is_sealed_anew_is_the_same_key_in_as_many_bytes() {
        let vault = vault();
        for key_type in KeyType::ALL {
            let binding = SecretBinding {
                key_type,
                ..SecretBinding::of(&active_key())
            };
            let made = vault.make(binding.clone()).expect("makes");
            assert_eq!(vault.reseal(&binding, &made.handle), Ok(None));
            let secret = open_sealed(&vault.ring.load(), &binding, &made.handle).expect("opens");
            vault.seal_with(kek(key_type as u8 + 2));
            let anew = vault.reseal(&binding, &made.handle).expect("reseals");
            let anew = anew.expect("was sealed under another key");
            assert!(vault.is_sealed_anew(&anew));
            assert_eq!(anew.as_bytes().len(), made.handle.as_bytes().len());
            vault.forget_others();
            let same = open_sealed(&vault.ring.load(), &binding, &anew).expect("opens");
            assert_eq!(same.expose(), secret.expose());
        }
    }

    #[test]
    fn what_does_not_open_for_its_row_is_not_sealed_anew() {
        let vault = vault();
        let binding = SecretBinding::of(&active_key());
        let made = vault.make(binding.clone()).expect("makes");
        vault.seal_with(kek(2));
        let other = SecretBinding::of(&active_key());
        let refused = Err(HsmFault::SealBroken);
        assert_eq!(vault.reseal(&other, &made.handle), refused);
        let foreign = Vault::new(KekRing::of(kek(3)), 1 << 20);
        assert_eq!(foreign.reseal(&binding, &made.handle), refused);
    }

    #[test]
    fn a_key_that_was_made_is_unsettled_until_somebody_knows_what_became_of_it() {
        let vault = vault();
        let made = vault.make(SecretBinding::of(&active_key())).expect("makes");
        assert!(
            !vault.has_unsettled(),
            "it is sealed under the key that seals"
        );
        vault.seal_with(kek(2));
        assert!(vault.has_unsettled());
        let later = vault.make(SecretBinding::of(&active_key())).expect("makes");
        drop(made);
        assert!(!vault.has_unsettled());
        drop(later);
        // Somebody who is about to seal holds the ring as it was.
        let ring = vault.ring.load_full();
        vault.seal_with(kek(3));
        assert!(vault.has_unsettled());
        drop(ring);
        assert!(!vault.has_unsettled());
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
