//! Upkeep in memory: what is due, leases and intents.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::MemoryDataPlane;
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyRecord, KeyState};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::Unavailable;
use crate::ports::upkeep_store::{DueKey, DueKind, KeyIntent, Lease, LeaseHolder, UpkeepStore};

/// A key that was announced.
pub(super) struct Announced {
    pub(super) intent: KeyIntent,
    pub(super) is_abandoned: bool,
}

/// Keys by the instant at which they are due, as the partial indexes of a database
/// would have them: what is due is found without looking at what is not.
#[derive(Default)]
pub(super) struct DueKeys {
    due: BTreeSet<(DueKind, Timestamp, KeyId)>,
    /// Active keys by their ends.
    expiring: BTreeSet<(Timestamp, KeyId)>,
}

impl DueKeys {
    pub(super) fn add(&mut self, record: &KeyRecord) {
        self.due.extend(entry_of(record));
        self.expiring.extend(end_of(record));
    }

    pub(super) fn remove(&mut self, record: &KeyRecord) {
        if let Some(entry) = entry_of(record) {
            self.due.remove(&entry);
        }
        if let Some(entry) = end_of(record) {
            self.expiring.remove(&entry);
        }
    }

    fn of(&self, kind: DueKind, at: Timestamp) -> impl Iterator<Item = (Timestamp, KeyId)> {
        let first = (kind, Timestamp::EARLIEST, KeyId::from_bytes([0; 16]));
        let last = (kind, at, KeyId::from_bytes([0xff; 16]));
        let due = self.due.range(first..=last);
        due.map(|(_, due_at, key_id)| (*due_at, *key_id))
    }

    fn expired(&self, at: Timestamp) -> impl Iterator<Item = KeyId> {
        let last = (at, KeyId::from_bytes([0xff; 16]));
        self.expiring.range(..=last).map(|(_, key_id)| *key_id)
    }
}

fn entry_of(record: &KeyRecord) -> Option<(DueKind, Timestamp, KeyId)> {
    let (kind, due_at) = match record.key_state {
        KeyState::Active => (DueKind::Rotate, record.rotate_at),
        KeyState::PendingRotation => (DueKind::Archive, record.grace_until),
        KeyState::Archived => return None,
        KeyState::Destroyed => (DueKind::Erase, record.erase_at),
    };
    Some((kind, due_at?, record.key_id))
}

fn end_of(record: &KeyRecord) -> Option<(Timestamp, KeyId)> {
    (record.key_state == KeyState::Active).then_some((record.valid_until, record.key_id))
}

#[async_trait]
impl UpkeepStore for MemoryDataPlane {
    async fn keys_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueKey>, Unavailable> {
        let state = self.open()?;
        let found = |key_id| state.kept_key(key_id).map(|key| &key.record);
        let expired: Vec<KeyId> = match kind {
            DueKind::Rotate => state.due.expired(at).take(limit).collect(),
            DueKind::Archive | DueKind::Erase => Vec::new(),
        };
        let is_in_time = |key_id: &KeyId| {
            kind != DueKind::Rotate || found(*key_id).is_some_and(|key| key.valid_until > at)
        };
        let in_time = state.due.of(kind, at).map(|(_, key_id)| key_id);
        let due = expired
            .into_iter()
            .chain(in_time.filter(is_in_time))
            .take(limit)
            .filter_map(found)
            .map(|record| DueKey {
                key_id: record.key_id,
                scope: record.scope.clone(),
                due_at: entry_of(record).map_or(record.valid_until, |(_, due_at, _)| due_at),
            });
        Ok(due.collect())
    }

    async fn count_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        most: usize,
    ) -> Result<u64, Unavailable> {
        Ok(self.open()?.due.of(kind, at).take(most).count() as u64)
    }

    async fn keys_held(
        &self,
        backend: HsmBackendName,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Scope)>, Unavailable> {
        let state = self.open()?;
        let mut held: Vec<(KeyId, Scope)> = state
            .keys
            .values()
            .map(|key| &key.record)
            .filter(|key| key.backend == backend && key.key_state != KeyState::Destroyed)
            .filter(|key| after.is_none_or(|after| after < key.key_id))
            .map(|key| (key.key_id, key.scope.clone()))
            .collect();
        held.sort_unstable_by_key(|(key_id, _)| *key_id);
        held.truncate(limit);
        Ok(held)
    }

    async fn take_lease(
        &self,
        name: &'static str,
        now: Timestamp,
        lease: Lease,
    ) -> Result<bool, Unavailable> {
        let mut state = self.open()?;
        let is_free = state
            .leases
            .get(name)
            .is_none_or(|held| lease.replaces(now, held));
        if is_free {
            state.leases.insert(name, lease);
        }
        Ok(is_free)
    }

    async fn release_lease(
        &self,
        name: &'static str,
        holder: LeaseHolder,
    ) -> Result<(), Unavailable> {
        let mut state = self.open()?;
        if state
            .leases
            .get(name)
            .is_some_and(|held| held.holder == holder)
        {
            state.leases.remove(name);
        }
        Ok(())
    }

    async fn begin_key(&self, intent: KeyIntent) -> Result<(), Unavailable> {
        let announced = Announced {
            intent,
            is_abandoned: false,
        };
        self.open()?.intents.insert(intent.key_id, announced);
        Ok(())
    }

    async fn open_intents(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeyIntent>, Unavailable> {
        let state = self.open()?;
        let mut intents: Vec<KeyIntent> = state
            .intents
            .values()
            .map(|announced| announced.intent)
            .filter(|intent| intent.begun_at < before)
            .collect();
        intents.sort_by_key(|intent| (intent.begun_at, intent.key_id));
        intents.truncate(limit);
        Ok(intents)
    }

    async fn abandon_key(&self, key_id: KeyId) -> Result<bool, Unavailable> {
        let mut state = self.open()?;
        let announced = state.intents.get_mut(&key_id);
        Ok(announced.is_some_and(|announced| {
            announced.is_abandoned = true;
            true
        }))
    }

    async fn end_intent(&self, key_id: KeyId) -> Result<(), Unavailable> {
        let mut state = self.open()?;
        if state
            .intents
            .get(&key_id)
            .is_some_and(|known| known.is_abandoned)
        {
            state.intents.remove(&key_id);
        }
        Ok(())
    }
}
