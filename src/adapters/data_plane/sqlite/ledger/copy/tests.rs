use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;
use crate::adapters::data_plane::sqlite::known::Known;
use crate::adapters::data_plane::sqlite::ledger::appender::ReceiptAppender;
use crate::adapters::data_plane::sqlite::open::{lock, writable_database};
use crate::domain::ids::ReceiptId;
use crate::domain::ledger::{CompleteTile, TILE_WIDTH, Tile};
use crate::domain::receipt::SignedReceipt;
use crate::domain::receipt::tests::receipt;

/// Appends leaves that say their place, which is all that a copy reads of them.
fn append(connection: &Connection, places: std::ops::Range<u64>) {
    let template = receipt().into_signed(&"signer".into(), "c2ln");
    for place in places {
        let receipt = SignedReceipt {
            receipt_id: ReceiptId::generate(),
            leaf: leaf(place),
            ..template.clone()
        };
        let known = Known::default();
        let mut receipts = ReceiptAppender::new(connection, &known);
        let receipt = Cow::Owned(receipt);
        receipts.append(place, &[receipt]).expect("appended");
    }
}

fn leaf(place: u64) -> Vec<u8> {
    format!("leaf {place}").into_bytes()
}

/// The place of `kms.db` in a new folder, whose name means something in addresses.
fn place() -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("a%20b?mode=rw#c \u{e9}");
    fs::create_dir(&folder).expect("a folder");
    (outer, folder.join("kms.db"))
}

fn store(path: &Path, receipts: u64) -> Connection {
    let connection = writable_database(path, std::time::Duration::ZERO).expect("a database");
    append(&connection, 0..receipts);
    connection
}

/// Everything in the folder of this file: names, bytes and times.
fn contents(path: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let folder = path.parent().expect("a folder");
    fs::read_dir(folder)
        .expect("readable")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let modified = entry.metadata().and_then(|file| file.modified());
            let bytes = fs::read(entry.path()).expect("readable");
            (
                entry.file_name().to_string_lossy().into_owned(),
                (bytes, modified.expect("a time")),
            )
        })
        .collect()
}

/// A copy of a database whose log was not emptied, as a snapshot of a disk has it.
fn copied_with_log() -> (TempDir, PathBuf) {
    let (_source, path) = place();
    let connection = store(&path, 3);
    let (outer, copy) = place();
    for ending in ["", "-wal"] {
        let name = |path: &Path| format!("{}{ending}", path.display());
        fs::copy(name(&path), name(&copy)).expect("copied");
    }
    drop(connection);
    assert!(
        fs::metadata(format!("{}-wal", copy.display()))
            .expect("a log")
            .len()
            > 0
    );
    (outer, copy)
}

#[track_caller]
fn leaves_of(copy: &mut LedgerCopy, first: u64, most: usize) -> Vec<Vec<u8>> {
    match copy.stretch(first, most).expect("readable") {
        Stretch::Leaves(leaves) => leaves,
        away => panic!("{away:?}"),
    }
}

