//! The schema, and what may be opened.

use rusqlite::{Connection, StatementStatus};

use super::{Folder, one_receipt};
use crate::adapters::data_plane::conformance::{
    anchor, changes, grant, insert, revocation, stored_key,
};
use crate::adapters::data_plane::sqlite::{OpenError, SqliteOptions, open};
use crate::domain::ids::{KeyId, KeyRef};
use crate::ports::data_plane::{Change, DataPlane, LineQuery};

#[test]
fn commits_go_to_the_disk_and_deleted_bytes_are_wiped() {
    let folder = Folder::new();
    let connection =
        open::writable_database(&folder.database(), SqliteOptions::default().busy_timeout)
            .expect("a new database");
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .expect("a pragma")
    };
    assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
    let full = 2;
    assert_eq!(pragma("synchronous"), full.into());
    let memory = 2;
    assert_eq!(pragma("temp_store"), memory.into());
    assert_eq!(pragma("secure_delete"), 1.into());
    assert_eq!(pragma("foreign_keys"), 1.into());
    assert_eq!(pragma("busy_timeout"), 2_000.into());
}

#[test]
fn a_statement_is_prepared_once_whatever_it_is_asked() {
    let folder = Folder::new();
    drop(folder.open());
    let connection = open::reading_connection(&folder.database(), std::time::Duration::ZERO);
    let connection = connection.expect("a database of ours");
    // One that a partial index may serve, or not, depending on the state.
    let mut statement = connection
        .prepare("SELECT key_id FROM keys WHERE key_state = ?1 AND valid_until <= ?2")
        .expect("valid SQL");
    for state in ["active", "destroyed", "active"] {
        assert!(!statement.exists((state, 7)).expect("readable"));
    }
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}

#[test]
fn one_process_serves_a_database() {
    let folder = Folder::new();
    let store = folder.open();
    assert!(matches!(folder.refusal(), OpenError::Locked(_)));
    drop(store);
    folder.open();
}

#[test]
fn a_newer_database_is_refused() {
    let folder = Folder::new();
    drop(folder.open());
    let foreign = folder.foreign_connection();
    foreign.pragma_update(None, "user_version", 6).expect("set");
    drop(foreign);
    assert!(matches!(
        folder.refusal(),
        OpenError::Newer {
            found: 6,
            supported: 5
        }
    ));
}

#[tokio::test]
async fn a_database_of_the_first_release_takes_the_later_steps_and_keeps_what_it_has() {
    let folder = Folder::new();
    let old = folder.foreign_connection();
    old.execute_batch(open::MIGRATIONS[0]).expect("valid SQL");
    old.pragma_update(None, "user_version", 1).expect("set");
    let anchor = anchor("aa");
    old.execute(
        "INSERT INTO trust_anchors VALUES (?1, ?2, ?3, ?4, 'root', 'aa', x'3000', \
         'CN=root', ?5, ?6, ?5, 'M32')",
        rusqlite::params![
            anchor.trust_anchor_id.as_bytes(),
            anchor.scope.tenant_id.as_str(),
            anchor.scope.environment.as_str(),
            anchor.scope.plane.as_str(),
            anchor.certificate.not_before.microseconds(),
            anchor.certificate.not_after.microseconds(),
        ],
    )
    .expect("a row of the first release");
    drop(old);
    let store = folder.open();
    let version: i64 = folder
        .foreign_connection()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .expect("a pragma");
    assert_eq!(version, 5);
    let found = store
        .find_trust_anchor(&anchor.scope, anchor.trust_anchor_id)
        .await;
    assert_eq!(found.expect("available"), Some(anchor));
    let spent = changes(vec![Change::SpendGrant(grant("one"))]);
    store.commit(spent).await.expect("there is a table for it");
}

