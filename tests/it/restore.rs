//! What is restored of a backup, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::backup::{
    backed_up, backup, copy_secrets, folder_with_secrets, names, path, refused, restore, succeeded,
};
use crate::support::{KmsProcess, TestKms, UNTHROTTLED};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_over_a_store_or_under_a_service() {
    let (folder, out) = backed_up(5).await;
    let before = fs::read(folder.path().join("kms.db")).expect("a store");
    let database = folder.path().join("kms.db");
    let ended = restore(folder.path(), &out, &[]);
    refused(&ended, 1, &[path(&database), "is there"]);
    assert!(fs::read(&database).expect("a store") == before);
    let kms = KmsProcess::start(folder.path(), &[]);
    let ended = restore(folder.path(), &out, &[]);
    refused(&ended, 1, &["is held by another process"]);
    kms.stop();

    // What SQLite would take for the new store's, too.
    let target = folder_with_secrets(folder.path());
    let log = target.path().join("kms.db-wal");
    fs::write(&log, "a log").expect("written");
    refused(&restore(target.path(), &out, &[]), 1, &[path(&log)]);
    assert_eq!(names(target.path()), ["kek", "kms.db-wal", "ledger.key"]);
}

/// Changes a backup as somebody with the file would, whatever the triggers say.
fn tampered(backup: &Path, statements: &str) -> PathBuf {
    let copy = backup.with_extension("tampered");
    fs::copy(backup, &copy).expect("copied");
    let store = Connection::open(&copy).expect("a store");
    for trigger in [
        "receipts_stay_the_same",
        "receipts_stay",
        "tiles_stay_the_same",
    ] {
        let drop = format!("DROP TRIGGER {trigger}");
        store.execute_batch(&drop).expect("dropped");
    }
    store.execute_batch(statements).expect("valid SQL");
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_changed_or_cut_off_is_not_restored() {
    let (folder, out) = backed_up(600).await;
    let target = folder_with_secrets(folder.path());
    for (statements, words) in [
        (
            "UPDATE receipts SET leaf = CAST(replace(CAST(leaf AS TEXT), 'M21', 'M29') AS BLOB) \
             WHERE seq = 100",
            "receipt 100 ",
        ),
        (
            "UPDATE receipts SET leaf = (SELECT leaf FROM receipts WHERE seq = 7) WHERE seq = 100",
            "receipt 100 ",
        ),
        (
            "DELETE FROM receipts WHERE seq = 100",
            "receipt 100 is missing",
        ),
        ("DELETE FROM receipts WHERE seq = 599", "there are 599"),
        (
            "UPDATE tiles SET hashes = randomblob(8192) WHERE tile_index = 1",
            "600 receipts are not those",
        ),
        (
            "UPDATE ledger_head SET note = replace(note, 'kms', 'smk')",
            "checkpoint of 600 receipts",
        ),
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = \
             replace(sql, '(receipt_id, scope)', '(key_id, scope)') WHERE name = 'receipts_by_id'",
            "is damaged",
        ),
        (
            "INSERT INTO receipts_by_time SELECT scope, ts + 1, seq, operation FROM receipts \
             WHERE seq = 7",
            "receipt 7 is not listed",
        ),
        (
            "PRAGMA application_id = 7",
            "is not a database of this service",
        ),
    ] {
        let ended = restore(target.path(), &tampered(&out, statements), &[]);
        refused(&ended, 1, &[words]);
        assert_eq!(names(target.path()), ["kek", "ledger.key"], "{statements}");
    }
    let whole = fs::read(&out).expect("a backup");
    let cut = out.with_extension("cut");
    for length in [0, 100, 4_096, whole.len() / 2, whole.len() - 4_096] {
        fs::write(&cut, &whole[..length]).expect("written");
        let ended = restore(target.path(), &cut, &[]);
        refused(&ended, 1, &[]);
        assert_eq!(
            names(target.path()),
            ["kek", "ledger.key"],
            "{length} bytes"
        );
    }
    let missing = restore(target.path(), &out.with_extension("missing"), &[]);
    refused(&missing, 1, &["backup.missing"]);
    // A copy of the files of a service at work is none either.
    fs::write(out.with_file_name("backup.db-wal"), "a log").expect("written");
    let ended = restore(target.path(), &out, &[]);
    refused(&ended, 1, &["backup.db-wal", "kms backup"]);
    fs::remove_file(out.with_file_name("backup.db-wal")).expect("removed");
    succeeded(restore(target.path(), &out, &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_is_restored_only_on_demand_and_what_it_breaks_is_said() {
    let (folder, out) = backed_up(10).await;
    let kms = TestKms::start_in(folder, &UNTHROTTLED).await;
    kms.leave_receipts(10).await;
    let folder = kms.stop().await;
    let newer = folder.path().join("ledger.checkpoint");

    // Given, or lying in the data folder.
    let target = folder_with_secrets(folder.path());
    let ended = restore(target.path(), &out, &["--since", path(&newer)]);
    refused(&ended, 1, &["10 receipts", "had 20", "--allow-older"]);
    assert_eq!(names(target.path()), ["kek", "ledger.key"]);
    fs::copy(&newer, target.path().join("ledger.checkpoint")).expect("copied");
    let ended = restore(target.path(), &out, &[]);
    refused(&ended, 1, &["10 receipts", "had 20", "--allow-older"]);
    assert_eq!(
        names(target.path()),
        ["kek", "ledger.checkpoint", "ledger.key"]
    );

    let ended = succeeded(restore(target.path(), &out, &["--allow-older"]));
    for words in [
        "IS OLDER",
        "the 10 receipts from 10 to 19 are lost",
        "superseded",
    ] {
        assert!(ended.stderr.contains(words), "{words} in {}", ended.stderr);
    }
    assert_eq!(
        names(target.path()),
        [
            "kek",
            "kms.db",
            "ledger.checkpoint.superseded",
            "ledger.key"
        ]
    );
    assert_eq!(
        fs::read(target.path().join("ledger.checkpoint.superseded")).expect("kept"),
        fs::read(&newer).expect("there")
    );
    let kms = KmsProcess::start(target.path(), &[]);
    kms.generate_id("Ed25519").await;
    kms.stop();

    // What it became is not what the checkpoint was of, however long it is.
    let kms = TestKms::start_in(target, &UNTHROTTLED).await;
    kms.leave_receipts(15).await;
    let target = kms.stop().await;
    let forked = folder.path().join("forked.db");
    succeeded(backup(target.path(), &forked));
    let third = folder_with_secrets(folder.path());
    for more in [
        &["--since", path(&newer)][..],
        &["--since", path(&newer), "--allow-older"],
    ] {
        let ended = restore(third.path(), &forked, more);
        refused(&ended, 1, &["has another ledger", path(&newer)]);
        assert_eq!(names(third.path()), ["kek", "ledger.key"]);
    }
    // One of its own is contained.
    let own = target.path().join("ledger.checkpoint");
    fs::copy(&own, third.path().join("ledger.checkpoint")).expect("copied");
    succeeded(restore(third.path(), &forked, &["--since", path(&own)]));
    assert_eq!(
        names(third.path()),
        ["kek", "kms.db", "ledger.checkpoint", "ledger.key"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_none_or_of_another_ledger_is_named() {
    let (folder, out) = backed_up(10).await;
    let (other, _) = backed_up(5).await;
    let target = folder_with_secrets(folder.path());
    let since = target.path().join("ledger.checkpoint");
    let missing = restore(target.path(), &out, &["--since", path(&since)]);
    refused(&missing, 2, &["--since", path(&since)]);
    fs::write(&since, "no checkpoint").expect("written");
    let none = restore(target.path(), &out, &["--since", path(&since)]);
    refused(&none, 2, &["--since", "no checkpoint"]);
    let none = restore(target.path(), &out, &[]);
    refused(&none, 1, &[path(&since), "move it away"]);
    fs::copy(other.path().join("ledger.checkpoint"), &since).expect("copied");
    for more in [&[][..], &["--allow-older"]] {
        let ended = restore(target.path(), &out, more);
        refused(&ended, 1, &["of another service", path(&since)]);
    }
    assert_eq!(
        names(target.path()),
        ["kek", "ledger.checkpoint", "ledger.key"]
    );
    let faulty = KmsProcess::run(
        target.path(),
        &["restore", "--from", path(&out)],
        &[("KMS__SERVER__LISTEN", "nowhere")],
    );
    refused(&faulty, 64, &["server.listen"]);
    let without = KmsProcess::run(target.path(), &["restore"], &[]);
    refused(&without, 2, &["--from"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_are_missing_or_of_another_store_are_warned_of() {
    let (folder, out) = backed_up(10).await;
    let (other, _) = backed_up(5).await;
    let warnings = |target: &Path| {
        let ended = succeeded(restore(target, &out, &[]));
        let lines = ended.stderr.lines().map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let target = folder_with_secrets(folder.path());
    assert_eq!(warnings(target.path()), Vec::<String>::new());

    let target = tempfile::tempdir().expect("a folder");
    let said = warnings(target.path());
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].contains("agrees with itself"), "{said:?}");
    for (line, name) in said[1..].iter().zip(["kek", "ledger.key"]) {
        let file = target.path().join(name);
        assert!(
            line.contains(&format!("{} is missing", file.display())),
            "{line}"
        );
    }

    let target = folder_with_secrets(other.path());
    let said = warnings(target.path());
    assert_eq!(said.len(), 3, "{said:?}");
    for (line, name) in said[1..].iter().zip(["kek", "ledger.key"]) {
        let file = target.path().join(name);
        assert!(
            line.contains(&format!("{} is not the", file.display())),
            "{line}"
        );
    }
    copy_secrets(folder.path(), target.path());
    KmsProcess::start(target.path(), &[]).stop();
}
