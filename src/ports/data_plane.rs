//! `DataPlane` (M29): the store of keys, counts and anchors, and of the ledger.

use std::sync::Arc;

use async_trait::async_trait;

use super::handle_store::HandleStore;
use super::ledger_store::LedgerStore;
use super::upkeep_store::UpkeepStore;
use crate::domain::algorithm::KeyType;
use crate::domain::approval::Grant;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef, TrustAnchorId};
use crate::domain::key::{KeyRecord, KeyState, StoredKey};
use crate::domain::receipt::SignedReceipt;
use crate::domain::scope::Scope;
use crate::domain::trust_anchor::TrustAnchor;
use crate::domain::usage::{UsageCount, UsageCounter, UsageReservation};

/// The store.
///
/// **Atomic:** a [`Transaction`] is kept whole or not at all, and its receipts
/// get consecutive places in the ledger's one dense order (0, 1, 2, …) which
/// nothing changes or removes afterwards. When [`commit`] answers, all of it is
/// durable: it survives a power cut. Many transactions share one durable write.
///
/// **Scope is part of every look-up:** a key of another scope is looked for in
/// the same way, and takes the same time, as one that does not exist.
///
/// **Conditions are compared when the transaction is kept**, not when it was
/// made: a change names the version it was decided on, and a use names the
/// version of the key that it was permitted for. So the ledger's order is the
/// order in which things happened: no use stands behind the revocation of its key.
///
/// **An abandoned commit** may or may not be kept: its future was dropped, or it
/// was answered [`Unavailable`] because the disk took longer than its deadline.
///
/// [`commit`]: DataPlane::commit
#[async_trait]
pub trait DataPlane: LedgerStore + HandleStore + UpkeepStore {
    /// The key that a reference names in a scope. An alias names the active key
    /// that bears it.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn find_key(
        &self,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<Option<Arc<StoredKey>>, Unavailable>;

    /// One page of a scope's keys, oldest first.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn list_keys(&self, query: KeyQuery) -> Result<KeyPage, Unavailable>;

    /// One page of a line of rotations, oldest first.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn list_line(&self, query: LineQuery) -> Result<KeyPage, Unavailable>;

    /// The live count of a key's uses; the same counter for everyone who asks
    /// while anyone holds it, starting from what was kept.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn usage_counter(&self, key_id: KeyId) -> Result<Arc<UsageCounter>, Unavailable>;

    /// What is known of a key's uses now: its live count where there is one, else
    /// what was kept. For whoever only looks.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn usage_count(&self, key_id: KeyId) -> Result<UsageCount, Unavailable>;

    /// Keeps a transaction, durably. On success every reservation in it is kept,
    /// on failure given back.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when a condition no longer holds, and
    /// [`CommitError::Unavailable`]; nothing of the transaction is kept then.
    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError>;

    /// Pins a value to a name: stores it if the name has none yet, and answers what
    /// is stored, durably. Only [`HandleStore::move_pin`] changes it afterwards.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn pin(&self, name: &'static str, value: &[u8]) -> Result<Vec<u8>, Unavailable>;

    /// Writes something, durably, and reads it back: the health check. When it
    /// answers, every commit that was begun before it is decided, abandoned ones
    /// too: what is read from then on tells whether they were kept.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn probe_write(&self) -> Result<(), Unavailable>;

    /// A trust anchor of a scope by its id.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn find_trust_anchor(
        &self,
        scope: &Scope,
        trust_anchor_id: TrustAnchorId,
    ) -> Result<Option<TrustAnchor>, Unavailable>;

    /// One page of a scope's trust anchors, oldest first.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn list_trust_anchors(&self, query: AnchorQuery) -> Result<AnchorPage, Unavailable>;

    /// Every trust anchor of every scope, to put them in force.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn all_trust_anchors(&self) -> Result<Vec<TrustAnchor>, Unavailable>;

    /// Whether a grant of this token id was spent. Only to spare work: the
    /// transaction decides.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn is_grant_spent(&self, token_id: &str) -> Result<bool, Unavailable>;

    /// Reads the trust anchors' table: the health check. Answers their number.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn count_trust_anchors(&self) -> Result<u64, Unavailable>;

    /// How many keys there are of each type and state, from memory.
    fn key_counts(&self) -> KeyCounts;

    /// Finishes what is under way and refuses what comes after: the last step
    /// of an orderly shutdown.
    async fn close(&self);
}

/// What belongs together.
#[derive(Debug, Default)]
pub struct Transaction {
    /// The uses of a key that this is about, if it is about any.
    pub key_use: Option<KeyUseMark>,
    /// Changes of keys and anchors, in this order.
    pub changes: Vec<Change>,
    /// Receipts, in this order. Never empty: nothing happens without a receipt.
    pub receipts: Vec<SignedReceipt>,
}

