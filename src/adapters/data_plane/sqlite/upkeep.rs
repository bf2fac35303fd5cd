//! Upkeep: what is due, leases, and keys that were announced.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::SqliteDataPlane;
use super::queue::{Job, UpkeepJob};
use super::rows::{counted, instant, parsed};
use crate::domain::ids::KeyId;
use crate::domain::key::HsmBackendName;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::Unavailable;
use crate::ports::upkeep_store::{DueKey, DueKind, KeyIntent, Lease, LeaseHolder, UpkeepStore};

#[async_trait]
impl UpkeepStore for SqliteDataPlane {
    async fn keys_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueKey>, Unavailable> {
        let read = move |store: &Connection| keys_due(store, kind, at, limit);
        Ok(self.reads.read(read).await?)
    }

    async fn count_due(
        &self,
        kind: DueKind,
        at: Timestamp,
        most: usize,
    ) -> Result<u64, Unavailable> {
        let read = move |store: &Connection| count_due(store, kind, at, most);
        Ok(self.reads.read(read).await?)
    }

    async fn keys_held(
        &self,
        backend: HsmBackendName,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Scope)>, Unavailable> {
        let read = move |store: &Connection| keys_held(store, backend, after, limit);
        Ok(self.reads.read(read).await?)
    }

    async fn take_lease(
        &self,
        name: &'static str,
        now: Timestamp,
        lease: Lease,
    ) -> Result<bool, Unavailable> {
        let job = |answer| Job::Upkeep(UpkeepJob::TakeLease(name, now, lease, answer));
        self.jobs.ask(job).await
    }

    async fn release_lease(
        &self,
        name: &'static str,
        holder: LeaseHolder,
    ) -> Result<(), Unavailable> {
        let job = |answer| Job::Upkeep(UpkeepJob::ReleaseLease(name, holder, answer));
        self.jobs.ask(job).await
    }

    async fn begin_key(&self, intent: KeyIntent) -> Result<(), Unavailable> {
        let job = |answer| Job::Upkeep(UpkeepJob::BeginKey(intent, answer));
        self.jobs.ask(job).await
    }

