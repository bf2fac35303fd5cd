//! The data plane in memory: for tests, and for trying the service out. Keeps to
//! the port's contract in everything but durability: it forgets when it goes.

mod handles;
mod ledger;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::ledger::Ledger;
use self::upkeep::{Announced, DueKeys};
use super::spent_grants::{FORGOTTEN_AT_ONCE, forgettable_before};
use crate::domain::approval::Grant;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef, TrustAnchorId};
use crate::domain::key::{KeyRecord, KeyState, StoredKey};
use crate::domain::receipt::SignedReceipt;
use crate::domain::scope::Scope;
use crate::domain::trust_anchor::TrustAnchor;
use crate::domain::usage::{UsageCount, UsageCounter};
use crate::ports::data_plane::{
    AnchorPage, AnchorQuery, Change, CommitError, Conflict, DataPlane, KeyCounts, KeyPage,
    KeyQuery, LineQuery, Transaction, Unavailable,
};
use crate::ports::upkeep_store::Lease;

/// The data plane in memory.
#[derive(Default)]
pub struct MemoryDataPlane(Mutex<State>);

#[derive(Default)]
struct State {
    is_closed: bool,
    /// By scope first, then by age.
    keys: BTreeMap<(Scope, KeyId), Arc<StoredKey>>,
    scopes: HashMap<KeyId, Scope>,
    due: DueKeys,
    active_aliases: HashMap<(Scope, KeyAlias), KeyId>,
    usage: HashMap<KeyId, Arc<UsageCounter>>,
    anchors: BTreeMap<(Scope, TrustAnchorId), TrustAnchor>,
    fingerprints: HashSet<(Scope, String)>,
    spent_grants: HashSet<String>,
    /// The same by their ends, in microseconds.
    spent_grants_by_end: BTreeSet<(i64, String)>,
    ledger: Ledger,
    pins: HashMap<&'static str, Vec<u8>>,
    leases: HashMap<&'static str, Lease>,
    intents: HashMap<KeyId, Announced>,
}

/// Why the store in memory is unavailable.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum MemoryFault {
    #[error("the store is closed")]
    Closed,
    #[error("the receipt is kept already")]
    ReceiptTwice,
    #[error("the ledger has not begun")]
    LedgerNotBegun,
    #[error("a handle is replaced by one of the same length")]
    HandleOfAnotherLength,
    #[error("nothing is pinned to this name")]
    NotPinned,
}

impl From<MemoryFault> for Unavailable {
    fn from(fault: MemoryFault) -> Self {
        Self(Box::new(fault))
    }
}