#[test]
fn everything_of_the_ledger_is_read_and_nothing_is_written() {
    let (_folder, path) = place();
    let hashes = vec![TreeHash::of_leaf(b""); TILE_WIDTH];
    let tile = CompleteTile {
        id: TileId { level: 1, index: 7 },
        tile: Tile::of(&hashes).expect("no more than a tile"),
    };
    let keys: Vec<_> = [(7, 0, None), (8, 2, Some("handover".to_owned()))]
        .into_iter()
        .map(|(byte, from_size, handover)| LedgerKey {
            public_key: [byte; 32],
            from_size,
            handover,
        })
        .collect();
    let connection = store(&path, 5);
    rows::insert_tile(&connection, &tile).expect("kept");
    rows::write_head(&connection, "head").expect("kept");
    for (size, key) in [1, 4].into_iter().zip(&keys) {
        rows::keep_checkpoint(&connection, size, &format!("note {size}")).expect("kept");
        rows::insert_key(&connection, key).expect("kept");
    }
    drop(connection);
    let before = contents(&path);

    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(copy.size().expect("readable"), 5);
    assert_eq!(copy.head().expect("readable").as_deref(), Some("head"));
    assert_eq!(copy.keys().expect("readable"), keys);
    assert_eq!(copy.tile(tile.id).expect("readable"), Some(hashes));
    let other = TileId { level: 1, index: 8 };
    assert_eq!(copy.tile(other).expect("readable"), None);
    let kept = |number: u64, size: u64| KeptCheckpoint {
        number,
        size,
        note: format!("note {size}"),
    };
    let both = copy.checkpoints(1, 9).expect("readable");
    assert_eq!(both, [kept(1, 1), kept(2, 4)]);
    assert_eq!(copy.checkpoints(1, 1).expect("readable"), [kept(1, 1)]);
    assert_eq!(copy.checkpoints(2, 9).expect("readable"), [kept(2, 4)]);
    assert_eq!(leaves_of(&mut copy, 1, 3), [leaf(1), leaf(2), leaf(3)]);
    assert_eq!(leaves_of(&mut copy, 4, 9), [leaf(4)]);
    assert_eq!(leaves_of(&mut copy, 5, 9), Vec::<Vec<u8>>::new());
    copy.settle().expect("one state");
    drop(copy);
    assert!(contents(&path) == before);
}

#[test]
fn a_log_beside_a_copy_is_read_and_left_as_it_is() {
    let (_folder, path) = copied_with_log();
    let before = contents(&path);
    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(leaves_of(&mut copy, 0, 9), [leaf(0), leaf(1), leaf(2)]);
    copy.settle().expect("one state");
    drop(copy);
    assert!(contents(&path) == before);
    assert_eq!(before.len(), 2);
}

#[test]
fn a_log_that_holds_nothing_stays_where_it_is() {
    let (_folder, path) = place();
    drop(store(&path, 3));
    fs::write(format!("{}-wal", path.display()), [0; 4096]).expect("written");
    let before = contents(&path);
    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(copy.size().expect("readable"), 3);
    drop(copy);
    assert!(contents(&path) == before);
}

#[test]
fn a_medium_that_cannot_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_log, with_log) = copied_with_log();
    let (_plain, plain) = place();
    drop(store(&plain, 3));
    for path in [with_log, plain] {
        let folder = path.parent().expect("a folder");
        for entry in fs::read_dir(folder).expect("readable") {
            let file = entry.expect("an entry").path();
            fs::set_permissions(file, fs::Permissions::from_mode(0o444)).expect("set");
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).expect("set");
        let mut copy = LedgerCopy::open(&path).expect("readable");
        assert_eq!(leaves_of(&mut copy, 0, 9).len(), 3);
        drop(copy);
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("set");
    }
}

#[test]
fn of_a_running_service_one_state_is_read() {
    let (_folder, path) = place();
    let _lock = lock(&path).expect("free");
    let connection = store(&path, 3);
    let mut copy = LedgerCopy::open(&path).expect("readable");
    append(&connection, 3..6);
    assert_eq!(copy.size().expect("readable"), 3);
    assert_eq!(leaves_of(&mut copy, 0, 9).len(), 3);
    copy.settle().expect("the service has locks");
    let mut later = LedgerCopy::open(&path).expect("readable");
    assert_eq!(later.size().expect("readable"), 6);
}

#[test]
fn a_service_is_not_kept_from_its_database() {
    let (_folder, path) = place();
    drop(lock(&path).expect("free"));
    drop(store(&path, 3));
    let copy = LedgerCopy::open(&path).expect("readable");
    let held = lock(&path).expect("free");
    let connection = store(&path, 0);
    append(&connection, 3..4);
    let fault = copy.settle_archive().and(copy.database.settle());
    let fault = fault.expect_err("written meanwhile").to_string();
    assert!(fault.contains("kms.db was written"), "{fault}");
    drop(held);
}

