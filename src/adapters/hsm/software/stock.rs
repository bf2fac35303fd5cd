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