impl MemoryDataPlane {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, Unavailable> {
        let state = self.lock();
        if state.is_closed {
            return Err(MemoryFault::Closed.into());
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DataPlane for MemoryDataPlane {
    async fn find_key(
        &self,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<Option<Arc<StoredKey>>, Unavailable> {
        let state = self.open()?;
        let key_id = match key {
            KeyRef::Id(key_id) => Some(*key_id),
            KeyRef::Alias(alias) => state
                .active_aliases
                .get(&(scope.clone(), alias.clone()))
                .copied(),
        };
        Ok(key_id.and_then(|key_id| state.keys.get(&(scope.clone(), key_id)).cloned()))
    }

    async fn list_keys(&self, query: KeyQuery) -> Result<KeyPage, Unavailable> {
        let state = self.open()?;
        let matches = |key: &KeyRecord| {
            query.key_state.is_none_or(|state| state == key.key_state)
                && query.key_type.is_none_or(|kind| kind == key.key_type)
                && (query.key_alias.is_none() || query.key_alias == key.key_alias)
                && query.after.is_none_or(|after| after < key.key_id)
        };
        let first = (query.scope.clone(), KeyId::from_bytes([0; 16]));
        let mut found = state
            .keys
            .range(first..)
            .take_while(|((scope, _), _)| *scope == query.scope)
            .map(|(_, key)| &key.record)
            .filter(|key| matches(key));
        let keys = found.by_ref().take(query.limit).cloned().collect();
        let has_more = found.next().is_some();
        Ok(KeyPage { keys, has_more })
    }

    async fn list_line(&self, query: LineQuery) -> Result<KeyPage, Unavailable> {
        let state = self.open()?;
        let mut keys: Vec<KeyRecord> = state
            .keys
            .values()
            .map(|key| &key.record)
            .filter(|key| key.scope == query.scope && key.line_id == query.line_id)
            .filter(|key| query.after.is_none_or(|after| after < key.rotation_count))
            .cloned()
            .collect();
        keys.sort_unstable_by_key(|key| key.rotation_count);
        let has_more = keys.len() > query.limit;
        keys.truncate(query.limit);
        Ok(KeyPage { keys, has_more })
    }

    async fn usage_counter(&self, key_id: KeyId) -> Result<Arc<UsageCounter>, Unavailable> {
        Ok(Arc::clone(self.open()?.usage.entry(key_id).or_default()))
    }

    async fn usage_count(&self, key_id: KeyId) -> Result<UsageCount, Unavailable> {
        let counter = self.open()?.usage.get(&key_id).cloned();
        Ok(counter.map_or_else(UsageCount::default, |counter| counter.count()))
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError> {
        let mut state = self.open()?;
        let receipts = state.ledger.signed_now(&transaction.receipts)?;
        state.check_use_and_receipts(&transaction)?;
        let forgettable = forgettable_before(transaction.spent_grants());
        state.apply(transaction.changes)?;
        if let Some(end) = forgettable {
            state.forget_grants_before(end);
        }
        state.ledger.append(receipts);
        if let Some(key_use) = transaction.key_use {
            key_use.reservation.keep();
        }
        Ok(())
    }

    async fn pin(&self, name: &'static str, value: &[u8]) -> Result<Vec<u8>, Unavailable> {
        let mut state = self.open()?;
        Ok(state.pins.entry(name).or_insert(value.to_vec()).clone())
    }

    async fn probe_write(&self) -> Result<(), Unavailable> {
        self.open().map(drop)
    }

    async fn find_trust_anchor(
        &self,
        scope: &Scope,
        trust_anchor_id: TrustAnchorId,
    ) -> Result<Option<TrustAnchor>, Unavailable> {
        let name = (scope.clone(), trust_anchor_id);
        Ok(self.open()?.anchors.get(&name).cloned())
    }

    async fn list_trust_anchors(&self, query: AnchorQuery) -> Result<AnchorPage, Unavailable> {
        let state = self.open()?;
        let first = (query.scope.clone(), TrustAnchorId::from_bytes([0; 16]));
        let mut found = state
            .anchors
            .range(first..)
            .take_while(|((scope, _), _)| *scope == query.scope)
            .filter(|((_, id), _)| query.after.is_none_or(|after| after < *id))
            .map(|(_, anchor)| anchor);
        let anchors = found.by_ref().take(query.limit).cloned().collect();
        let has_more = found.next().is_some();
        Ok(AnchorPage { anchors, has_more })
    }

    async fn all_trust_anchors(&self) -> Result<Vec<TrustAnchor>, Unavailable> {
        Ok(self.open()?.anchors.values().cloned().collect())
    }

    async fn is_grant_spent(&self, token_id: &str) -> Result<bool, Unavailable> {
        Ok(self.open()?.spent_grants.contains(token_id))
    }

    async fn count_trust_anchors(&self) -> Result<u64, Unavailable> {
        Ok(self.open()?.anchors.len() as u64)
    }

    fn key_counts(&self) -> KeyCounts {
        let mut counts = KeyCounts::default();
        for key in self.lock().keys.values() {
            counts.add(key.record.key_type, key.record.key_state, 1);
        }
        counts
    }

    async fn close(&self) {
        self.lock().is_closed = true;
    }
}

/// How to undo one change.
enum Undo {
    RemoveKey(Scope, KeyId, Option<Announced>),
    RestoreKey(Arc<StoredKey>),
    RemoveAnchor(Scope, TrustAnchorId),
    RestoreAnchor(TrustAnchor),
    UnspendGrant(Grant),
}

impl State {
    fn check_use_and_receipts(&self, transaction: &Transaction) -> Result<(), CommitError> {
        if let Some(key_use) = &transaction.key_use {
            let kept = self.kept_key(key_use.key_id);
            if kept.map(|key| key.record.version) != Some(key_use.version) {
                return Err(Conflict::KeyChanged.into());
            }
        }
        let mut ids = HashSet::new();
        let is_new = |receipt: &SignedReceipt| {
            !self.ledger.contains(receipt.receipt_id) && ids.insert(receipt.receipt_id)
        };
        if !transaction.receipts.iter().all(is_new) {
            return Err(Unavailable::from(MemoryFault::ReceiptTwice).into());
        }
        Ok(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Conflict> {
        let mut done = Vec::with_capacity(changes.len());
        for change in changes {
            let undo = match change {
                Change::InsertKey(key) => self.insert_key(key),
                Change::UpdateKey(record) => self.update_key(record),
                Change::InsertTrustAnchor(anchor) => self.insert_trust_anchor(anchor),
                Change::RemoveTrustAnchor {
                    scope,
                    trust_anchor_id,
                } => self
                    .take_anchor(scope, trust_anchor_id)
                    .map(Undo::RestoreAnchor)
                    .ok_or(Conflict::AnchorGone),
                Change::SpendGrant(grant) => self.spend_grant(grant),
            };
            match undo {
                Ok(undo) => done.push(undo),
                Err(conflict) => {
                    while let Some(undo) = done.pop() {
                        self.undo(undo);
                    }
                    return Err(conflict);
                }
            }
        }
        Ok(())
    }

    fn insert_key(&mut self, key: StoredKey) -> Result<Undo, Conflict> {
        let (scope, key_id) = (key.record.scope.clone(), key.record.key_id);
        if self.scopes.contains_key(&key_id) {
            return Err(Conflict::KeyChanged);
        }
        self.require_free_alias(&key.record)?;
        let announced = match key.record.backend.keeps_keys() {
            true => Some(self.take_intent(key_id).ok_or(Conflict::GivenUp)?),
            false => None,
        };
        self.put(key);
        Ok(Undo::RemoveKey(scope, key_id, announced))
    }

    fn take_intent(&mut self, key_id: KeyId) -> Option<Announced> {
        let is_open = |announced: &Announced| !announced.is_abandoned;
        self.intents.get(&key_id).filter(|known| is_open(known))?;
        self.intents.remove(&key_id)
    }

    fn update_key(&mut self, record: KeyRecord) -> Result<Undo, Conflict> {
        let before = self
            .kept_key(record.key_id)
            .filter(|before| before.record.scope == record.scope)
            .filter(|before| before.record.version + 1 == record.version)
            .filter(|before| before.record.line_id == record.line_id)
            .cloned()
            .ok_or(Conflict::KeyChanged)?;
        self.require_free_alias(&record)?;
        self.take(&record.scope, record.key_id);
        let handle = before.handle.clone().filter(|_| !record.is_erased());
        self.put(StoredKey { record, handle });
        Ok(Undo::RestoreKey(before))
    }

    fn insert_trust_anchor(&mut self, anchor: TrustAnchor) -> Result<Undo, Conflict> {
        let fingerprint = anchor.certificate.fingerprint.clone();
        if !self
            .fingerprints
            .insert((anchor.scope.clone(), fingerprint))
        {
            return Err(Conflict::DuplicateAnchor);
        }
        let (scope, id) = (anchor.scope.clone(), anchor.trust_anchor_id);
        self.anchors.insert((scope.clone(), id), anchor);
        Ok(Undo::RemoveAnchor(scope, id))
    }

    fn take_anchor(&mut self, scope: Scope, id: TrustAnchorId) -> Option<TrustAnchor> {
        let anchor = self.anchors.remove(&(scope.clone(), id))?;
        self.fingerprints
            .remove(&(scope, anchor.certificate.fingerprint.clone()));
        Some(anchor)
    }

    fn spend_grant(&mut self, grant: Grant) -> Result<Undo, Conflict> {
        if !self.spent_grants.insert(grant.token_id.clone()) {
            return Err(Conflict::GrantSpent);
        }
        let end = grant.usable_until.microseconds();
        self.spent_grants_by_end
            .insert((end, grant.token_id.clone()));
        Ok(Undo::UnspendGrant(grant))
    }

    fn forget_grants_before(&mut self, end: i64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.spent_grants_by_end.pop_first() {
                Some((oldest, token_id)) if oldest < end => {
                    self.spent_grants.remove(&token_id);
                }
                Some(young) => {
                    self.spent_grants_by_end.insert(young);
                    return;
                }
                None => return,
            }
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::RemoveKey(scope, key_id, announced) => {
                self.take(&scope, key_id);
                self.intents
                    .extend(announced.map(|announced| (key_id, announced)));
            }
            Undo::RestoreKey(before) => {
                self.take(&before.record.scope, before.record.key_id);
                self.put(Arc::unwrap_or_clone(before));
            }
            Undo::RemoveAnchor(scope, id) => {
                self.take_anchor(scope, id);
            }
            Undo::RestoreAnchor(anchor) => {
                // What was taken away a moment ago has a free place.
                let _ = self.insert_trust_anchor(anchor);
            }
            Undo::UnspendGrant(grant) => {
                self.spent_grants.remove(&grant.token_id);
                let end = grant.usable_until.microseconds();
                self.spent_grants_by_end.remove(&(end, grant.token_id));
            }
        }
    }

    fn require_free_alias(&self, record: &KeyRecord) -> Result<(), Conflict> {
        match active_alias(record).and_then(|name| self.active_aliases.get(&name)) {
            Some(bearer) if *bearer != record.key_id => Err(Conflict::AliasTaken),
            _ => Ok(()),
        }
    }

    fn put(&mut self, key: StoredKey) {
        let record = &key.record;
        if let Some(name) = active_alias(record) {
            self.active_aliases.insert(name, record.key_id);
        }
        self.due.add(record);
        self.scopes.insert(record.key_id, record.scope.clone());
        self.keys
            .insert((record.scope.clone(), record.key_id), Arc::new(key));
    }

    fn take(&mut self, scope: &Scope, key_id: KeyId) {
        self.scopes.remove(&key_id);
        let Some(key) = self.keys.remove(&(scope.clone(), key_id)) else {
            return;
        };
        self.due.remove(&key.record);
        if let Some(name) = active_alias(&key.record) {
            self.active_aliases.remove(&name);
        }
    }

    fn kept_key(&self, key_id: KeyId) -> Option<&Arc<StoredKey>> {
        let scope = self.scopes.get(&key_id)?;
        self.keys.get(&(scope.clone(), key_id))
    }
}

/// The name that a key holds for itself, if it is active and has an alias.
fn active_alias(record: &KeyRecord) -> Option<(Scope, KeyAlias)> {
    let alias = record.key_alias.clone()?;
    (record.key_state == KeyState::Active).then(|| (record.scope.clone(), alias))
}
