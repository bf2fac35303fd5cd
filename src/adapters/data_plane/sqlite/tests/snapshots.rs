//! Snapshots of a store: what is in one, and what is refused as one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::{Folder, one_receipt};
use crate::adapters::data_plane::conformance::{insert, revocation, stored_key};
use crate::adapters::data_plane::sqlite::snapshot::{self, SnapshotFault, Thoroughness};
use crate::adapters::data_plane::sqlite::{OpenError, SqliteDataPlane, open};
use crate::domain::key::HsmBackendName;
use crate::domain::ledger::LedgerFlaw;
use crate::domain::time::Period;
use crate::ports::data_plane::DataPlane as _;
use crate::ports::ledger_store::LedgerStore as _;
use crate::ports::upkeep_store::{KeyIntent, Lease, UpkeepStore as _};

/// A store with keys, one of them destroyed, and so many receipts.
async fn filled(folder: &Folder, receipts: u64) -> SqliteDataPlane {
    let store = folder.open();
    let (living, revoked) = (stored_key(), stored_key());
    for key in [&living, &revoked] {
        insert(&store, key.clone()).await;
    }
    let revoke = revocation(&revoked.record);
    store.commit(revoke).await.expect("nothing conflicts");
    while store.ledger_size() < receipts {
        store
            .commit(one_receipt())
            .await
            .expect("nothing conflicts");
    }
    store
}

