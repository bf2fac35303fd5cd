//! Removing receipts from the store that are in an archive. The schema allows it
//! for those and for no others.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::Progress;
use crate::adapters::data_plane::sqlite::rows::{counted, stored};

/// Receipts that one transaction removes. The serving process waits for as long as
/// that takes, and its own callers with it.
const AT_ONCE: u64 = 1_000;

/// The least that is left to the serving process between two of them.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// The first receipt that is in the store.
pub(super) fn lowest(store: &Connection) -> rusqlite::Result<Option<u64>> {
    store
        .query_row("SELECT seq FROM receipts ORDER BY seq LIMIT 1", [], |row| {
            counted(row, 0)
        })
        .optional()
}

/// Removes the receipts before `end`, a few at a time, the first ones first;
/// answers how many there were.
pub(super) fn remove(
    store: &mut Connection,
    end: u64,
    progress: &mut dyn FnMut(Progress),
) -> rusqlite::Result<u64> {
    let mut removed = 0;
    while let Some(first) = lowest(store)?.filter(|first| *first < end) {
        let until = end.min(first + AT_ONCE);
        let removing = store.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // The lock is held from here on; waiting for it is not counted.
        let locked = Instant::now();
        let rows = removing
            .prepare_cached("DELETE FROM receipts WHERE seq >= ?1 AND seq < ?2")?
            .execute(params![stored(first)?, stored(until)?])?;
        removing.commit()?;
        removed += rows as u64;
        progress(Progress::Removed(until));
        // As long as it kept the others out, it lets them in.
        std::thread::sleep(locked.elapsed().max(SHORTEST_PAUSE));
    }
    Ok(removed)
}
