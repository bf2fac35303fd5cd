//! RSA pairs that were made beforehand, while nobody waited for one, and wait for a
//! key. They are in memory only, sealed like a stored secret, and each serves one key.
//! Knows nothing of where pairs are made.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::engine::NewSecret;
use super::seal::{self, SecretBinding};
use super::vault::Vault;
use crate::domain::algorithm::KeyType;
use crate::ports::hsm::{GeneratedKey, HsmFault};
use crate::telemetry::metrics::Metrics;

/// A pair that belongs to no key yet, sealed as stock.
pub(super) struct SealedPair {
    sealed: Vec<u8>,
    /// SPKI PEM.
    public_key: Option<String>,
}

impl SealedPair {
    /// Makes a pair and seals it. This takes 50 to 200 ms.
    ///
    /// # Errors
    /// [`HsmFault::Refused`] when the system gives no randomness.
    pub(super) fn make(vault: &Vault) -> Result<Self, HsmFault> {
        let new = NewSecret::generate(KeyType::Rsa2048)?;
        Self::seal(vault, new)
    }

    fn seal(vault: &Vault, new: NewSecret) -> Result<Self, HsmFault> {
        Ok(Self {
            // The ring is held for as long as this takes, and not while the pair is
            // made, so that pairs do not hold up a change of it.
            sealed: seal::seal_as_stock(vault.ring().sealing(), &new.secret)?,
            public_key: new.public_key,
        })
    }

    /// Makes this the pair of a key: opens it, seals it for the key, and lets what comes
    /// out of that seal prove itself. `None` where it is sealed under a key-encryption
    /// key that no longer seals. This takes less than a millisecond.
    ///
    /// # Errors
    /// [`HsmFault::SealBroken`]; [`HsmFault::ProofFailed`]; [`HsmFault::Refused`].
    pub(super) fn into_key(
        self,
        vault: &Vault,
        binding: SecretBinding,
    ) -> Result<Option<GeneratedKey>, HsmFault> {
        if !self.is_current(vault) {
            return Ok(None);
        }
        let secret = seal::open_stock(&vault.ring(), &self.sealed).map_err(|fault| {
            tracing::error!(reason = %fault, "a key pair in stock does not open");
            HsmFault::SealBroken
        })?;
        let public_key = self.public_key;
        let new = NewSecret { secret, public_key };
        vault.seal_proven(binding, new).map(Some)
    }

    /// Whether it is sealed under the key that seals.
    fn is_current(&self, vault: &Vault) -> bool {
        seal::kek_id(&self.sealed) == Some(&vault.ring().sealing().id_bytes()[..])
    }
}

/// A bounded number of pairs that are ready.
pub(super) struct Stock {
    capacity: usize,
    shelf: Mutex<Shelf>,
    metrics: OnceLock<Arc<Metrics>>,
}

#[derive(Default)]
struct Shelf {
    pairs: VecDeque<SealedPair>,
    is_filled_up: bool,
    is_one_being_made: bool,
}

