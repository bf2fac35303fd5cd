//! Keys between their table's rows and the domain. Knows no transaction.

use std::str::FromStr;

use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::ids::KeyId;
use crate::domain::key::{KeyHandle, KeyRecord, StoredKey};
use crate::domain::policy::AccessPolicy;
use crate::domain::scope::Scope;
use crate::domain::time::{Period, Timestamp};
use crate::domain::usage::UsageCount;
use crate::ports::data_plane::KeyCounts;

/// The columns of a [`KeyRecord`], in the order in which everything here reads
/// and binds them.
macro_rules! key_columns {
    () => {
        "key_id, tenant_id, environment, plane, key_type, key_usage, key_alias, key_state, \
         version, algorithms, backend, public_key, allowed_modules, requires_approval, \
         max_usage_per_day, created_at, created_by, valid_until, rotation_count, \
         predecessor_key_id, successor_key_id, rotated_at, grace_until, archived_at, \
         revoked_at, revocation_reason, line_id, rotation_period, rotate_at, erase_at"
    };
}
pub(super) use key_columns;

/// Inserts what [`key_values`] binds.
pub(super) const INSERT_KEY: &str = concat!(
    "INSERT INTO keys (",
    key_columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
     ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)"
);

/// Writes what [`key_values`] binds over the version before it: all but what a
/// key is for life, which it must match.
pub(super) const UPDATE_KEY: &str = "UPDATE keys SET key_usage = ?6, key_alias = ?7, \
     key_state = ?8, version = ?9, algorithms = ?10, backend = ?11, public_key = ?12, \
     allowed_modules = ?13, requires_approval = ?14, max_usage_per_day = ?15, created_at = ?16, \
     created_by = ?17, valid_until = ?18, rotation_count = ?19, predecessor_key_id = ?20, \
     successor_key_id = ?21, rotated_at = ?22, grace_until = ?23, archived_at = ?24, \
     revoked_at = ?25, revocation_reason = ?26, rotation_period = ?28, rotate_at = ?29, \
     erase_at = ?30 \
     WHERE key_id = ?1 AND tenant_id = ?2 AND environment = ?3 AND plane = ?4 \
     AND key_type = ?5 AND line_id = ?27 AND version = ?9 - 1";

/// A record's values in the order of `key_columns!`.
pub(super) fn key_values(record: &KeyRecord) -> rusqlite::Result<[Value; 30]> {
    let id = |id: &KeyId| Value::Blob(id.as_bytes().to_vec());
    let text = |text: &str| Value::Text(text.to_owned());
    let instant = |instant: Timestamp| Value::Integer(instant.microseconds());
    let maybe = |value: Option<Value>| value.unwrap_or(Value::Null);
    Ok([
        id(&record.key_id),
        text(record.scope.tenant_id.as_str()),
        text(record.scope.environment.as_str()),
        text(record.scope.plane.as_str()),
        text(record.key_type.as_str()),
        list(&record.key_usage)?,
        maybe(record.key_alias.as_ref().map(|alias| text(alias.as_str()))),
        text(record.key_state.as_str()),
        Value::Integer(stored(record.version)?),
        list(&record.algorithms)?,
        text(record.backend.as_str()),
        maybe(record.public_key.as_deref().map(text)),
        list(&record.access_policy.allowed_modules)?,
        Value::Integer(i64::from(record.access_policy.requires_approval)),
        Value::Integer(stored(record.access_policy.max_usage_per_day)?),
        instant(record.created_at),
        text(record.created_by.as_str()),
        instant(record.valid_until),
        Value::Integer(i64::from(record.rotation_count)),
        maybe(record.predecessor_key_id.as_ref().map(id)),
        maybe(record.successor_key_id.as_ref().map(id)),
        maybe(record.rotated_at.map(instant)),
        maybe(record.grace_until.map(instant)),
        maybe(record.archived_at.map(instant)),
        maybe(record.revoked_at.map(instant)),
        maybe(record.revocation_reason.map(|reason| text(reason.as_str()))),
        id(&record.line_id),
        maybe(record.rotation_period.map(kept_period).transpose()?),
        maybe(record.rotate_at.map(instant)),
        maybe(record.erase_at.map(instant)),
    ])
}

