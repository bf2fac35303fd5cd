//! The changes of keys in a batch, each with its conditions.

use rusqlite::{OptionalExtension as _, params, params_from_iter};

use super::super::rows::{INSERT_KEY, UPDATE_KEY, key_values, parsed, stored};
use super::super::upkeep;
use super::{Batch, KeyChange, Refusal, require};
use crate::domain::ids::KeyAlias;
use crate::domain::key::{KeyRecord, KeyState, StoredKey};
use crate::ports::data_plane::Conflict;

impl Batch<'_> {
    pub(super) fn insert_key(&self, key: &StoredKey) -> Result<KeyChange, Refusal> {
        let record = &key.record;
        let exists = self
            .connection
            .prepare_cached("SELECT 1 FROM keys WHERE key_id = ?1")?
            .exists([record.key_id.as_bytes()])?;
        if exists {
            return Err(Refusal::Conflict(Conflict::KeyChanged));
        }
        self.require_free_alias(record)?;
        if record.backend.keeps_keys() {
            let announced = upkeep::fulfil_intent(self.connection, record.key_id)?;
            require(announced, Conflict::GivenUp)?;
        }
        let slot = self
            .connection
            .prepare_cached(INSERT_KEY)?
            .insert(params_from_iter(key_values(record)?))?;
        if let Some(handle) = &key.handle
            && !record.is_erased()
        {
            self.connection
                .prepare_cached("INSERT INTO key_handles (slot, handle) VALUES (?1, ?2)")?
                .execute(params![slot, handle.as_bytes()])?;
        }
        Ok(KeyChange::of(record, None, None))
    }

    pub(super) fn update_key(&self, record: &KeyRecord) -> Result<KeyChange, Refusal> {
        let changed = Refusal::Conflict(Conflict::KeyChanged);
        let Some(version_before) = record.version.checked_sub(1) else {
            return Err(changed);
        };
        let before = self
            .connection
            .prepare_cached(
                "SELECT key_state, key_alias FROM keys WHERE key_id = ?1 AND version = ?2",
            )?
            .query_row(
                params![record.key_id.as_bytes(), stored(version_before)?],
                |row| {
                    let alias = match row.get_ref(1)?.as_str_or_null()? {
                        Some(_) => Some(parsed(row, 1)?),
                        None => None,
                    };
                    Ok((parsed(row, 0)?, alias))
                },
            )
            .optional()?;
        let Some((state_before, alias_before)) = before else {
            return Err(changed);
        };
        self.require_free_alias(record)?;
        let rows = self
            .connection
            .prepare_cached(UPDATE_KEY)?
            .execute(params_from_iter(key_values(record)?))?;
        if rows == 0 {
            return Err(changed);
        }
        Ok(KeyChange::of(record, Some(state_before), alias_before))
    }

    fn require_free_alias(&self, record: &KeyRecord) -> Result<(), Refusal> {
        let (KeyState::Active, Some(alias)) = (record.key_state, &record.key_alias) else {
            return Ok(());
        };
        let scope = &record.scope;
        let taken = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM keys INDEXED BY active_alias WHERE tenant_id = ?1 \
                 AND environment = ?2 AND plane = ?3 AND key_alias = ?4 \
                 AND key_state = 'active' AND key_id <> ?5",
            )?
            .exists(params![
                scope.tenant_id.as_str(),
                scope.environment.as_str(),
                scope.plane.as_str(),
                alias.as_str(),
                record.key_id.as_bytes()
            ])?;
        if taken {
            return Err(Refusal::Conflict(Conflict::AliasTaken));
        }
        Ok(())
    }
}

impl KeyChange {
    fn of(record: &KeyRecord, before: Option<KeyState>, alias_before: Option<KeyAlias>) -> Self {
        Self {
            scope: record.scope.clone(),
            key_id: record.key_id,
            aliases: [alias_before, record.key_alias.clone()],
            key_type: record.key_type,
            version: record.version,
            before,
            after: record.key_state,
            erases: record.is_erased(),
        }
    }
}
