//! Receipts that were moved out of the store: what is moved, what is still
//! answered, and what an archiver that was cut off leaves.

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use super::Folder;
use crate::adapters::data_plane::conformance::{scope, signed};
use crate::adapters::data_plane::sqlite::SqliteDataPlane;
use crate::adapters::data_plane::sqlite::archive::{
    self, ArchiveFault, ArchiveFileFault, ArchiveSummary, Progress,
};
use crate::domain::ids::ReceiptId;
use crate::domain::receipt::tests::receipt;
use crate::domain::receipt::{Receipt, ReceiptOperation, SignedReceipt};
use crate::domain::time::Timestamp;
use crate::ports::data_plane::{DataPlane as _, Transaction};
use crate::ports::ledger_store::{KeptReceipt, LedgerStore as _, ReceiptQuery};

/// Receipts are a millisecond apart from here on.
const BEGIN: i64 = 1_772_366_400_000_000;

/// The time of a receipt that comes in its turn.
fn time(place: u64) -> Timestamp {
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
fn random(below: u64) -> u64 {
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

/// Every page of this query, one after the other.
async fn walk(store: &SqliteDataPlane, mut query: ReceiptQuery) -> Vec<KeptReceipt> {
    let mut found = Vec::new();
    loop {
        let page = store.list_receipts(query.clone()).await.expect("available");
        assert!(page.receipts.len() <= query.limit);
        found.extend(page.receipts);
        match page.next {
            None => return found,
            Some(next) => {
                assert!(query.after.is_none_or(|after| after < next), "it stands");
                query.after = Some(next);
            }
        }
    }
}

/// What is answered to all that can be asked of receipts.
async fn everything(store: &SqliteDataPlane) -> Vec<Vec<KeptReceipt>> {
    let mut answers = Vec::new();
    let size = store.ledger_size();
    for tenant in ["a", "b", "nobody"] {
        for (key_id, operation) in [
            (None, None),
            (Some("key-1"), None),
            (None, Some(ReceiptOperation::Decrypt.name())),
            (Some("key-3"), Some(ReceiptOperation::Decrypt.name())),
            (Some("no-key"), None),
        ] {
            for (from, until, limit) in [
                (None, None, 1_000),
                (None, None, 37),
                (Some(time(size / 3)), Some(time(size * 2 / 3)), 11),
                (Some(time(500)), Some(time(520)), 1),
                (Some(time(size + 100_000)), None, 10),
            ] {
                let query = ReceiptQuery {
                    scope: scope(tenant),
                    key_id: key_id.map(str::to_owned),
                    operation,
                    from,
                    until,
                    after: None,
                    limit,
                };
                answers.push(walk(store, query).await);
            }
        }
    }
    for (first, number) in [(0, 256), (200, 700), (510, 4), (511, 2_000), (size, 5)] {
        let leaves = store.read_leaves(first, number).await.expect("available");
        answers.push(
            (first..)
                .zip(leaves)
                .map(|(leaf_index, leaf)| KeptReceipt { leaf_index, leaf })
                .collect(),
        );
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_is_answered_as_before() {
    let folder = Folder::new();
    let store = folder.open();
    // Times that are in order but for a little, across every border.
    append(&store, 1_700, |place| time(place + 100 - random(100))).await;
    let before = everything(&store).await;
    assert!(before.iter().filter(|answer| !answer.is_empty()).count() >= 25);
    for until in [400, 900, 1_200, 5_000] {
        moved(&folder, time(until));
        assert_eq!(everything(&store).await, before, "{until}");
    }
    assert_eq!(
        files(&folder),
        [
            "receipts-0-256.db",
            "receipts-1024-1536.db",
            "receipts-256-768.db",
            "receipts-768-1024.db",
        ]
    );
    assert_eq!(places(&folder.foreign_connection()).0, 1_536);
    for receipt in before[0].iter().chain(&before[25]) {
        let read = serde_json::from_slice::<serde_json::Value>(&receipt.leaf).expect("JSON");
        let id: ReceiptId = read["receipt_id"]
            .as_str()
            .expect("text")
            .parse()
            .expect("an id");
        for tenant in ["a", "b", "nobody"] {
            let found = store.find_receipt(&scope(tenant), id).await;
            let expected = (read["tenant_id"] == tenant).then(|| receipt.clone());
            assert_eq!(found.expect("available"), expected);
        }
    }
    let unknown = store.find_receipt(&scope("a"), ReceiptId::generate()).await;
    assert_eq!(unknown.expect("available"), None);

    // And the store goes on, and begins again.
    append(&store, 300, time).await;
    drop(store);
    let store = folder.open();
    assert_eq!(store.ledger_size(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_are_in_both_places_are_answered_once() {
    let folder = Folder::new();
    let store = filled(&folder, 1_200).await;
    let before = everything(&store).await;
    // As an archiver leaves it that was killed while it removed.
    let copy = tempfile::tempdir().expect("a folder");
    let other = Folder(copy);
    store.close().await;
    fs::copy(folder.database(), other.database()).expect("copied");
    moved(&other, time(2_000));
    fs::create_dir(folder.0.path().join("archive")).expect("made");
    fs::copy(
        archive_file(&other, "receipts-0-1024.db"),
        archive_file(&folder, "receipts-0-1024.db"),
    )
    .expect("copied");
    let foreign = folder.foreign_connection();
    foreign
        .execute_batch(
            "INSERT INTO archives VALUES (0, 1024, 'receipts-0-1024.db');
             DELETE FROM receipts WHERE seq < 600",
        )
        .expect("allowed");
    drop(store);
    let store = folder.open();
    assert_eq!(everything(&store).await, before);

    let summary = moved(&folder, time(0));
    assert_eq!((summary.removed, summary.kept_from), (424, 1_024));
    assert_eq!(places(&foreign), (1_024, 1_199, 176));
    assert_eq!(everything(&store).await, before);
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
async fn a_file_that_was_not_taken_in_is_taken_in_or_goes() {
    let folder = Folder::new();
    let store = filled(&folder, 1_200).await;
    store.close().await;
    let before = fs::read(folder.database()).expect("a database");
    moved(&folder, time(600));
    // As it was before the store took the file into its list.
    let go_back = || {
        for ending in ["kms.db-wal", "kms.db-shm"] {
            let _ = fs::remove_file(folder.0.path().join(ending));
        }
        fs::write(folder.database(), &before).expect("written");
        fs::write(archive_file(&folder, ".unfinished.new"), "half").expect("written");
    };
    go_back();
    let file = fs::read(archive_file(&folder, "receipts-0-512.db")).expect("a file");
    let summary = moved(&folder, time(600));
    assert_eq!((summary.removed, summary.archives.len()), (512, 1));
    assert_eq!(files(&folder), ["receipts-0-512.db"]);
    let kept = fs::read(archive_file(&folder, "receipts-0-512.db")).expect("a file");
    assert!(kept == file, "it is the same file");

    go_back();
    assert_eq!(moved(&folder, time(300)).kept_from, 256);
    assert_eq!(
        files(&folder),
        ["receipts-0-256.db"],
        "so much was not wanted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_of_this_ledger_is_named_and_nothing_is_removed() {
    let folder = Folder::new();
    let store = filled(&folder, 600).await;
    store.close().await;
    let other = Folder::new();
    drop(filled(&other, 600).await);
    moved(&other, time(600));
    fs::create_dir(folder.0.path().join("archive")).expect("made");
    let path = archive_file(&folder, "receipts-0-512.db");
    for content in [
        fs::read(archive_file(&other, "receipts-0-512.db")).expect("a file"),
        b"no database at all, ".repeat(1_000),
        Vec::new(),
    ] {
        fs::write(&path, content).expect("written");
        let refused = run(&folder, time(600)).expect_err("another ledger's");
        assert!(
            matches!(&refused, ArchiveFault::File { path: named, .. } if *named == path),
            "{refused:?}"
        );
        assert_eq!(places(&folder.foreign_connection()), (0, 599, 600));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_for_an_archive_that_is_gone_or_damaged() {
    let folder = Folder::new();
    drop(filled(&folder, 600).await);
    moved(&folder, time(300));
    let foreign = folder.foreign_connection();
    // Cut off in the middle of removing.
    foreign
        .execute_batch("INSERT INTO archives VALUES (256, 512, 'receipts-256-512.db')")
        .expect("allowed");
    let refused = run(&folder, time(600)).expect_err("no file");
    assert!(
        matches!(
            refused,
            ArchiveFault::File {
                source: ArchiveFileFault::Missing,
                ..
            }
        ),
        "{refused:?}"
    );
    fs::copy(
        archive_file(&folder, "receipts-0-256.db"),
        archive_file(&folder, "receipts-256-512.db"),
    )
    .expect("copied");
    let refused = run(&folder, time(600)).expect_err("another file");
    assert!(matches!(refused, ArchiveFault::File { .. }), "{refused:?}");
    assert_eq!(places(&foreign), (256, 599, 344));
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

#[tokio::test(flavor = "multi_thread")]
async fn one_archiver_is_at_work_at_a_time() {
    let folder = Folder::new();
    drop(filled(&folder, 600).await);
    let mut second = None;
    let first = archive::run(&folder.database(), time(600), &mut |progress| {
        if progress == Progress::Written(256) {
            second = Some(run(&folder, time(600)));
        }
    });
    assert_eq!(first.expect("nothing is in the way").removed, 512);
    let second = second.expect("it was asked");
    assert!(matches!(second, Err(ArchiveFault::Busy)), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_away_is_passed_over_and_found_again_later() {
    let folder = Folder::new();
    let store = filled(&folder, 1_200).await;
    let before = everything(&store).await;
    moved(&folder, time(300));
    moved(&folder, time(600));
    let away = folder.0.path().join("away");
    fs::rename(archive_file(&folder, "receipts-0-256.db"), &away).expect("moved");
    let mut query = ReceiptQuery {
        scope: scope("a"),
        key_id: None,
        operation: None,
        from: None,
        until: None,
        after: None,
        limit: 50,
    };
    let found = walk(&store, query.clone()).await;
    let rest: Vec<_> = before[0]
        .iter()
        .filter(|receipt| receipt.leaf_index >= 256)
        .cloned()
        .collect();
    assert_eq!(found, rest);
    assert_eq!(store.read_leaves(0, 10).await.expect("available").len(), 0);
    drop(store);
    fs::rename(&away, archive_file(&folder, "receipts-0-256.db")).expect("moved");
    let store = folder.open();
    query.limit = 1_000;
    assert_eq!(walk(&store, query).await, before[0]);
}

#[test]
fn an_archive_has_the_tables_and_indexes_of_the_store() {
    let folder = Folder::new();
    drop(folder.open());
    let path = folder.0.path().join("archive.db");
    fs::write(&path, "").expect("written");
    let archive = archive::file::create(&path).expect("made");
    let of_tables = |connection: &Connection| {
        let mut lines = Vec::new();
        for sql in [
            "SELECT t.name || ' ' || c.name || ' ' || c.type || c.\"notnull\" || c.pk \
             FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.name IN ('scopes', 'receipts') ORDER BY t.name, c.cid",
            "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL \
             AND tbl_name IN ('scopes', 'receipts') ORDER BY name",
        ] {
            let mut statement = connection.prepare(sql).expect("valid SQL");
            let rows = statement.query_map([], |row| row.get::<_, String>(0));
            lines.extend(rows.expect("rows").map(|line| line.expect("text")));
        }
        lines
    };
    let of_archive = of_tables(&archive);
    assert_eq!(of_archive, of_tables(&folder.foreign_connection()));
    assert_eq!(of_archive.len(), 4 + 7 + 3);
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