#[test]
fn the_log_of_a_service_that_was_killed_is_read_where_it_lies() {
    let (_source, path) = place();
    let connection = store(&path, 3);
    let (_folder, copy) = place();
    for ending in ["", "-wal", "-shm"] {
        let name = |path: &Path| format!("{}{ending}", path.display());
        fs::copy(name(&path), name(&copy)).expect("copied");
    }
    drop(connection);
    drop(lock(&copy).expect("free"));
    let before = contents(&copy);
    let mut read = LedgerCopy::open(&copy).expect("readable");
    assert_eq!(read.size().expect("readable"), 3);
    drop(read);
    assert!(contents(&copy) == before);
}

/// A store of 6 receipts, 1 to 3 of them moved to an archive.
fn archived() -> (TempDir, PathBuf, PathBuf) {
    let (folder, path) = place();
    let connection = store(&path, 6);
    let archive = path.with_file_name("archive").join("0001.db");
    fs::create_dir(archive.parent().expect("a folder")).expect("a folder");
    let moved = writable_database(&archive, std::time::Duration::ZERO).expect("a database");
    moved
        .execute_batch("DROP TRIGGER receipts_are_dense")
        .expect("dropped");
    append(&moved, 1..4);
    drop(moved);
    connection
        .execute_batch(
            "INSERT INTO archives VALUES (1, 4, '0001.db');
             DELETE FROM receipts WHERE seq BETWEEN 1 AND 3;",
        )
        .expect("moved");
    (folder, path, archive)
}

#[test]
fn moved_receipts_are_read_from_their_archive() {
    let (_folder, path, _archive) = archived();
    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(copy.size().expect("readable"), 6);
    assert_eq!(leaves_of(&mut copy, 0, 9), [leaf(0)]);
    assert_eq!(leaves_of(&mut copy, 1, 9), [leaf(1), leaf(2), leaf(3)]);
    assert_eq!(leaves_of(&mut copy, 2, 1), [leaf(2)]);
    assert_eq!(leaves_of(&mut copy, 4, 9), [leaf(4), leaf(5)]);
    assert!(leaves_of(&mut copy, 6, 9).is_empty());
    copy.settle().expect("one state");
}

#[test]
fn an_archive_that_is_written_while_it_is_read_is_noticed() {
    for closed in [false, true] {
        let (_folder, path, archive) = archived();
        let mut copy = LedgerCopy::open(&path).expect("readable");
        assert_eq!(leaves_of(&mut copy, 1, 9).len(), 3);
        let moved = Connection::open(&archive).expect("a database");
        append(&moved, 4..5);
        drop(moved);
        let settled = match closed {
            false => copy.settle(),
            true => copy.open_archive("0002.db").map(|_| ()),
        };
        let fault = settled.expect_err("written meanwhile").to_string();
        assert!(fault.contains("0001.db was written"), "{fault}");
    }
}

#[test]
fn what_is_in_the_store_is_read_there_though_its_neighbours_are_moved() {
    let (_folder, path, archive) = archived();
    let connection = Connection::open(&path).expect("a database");
    connection
        .execute_batch("DROP TRIGGER receipts_are_dense")
        .expect("dropped");
    append(&connection, 2..3);
    drop(connection);
    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(leaves_of(&mut copy, 1, 9), [leaf(1)]);
    assert_eq!(leaves_of(&mut copy, 2, 9), [leaf(2)]);
    drop(copy);
    fs::remove_file(&archive).expect("removed");
    let mut copy = LedgerCopy::open(&path).expect("readable");
    let away = copy.stretch(1, 9).expect("readable");
    assert!(matches!(away, Stretch::Away { end: 2, .. }));
}