impl Transaction {
    /// The grants that this spends.
    pub fn spent_grants(&self) -> impl Iterator<Item = &Grant> {
        self.changes.iter().filter_map(|change| match change {
            Change::SpendGrant(grant) => Some(grant),
            _ => None,
        })
    }
}

/// The counted uses of a key at the version they were permitted for: one, or those
/// of a batch.
#[derive(Debug)]
pub struct KeyUseMark {
    /// The key.
    pub key_id: KeyId,
    /// The version of its record when the permit was made.
    pub version: u64,
    /// The uses, counted already; kept with the transaction.
    pub reservation: UsageReservation,
    /// Whether they took as long as an RSA signature or a call to a token: a moment more
    /// for the receipt is little beside that.
    pub took_long: bool,
}

/// One change.
#[derive(Debug)]
pub enum Change {
    /// A new key. Conflicts when its id exists, when another active key of its scope
    /// bears its alias, and where its backend keeps it itself, when it was not
    /// announced or was given up.
    InsertKey(StoredKey),
    /// A new version of a key's record. Conflicts unless the version kept is one
    /// less. Where the new state is `destroyed` the handle is erased with it.
    UpdateKey(KeyRecord),
    /// A new trust anchor. Conflicts when its scope has one of that fingerprint.
    InsertTrustAnchor(TrustAnchor),
    /// The end of a trust anchor. Conflicts when the scope has none of that id.
    RemoveTrustAnchor {
        /// Whose it is.
        scope: Scope,
        /// Which.
        trust_anchor_id: TrustAnchorId,
    },
    /// An approver's word that was acted on. Conflicts when a grant of that token
    /// id was spent before; it is remembered at least until it is no longer usable.
    SpendGrant(Grant),
}

/// Which condition of a transaction no longer held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The key has changed since it was looked up.
    #[error("the key has changed meanwhile")]
    KeyChanged,
    /// Another active key of the scope bears the alias.
    #[error("the alias belongs to another active key")]
    AliasTaken,
    /// The scope has this anchor.
    #[error("the trust anchor is there already")]
    DuplicateAnchor,
    /// The scope does not have this anchor, or no longer.
    #[error("the trust anchor is not there")]
    AnchorGone,
    /// The approval was acted on before.
    #[error("the approval was used already")]
    GrantSpent,
    /// The making of the key was given up.
    #[error("the making of the key took too long, and was given up")]
    GivenUp,
}

/// The store cannot be reached, is full or failed; the cause is for the log.
#[derive(Debug, thiserror::Error)]
#[error("the store is unavailable")]
pub struct Unavailable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Why a transaction was not kept.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A condition no longer held.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The store failed.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Which keys of a scope to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyQuery {
    /// The scope.
    pub scope: Scope,
    /// Only those in this state.
    pub key_state: Option<KeyState>,
    /// Only those of this type.
    pub key_type: Option<KeyType>,
    /// Only those that bear, or bore, this alias.
    pub key_alias: Option<KeyAlias>,
    /// Only those after this key.
    pub after: Option<KeyId>,
    /// At most so many.
    pub limit: usize,
}

/// Which keys of a line of rotations to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineQuery {
    /// The scope.
    pub scope: Scope,
    /// The line: the id of its first key.
    pub line_id: KeyId,
    /// Only those after so many rotations.
    pub after: Option<u32>,
    /// At most so many.
    pub limit: usize,
}

/// One page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys, by id.
    pub keys: Vec<KeyRecord>,
    /// Whether there are more after the last.
    pub has_more: bool,
}

/// Which trust anchors of a scope to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorQuery {
    /// The scope.
    pub scope: Scope,
    /// Only those after this one.
    pub after: Option<TrustAnchorId>,
    /// At most so many.
    pub limit: usize,
}

/// One page of trust anchors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorPage {
    /// The anchors, by id.
    pub anchors: Vec<TrustAnchor>,
    /// Whether there are more after the last.
    pub has_more: bool,
}

/// How many keys there are of each type and state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    counts: [[u64; KeyState::ALL.len()]; KeyType::ALL.len()],
}

impl KeyCounts {
    /// The number of keys of this type in this state.
    pub fn get(&self, key_type: KeyType, key_state: KeyState) -> u64 {
        self.counts[key_type as usize][key_state as usize]
    }

    /// Counts one more.
    pub fn add(&mut self, key_type: KeyType, key_state: KeyState, number: u64) {
        self.counts[key_type as usize][key_state as usize] += number;
    }

    /// Counts one key that went from one state to another.
    pub fn step(&mut self, key_type: KeyType, from: KeyState, to: KeyState) {
        let counts = &mut self.counts[key_type as usize];
        counts[from as usize] = counts[from as usize].saturating_sub(1);
        counts[to as usize] += 1;
    }
}
