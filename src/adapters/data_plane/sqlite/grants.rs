//! Grants that were spent: each once, for as long as it matters.

use rusqlite::{Connection, params};

use crate::adapters::data_plane::spent_grants::FORGOTTEN_AT_ONCE;
use crate::domain::approval::Grant;

/// Remembers a grant as spent; `false` where it was already.
pub(super) fn spend(connection: &Connection, grant: &Grant) -> rusqlite::Result<bool> {
    let inserted = connection
        .prepare_cached(
            "INSERT INTO spent_grants (token_id, usable_until) VALUES (?1, ?2) \
             ON CONFLICT (token_id) DO NOTHING",
        )?
        .execute(params![grant.token_id, grant.usable_until.microseconds()])?;
    Ok(inserted == 1)
}

/// Forgets some of the grants that were usable until before this instant.
pub(super) fn forget_before(connection: &Connection, microseconds: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM spent_grants WHERE token_id IN \
             (SELECT token_id FROM spent_grants WHERE usable_until < ?1 \
             ORDER BY usable_until LIMIT ?2)",
        )?
        .execute(params![microseconds, FORGOTTEN_AT_ONCE as i64])?;
    Ok(())
}

/// Whether a grant of this token id was spent.
pub(super) fn is_spent(connection: &Connection, token_id: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM spent_grants WHERE token_id = ?1")?
        .exists([token_id])
}
