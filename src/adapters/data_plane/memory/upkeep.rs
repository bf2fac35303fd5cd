//! Upkeep in memory: what is due, leases and intents.

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

fn due_at(kind: DueKind, record: &KeyRecord) -> Option<Timestamp> {
    match (kind, record.key_state) {
        (DueKind::Rotate, KeyState::Active) => record.rotate_at,
        (DueKind::Archive, KeyState::PendingRotation) => record.grace_until,
        (DueKind::Erase, KeyState::Destroyed) => record.erase_at,
        _ => None,
    }
}

impl MemoryDataPlane {
    fn due(&self, kind: DueKind, at: Timestamp) -> Result<Vec<DueKey>, Unavailable> {
        let state = self.open()?;
        let mut due: Vec<DueKey> = state
            .keys
            .values()
            .filter_map(|key| {
                let due_at = due_at(kind, &key.record).filter(|due| *due <= at)?;
                Some(DueKey {
                    key_id: key.record.key_id,
                    scope: key.record.scope.clone(),
                    due_at,
                })
            })
            .collect();
        due.sort_by_key(|due| due.due_at);
        Ok(due)
    }
}

#[async_trait]
impl UpkeepStore for MemoryDataPlane {
    async fn keys_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueKey>, Unavailable> {
        let mut due = self.due(kind, at)?;
        due.truncate(limit);
        Ok(due)
    }

    async fn count_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        most: usize,
    ) -> Result<u64, Unavailable> {
        Ok(self.due(kind, at)?.len().min(most) as u64)
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
