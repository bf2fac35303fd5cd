//! From the store to an archive, row by row and byte by byte.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::fault::ArchiveFault;
use super::file::BUNDLE;
use crate::adapters::data_plane::sqlite::rows::{counted, stored};

/// Copies the compartments, under their numbers.
pub(super) fn copy_scopes(store: &Connection, archive: &Connection) -> rusqlite::Result<()> {
    let mut scopes = store.prepare("SELECT scope, tenant_id, environment, plane FROM scopes")?;
    let mut insert = archive.prepare("INSERT INTO scopes VALUES (?1, ?2, ?3, ?4)")?;
    let mut rows = scopes.query([])?;
    while let Some(row) = rows.next()? {
        insert.execute(params_from_iter(columns::<4>(row)?))?;
    }
    Ok(())
}

/// Copies the bundle that begins here, if all of it is of before this instant.
pub(super) fn copy_bundle(
    store: &Connection,
    archive: &Connection,
    first: u64,
    before: i64,
) -> Result<bool, ArchiveFault> {
    let range = params![stored(first)?, stored(first + BUNDLE)?];
    let (number, newest): (u64, Option<i64>) = store
        .prepare_cached("SELECT count(*), max(ts) FROM receipts WHERE seq >= ?1 AND seq < ?2")?
        .query_row(range, |row| Ok((counted(row, 0)?, row.get(1)?)))?;
    if newest.is_some_and(|newest| newest >= before) {
        return Ok(false);
    }
    let mut bundle = store.prepare_cached(
        "SELECT seq, receipt_id, scope, ts, operation, key_id, leaf FROM receipts \
         WHERE seq >= ?1 AND seq < ?2 ORDER BY seq",
    )?;
    let mut insert =
        archive.prepare_cached("INSERT INTO receipts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut rows = bundle.query(range)?;
    let mut next = first;
    while let Some(row) = rows.next()? {
        if counted(row, 0)? != next {
            break;
        }
        insert.execute(params_from_iter(columns::<7>(row)?))?;
        next += 1;
    }
    if number != BUNDLE || next != first + BUNDLE {
        return Err(ArchiveFault::Gap(next));
    }
    Ok(true)
}

fn columns<const N: usize>(row: &Row<'_>) -> rusqlite::Result<Vec<Value>> {
    (0..N).map(|column| row.get(column)).collect()
}
