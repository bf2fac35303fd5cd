//! What is read of the ledger, on the connections that only read.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::archives::{Archive, Archives};
use super::rows::{find_scope, for_leaves, read_tile};
use crate::adapters::data_plane::sqlite::rows::{counted, stored};
use crate::domain::ids::ReceiptId;
use crate::domain::ledger::{Tile, TileId};
use crate::domain::scope::Scope;
use crate::ports::ledger_store::KeptReceipt;

/// The complete tiles among these.
pub(in super::super) fn tiles(
    connection: &Connection,
    tiles: &[TileId],
) -> rusqlite::Result<Vec<(TileId, Arc<Tile>)>> {
    let mut found = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let hashes = read_tile(connection, *tile)?;
        if let Some(complete) = hashes.and_then(|hashes| Tile::of(&hashes)) {
            found.push((*tile, Arc::new(complete)));
        }
    }
    Ok(found)
}

/// The leaves from `first` on, as far as they follow each other.
pub(in super::super) fn leaves(
    store: &Connection,
    archives: &Archives,
    first: u64,
    number: usize,
) -> rusqlite::Result<Vec<Vec<u8>>> {
    // One state of receipts and archives: what is moved meanwhile is in either.
    let store = store.unchecked_transaction()?;
    let end = first.saturating_add(number as u64);
    let mut leaves = in_row(&store, first, end)?;
    let mut next = first + leaves.len() as u64;
    if next == end {
        return Ok(leaves);
    }
    let listed = archives.list(&store)?;
    while let Some(archive) = archive_with(&listed, next).filter(|_| next < end) {
        let found = archives.ask(archive, |archive| in_row(archive, next, end));
        let mut found = found.unwrap_or_default();
        if found.is_empty() {
            break;
        }
        leaves.append(&mut found);
        next = first + leaves.len() as u64;
        leaves.append(&mut in_row(&store, next, end)?);
        next = first + leaves.len() as u64;
    }
    Ok(leaves)
}

/// The leaves in one file from `first` on, as far as they follow each other.
fn in_row(connection: &Connection, first: u64, end: u64) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut leaves = Vec::new();
    for_leaves(connection, first, end - first, |leaf_index, leaf| {
        if leaf_index == first + leaves.len() as u64 {
            leaves.push(leaf.to_vec());
        }
    })?;
    Ok(leaves)
}

/// A receipt by its id, in its scope. Archives are asked only where the id is
/// between the smallest and the largest of theirs; ids sort by time, so that is
/// seldom more than one.
pub(in super::super) fn find_receipt(
    store: &Connection,
    archives: &Archives,
    scope: &Scope,
    receipt_id: ReceiptId,
) -> rusqlite::Result<Option<KeptReceipt>> {
    if let Some(found) = find_in(store, scope, receipt_id)? {
        return Ok(Some(found));
    }
    // Read after that: what was moved before then is listed by now.
    for archive in archives.list(store)? {
        let id = receipt_id.as_bytes();
        let may_have = archives
            .contents(&archive)
            .is_some_and(|contents| contents.ids.0 <= *id && *id <= contents.ids.1);
        if may_have {
            let found = archives.ask(&archive, |archive| find_in(archive, scope, receipt_id));
            if let Some(found) = found.flatten() {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn find_in(
    connection: &Connection,
    scope: &Scope,
    receipt_id: ReceiptId,
) -> rusqlite::Result<Option<KeptReceipt>> {
    // No receipt has this number, so a scope that is unknown is looked in alike.
    let scope = find_scope(connection, scope)?.unwrap_or(0);
    connection
        .prepare_cached(
            "SELECT seq, leaf FROM receipts INDEXED BY receipts_by_id \
             WHERE receipt_id = ?1 AND scope = ?2",
        )?
        .query_row(params![receipt_id.as_bytes(), scope], read_receipt)
        .optional()
}

/// The newest receipt of all.
pub(in super::super) fn newest_receipt(
    connection: &Connection,
) -> rusqlite::Result<Option<KeptReceipt>> {
    connection
        .prepare_cached("SELECT seq, leaf FROM receipts ORDER BY seq DESC LIMIT 1")?
        .query_row([], read_receipt)
        .optional()
}

/// The receipt at a place, if it is in the store or in an archive that can be read.
pub(super) fn receipt_at(
    store: &Connection,
    archives: &Archives,
    listed: &[Arc<Archive>],
    place: u64,
) -> rusqlite::Result<Option<KeptReceipt>> {
    let at = |connection: &Connection| {
        connection
            .prepare_cached("SELECT seq, leaf FROM receipts WHERE seq = ?1")?
            .query_row([stored(place)?], read_receipt)
            .optional()
    };
    match at(store)? {
        Some(kept) => Ok(Some(kept)),
        None => Ok(archive_with(listed, place).and_then(|archive| archives.ask(archive, at)?)),
    }
}

/// The archive that has a place.
fn archive_with(listed: &[Arc<Archive>], place: u64) -> Option<&Arc<Archive>> {
    let before = listed.partition_point(|archive| archive.end <= place);
    listed.get(before).filter(|archive| archive.first <= place)
}

fn read_receipt(row: &Row<'_>) -> rusqlite::Result<KeptReceipt> {
    Ok(KeptReceipt {
        leaf_index: counted(row, 0)?,
        leaf: row.get(1)?,
    })
}
