//! What is read of the ledger, on the connections that only read.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params, params_from_iter};

use super::rows::{find_scope, for_leaves, read_tile};
use crate::adapters::data_plane::sqlite::rows::{counted, stored};
use crate::domain::ids::ReceiptId;
use crate::domain::ledger::{TileId, TreeHash};
use crate::domain::scope::Scope;
use crate::ports::ledger_store::{
    KeptReceipt, MOST_LOOKED_AT, ReceiptPage, ReceiptPlace, ReceiptQuery,
};

/// The complete tiles among these.
pub(in super::super) fn tiles(
    connection: &Connection,
    tiles: &[TileId],
) -> rusqlite::Result<BTreeMap<TileId, Vec<TreeHash>>> {
    let mut found = BTreeMap::new();
    for tile in tiles {
        if let Some(hashes) = read_tile(connection, *tile)? {
            found.insert(*tile, hashes);
        }
    }
    Ok(found)
}

/// The leaves from `first` on, as far as they follow each other.
pub(in super::super) fn leaves(
    connection: &Connection,
    first: u64,
    number: usize,
) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut leaves = Vec::with_capacity(number);
    for_leaves(connection, first, number as u64, |leaf_index, leaf| {
        if leaf_index == first + leaves.len() as u64 {
            leaves.push(leaf.to_vec());
        }
    })?;
    Ok(leaves)
}

/// A receipt by its id, in its scope.
pub(in super::super) fn find_receipt(
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

/// One page of a scope's receipts. Looks at a bounded number of index entries,
/// and fetches the leaves of those that match.
pub(in super::super) fn list_receipts(
    connection: &Connection,
    query: &ReceiptQuery,
) -> rusqlite::Result<ReceiptPage> {
    let empty = ReceiptPage {
        receipts: Vec::new(),
        next: None,
    };
    let Some(scope) = find_scope(connection, &query.scope)? else {
        return Ok(empty);
    };
    let from = query.from.map_or(i64::MIN, |from| from.microseconds());
    let after = query.after.map_or((from, -1), |place| {
        let leaf_index = i64::try_from(place.leaf_index).unwrap_or(i64::MAX);
        (place.microseconds, leaf_index)
    });
    // The later of the two beginnings.
    let (ts, seq) = after.max((from, -1));
    let until = query.until.map_or(i64::MAX, |until| until.microseconds());
    let mut values: Vec<&dyn ToSql> = vec![&scope, &ts, &seq, &until];
    let of_key = match &query.key_id {
        None => "INDEXED BY receipts_in_scope WHERE scope = ?1",
        Some(key_id) => {
            values.push(key_id);
            "INDEXED BY receipts_of_key WHERE scope = ?1 AND key_id = ?5"
        }
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT ts, seq, operation FROM receipts {of_key} AND (ts, seq) > (?2, ?3) AND ts < ?4 \
         ORDER BY ts, seq"
    ))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    let mut next = None;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        let place = ReceiptPlace {
            microseconds: row.get(0)?,
            leaf_index: counted(row, 1)?,
        };
        if found.len() == query.limit || looked_at == MOST_LOOKED_AT {
            // There is at least this one behind the last that was looked at.
            return page(connection, found, next);
        }
        looked_at += 1;
        next = Some(place);
        let is_wanted = match query.operation {
            Some(operation) => row.get_ref(2)?.as_str()? == operation.as_str(),
            None => true,
        };
        if is_wanted {
            found.push(place.leaf_index);
        }
    }
    page(connection, found, None)
}

fn page(
    connection: &Connection,
    places: Vec<u64>,
    next: Option<ReceiptPlace>,
) -> rusqlite::Result<ReceiptPage> {
    let mut by_place =
        connection.prepare_cached("SELECT seq, leaf FROM receipts WHERE seq = ?1")?;
    let mut receipts = Vec::with_capacity(places.len());
    for place in places {
        // One that was moved to an archive a moment ago is no longer here.
        let kept = by_place.query_row([stored(place)?], read_receipt);
        receipts.extend(kept.optional()?);
    }
    Ok(ReceiptPage { receipts, next })
}

fn read_receipt(row: &Row<'_>) -> rusqlite::Result<KeptReceipt> {
    Ok(KeptReceipt {
        leaf_index: counted(row, 0)?,
        leaf: row.get(1)?,
    })
}
