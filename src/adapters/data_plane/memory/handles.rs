//! Handles in memory, when they are replaced.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryDataPlane, MemoryFault, State};
use crate::domain::ids::KeyId;
use crate::domain::key::StoredKey;
use crate::ports::data_plane::Unavailable;
use crate::ports::handle_store::{HandlePage, HandleReplacement, HandleStore, KeptHandle};

#[async_trait]
impl HandleStore for MemoryDataPlane {
    async fn list_handles(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<HandlePage, Unavailable> {
        let state = self.open()?;
        let mut handles: Vec<KeptHandle> = state
            .keys
            .values()
            .filter(|key| after.is_none_or(|after| after < key.record.key_id))
            .filter_map(|key| kept(key))
            .collect();
        handles.sort_by_key(|kept| kept.key_id);
        let has_more = handles.len() > limit;
        handles.truncate(limit);
        Ok(HandlePage { handles, has_more })
    }

    async fn replace_handles(
        &self,
        replacements: Vec<HandleReplacement>,
    ) -> Result<u64, Unavailable> {
        let mut state = self.open()?;
        let fits = |one: &HandleReplacement| one.from.as_bytes().len() == one.to.as_bytes().len();
        if !replacements.iter().all(fits) {
            return Err(MemoryFault::HandleOfAnotherLength.into());
        }
        let replaced = replacements
            .into_iter()
            .filter_map(|one| state.replace(one));
        Ok(replaced.count() as u64)
    }

    async fn wipe_replaced(&self) -> Result<bool, Unavailable> {
        self.open().map(|_| true)
    }

    async fn move_pin(
        &self,
        name: &'static str,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<u8>, Unavailable> {
        let mut state = self.open()?;
        let pinned = state.pins.get_mut(name).ok_or(MemoryFault::NotPinned)?;
        if pinned == from {
            *pinned = to.to_vec();
        }
        Ok(pinned.clone())
    }
}

impl State {
    /// `None` where the old handle is no longer there.
    fn replace(&mut self, one: HandleReplacement) -> Option<()> {
        let kept = self.kept_key(one.key_id)?;
        if kept.handle.as_ref() != Some(&one.from) {
            return None;
        }
        let record = kept.record.clone();
        let name = (record.scope.clone(), record.key_id);
        let handle = Some(one.to);
        self.keys
            .insert(name, Arc::new(StoredKey { record, handle }))
            .map(drop)
    }
}

fn kept(key: &StoredKey) -> Option<KeptHandle> {
    let record = &key.record;
    Some(KeptHandle {
        key_id: record.key_id,
        scope: record.scope.clone(),
        key_type: record.key_type,
        backend: record.backend,
        handle: key.handle.clone()?,
    })
}