/// The record in a row that starts with `key_columns!`.
pub(super) fn read_record(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let key_id = |index| -> rusqlite::Result<Option<KeyId>> {
        Ok(row
            .get::<_, Option<[u8; 16]>>(index)?
            .map(KeyId::from_bytes))
    };
    Ok(KeyRecord {
        key_id: KeyId::from_bytes(row.get(0)?),
        scope: Scope {
            tenant_id: parsed(row, 1)?,
            environment: parsed(row, 2)?,
            plane: parsed(row, 3)?,
        },
        key_type: parsed(row, 4)?,
        key_usage: read_list(row, 5)?,
        key_alias: maybe_parsed(row, 6)?,
        key_state: parsed(row, 7)?,
        version: counted(row, 8)?,
        algorithms: read_list(row, 9)?,
        backend: parsed(row, 10)?,
        public_key: row.get(11)?,
        access_policy: AccessPolicy {
            allowed_modules: read_list(row, 12)?,
            requires_approval: row.get(13)?,
            max_usage_per_day: counted(row, 14)?,
        },
        created_at: instant(row, 15)?,
        created_by: parsed(row, 16)?,
        valid_until: instant(row, 17)?,
        rotation_count: row.get(18)?,
        predecessor_key_id: key_id(19)?,
        successor_key_id: key_id(20)?,
        rotated_at: maybe_instant(row, 21)?,
        grace_until: maybe_instant(row, 22)?,
        archived_at: maybe_instant(row, 23)?,
        revoked_at: maybe_instant(row, 24)?,
        revocation_reason: maybe_parsed(row, 25)?,
        line_id: KeyId::from_bytes(row.get(26)?),
        rotation_period: match row.get::<_, Option<i64>>(27)? {
            Some(_) => Some(Period::microseconds(counted(row, 27)?)),
            None => None,
        },
        rotate_at: maybe_instant(row, 28)?,
        erase_at: maybe_instant(row, 29)?,
    })
}

/// The key in a row of `key_columns!` and the handle after them.
pub(super) fn read_key(row: &Row<'_>) -> rusqlite::Result<StoredKey> {
    Ok(StoredKey {
        record: read_record(row)?,
        handle: row
            .get::<_, Option<Vec<u8>>>(30)?
            .map(KeyHandle::from_bytes),
    })
}

/// What was kept of a key's uses, unless there are newer ones in memory.
pub(super) fn read_usage(connection: &Connection, key_id: KeyId) -> rusqlite::Result<UsageCount> {
    connection
        .prepare_cached(
            "SELECT day, used, encryptions, last_used_at FROM key_usage WHERE key_id = ?1",
        )?
        .query_row([key_id.as_bytes()], read_count)
        .optional()
        .map(Option::unwrap_or_default)
}

/// The count in a row of `day, used, encryptions, last_used_at`.
pub(super) fn read_count(row: &Row<'_>) -> rusqlite::Result<UsageCount> {
    Ok(UsageCount {
        day: row.get(0)?,
        used: counted(row, 1)?,
        encryptions: counted(row, 2)?,
        last_used_at: maybe_instant(row, 3)?,
    })
}

/// Counts the keys by type and state.
pub(super) fn read_key_counts(connection: &Connection) -> rusqlite::Result<KeyCounts> {
    let mut counts = KeyCounts::default();
    let mut statement = connection
        .prepare("SELECT key_type, key_state, count(*) FROM keys GROUP BY key_type, key_state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        counts.add(parsed(row, 0)?, parsed(row, 1)?, counted(row, 2)?);
    }
    Ok(counts)
}

/// How many receipts there are, which is the next one's place.
pub(super) fn read_ledger_size(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(max(seq) + 1, 0) FROM receipts")?
        .query_row([], |row| counted(row, 0))
}

/// A number as SQLite keeps it.
pub(super) fn stored(number: u64) -> rusqlite::Result<i64> {
    i64::try_from(number).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A period as SQLite keeps it, in microseconds.
fn kept_period(period: Period) -> rusqlite::Result<Value> {
    let microseconds = i64::try_from(period.as_duration().as_micros());
    microseconds
        .map(Value::Integer)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A column that counts something.
pub(super) fn counted(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, number))
}

/// A column of text that a domain type parses.
pub(super) fn parsed<T: FromStr>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(index)?.as_str()?;
    text.parse()
        .map_err(|error: T::Err| unreadable(index, Type::Text, error))
}

fn maybe_parsed<T: FromStr>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match row.get_ref(index)?.as_str_or_null()? {
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|error: T::Err| unreadable(index, Type::Text, error)),
        None => Ok(None),
    }
}

/// A column that holds an instant.
pub(super) fn instant(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    let microseconds = row.get(index)?;
    Timestamp::from_microseconds(microseconds).ok_or(rusqlite::Error::IntegralValueOutOfRange(
        index,
        microseconds,
    ))
}

fn maybe_instant(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(index)? {
        Some(_) => instant(row, index).map(Some),
        None => Ok(None),
    }
}

fn list(items: &impl serde::Serialize) -> rusqlite::Result<Value> {
    serde_json::to_string(items)
        .map(Value::Text)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn read_list<T: serde::de::DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(index)?.as_str()?)
        .map_err(|error| unreadable(index, Type::Text, error))
}

fn unreadable(
    index: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
}
