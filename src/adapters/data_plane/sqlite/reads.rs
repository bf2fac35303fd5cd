//! Reading: a small pool of read-only connections, and the queries of the port.
//! Never writes, and sees only what is committed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, ToSql, params};
use tokio::sync::Semaphore;

use super::fault::StoreFault;
use super::open;
use super::rows::{counted, key_columns, read_key, read_record};
use crate::domain::ids::KeyRef;
use crate::domain::key::StoredKey;
use crate::domain::scope::Scope;
use crate::ports::data_plane::{KeyPage, KeyQuery, LineQuery};

/// Reads that run at once. They take microseconds, and mostly a cache has
/// answered before.
const CONNECTIONS: usize = 2;

/// The connections that read.
pub(super) struct ReadPool {
    permits: Arc<Semaphore>,
    deadline: Duration,
    connections: Arc<Connections>,
}

struct Connections {
    path: PathBuf,
    busy_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

impl ReadPool {
    /// Opens the pool; the database is there.
    pub(super) fn open(
        path: &Path,
        busy_timeout: Duration,
        deadline: Duration,
    ) -> rusqlite::Result<Self> {
        let idle = (0..CONNECTIONS)
            .map(|_| open::reading_connection(path, busy_timeout))
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            deadline,
            connections: Arc::new(Connections {
                path: path.to_owned(),
                busy_timeout,
                idle: Mutex::new(idle),
            }),
        })
    }

    /// Runs a query where it may block, and waits for a place and for its answer,
    /// at most until the deadline.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreFault> {
        tokio::time::timeout(self.deadline, self.read_unhurried(query))
            .await
            .unwrap_or(Err(StoreFault::ReadDeadlinePassed(self.deadline)))
    }

    async fn read_unhurried<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| StoreFault::Closed)?;
        let connections = Arc::clone(&self.connections);
        let reading = tokio::task::spawn_blocking(move || {
            // Goes with the query, so that an abandoned one still counts.
            let permit = permit;
            let connection = connections.take()?;
            let answer = query(&connection);
            // One that failed is not put back: the next read opens a new one.
            if answer.is_ok() && !permit.semaphore().is_closed() {
                connections.lock().push(connection);
            }
            answer
        });
        match reading.await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(StoreFault::ReadCutOff),
        }
    }

    /// Refuses what comes after, and closes what is idle.
    pub(super) fn close(&self) {
        self.permits.close();
        self.connections.lock().clear();
    }
}

impl Connections {
    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.lock().pop();
        match idle {
            Some(connection) => Ok(connection),
            None => open::reading_connection(&self.path, self.busy_timeout),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A list of connections is whole, whoever panicked elsewhere.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key, scope first: what is unknown and what is foreign are missed alike.
pub(super) fn find_key(
    connection: &Connection,
    scope: &Scope,
    key: &KeyRef,
) -> rusqlite::Result<Option<StoredKey>> {
    const BY_ID: &str = concat!(
        "SELECT ",
        key_columns!(),
        ", CASE WHEN key_state = 'destroyed' AND erase_at IS NULL THEN NULL ELSE handle END \
         FROM keys INDEXED BY keys_in_scope LEFT JOIN key_handles USING (slot) \
         WHERE tenant_id = ?1 AND environment = ?2 AND plane = ?3 AND key_id = ?4"
    );
    const BY_ALIAS: &str = concat!(
        "SELECT ",
        key_columns!(),
        ", handle \
         FROM keys INDEXED BY active_alias LEFT JOIN key_handles USING (slot) \
         WHERE tenant_id = ?1 AND environment = ?2 AND plane = ?3 AND key_alias = ?4 \
         AND key_state = 'active'"
    );
    let (sql, name): (_, &dyn ToSql) = match key {
        KeyRef::Id(key_id) => (BY_ID, key_id.as_bytes()),
        KeyRef::Alias(alias) => (BY_ALIAS, &alias.as_str()),
    };
    connection
        .prepare_cached(sql)?
        .query_row(
            params![
                scope.tenant_id.as_str(),
                scope.environment.as_str(),
                scope.plane.as_str(),
                name
            ],
            read_key,
        )
        .optional()
}

/// One page of a scope's keys.
pub(super) fn list_keys(connection: &Connection, query: &KeyQuery) -> rusqlite::Result<KeyPage> {
    let mut sql = concat!(
        "SELECT ",
        key_columns!(),
        " FROM keys WHERE tenant_id = ? AND environment = ? AND plane = ?"
    )
    .to_owned();
    let scope = &query.scope;
    let mut values: Vec<Box<dyn ToSql>> = vec![
        Box::new(scope.tenant_id.as_str().to_owned()),
        Box::new(scope.environment.as_str()),
        Box::new(scope.plane.as_str()),
    ];
    let mut filter = |condition, value| {
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(state) = query.key_state {
        filter(" AND key_state = ?", Box::new(state.as_str()));
    }
    if let Some(key_type) = query.key_type {
        filter(" AND key_type = ?", Box::new(key_type.as_str()));
    }
    if let Some(alias) = &query.key_alias {
        filter(" AND key_alias = ?", Box::new(alias.as_str().to_owned()));
    }
    if let Some(after) = query.after {
        filter(" AND key_id > ?", Box::new(*after.as_bytes()));
    }
    // One more than asked for tells whether there are more.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    filter(
        " ORDER BY key_id LIMIT ?",
        Box::new(limit.saturating_add(1)),
    );
    let mut keys = connection
        .prepare_cached(&sql)?
        .query_map(rusqlite::params_from_iter(&values), read_record)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let has_more = keys.len() > query.limit;
    keys.truncate(query.limit);
    Ok(KeyPage { keys, has_more })
}

/// One page of a line of rotations.
pub(super) fn list_line(connection: &Connection, query: &LineQuery) -> rusqlite::Result<KeyPage> {
    let scope = &query.scope;
    // One more than asked for tells whether there are more.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut keys = connection
        .prepare_cached(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys INDEXED BY keys_of_line WHERE tenant_id = ?1 AND environment = ?2 \
             AND plane = ?3 AND line_id = ?4 AND rotation_count > ?5 \
             ORDER BY rotation_count LIMIT ?6"
        ))?
        .query_map(
            params![
                scope.tenant_id.as_str(),
                scope.environment.as_str(),
                scope.plane.as_str(),
                query.line_id.as_bytes(),
                query.after.map_or(-1, i64::from),
                limit.saturating_add(1)
            ],
            read_record,
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let has_more = keys.len() > query.limit;
    keys.truncate(query.limit);
    Ok(KeyPage { keys, has_more })
}

/// The number of trust anchors.
pub(super) fn count_trust_anchors(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM trust_anchors")?
        .query_row([], |row| counted(row, 0))
}
