//! What an archiver that was cut off leaves, and what the next one does with it.

use std::fs;

use super::*;

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

#[tokio::test]
async fn receipts_are_removed_a_few_at_a_time() {
    let folder = Folder::new();
    drop(filled(&folder, 2_400).await);
    let mut removed = Vec::new();
    let moved = archive::run(&folder.database(), time(2_400), &mut |progress| {
        if let Progress::Removed(until) = progress {
            removed.push(until);
        }
    });
    assert_eq!(moved.expect("nothing is in the way").removed, 2_304);
    // Each step is a transaction that the service's writer waits for.
    assert_eq!(removed, [1_000, 2_000, 2_304]);
}