    async fn open_intents(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeyIntent>, Unavailable> {
        let read = move |store: &Connection| open_intents(store, before, limit);
        Ok(self.reads.read(read).await?)
    }

    async fn abandon_key(&self, key_id: KeyId) -> Result<bool, Unavailable> {
        let job = |answer| Job::Upkeep(UpkeepJob::AbandonKey(key_id, answer));
        self.jobs.ask(job).await
    }

    async fn end_intent(&self, key_id: KeyId) -> Result<(), Unavailable> {
        let job = |answer| Job::Upkeep(UpkeepJob::EndIntent(key_id, answer));
        self.jobs.ask(job).await
    }
}

/// The index, the column and the condition of a kind.
macro_rules! due {
    ($columns:literal, $kind:expr, $rest:literal) => {
        match $kind {
            DueKind::Rotate => concat!(
                "SELECT ",
                $columns,
                ", rotate_at FROM keys INDEXED BY keys_to_rotate \
                 WHERE key_state = 'active' AND rotate_at <= ?1 ORDER BY rotate_at ",
                $rest
            ),
            DueKind::Archive => concat!(
                "SELECT ",
                $columns,
                ", grace_until FROM keys INDEXED BY keys_to_archive \
                 WHERE key_state = 'pending_rotation' AND grace_until <= ?1 ORDER BY grace_until ",
                $rest
            ),
            DueKind::Erase => concat!(
                "SELECT ",
                $columns,
                ", erase_at FROM keys INDEXED BY keys_to_erase \
                 WHERE erase_at IS NOT NULL AND erase_at <= ?1 ORDER BY erase_at ",
                $rest
            ),
        }
    };
}

/// The keys that are due: those that have expired first, then the longest due.
pub(super) fn keys_due(
    connection: &Connection,
    kind: DueKind,
    at: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<DueKey>> {
    const EXPIRED: &str = "SELECT key_id, tenant_id, environment, plane, \
         coalesce(rotate_at, valid_until) FROM keys INDEXED BY keys_to_rotate_first \
         WHERE key_state = 'active' AND valid_until <= ?1 ORDER BY valid_until LIMIT ?2";
    const IN_TIME: &str = "SELECT key_id, tenant_id, environment, plane, rotate_at \
         FROM keys INDEXED BY keys_to_rotate WHERE key_state = 'active' AND rotate_at <= ?1 \
         AND valid_until > ?1 ORDER BY rotate_at LIMIT ?2";
    let find = |sql, limit| {
        connection
            .prepare_cached(sql)?
            .query_map(params![at.microseconds(), bound(limit)], read_due)?
            .collect::<rusqlite::Result<Vec<_>>>()
    };
    if kind != DueKind::Rotate {
        let columns = due!("key_id, tenant_id, environment, plane", kind, "LIMIT ?2");
        return find(columns, limit);
    }
    let mut keys = find(EXPIRED, limit)?;
    // Passes over the expired ones, of which there are fewer than the limit then.
    if keys.len() < limit {
        keys.extend(find(IN_TIME, limit - keys.len())?);
    }
    Ok(keys)
}

fn read_due(row: &Row<'_>) -> rusqlite::Result<DueKey> {
    Ok(DueKey {
        key_id: KeyId::from_bytes(row.get(0)?),
        scope: Scope {
            tenant_id: parsed(row, 1)?,
            environment: parsed(row, 2)?,
            plane: parsed(row, 3)?,
        },
        due_at: instant(row, 4)?,
    })
}

/// How many keys are due, as far as is counted.
pub(super) fn count_due(
    connection: &Connection,
    kind: DueKind,
    at: Timestamp,
    most: usize,
) -> rusqlite::Result<u64> {
    let sql = format!("SELECT count(*) FROM ({})", due!("1", kind, "LIMIT ?2"));
    connection
        .prepare_cached(&sql)?
        .query_row(params![at.microseconds(), bound(most)], |row| {
            counted(row, 0)
        })
}

/// The keys of all scopes that a backend is to hold.
pub(super) fn keys_held(
    connection: &Connection,
    backend: HsmBackendName,
    after: Option<KeyId>,
    limit: usize,
) -> rusqlite::Result<Vec<(KeyId, Scope)>> {
    // Every id is after the empty one.
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    connection
        .prepare_cached(
            "SELECT key_id, tenant_id, environment, plane FROM keys \
             WHERE key_id > ?1 AND backend = ?2 AND key_state <> 'destroyed' \
             ORDER BY key_id LIMIT ?3",
        )?
        .query_map(params![after, backend.as_str(), bound(limit)], |row| {
            let scope = Scope {
                tenant_id: parsed(row, 1)?,
                environment: parsed(row, 2)?,
                plane: parsed(row, 3)?,
            };
            Ok((KeyId::from_bytes(row.get(0)?), scope))
        })?
        .collect()
}

/// Takes a lease, if it is to be had.
pub(super) fn take_lease(
    connection: &Connection,
    name: &str,
    now: Timestamp,
    lease: Lease,
) -> rusqlite::Result<bool> {
    let held = connection
        .prepare_cached("SELECT holder, until FROM leases WHERE name = ?1")?
        .query_row([name], |row| {
            Ok(Lease {
                holder: row.get(0)?,
                until: instant(row, 1)?,
            })
        })
        .optional()?;
    if held.is_some_and(|held| !lease.replaces(now, &held)) {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?3) ON CONFLICT (name) \
             DO UPDATE SET holder = excluded.holder, until = excluded.until",
        )?
        .execute(params![name, lease.holder, lease.until.microseconds()])?;
    Ok(true)
}

/// Gives a lease back.
pub(super) fn release_lease(
    connection: &Connection,
    name: &str,
    holder: LeaseHolder,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM leases WHERE name = ?1 AND holder = ?2")?
        .execute(params![name, holder])?;
    Ok(())
}

/// Announces a key.
pub(super) fn begin_key(connection: &Connection, intent: &KeyIntent) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO key_intents (key_id, backend, begun_at) VALUES (?1, ?2, ?3)")?
        .execute(params![
            intent.key_id.as_bytes(),
            intent.backend.as_str(),
            intent.begun_at.microseconds()
        ])?;
    Ok(())
}

/// Takes the announcement of a key away that is stored now; whether there was one that
/// was not given up.
pub(super) fn fulfil_intent(connection: &Connection, key_id: KeyId) -> rusqlite::Result<bool> {
    let taken = connection
        .prepare_cached("DELETE FROM key_intents WHERE key_id = ?1 AND abandoned = 0")?
        .execute([key_id.as_bytes()])?;
    Ok(taken == 1)
}

/// Keys that were announced and are not stored.
pub(super) fn open_intents(
    connection: &Connection,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<KeyIntent>> {
    connection
        .prepare_cached(
            "SELECT key_id, backend, begun_at FROM key_intents WHERE begun_at < ?1 \
             ORDER BY begun_at, key_id LIMIT ?2",
        )?
        .query_map(params![before.microseconds(), bound(limit)], |row| {
            Ok(KeyIntent {
                key_id: KeyId::from_bytes(row.get(0)?),
                backend: parsed(row, 1)?,
                begun_at: instant(row, 2)?,
            })
        })?
        .collect()
}

/// Gives up an announced key; whether there was one.
pub(super) fn abandon_key(connection: &Connection, key_id: KeyId) -> rusqlite::Result<bool> {
    let given_up = connection
        .prepare_cached("UPDATE key_intents SET abandoned = 1 WHERE key_id = ?1")?
        .execute([key_id.as_bytes()])?;
    Ok(given_up == 1)
}

/// Forgets a key that was given up.
pub(super) fn end_intent(connection: &Connection, key_id: KeyId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM key_intents WHERE key_id = ?1 AND abandoned = 1")?
        .execute([key_id.as_bytes()])?;
    Ok(())
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