#[test]
fn an_archive_that_is_not_there_is_named() {
    let (_folder, path, archive) = archived();
    fs::remove_file(&archive).expect("removed");
    let mut copy = LedgerCopy::open(&path).expect("readable");
    for first in 1..4 {
        let away = Stretch::Away {
            end: 4,
            file: "0001.db".to_owned(),
        };
        assert_eq!(copy.stretch(first, 1).expect("readable"), away);
    }
    assert_eq!(leaves_of(&mut copy, 4, 9).len(), 2);
    // What is still here is not looked for elsewhere.
    let connection = Connection::open(&path).expect("a database");
    connection
        .execute_batch("INSERT INTO archives VALUES (4, 9, '0002.db')")
        .expect("said to be moved");
    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(copy.size().expect("readable"), 9);
    assert_eq!(leaves_of(&mut copy, 4, 9).len(), 2);
    assert!(matches!(
        copy.stretch(6, 9).expect("readable"),
        Stretch::Away { end: 9, .. }
    ));
}

#[test]
fn an_archive_that_lacks_a_receipt_has_none_to_give() {
    let (_folder, path, archive) = archived();
    let moved = Connection::open(&archive).expect("a database");
    moved
        .execute_batch("DROP TRIGGER receipts_stay; DELETE FROM receipts WHERE seq = 2")
        .expect("deleted");
    drop(moved);
    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(leaves_of(&mut copy, 1, 9), [leaf(1)]);
    assert!(leaves_of(&mut copy, 2, 9).is_empty());
    assert_eq!(leaves_of(&mut copy, 3, 9), [leaf(3)]);
}

#[test]
fn an_archive_is_in_its_folder_and_nowhere_else() {
    let (_folder, path, _archive) = archived();
    for name in ["../kms.db", "/etc/passwd", "..", "", "a/b"] {
        let connection = Connection::open(&path).expect("a database");
        connection
            .execute("UPDATE archives SET file = ?1", [name])
            .expect("renamed");
        drop(connection);
        let mut copy = LedgerCopy::open(&path).expect("readable");
        let fault = copy.stretch(1, 9).expect_err("no name").to_string();
        assert!(fault.contains("no file's name"), "{name}: {fault}");
    }
}

#[test]
fn what_is_no_store_with_a_tree_is_refused_by_name() {
    let (_folder, path) = place();
    let refused = |path: &Path| {
        let fault = LedgerCopy::open(path).err().expect("refused");
        let cause = fault.source.map(|cause| cause.to_string());
        format!("{}: {}", fault.what, cause.unwrap_or_default())
    };
    let missing = refused(&path);
    assert!(missing.contains("kms.db: No such file"), "{missing}");
    fs::write(&path, b"no database, and longer than a header of one").expect("written");
    let text = refused(&path);
    assert!(
        text.contains("cannot read") && text.contains("not a database"),
        "{text}"
    );
    fs::remove_file(&path).expect("removed");
    let connection = store(&path, 1);
    for (version, said) in [(2, "no ledger with a tree"), (99, "use the newer release")] {
        connection
            .pragma_update(None, "user_version", version)
            .expect("set");
        let fault = refused(&path);
        assert!(fault.contains(said), "{fault}");
    }
    connection
        .pragma_update(None, "application_id", 1)
        .expect("set");
    let foreign = refused(&path);
    assert!(
        foreign.contains("not a database of this service"),
        "{foreign}"
    );
}

#[test]
fn a_leaf_of_another_kind_is_no_receipt() {
    let (_folder, path) = place();
    let connection = store(&path, 2);
    connection
        .execute_batch(
            "DROP TRIGGER receipts_stay_listed_by_time;
             DROP TRIGGER receipts_stay_listed_by_key;
             CREATE TABLE loose AS SELECT * FROM receipts;
             DROP TABLE receipts;
             ALTER TABLE loose RENAME TO receipts;
             UPDATE receipts SET leaf = 7 WHERE seq = 1;",
        )
        .expect("changed");
    drop(connection);
    let mut copy = LedgerCopy::open(&path).expect("readable");
    assert_eq!(leaves_of(&mut copy, 0, 9), [leaf(0), vec![]]);
}