impl Stock {
    /// A stock of at most so many pairs, about 2 KiB each. It takes none before
    /// [`Stock::open`].
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            shelf: Mutex::default(),
            metrics: OnceLock::new(),
        }
    }

    /// From now on these metrics say how many pairs are ready.
    pub(super) fn report_to(&self, metrics: Arc<Metrics>) {
        let _ = self.metrics.set(metrics);
    }

    /// Counts the pair that a new key was given.
    pub(super) fn count_pair(&self, was_in_stock: bool) {
        if let Some(metrics) = self.metrics.get() {
            metrics.count_rsa_pair(was_in_stock);
        }
    }

    /// From now on there may be room; whether there is ever any.
    pub(super) fn open(&self) -> bool {
        self.lock().is_filled_up = true;
        self.capacity > 0
    }

    /// From now on there is no room. What is ready may still be taken.
    pub(super) fn close(&self) {
        self.lock().is_filled_up = false;
    }

    /// Takes the pair that has waited longest, for good.
    pub(super) fn take(&self) -> Option<SealedPair> {
        let mut shelf = self.lock();
        let taken = shelf.pairs.pop_front();
        self.report(&shelf);
        taken
    }

    /// Room for one more pair; `None` when it is full, and while another pair is
    /// being made.
    pub(super) fn room(self: &Arc<Self>) -> Option<Room> {
        let mut shelf = self.lock();
        let has_room =
            shelf.is_filled_up && !shelf.is_one_being_made && shelf.pairs.len() < self.capacity;
        has_room.then(|| {
            shelf.is_one_being_made = true;
            Room(Arc::clone(self))
        })
    }

    /// Drops every pair.
    pub(super) fn clear(&self) {
        let mut shelf = self.lock();
        shelf.pairs.clear();
        self.report(&shelf);
    }

    /// Under the lock, so that the last word is the newest.
    fn report(&self, shelf: &Shelf) {
        if let Some(metrics) = self.metrics.get() {
            metrics.set_rsa_stock(shelf.pairs.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Every step under the lock leaves a whole shelf.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for a pair that is being made. It is given back in any case.
pub(super) struct Room(Arc<Stock>);

impl Room {
    /// Puts a pair there, unless the key-encryption key was replaced while it was made.
    pub(super) fn fill(self, pair: SealedPair, vault: &Vault) {
        let mut shelf = self.0.lock();
        // Under the lock: whoever replaces the key clears the stock after that, and
        // so comes either before this look or behind this pair.
        if shelf.is_filled_up && pair.is_current(vault) {
            shelf.pairs.push_back(pair);
            self.0.report(&shelf);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.lock().is_one_being_made = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::kek::KeyEncryptionKey;
    use super::super::ring::KekRing;
    use super::*;
    use crate::adapters::hsm::public_key::PublicKey;
    use crate::domain::algorithm::SigningAlgorithm;
    use crate::domain::key::KeyHandle;
    use crate::domain::key::tests::active_key;
    use crate::domain::secret::SecretBytes;

    static_assertions::assert_not_impl_any!(SealedPair: Clone, std::fmt::Debug);

    fn kek(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::derive(&[byte; 32]).expect("derives")
    }

    fn vault() -> Vault {
        Vault::new(KekRing::of(kek(1)), 1 << 20)
    }

    fn rsa_binding() -> SecretBinding {
        SecretBinding {
            key_type: KeyType::Rsa2048,
            ..SecretBinding::of(&active_key())
        }
    }

    /// No pair, but told from others by its name, and made at once.
    fn dummy(vault: &Vault, name: &str) -> SealedPair {
        let new = NewSecret {
            secret: SecretBytes::new(vec![7; 1200]),
            public_key: Some(name.to_owned()),
        };
        SealedPair::seal(vault, new).expect("seals")
    }

    fn stock(capacity: usize) -> Arc<Stock> {
        let stock = Arc::new(Stock::new(capacity));
        assert_eq!(stock.open(), capacity > 0);
        stock
    }

    fn put(stock: &Arc<Stock>, vault: &Vault, name: &str) {
        let room = stock.room().expect("there is room");
        room.fill(dummy(vault, name), vault);
    }

    fn taken(stock: &Stock) -> Option<String> {
        stock.take().and_then(|pair| pair.public_key)
    }

    #[test]
    fn a_pair_is_given_out_once_and_the_oldest_first() {
        let (stock, vault) = (stock(3), vault());
        for name in ["one", "two", "three"] {
            put(&stock, &vault, name);
        }
        assert_eq!(taken(&stock).as_deref(), Some("one"));
        assert_eq!(taken(&stock).as_deref(), Some("two"));
        assert_eq!(taken(&stock).as_deref(), Some("three"));
        assert_eq!(taken(&stock), None);
    }

    #[test]
    fn a_full_stock_has_no_room_until_a_pair_is_taken() {
        let (stock, vault) = (stock(2), vault());
        put(&stock, &vault, "one");
        put(&stock, &vault, "two");
        assert!(stock.room().is_none());
        stock.take().expect("is there");
        put(&stock, &vault, "three");
        assert!(stock.room().is_none());
    }

    #[test]
    fn one_pair_is_made_at_a_time_and_one_that_fails_leaves_its_room() {
        let (stock, vault) = (stock(2), vault());
        let room = stock.room().expect("there is room");
        assert!(stock.room().is_none(), "one is being made");
        drop(room);
        put(&stock, &vault, "one");
        put(&stock, &vault, "two");
    }

    #[test]
    fn there_is_room_only_between_opening_and_closing_and_none_in_a_stock_of_none() {
        assert!(stock(0).room().is_none());

        let (stock, vault) = (Arc::new(Stock::new(2)), vault());
        assert!(stock.room().is_none());
        stock.open();
        put(&stock, &vault, "one");
        let room = stock.room().expect("there is room");
        stock.close();
        room.fill(dummy(&vault, "two"), &vault);
        assert!(stock.room().is_none());
        assert_eq!(taken(&stock).as_deref(), Some("one"));
        assert_eq!(taken(&stock), None, "it came after the end");
    }

    #[test]
    fn what_is_in_memory_of_a_pair_is_sealed() {
        let vault = vault();
        let new = NewSecret::generate(KeyType::Rsa2048).expect("generates");
        let secret = new.secret.expose().to_vec();
        let pair = SealedPair::seal(&vault, new).expect("seals");
        for window in secret.windows(8) {
            let is_open = pair.sealed.windows(8).any(|sealed| sealed == window);
            assert!(!is_open, "a part of the secret is to be read");
        }
        let opened = seal::open_stock(&vault.ring(), &pair.sealed).expect("opens");
        assert_eq!(opened.expose(), secret);
    }

    #[test]
    fn a_pair_in_stock_is_no_keys_handle_and_a_keys_handle_no_pair_in_stock() {
        let vault = vault();
        let pair = SealedPair::make(&vault).expect("makes");
        let as_handle = KeyHandle::from_bytes(pair.sealed.clone());
        let opened = vault.open(&rsa_binding(), &as_handle).err();
        assert_eq!(opened, Some(HsmFault::SealBroken));

        let made = vault.make(rsa_binding()).expect("makes");
        let as_pair = SealedPair {
            sealed: made.handle.as_bytes().to_vec(),
            public_key: made.public_key,
        };
        let key = as_pair.into_key(&vault, rsa_binding()).err();
        assert_eq!(key, Some(HsmFault::SealBroken));
    }

    #[test]
    fn a_pair_becomes_the_key_it_is_taken_for_and_no_other() {
        let vault = vault();
        let binding = rsa_binding();
        let pair = SealedPair::make(&vault).expect("makes");
        let key = pair.into_key(&vault, binding.clone()).expect("opens");
        let key = key.expect("the key-encryption key is the same");
        let public = PublicKey::parse(KeyType::Rsa2048, &key.public_key.expect("has one"));
        let opened = vault.open(&binding, &key.handle).expect("opens");
        let algorithm = SigningAlgorithm::RsaPssSha256;
        let signature = opened.key.sign(algorithm, b"data").expect("signs");
        let verified = public.and_then(|public| public.verify(algorithm, b"data", &signature));
        assert_eq!(verified, Ok(true));
        let other = vault.open(&rsa_binding(), &key.handle).err();
        assert_eq!(other, Some(HsmFault::SealBroken));
    }

    #[test]
    fn a_pair_whose_halves_do_not_fit_becomes_no_key() {
        let vault = vault();
        let mut pair = SealedPair::make(&vault).expect("makes");
        pair.public_key = SealedPair::make(&vault).expect("makes").public_key;
        let key = pair.into_key(&vault, rsa_binding()).err();
        assert_eq!(key, Some(HsmFault::ProofFailed));
    }

    #[test]
    fn a_pair_under_a_key_encryption_key_that_was_replaced_is_not_used() {
        let (stock, vault) = (stock(4), vault());
        put(&stock, &vault, "in stock");
        let taken_before = stock.take().expect("is there");
        put(&stock, &vault, "in stock");
        let room = stock.room().expect("there is room");
        let being_made = dummy(&vault, "being made");
        vault.seal_with(kek(2));
        assert!(!vault.has_unsettled(), "stock holds nothing up");
        stock.clear();
        room.fill(being_made, &vault);
        assert_eq!(taken(&stock), None);
        assert!(matches!(
            taken_before.into_key(&vault, rsa_binding()),
            Ok(None)
        ));
        put(&stock, &vault, "after");
        assert_eq!(taken(&stock).as_deref(), Some("after"));
    }

    #[test]
    fn the_metric_says_how_many_are_ready() {
        let (stock, vault) = (stock(4), vault());
        let metrics = Arc::new(Metrics::new("test").expect("names are unique"));
        stock.report_to(Arc::clone(&metrics));
        let says = |number: usize| {
            let text = String::from_utf8(metrics.render().expect("encodes")).expect("UTF-8");
            assert!(
                text.contains(&format!("\nkms_rsa_stock {number}\n")),
                "{text}"
            );
        };
        says(0);
        put(&stock, &vault, "one");
        put(&stock, &vault, "two");
        says(2);
        stock.take().expect("is there");
        says(1);
        stock.clear();
        says(0);
    }
}