/// Everything that a database says of itself, and every row of it.
fn everything(database: &Path) -> Vec<String> {
    let connection = Connection::open(database).expect("a database");
    let lines = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).expect("valid SQL");
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..columns).map(|column| row.get_ref(column).map(|v| format!("{v:?}")));
            values.collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.expect("rows")
            .map(|row| row.expect("values").join(" "))
            .collect()
    };
    let mut all = lines("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name");
    for pragma in ["application_id", "user_version", "encoding"] {
        all.extend(lines(&format!("PRAGMA {pragma}")));
    }
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .expect("valid SQL");
    let names = tables.query_map([], |row| row.get::<_, String>(0));
    for name in names.expect("rows") {
        let name = name.expect("text");
        all.extend(lines(&format!("SELECT * FROM {name} ORDER BY 1, 2")));
    }
    all
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_is_nobodys_to_go_on_with_in_a_snapshot() {
    let (folder, target) = (Folder::new(), Folder::new());
    let store = filled(&folder, 3).await;
    let now = stored_key().record.created_at;
    let intent = KeyIntent {
        key_id: stored_key().record.key_id,
        backend: HsmBackendName::Pkcs11,
        begun_at: now,
    };
    store.begin_key(intent).await.expect("available");
    let later = now.plus(Period::days(1));
    let lease = Lease {
        holder: [1; 16],
        until: later,
    };
    let taken = store.take_lease("task", now, lease).await;
    assert!(taken.expect("available"));
    snapshot::take(&folder.database(), &target.database()).expect("taken");
    let copy = target.open();
    let open = copy.open_intents(later, 10).await.expect("available");
    assert_eq!(open, []);
    let other = Lease {
        holder: [2; 16],
        ..lease
    };
    let taken = copy.take_lease("task", now, other).await;
    assert!(taken.expect("available"));
    // The store itself goes on with both.
    let open = store.open_intents(later, 10).await.expect("available");
    assert_eq!(open, [intent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_the_store_and_serves_as_one() {
    let (folder, target) = (Folder::new(), Folder::new());
    let store = filled(&folder, 300).await;
    store.pin("kek_id", b"0123").await.expect("available");
    let summary = snapshot::take(&folder.database(), &target.database()).expect("taken");
    assert_eq!(names(target.0.path()), ["kms.db"]);
    let mode = fs::metadata(target.database())
        .expect("a file")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(summary.receipts, 300);
    assert_eq!(
        summary.newest_checkpoint,
        Some(store.ledger_head().note.clone())
    );
    assert_eq!(summary.kek_id.as_deref(), Some("0123"));
    let keys = store.ledger_keys().await.expect("available");
    assert_eq!(summary.ledger_keys, [keys[0].public_key]);
    let looked_at = snapshot::look_at(&target.database(), Thoroughness::Indexes);
    assert_eq!(looked_at.expect("sound"), summary);
    assert_eq!(
        everything(&target.database()),
        everything(&folder.database())
    );

    let restored = target.open();
    assert_eq!(restored.ledger_head(), store.ledger_head());
    assert_eq!(restored.key_counts(), store.key_counts());
    restored
        .commit(one_receipt())
        .await
        .expect("the ledger goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_nobody_serves_is_copied_too_and_stays_as_it_was() {
    let (folder, target) = (Folder::new(), Folder::new());
    drop(filled(&folder, 5).await);
    let before = fs::read(folder.database()).expect("a database");
    let summary = snapshot::take(&folder.database(), &target.database()).expect("taken");
    assert_eq!(summary.receipts, 5);
    assert!(fs::read(folder.database()).expect("a database") == before);
    let again = snapshot::take(&folder.database(), &target.database());
    assert!(matches!(again, Err(SnapshotFault::Exists(_))), "{again:?}");
    assert_eq!(names(target.0.path()), ["kms.db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_what_was_deleted_is_in_a_snapshot() {
    let (folder, target) = (Folder::new(), Folder::new());
    let store = filled(&folder, 5).await;
    let canary = "a canary that was deleted ".repeat(1_000);
    let foreign = folder.foreign_connection();
    foreign
        .execute_batch("PRAGMA secure_delete = OFF")
        .expect("set");
    foreign
        .execute(
            "INSERT INTO meta VALUES ('canary', ?1)",
            [canary.as_bytes()],
        )
        .expect("inserted");
    foreign
        .execute_batch("DELETE FROM meta WHERE name = 'canary'; PRAGMA wal_checkpoint")
        .expect("deleted");
    let holds_it = |path: &Path| {
        let content = fs::read(path).expect("a file");
        content
            .windows(10)
            .any(|piece| piece == &canary.as_bytes()[..10])
    };
    assert!(holds_it(&folder.database()), "the test shows nothing");
    snapshot::take(&folder.database(), &target.database()).expect("taken");
    assert!(!holds_it(&target.database()));
    drop(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_of_this_release_is_named_and_leaves_nothing_behind() {
    let target = Folder::new();
    let missing = Folder::new();
    let text = Folder::new();
    fs::write(text.database(), "no database at all, ".repeat(100)).expect("written");
    let old = Folder::new();
    let connection = old.foreign_connection();
    for sql in &open::MIGRATIONS[..2] {
        connection.execute_batch(sql).expect("valid SQL");
    }
    connection
        .execute_batch("PRAGMA user_version = 2; PRAGMA journal_mode = WAL")
        .expect("set");
    let newer = Folder::new();
    drop(newer.open());
    let connection = newer.foreign_connection();
    connection
        .execute_batch("PRAGMA user_version = 99")
        .expect("set");
    let refused = |folder: &Folder| {
        snapshot::take(&folder.database(), &target.database()).expect_err("refused")
    };
    let opened = |fault: SnapshotFault| match fault {
        SnapshotFault::Open { source, .. } => source,
        other => panic!("{other:?}"),
    };
    let fault = opened(refused(&missing));
    assert!(matches!(fault, OpenError::File { .. }), "{fault:?}");
    assert_eq!(names(missing.0.path()), Vec::<String>::new());
    let fault = opened(refused(&text));
    assert!(matches!(fault, OpenError::NotOurs(_)), "{fault:?}");
    let fault = opened(refused(&newer));
    assert!(matches!(fault, OpenError::Newer { .. }), "{fault:?}");
    let fault = refused(&old);
    assert!(matches!(fault, SnapshotFault::WithoutTree(_)), "{fault:?}");
    assert_eq!(names(target.0.path()), Vec::<String>::new());
}

/// A copy of this store, changed behind the back of its triggers.
fn tampered(store: &Path, copy: &Path, statements: &str) {
    let _ = fs::remove_file(copy);
    snapshot::take(store, copy).expect("taken");
    let connection = Connection::open(copy).expect("a database");
    for trigger in ["receipts_stay", "receipts_stay_the_same", "tiles_stay"] {
        connection
            .execute_batch(&format!("DROP TRIGGER {trigger}"))
            .expect("dropped");
    }
    connection.execute_batch(statements).expect("valid SQL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_not_whole_is_no_snapshot() {
    let (folder, target) = (Folder::new(), Folder::new());
    let store = filled(&folder, 600).await;
    let out = folder.0.path().join("out");
    for (statements, flaw) in [
        (
            "DELETE FROM receipts WHERE seq = 599",
            LedgerFlaw::CheckpointSize {
                signed: 600,
                kept: 599,
            },
        ),
        (
            "DELETE FROM receipts WHERE seq = 100",
            LedgerFlaw::ReceiptMissing { leaf_index: 100 },
        ),
        (
            "DELETE FROM receipts WHERE seq < 7",
            LedgerFlaw::ReceiptMissing { leaf_index: 0 },
        ),
        (
            "INSERT INTO archives VALUES (0, 256, 'x'); DELETE FROM receipts WHERE seq < 260",
            LedgerFlaw::ReceiptMissing { leaf_index: 256 },
        ),
        ("DELETE FROM ledger_head", LedgerFlaw::CheckpointMissing),
        (
            "UPDATE ledger_head SET note = 'nothing'",
            LedgerFlaw::CheckpointForged { size: 600 },
        ),
        (
            "UPDATE receipts SET leaf = x'00' WHERE seq = 590",
            LedgerFlaw::RootDiffers { size: 600 },
        ),
    ] {
        tampered(&folder.database(), &target.database(), statements);
        // Neither is a snapshot taken of such a store, nor is one accepted.
        for fault in [
            snapshot::look_at(&target.database(), Thoroughness::Pages),
            snapshot::take(&target.database(), &out),
        ] {
            match fault.expect_err(statements) {
                SnapshotFault::Flawed { flaw: found, .. } => assert_eq!(found, flaw),
                other => panic!("{statements}: {other:?}"),
            }
        }
        assert!(
            !names(folder.0.path())
                .iter()
                .any(|name| name.contains("out"))
        );
    }
    drop(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_off_or_damaged_is_no_snapshot() {
    let (folder, target) = (Folder::new(), Folder::new());
    let store = filled(&folder, 600).await;
    snapshot::take(&folder.database(), &target.database()).expect("taken");
    let whole = fs::read(target.database()).expect("a file");
    let mut zeroed = whole.clone();
    zeroed[20 * 4_096..30 * 4_096].fill(0);
    for content in [
        &whole[..whole.len() - 4_096],
        &whole[..whole.len() / 2],
        &whole[..whole.len() / 2 + 100],
        &zeroed,
    ] {
        fs::write(target.database(), content).expect("written");
        let fault = snapshot::look_at(&target.database(), Thoroughness::Pages);
        let fault = fault.expect_err("damaged");
        assert!(matches!(fault, SnapshotFault::Damaged { .. }), "{fault:?}");
    }
    drop(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_fit_is_found_by_a_thorough_look() {
    let (folder, target) = (Folder::new(), Folder::new());
    drop(filled(&folder, 600).await);
    // An index that says it is of another column.
    let connection = folder.foreign_connection();
    connection
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, '(receipt_id, scope)', '(key_id, scope)')
             WHERE name = 'receipts_by_id'",
        )
        .expect("allowed");
    drop(connection);
    fs::copy(folder.database(), target.database()).expect("copied");
    let fault = snapshot::look_at(&target.database(), Thoroughness::Indexes);
    assert!(
        matches!(fault, Err(SnapshotFault::Damaged { .. })),
        "{fault:?}"
    );
}
