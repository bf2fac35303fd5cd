//! The statements behind the ledger's tables, one function each. They decide
//! nothing, and commit nothing.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::adapters::data_plane::sqlite::rows::{counted, stored};
use crate::domain::ledger::{CompleteTile, LedgerFlaw, TILE_WIDTH, Tile, TileId, Tree, TreeHash};
use crate::domain::scope::Scope;
use crate::ports::ledger_store::LedgerKey;

/// The number of a scope, where a receipt was ever kept in it.
pub(super) fn find_scope(connection: &Connection, scope: &Scope) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT scope FROM scopes WHERE tenant_id = ?1 AND environment = ?2 AND plane = ?3",
        )?
        .query_row(
            params![
                scope.tenant_id.as_str(),
                scope.environment.as_str(),
                scope.plane.as_str()
            ],
            |row| row.get(0),
        )
        .optional()
}

/// The number of a scope, which gets one if it has none.
pub(in super::super) fn scope_number(
    connection: &Connection,
    scope: &Scope,
) -> rusqlite::Result<i64> {
    if let Some(number) = find_scope(connection, scope)? {
        return Ok(number);
    }
    connection
        .prepare_cached("INSERT INTO scopes (tenant_id, environment, plane) VALUES (?1, ?2, ?3)")?
        .insert(params![
            scope.tenant_id.as_str(),
            scope.environment.as_str(),
            scope.plane.as_str()
        ])
}

/// Keeps a tile that is complete.
pub(in super::super) fn insert_tile(
    connection: &Connection,
    complete: &CompleteTile,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO tiles (level, tile_index, hashes) VALUES (?1, ?2, ?3)")?
        .execute(params![
            complete.id.level,
            stored(complete.id.index)?,
            TreeHash::join(complete.tile.hashes())
        ])?;
    Ok(())
}

/// The hashes of a complete tile.
pub(in super::super) fn read_tile(
    connection: &Connection,
    tile: TileId,
) -> rusqlite::Result<Option<Vec<TreeHash>>> {
    let hashes = connection
        .prepare_cached("SELECT hashes FROM tiles WHERE level = ?1 AND tile_index = ?2")?
        .query_row(params![tile.level, stored(tile.index)?], |row| {
            Ok(TreeHash::split(row.get_ref(0)?.as_blob()?))
        })
        .optional()?;
    Ok(hashes.flatten())
}

/// Replaces the newest checkpoint.
pub(in super::super) fn write_head(connection: &Connection, note: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO ledger_head (id, note) VALUES (1, ?1) \
             ON CONFLICT DO UPDATE SET note = excluded.note",
        )?
        .execute([note])?;
    Ok(())
}

/// The newest checkpoint.
pub(in super::super) fn read_head(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT note FROM ledger_head")?
        .query_row([], |row| row.get(0))
        .optional()
}

/// Keeps a checkpoint for those who come later.
pub(in super::super) fn keep_checkpoint(
    connection: &Connection,
    size: u64,
    note: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO checkpoints (size, note) VALUES (?1, ?2)")?
        .execute(params![stored(size)?, note])?;
    Ok(())
}

/// Keeps a key that signs from now on.
pub(in super::super) fn insert_key(
    connection: &Connection,
    key: &LedgerKey,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO ledger_keys (public_key, from_size, handover) VALUES (?1, ?2, ?3)",
        params![key.public_key, stored(key.from_size)?, key.handover],
    )?;
    Ok(())
}

/// The keys that signed, the first one first.
pub(in super::super) fn read_keys(connection: &Connection) -> rusqlite::Result<Vec<LedgerKey>> {
    connection
        .prepare_cached("SELECT public_key, from_size, handover FROM ledger_keys ORDER BY number")?
        .query_map([], |row| {
            Ok(LedgerKey {
                public_key: row.get(0)?,
                from_size: counted(row, 1)?,
                handover: row.get(2)?,
            })
        })?
        .collect()
}

/// Calls for each leaf from `first` on, in order, with its place; at most
/// `number` of them.
pub(in super::super) fn for_leaves(
    connection: &Connection,
    first: u64,
    number: u64,
    mut visit: impl FnMut(u64, &[u8]),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, leaf FROM receipts WHERE seq >= ?1 AND seq < ?2 ORDER BY seq",
    )?;
    let end = first.saturating_add(number);
    let mut rows = statement.query(params![stored(first)?, stored(end)?])?;
    while let Some(row) = rows.next()? {
        visit(counted(row, 0)?, row.get_ref(1)?.as_blob()?);
    }
    Ok(())
}

/// The tree of this size, from the complete tiles below its edge and the leaves
/// behind the last one: a bounded number of each, whatever the size.
pub(in super::super) fn read_tree(
    connection: &Connection,
    size: u64,
) -> rusqlite::Result<Result<Tree, LedgerFlaw>> {
    let mut edge = Vec::new();
    for level in 0..Tree::levels(size) {
        let width = Tree::edge_width(size, level) as u64;
        let first = Tree::complete_tiles(size, level) * TILE_WIDTH as u64;
        let mut hashes = Vec::new();
        if level == 0 {
            let mut next = first;
            for_leaves(connection, first, width, |leaf_index, leaf| {
                if leaf_index == next {
                    hashes.push(TreeHash::of_leaf(leaf));
                    next += 1;
                }
            })?;
            if next < size {
                return Ok(Err(LedgerFlaw::ReceiptMissing { leaf_index: next }));
            }
        } else {
            for index in first..first + width {
                let id = TileId {
                    // At most 7: a size has 64 bits.
                    level: level as u8 - 1,
                    index,
                };
                let Some(below) = read_tile(connection, id)? else {
                    return Ok(Err(LedgerFlaw::TileMissing { tile: id }));
                };
                match Tile::of(&below).and_then(|below| below.root()) {
                    Some(root) => hashes.push(root),
                    None => return Ok(Err(LedgerFlaw::TileWrong { tile: id })),
                }
            }
        }
        edge.push(hashes);
    }
    Ok(Tree::from_edge(size, &edge).ok_or(LedgerFlaw::RootDiffers { size }))
}