#[tokio::test]
async fn keys_of_an_older_release_find_their_lines_and_are_due_at_their_ends() {
    const LENGTH: u32 = 2_000;
    let folder = Folder::new();
    let old = folder.foreign_connection();
    for step in &open::MIGRATIONS[..3] {
        old.execute_batch(step).expect("valid SQL");
    }
    old.pragma_update(None, "user_version", 3).expect("set");
    let id = |line: u32, number: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&line.to_be_bytes());
        bytes[4..8].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    // Two long lines whose keys lie between each other's, and one key alone whose
    // predecessor nobody knows.
    old.execute_batch("BEGIN").expect("valid SQL");
    for number in 0..LENGTH {
        for line in [1, 2] {
            let (before, after) = (number.checked_sub(1), number + 1 < LENGTH);
            insert_old(
                &old,
                &id(line, number),
                number,
                before.map(|before| id(line, before)),
                after.then(|| id(line, number + 1)),
            );
        }
    }
    insert_old(&old, &id(3, 0), 7, Some(id(9, 9)), None);
    old.execute_batch("COMMIT").expect("valid SQL");
    drop(old);
    let started = std::time::Instant::now();
    let store = folder.open();
    // A migration that reads all keys for each of them takes minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
    for (line, length) in [(1, LENGTH), (2, LENGTH), (3, 1)] {
        let query = LineQuery {
            scope: stored_key().record.scope,
            line_id: KeyId::from_bytes(id(line, 0)),
            after: None,
            limit: 10_000,
        };
        let keys = store.list_line(query).await.expect("available").keys;
        assert_eq!(keys.len(), length as usize, "{line}");
        let newest = keys.last().expect("not empty");
        assert_eq!(newest.rotate_at, Some(newest.valid_until));
        assert_eq!(newest.rotation_period, None);
    }
}

/// A key as the release before kept it: active, unless it has a successor.
pub(super) fn insert_old(
    connection: &Connection,
    id: &[u8; 16],
    rotations: u32,
    before: Option<[u8; 16]>,
    after: Option<[u8; 16]>,
) {
    let state = match after {
        Some(_) => "archived",
        None => "active",
    };
    connection
        .prepare_cached(
            "INSERT INTO keys (key_id, tenant_id, environment, plane, key_type, key_usage, \
             key_state, version, algorithms, backend, allowed_modules, requires_approval, \
             max_usage_per_day, created_at, created_by, valid_until, rotation_count, \
             predecessor_key_id, successor_key_id) VALUES (?1, 't', 'dev', 'tenant', 'Ed25519', \
             '[\"sign\"]', ?2, 1, '[\"Ed25519\"]', 'software', '[]', 0, 10, 0, 'M21', 1000, ?3, \
             ?4, ?5)",
        )
        .expect("valid SQL")
        .execute(rusqlite::params![id, state, rotations, before, after])
        .expect("a row of the release before");
}

#[test]
fn a_file_of_somebody_else_is_refused_and_stays_as_it_was() {
    let tables = Folder::new();
    tables
        .foreign_connection()
        .execute_batch("CREATE TABLE theirs (id)")
        .expect("valid SQL");
    let marked = Folder::new();
    marked
        .foreign_connection()
        .execute_batch("PRAGMA application_id = 7")
        .expect("valid SQL");
    let text = Folder::new();
    std::fs::write(text.database(), "no database at all, ".repeat(100)).expect("written");
    for folder in [tables, marked, text] {
        let before = std::fs::read(folder.database()).expect("a file");
        assert!(matches!(folder.refusal(), OpenError::NotOurs(_)));
        let after = std::fs::read(folder.database()).expect("a file");
        assert_eq!(before, after);
    }
}

#[test]
fn a_missing_folder_is_named() {
    let folder = Folder::new();
    let path = folder.0.path().join("missing").join("kms.db");
    let refused = super::SqliteDataPlane::open(&path, SqliteOptions::default());
    let message = refused.err().expect("no folder").to_string();
    assert!(message.contains("missing"), "{message}");
}

