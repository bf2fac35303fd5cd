//! The statements behind what is written later, one function each. They decide
//! nothing, and commit nothing.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::memtable::{Entry, KeyName};
use super::recent_uses::Counts;
use crate::adapters::data_plane::sqlite::rows::{
    counted, parsed, read_count, read_ledger_size, stored,
};
use crate::domain::ids::KeyId;
use crate::domain::time::Timestamp;
use crate::domain::usage::UsageCount;
use crate::ports::ledger_store::ReceiptPlace;

/// In `meta`: the first receipt that the trees may not have, as eight bytes.
const LISTED_TO: &str = "receipts_listed_to";

/// What is not in its place yet.
pub(in super::super) struct NotInPlace {
    pub(in super::super) receipts: Vec<Entry>,
    /// Behind the last receipt.
    pub(in super::super) end: u64,
    pub(in super::super) uses: Counts,
}

/// Reads what is not in its place yet: as much as came since the last time that all was,
/// less than twice what makes a generation.
pub(in super::super) fn read_recent(connection: &Connection) -> rusqlite::Result<NotInPlace> {
    let receipts = connection
        .prepare_cached(
            "SELECT scope, key_id, ts, seq, operation FROM receipts WHERE seq >= ?1 ORDER BY seq",
        )?
        .query_map([stored(listed_to(connection)?)?], |row| {
            Ok(Entry {
                scope: row.get(0)?,
                key: row.get_ref(1)?.as_str_or_null()?.map(KeyName::of),
                place: ReceiptPlace {
                    microseconds: row.get(2)?,
                    leaf_index: counted(row, 3)?,
                },
                operation: parsed(row, 4)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    // Of the rows of one key the last counts.
    let uses = connection
        .prepare_cached(
            "SELECT day, used, encryptions, last_used_at, key_id FROM key_use_log ORDER BY number",
        )?
        .query_map([], |row| {
            Ok((KeyId::from_bytes(row.get(4)?), read_count(row)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(NotInPlace {
        receipts,
        end: read_ledger_size(connection)?,
        uses,
    })
}

fn listed_to(connection: &Connection) -> rusqlite::Result<u64> {
    let kept = connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([LISTED_TO], |row| row.get(0))
        .optional()?;
    Ok(u64::from_be_bytes(kept.unwrap_or_default()))
}

/// From here on the trees have all receipts before this place.
pub(in super::super) fn set_listed_to(connection: &Connection, end: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2) \
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?
        .execute(params![LISTED_TO, end.to_be_bytes()])?;
    Ok(())
}

/// The first receipt that is in the store and in no archive only.
pub(super) fn first_receipt(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT seq FROM receipts ORDER BY seq LIMIT 1")?
        .query_row([], |row| counted(row, 0))
        .optional()
        .map(|first| first.unwrap_or(u64::MAX))
}

/// Puts a receipt into the tree by time, where it is not in it.
pub(super) fn list_by_time(connection: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO receipts_by_time (scope, ts, seq, operation) \
             VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            entry.scope,
            entry.place.microseconds,
            stored(entry.place.leaf_index)?,
            entry.operation.as_str()
        ])?;
    Ok(())
}

/// Puts a receipt into the tree by key, where it is not in it.
pub(super) fn list_by_key(
    connection: &Connection,
    entry: &Entry,
    key: &KeyName,
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO receipts_by_key (scope, key_id, ts, seq, operation) \
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?;
    let place = stored(entry.place.leaf_index)?;
    let operation = entry.operation.as_str();
    key.with_text(|key| {
        insert.execute(params![
            entry.scope,
            key,
            entry.place.microseconds,
            place,
            operation
        ])
    })?;
    Ok(())
}

/// Writes the count of a key behind those of others.
pub(in super::super) fn log_use(
    connection: &Connection,
    key_id: KeyId,
    count: &UsageCount,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO key_use_log (key_id, day, used, encryptions, last_used_at) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(count_values(key_id, count)?)?;
    Ok(())
}

/// Writes the count of a key over the one in its place.
pub(super) fn put_use(
    connection: &Connection,
    key_id: KeyId,
    count: &UsageCount,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO key_usage (key_id, day, used, encryptions, last_used_at) \
             VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (key_id) DO UPDATE SET day = excluded.day, used = excluded.used, \
             encryptions = excluded.encryptions, last_used_at = excluded.last_used_at",
        )?
        .execute(count_values(key_id, count)?)?;
    Ok(())
}

/// Key, day, uses, encryptions and the last use.
type CountValues = ([u8; 16], i64, i64, i64, Option<i64>);

/// The values of a count in the order of its columns.
fn count_values(key_id: KeyId, count: &UsageCount) -> rusqlite::Result<CountValues> {
    Ok((
        *key_id.as_bytes(),
        count.day,
        stored(count.used)?,
        stored(count.encryptions)?,
        count.last_used_at.map(Timestamp::microseconds),
    ))
}

/// The number of the last row in the log of uses.
pub(super) fn end_of_use_log(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(number), 0) FROM key_use_log")?
        .query_row([], |row| row.get(0))
}

/// Removes at most so many rows of the log up to this one, the first ones first: until
/// the last of a key is gone, it is the one that counts. Answers how many there were.
pub(super) fn trim_use_log(
    connection: &Connection,
    end: i64,
    most: usize,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM key_use_log WHERE number <= min(?1, ?2 + \
             (SELECT coalesce(min(number), 0) - 1 FROM key_use_log))",
        )?
        .execute(params![end, i64::try_from(most).unwrap_or(i64::MAX)])
}

/// The first receipt that one of the trees should have and has not, or has and should
/// not.
pub(in super::super) fn first_unlisted(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let end = stored(listed_to(connection)?)?;
    let missing = "SELECT seq FROM receipts AS here WHERE seq < ?1 AND (NOT EXISTS (\
             SELECT 1 FROM receipts_by_time AS listed WHERE listed.scope = here.scope \
             AND listed.ts = here.ts AND listed.seq = here.seq \
             AND listed.operation = here.operation) \
         OR (key_id IS NOT NULL AND NOT EXISTS (\
             SELECT 1 FROM receipts_by_key AS listed WHERE listed.scope = here.scope \
             AND listed.key_id = here.key_id AND listed.ts = here.ts AND listed.seq = here.seq \
             AND listed.operation = here.operation)))";
    let foreign = "SELECT seq FROM receipts_by_time AS listed WHERE NOT EXISTS (\
             SELECT 1 FROM receipts AS there WHERE there.seq = listed.seq \
             AND there.scope = listed.scope AND there.ts = listed.ts \
             AND there.operation = listed.operation) \
         UNION ALL SELECT seq FROM receipts_by_key AS listed WHERE NOT EXISTS (\
             SELECT 1 FROM receipts AS there WHERE there.seq = listed.seq \
             AND there.scope = listed.scope AND there.key_id = listed.key_id \
             AND there.ts = listed.ts AND there.operation = listed.operation)";
    connection
        .prepare(&format!(
            "SELECT min(seq) FROM ({missing} UNION ALL {foreign})"
        ))?
        .query_row([end], |row| row.get::<_, Option<i64>>(0))
        .map(|seq| seq.map(i64::cast_unsigned))
}
