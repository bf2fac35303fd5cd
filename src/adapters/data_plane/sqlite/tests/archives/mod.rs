//! Receipts that were moved out of the store: what is moved, what is still
//! answered, and what an archiver that was cut off leaves.

mod answers;
mod interrupted;

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use super::Folder;
use crate::adapters::data_plane::conformance::{scope, signed};
use crate::adapters::data_plane::sqlite::SqliteDataPlane;
use crate::adapters::data_plane::sqlite::archive::{
    self, ArchiveFault, ArchiveFileFault, ArchiveSummary, Progress,
};
use crate::domain::receipt::tests::receipt;
use crate::domain::receipt::{Receipt, ReceiptOperation, SignedReceipt};
use crate::domain::time::Timestamp;
use crate::ports::data_plane::{DataPlane as _, Transaction};
use crate::ports::ledger_store::LedgerStore as _;

/// Receipts are a millisecond apart from here on.
const BEGIN: i64 = 1_772_366_400_000_000;

/// The time of a receipt that comes in its turn.
pub(super) fn time(place: u64) -> Timestamp {
    Timestamp::from_microseconds(BEGIN + place as i64 * 1_000).expect("in the calendar")
}

fn key_of(place: u64) -> String {
    format!("key-{}", place % 5)
}

/// The receipt at a place: of one of three tenants and five keys, and every fourth
/// a decryption.
fn receipt_at(place: u64, ts: Timestamp) -> SignedReceipt {
    let mut made = receipt();
    made.context.key_id = Some(key_of(place));
    if place.is_multiple_of(4) {
        made.operation = ReceiptOperation::Decrypt;
    }
    signed(Receipt {
        ts,
        scope: scope(["a", "b", "c"][(place % 3) as usize]),
        ..made
    })
}

/// A number below `below` that nobody foresees.
pub(super) fn random(below: u64) -> u64 {
    u64::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(below)).expect("small")
}

async fn append(store: &SqliteDataPlane, number: u64, ts: impl Fn(u64) -> Timestamp) {
    let first = store.ledger_size();
    let places: Vec<u64> = (first..first + number).collect();
    for places in places.chunks(500) {
        let transaction = Transaction {
            receipts: places
                .iter()
                .map(|place| receipt_at(*place, ts(*place)))
                .collect(),
            ..Transaction::default()
        };
        store.commit(transaction).await.expect("nothing conflicts");
    }
}

/// A store with so many receipts in their turn.
async fn filled(folder: &Folder, number: u64) -> SqliteDataPlane {
    let store = folder.open();
    append(&store, number, time).await;
    store
}

fn run(folder: &Folder, before: Timestamp) -> Result<ArchiveSummary, ArchiveFault> {
    archive::run(&folder.database(), before, &mut |_| {})
}

#[track_caller]
fn moved(folder: &Folder, before: Timestamp) -> ArchiveSummary {
    run(folder, before).expect("nothing is in the way")
}