#[tokio::test]
async fn the_schema_itself_refuses_what_must_not_happen() {
    let folder = Folder::new();
    let store = folder.open();
    let (living, revoked) = (stored_key(), stored_key());
    for key in [&living, &revoked] {
        insert(&store, key.clone()).await;
    }
    let commit = store.commit(revocation(&revoked.record)).await;
    commit.expect("nothing conflicts");
    let foreign = folder.foreign_connection();
    let before = dump(&foreign);
    for (statement, reason) in [
        ("UPDATE receipts SET leaf = x'00'", "never changed"),
        ("UPDATE receipts SET seq = seq + 1", "never changed"),
        (
            "UPDATE OR REPLACE receipts SET seq = 0 WHERE seq = 1",
            "never changed",
        ),
        ("DELETE FROM receipts WHERE seq = 2", "never deleted"),
        (
            "INSERT INTO receipts VALUES (7, randomblob(16), 1, 0, 'encrypt', NULL, x'00')",
            "next place",
        ),
        (
            "INSERT INTO receipts VALUES (-1, randomblob(16), 1, 0, 'encrypt', NULL, x'00')",
            "next place",
        ),
        (
            "INSERT INTO receipts VALUES (NULL, randomblob(16), 1, 0, 'encrypt', NULL, x'00')",
            "next place",
        ),
        (
            "INSERT OR REPLACE INTO receipts \
             SELECT 1, randomblob(16), scope, ts, operation, key_id, leaf FROM receipts",
            "next place",
        ),
        (
            "INSERT OR REPLACE INTO receipts \
             SELECT 3, receipt_id, scope, ts, operation, key_id, leaf FROM receipts",
            "kept once",
        ),
        ("DELETE FROM keys", "never deleted"),
        (
            "INSERT OR REPLACE INTO keys SELECT * FROM keys",
            "inserted once",
        ),
        (
            "UPDATE keys SET key_state = 'active' WHERE key_state = 'destroyed'",
            "stays destroyed",
        ),
        ("DELETE FROM key_handles", "in place"),
        (
            "UPDATE keys SET key_state = 'archived' WHERE key_state = 'destroyed'",
            "stays destroyed",
        ),
        (
            "UPDATE keys SET erase_at = 1 WHERE key_state = 'destroyed'",
            "stays erased",
        ),
        (
            "UPDATE key_handles SET handle = x'01'",
            "overwritten in place",
        ),
        (
            "UPDATE key_handles SET slot = slot + 100",
            "overwritten in place",
        ),
        (
            "UPDATE key_handles SET handle = randomblob(length(handle))",
            "stays erased",
        ),
    ] {
        let refused = foreign.execute_batch(statement).expect_err(statement);
        assert!(
            refused.to_string().contains(reason),
            "{statement}: {refused}"
        );
    }
    assert_eq!(dump(&foreign), before);
    store.commit(one_receipt()).await.expect("goes on");
}

#[tokio::test]
async fn whoever_destroys_a_key_erases_its_handle() {
    let folder = Folder::new();
    let store = folder.open();
    let key = stored_key();
    insert(&store, key.clone()).await;
    let foreign = folder.foreign_connection();
    foreign
        .execute_batch("UPDATE keys SET key_state = 'destroyed'")
        .expect("allowed");
    let zeros: Vec<u8> = foreign
        .query_row("SELECT handle FROM key_handles", [], |row| row.get(0))
        .expect("one row");
    assert_eq!(zeros, [0; 80]);
    let name = KeyRef::Id(key.record.key_id);
    let found = store.find_key(&key.record.scope, &name).await;
    assert_eq!(found.expect("available").expect("kept").handle, None);
}

/// Everything in the tables that must not change.
fn dump(connection: &Connection) -> Vec<String> {
    let mut lines = Vec::new();
    for query in [
        "SELECT seq || hex(receipt_id) || hex(leaf) FROM receipts ORDER BY seq",
        "SELECT slot || hex(key_id) || key_state || version FROM keys ORDER BY slot",
        "SELECT slot || hex(handle) FROM key_handles ORDER BY slot",
    ] {
        let mut statement = connection.prepare(query).expect("valid SQL");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        lines.extend(rows.map(|row| row.expect("text")));
    }
    lines
}
