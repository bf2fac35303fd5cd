//! Handles in their table: read page by page, replaced in their place, and looked
//! at from outside. Knows nothing of what is in a handle.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::SqliteDataPlane;
use super::open;
use super::queue::{HandleJob, Job};
use super::rows::{counted, parsed};
use super::snapshot::{SnapshotFault, open_existing};
use crate::domain::ids::{KeyAlias, KeyId};
use crate::domain::key::{HsmBackendName, KeyHandle};
use crate::domain::scope::Scope;
use crate::ports::data_plane::Unavailable;
use crate::ports::handle_store::{HandlePage, HandleReplacement, HandleStore, KeptHandle};

#[async_trait]
impl HandleStore for SqliteDataPlane {
    async fn list_handles(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<HandlePage, Unavailable> {
        let page = self
            .reads
            .read(move |connection| list(connection, after, limit))
            .await?;
        Ok(page)
    }

    async fn replace_handles(
        &self,
        replacements: Vec<HandleReplacement>,
    ) -> Result<u64, Unavailable> {
        let job = |answer| Job::Handles(HandleJob::Replace(replacements, answer));
        self.jobs.ask(job).await
    }

    async fn wipe_replaced(&self) -> Result<bool, Unavailable> {
        let job = |answer| Job::Handles(HandleJob::WipeReplaced(answer));
        self.jobs.ask(job).await
    }

    async fn move_pin(
        &self,
        name: &'static str,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<u8>, Unavailable> {
        let (from, to) = (from.to_vec(), to.to_vec());
        let job = |answer| Job::Handles(HandleJob::MovePin(name, from, to, answer));
        self.jobs.ask(job).await
    }
}

/// A key whose handle was replaced, by all the names that it is found under.
pub(super) struct ReplacedHandle {
    pub(super) scope: Scope,
    pub(super) key_id: KeyId,
    pub(super) alias: Option<KeyAlias>,
}

/// One page of the handles that are not erased.
pub(super) fn list(
    connection: &Connection,
    after: Option<KeyId>,
    limit: usize,
) -> rusqlite::Result<HandlePage> {
    let after = after.map_or(Vec::new(), |after| after.as_bytes().to_vec());
    // One more than asked for tells whether there are more.
    let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut handles = connection
        .prepare_cached(
            "SELECT key_id, tenant_id, environment, plane, key_type, backend, handle \
             FROM keys JOIN key_handles USING (slot) \
             WHERE key_id > ?1 AND handle <> zeroblob(length(handle)) \
             ORDER BY key_id LIMIT ?2",
        )?
        .query_map(params![after, wanted], |row| {
            Ok(KeptHandle {
                key_id: KeyId::from_bytes(row.get(0)?),
                scope: Scope {
                    tenant_id: parsed(row, 1)?,
                    environment: parsed(row, 2)?,
                    plane: parsed(row, 3)?,
                },
                key_type: parsed(row, 4)?,
                backend: parsed(row, 5)?,
                handle: KeyHandle::from_bytes(row.get(6)?),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let has_more = handles.len() > limit;
    handles.truncate(limit);
    Ok(HandlePage { handles, has_more })
}

/// Replaces those handles that are still the old ones, inside an open transaction.
pub(super) fn replace(
    connection: &Connection,
    replacements: &[HandleReplacement],
) -> rusqlite::Result<Vec<ReplacedHandle>> {
    let mut find = connection.prepare_cached(
        "SELECT slot, tenant_id, environment, plane, key_alias FROM keys WHERE key_id = ?1",
    )?;
    let mut update = connection
        .prepare_cached("UPDATE key_handles SET handle = ?1 WHERE slot = ?2 AND handle = ?3")?;
    let mut replaced = Vec::with_capacity(replacements.len());
    for one in replacements {
        let found = find
            .query_row([one.key_id.as_bytes()], |row| {
                let scope = Scope {
                    tenant_id: parsed(row, 1)?,
                    environment: parsed(row, 2)?,
                    plane: parsed(row, 3)?,
                };
                let alias = match row.get_ref(4)?.as_str_or_null()? {
                    Some(_) => Some(parsed(row, 4)?),
                    None => None,
                };
                Ok((row.get::<_, i64>(0)?, scope, alias))
            })
            .optional()?;
        let Some((slot, scope, alias)) = found else {
            continue;
        };
        let rows = update.execute(params![one.to.as_bytes(), slot, one.from.as_bytes()])?;
        if rows > 0 {
            replaced.push(ReplacedHandle {
                scope,
                key_id: one.key_id,
                alias,
            });
        }
    }
    Ok(replaced)
}

/// How many handles of this backend, erased ones aside, begin with the same so many
/// bytes, by those bytes. Looks at the file of a store, which may be served
/// meanwhile.
///
/// # Errors
/// [`SnapshotFault`].
pub fn count_by_beginning(
    database: &Path,
    backend: HsmBackendName,
    length: usize,
) -> Result<BTreeMap<Vec<u8>, u64>, SnapshotFault> {
    look_at(database, |store| read_beginnings(store, backend, length))
}

/// The same from a connection.
pub(super) fn read_beginnings(
    store: &Connection,
    backend: HsmBackendName,
    length: usize,
) -> rusqlite::Result<BTreeMap<Vec<u8>, u64>> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    store
        .prepare(
            "SELECT substr(handle, 1, ?1), count(*) \
             FROM key_handles JOIN keys USING (slot) \
             WHERE backend = ?2 AND handle <> zeroblob(length(handle)) GROUP BY 1",
        )?
        .query_map(params![length, backend.as_str()], |row| {
            Ok((row.get(0)?, counted(row, 1)?))
        })?
        .collect()
}

/// What is pinned to a name in the file of a store, which may be served meanwhile.
///
/// # Errors
/// [`SnapshotFault`].
pub fn pinned(database: &Path, name: &str) -> Result<Option<Vec<u8>>, SnapshotFault> {
    look_at(database, |store| read_pin(store, name))
}

/// The same from a connection.
pub(super) fn read_pin(store: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    store
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()
}

/// Makes sure that a store which nobody serves may be looked at: whoever opens it
/// recovers its log, and one that is damaged has to stay as it is.
///
/// # Errors
/// [`SnapshotFault::Open`].
pub fn require_sound_log(database: &Path) -> Result<(), SnapshotFault> {
    if !database.exists() {
        return Ok(());
    }
    open::judge_log_unless_served(database).map_err(|source| SnapshotFault::Open {
        path: database.to_owned(),
        source,
    })
}

/// Whether a process serves the store in this file.
pub fn is_served(database: &Path) -> bool {
    open::lock(database).is_err()
}

fn look_at<T>(
    database: &Path,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, SnapshotFault> {
    let store = open_existing(database)?;
    query(&store).map_err(|source| SnapshotFault::Sqlite {
        path: database.to_owned(),
        source,
    })
}
