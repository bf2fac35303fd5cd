//! The same for a whole store.

use std::fs;

use super::flipped;
use crate::adapters::data_plane::conformance::now;
use crate::adapters::data_plane::sqlite::archive::{self, ArchiveFault};
use crate::adapters::data_plane::sqlite::snapshot::{self, SnapshotFault};
use crate::adapters::data_plane::sqlite::tests::{Folder, one_receipt};
use crate::adapters::data_plane::sqlite::{OpenError, SqliteDataPlane, SqliteOptions};
use crate::ports::data_plane::DataPlane as _;
use crate::ports::ledger_store::LedgerStore as _;

/// The files of a store that has answered and was not closed, in another folder.
async fn left_by_a_store(receipts: usize) -> (Folder, Vec<u64>) {
    let folder = Folder::new();
    let store = folder.open();
    let log = folder.0.path().join("kms.db-wal");
    let mut ends = Vec::new();
    for _ in 0..receipts {
        store.commit(one_receipt()).await.expect("kept");
        ends.push(fs::metadata(&log).expect("a file").len());
    }
    let copy = Folder::new();
    for name in ["kms.db", "kms.db-wal"] {
        let from = folder.0.path().join(name);
        fs::copy(from, copy.0.path().join(name)).expect("copied");
    }
    (copy, ends)
}

#[tokio::test]
async fn a_store_opens_behind_a_torn_write_and_cuts_it_off() {
    let (folder, ends) = left_by_a_store(4).await;
    let log = folder.0.path().join("kms.db-wal");
    let bytes = fs::read(&log).expect("a file");
    for length in [ends[2] + 1, ends[2] + 2_000, ends[3] - 1] {
        let length = usize::try_from(length).expect("small");
        let copy = Folder::new();
        fs::copy(folder.database(), copy.database()).expect("copied");
        let copied = copy.0.path().join("kms.db-wal");
        fs::write(&copied, &bytes[..length]).expect("written");
        let store = copy.open();
        assert_eq!(store.ledger_size(), 3);
        assert_eq!(fs::metadata(&copied).expect("a file").len(), 0);
        store.commit(one_receipt()).await.expect("goes on");
        let newest = store.newest_receipt().await.expect("available");
        assert_eq!(newest.expect("kept").leaf_index, 3);
    }
}

#[tokio::test]
async fn a_store_with_a_damaged_log_is_refused_and_left_as_it_was() {
    let (folder, ends) = left_by_a_store(4).await;
    let log = folder.0.path().join("kms.db-wal");
    let at = usize::try_from(ends[1]).expect("small") + 50;
    let damaged = flipped(&fs::read(&log).expect("a file"), at, 0);
    fs::write(&log, &damaged).expect("written");
    let database = fs::read(folder.database()).expect("a file");
    let refusal = folder.refusal();
    let OpenError::DamagedLog { path, .. } = &refusal else {
        panic!("{refusal:?}");
    };
    assert_eq!(*path, log);
    let message = refusal.to_string();
    for part in ["kms.db-wal", "frame", "restore", "nothing was changed"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(fs::read(&log).expect("a file"), damaged);
    assert_eq!(fs::read(folder.database()).expect("a file"), database);
    // Whoever copies it or takes from it would pass over the damage too.
    let copied = snapshot::take(&folder.database(), &folder.0.path().join("copy.db"));
    assert!(
        matches!(
            copied,
            Err(SnapshotFault::Open {
                source: OpenError::DamagedLog { .. },
                ..
            })
        ),
        "{copied:?}"
    );
    let archived = archive::run(&folder.database(), now(), &mut |_| {});
    assert!(
        matches!(
            archived,
            Err(ArchiveFault::Open {
                source: OpenError::DamagedLog { .. },
                ..
            })
        ),
        "{archived:?}"
    );
    assert!(fs::read(&log).expect("a file") == damaged);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_named() {
    let (folder, _) = left_by_a_store(1).await;
    let log = folder.0.path().join("kms.db-wal");
    fs::remove_file(&log).expect("removed");
    fs::create_dir(&log).expect("made");
    let refusal = folder.refusal();
    assert!(
        matches!(&refusal, OpenError::File { path, .. } if *path == log),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn a_damaged_database_gives_an_error_or_what_it_held_and_never_a_panic() {
    let folder = Folder::new();
    let store = folder.open();
    for _ in 0..3 {
        store.commit(one_receipt()).await.expect("kept");
    }
    store.close().await;
    drop(store);
    let bytes = fs::read(folder.database()).expect("a file");
    let pages = bytes.len() / 4_096;
    let places = (0..120).chain((1..pages).map(|page| page * 4_096));
    let mut refused = 0;
    for at in places {
        fs::write(folder.database(), flipped(&bytes, at, 6)).expect("written");
        match SqliteDataPlane::open(&folder.database(), SqliteOptions::default()) {
            Ok(store) => {
                // Whatever it answers, it answers.
                let _ = store.commit(one_receipt()).await;
                let _ = store.newest_receipt().await;
                store.close().await;
            }
            Err(error) => {
                refused += 1;
                let message = error.to_string();
                let is_named = ["kms.db", "the database's schema"];
                assert!(
                    is_named.iter().any(|name| message.contains(name)),
                    "{at}: {message}"
                );
            }
        }
    }
    assert!(refused > 20, "{refused}");
}