fn files(folder: &Folder) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.0.path().join("archive"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

fn archive_file(folder: &Folder, name: &str) -> PathBuf {
    folder.0.path().join("archive").join(name)
}

/// The places that are in the store, first and last, and their number.
fn places(connection: &Connection) -> (u64, u64, u64) {
    let number = |row: &rusqlite::Row<'_>, index| {
        u64::try_from(row.get::<_, i64>(index).expect("a number")).expect("from 0")
    };
    connection
        .query_row(
            "SELECT min(seq), max(seq), count(*) FROM receipts",
            [],
            |row| Ok((number(row, 0), number(row, 1), number(row, 2))),
        )
        .expect("receipts")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_whole_bundles_are_moved_and_never_the_newest() {
    for (size, stays_from) in [(0, 0), (1, 0), (256, 0), (257, 256), (512, 256), (513, 512)] {
        let folder = Folder::new();
        let store = filled(&folder, size).await;
        let summary = moved(&folder, time(100_000));
        assert_eq!(summary.kept_from, stays_from, "of {size}");
        assert_eq!(summary.removed, stays_from);
        drop(store);
        // The tree's edge is where a start looks for it.
        assert_eq!(folder.open().ledger_size(), size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receipt_that_is_moved_is_older() {
    let folder = Folder::new();
    let store = folder.open();
    // One in the third bundle is too new, whatever follows it.
    append(&store, 1_500, |place| match place {
        600 => time(9_000),
        _ => time(place),
    })
    .await;
    let summary = moved(&folder, time(5_000));
    assert_eq!(summary.kept_from, 512);
    // Older, and not as old.
    assert_eq!(moved(&folder, time(9_000)).kept_from, 512);
    assert_eq!(moved(&folder, time(9_001)).kept_from, 1_280);
    let nothing = moved(&folder, time(9_001));
    assert_eq!((nothing.archives.len(), nothing.removed), (0, 0));
    assert_eq!(
        files(&folder),
        ["receipts-0-512.db", "receipts-512-1280.db"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_or_a_changed_receipt_is_not_moved() {
    for (tampering, is_expected) in [
        (
            "DELETE FROM receipts WHERE seq = 300",
            (|fault| matches!(fault, ArchiveFault::Gap(300))) as fn(&ArchiveFault) -> bool,
        ),
        (
            "UPDATE receipts SET leaf = (SELECT leaf FROM receipts WHERE seq = 7) WHERE seq = 300",
            |fault| {
                matches!(
                    fault,
                    ArchiveFault::File {
                        source: ArchiveFileFault::Flawed(_),
                        ..
                    }
                )
            },
        ),
    ] {
        let folder = Folder::new();
        drop(filled(&folder, 600).await);
        let foreign = folder.foreign_connection();
        foreign
            .execute_batch("DROP TRIGGER receipts_stay; DROP TRIGGER receipts_stay_the_same")
            .expect("dropped");
        foreign.execute_batch(tampering).expect("valid SQL");
        let before = places(&foreign);
        let refused = run(&folder, time(600)).expect_err("flawed");
        assert!(is_expected(&refused), "{refused:?}");
        assert_eq!(places(&foreign), before);
        assert_eq!(files(&folder), Vec::<String>::new());
    }
}

#[test]
fn an_archive_has_the_tables_and_indexes_of_the_store() {
    let folder = Folder::new();
    drop(folder.open());
    let path = folder.0.path().join("archive.db");
    fs::write(&path, "").expect("written");
    let archive = archive::file::create(&path).expect("made");
    let of_tables = |connection: &Connection, lists| {
        let mut lines = Vec::new();
        for sql in [
            "SELECT t.name || ' ' || c.name || ' ' || c.type || c.\"notnull\" || c.pk \
             FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.name IN ('scopes', 'receipts') ORDER BY t.name, c.cid",
            "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL \
             AND tbl_name IN ('scopes', 'receipts') AND name <> 'receipts_in_scope' \
             AND name <> 'receipts_of_key' ORDER BY name",
            lists,
        ] {
            let mut statement = connection.prepare(sql).expect("valid SQL");
            let rows = statement.query_map([], |row| row.get::<_, String>(0));
            lines.extend(rows.expect("rows").map(|line| line.expect("text")));
        }
        lines
    };
    // What the store writes later an archive has at once, as indexes.
    let of_archive = of_tables(
        &archive,
        "SELECT name FROM pragma_index_info('receipts_in_scope') \
         UNION ALL SELECT name FROM pragma_index_info('receipts_of_key')",
    );
    let of_store = of_tables(
        &folder.foreign_connection(),
        "SELECT name FROM pragma_table_info('receipts_by_time') \
         UNION ALL SELECT name FROM pragma_table_info('receipts_by_key')",
    );
    assert_eq!(of_archive, of_store);
    assert_eq!(of_archive.len(), 4 + 7 + 1 + 4 + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_what_was_moved_is_used_again() {
    let folder = Folder::new();
    let store = filled(&folder, 2_049).await;
    let pages = || -> i64 {
        let connection = folder.foreign_connection();
        let count = connection.pragma_query_value(None, "page_count", |row| row.get(0));
        count.expect("a number")
    };
    let before = pages();
    let summary = moved(&folder, time(100_000));
    assert_eq!(summary.removed, 2_048);
    let freed = summary.free_bytes / 4_096;
    assert!(freed * 10 > before as u64 * 8, "{freed} of {before} pages");
    append(&store, 2_000, time).await;
    assert!(pages() <= before + 10, "{} after {before}", pages());
}
