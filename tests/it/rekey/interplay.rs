//! A change of the key beside other things: a folder that cannot be written, a secret
//! that does not open, a backup in between.

use std::fs;
use std::path::Path;

use rusqlite::params;

use super::book::Book;
use super::{bytes_of, check, handles, holds, lay, pins, rekey, sealed, store_files};
use crate::backup::{backup, path, refused, restore, succeeded};
use crate::support::{Ended, KmsProcess, SmallDisk, UNTHROTTLED, eventually, open_store, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_left_to_the_operator() {
    let disk = SmallDisk::of_kib(256);
    let kek = disk.folder().join("kek");
    lay(&kek, &[1; 32]);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [
        UNTHROTTLED[0],
        UNTHROTTLED[1],
        ("KMS__HSM__SOFTWARE__KEK_FILE", path(&kek)),
    ];
    let kms = KmsProcess::start(folder.path(), &settings);
    let book = Book::fill(&kms, &[("Ed25519", 20), ("AES-256", 20)]).await;
    disk.set_read_only(true);
    let ended = KmsProcess::run(folder.path(), &["rekey"], &settings);
    refused(&ended, 1, &["kek.next", "cannot be written"]);

    // As a secret that is mounted comes with another file in it.
    disk.set_read_only(false);
    lay(&disk.folder().join("kek.next"), &[2; 32]);
    disk.set_read_only(true);
    let words = eventually("the end", || async {
        let kek = check(&kms, "kek").await;
        text(&kek["detail"])
            .contains("take")
            .then(|| (kek["status"].clone(), text(&kek["detail"]).to_owned()))
    })
    .await;
    assert_eq!(words.0, "warn");
    for word in ["kek.next", "put the content of", path(&kek)] {
        assert!(words.1.contains(word), "{word} in {}", words.1);
    }
    book.check(&kms).await;
    let said = KmsProcess::run(folder.path(), &["rekey", "--status"], &settings);
    assert!(
        said.stdout.contains("nothing is under way"),
        "{}",
        said.output()
    );
    kms.stop();
    let store = open_store(folder.path());
    let [in_force, to] = pins(&store);
    assert_eq!(in_force, to);
    assert_eq!(sealed(&store).keys().collect::<Vec<_>>(), [&in_force]);
    drop(store);

    // It starts again as it is, and once the operator has done it.
    let kms = KmsProcess::start(folder.path(), &settings);
    book.check(&kms).await;
    assert_eq!(check(&kms, "kek").await["status"], "warn");
    kms.stop();
    disk.set_read_only(false);
    fs::rename(disk.folder().join("kek.next"), &kek).expect("moved");
    disk.set_read_only(true);
    let kms = KmsProcess::start(folder.path(), &settings);
    book.check(&kms).await;
    assert_eq!(check(&kms, "kek").await["status"], "pass");
    kms.stop();
}

/// Spoils the secret of a key of a service that has stopped; gives it as it was.
fn spoil(folder: &Path, key_id: &str) {
    let store = open_store(folder);
    let id = uuid::Uuid::parse_str(key_id).expect("an id");
    let slot: i64 = store
        .query_row(
            "SELECT slot FROM keys WHERE key_id = ?1",
            [id.as_bytes()],
            |row| row.get(0),
        )
        .expect("a key");
    let mut handle: Vec<u8> = store
        .query_row(
            "SELECT handle FROM key_handles WHERE slot = ?1",
            [slot],
            |row| row.get(0),
        )
        .expect("a handle");
    let last = handle.last_mut().expect("bytes");
    *last ^= 1;
    store
        .execute(
            "UPDATE key_handles SET handle = ?1 WHERE slot = ?2",
            params![handle, slot],
        )
        .expect("written");
}

fn start_is_refused(folder: &Path, words: &[&str]) {
    let ended = KmsProcess::run(folder, &["serve"], &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.output());
    for word in words {
        assert!(
            ended.output().contains(word),
            "{word} in {}",
            ended.output()
        );
    }
}

fn warnings(ended: &Ended) -> Vec<&str> {
    let lines = ended.stderr.lines();
    lines.filter(|line| line.contains("warning: ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_does_not_open_leaves_both_keys_needed_until_its_key_is_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let book = Book::fill(&kms, &[("Ed25519", 30)]).await;
    let spoilt = Book::fill(&kms, &[("AES-256", 1)]).await;
    kms.stop();
    spoil(folder.path(), spoilt.0[0].key_id());
    succeeded(rekey(folder.path(), &[]));
    let mut kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    kms.wait_for_line(&["does not open", spoilt.0[0].key_id(), "altered"]);
    let words = eventually("a warning", || async {
        let kek = check(&kms, "kek").await;
        let words = text(&kek["detail"]).to_owned();
        (kek["status"] == "warn" && words.contains("1 do not open")).then_some(words)
    })
    .await;
    assert!(words.contains("1 to go"), "{words}");
    let metrics = kms.get_operations("/kms/v1/metrics").await;
    assert!(metrics.text.contains("kms_rekey_remaining 1"));
    book.check(&kms).await;
    let [old, new] = pins(&open_store(folder.path()));
    assert_ne!(old, new);
    let again = rekey(folder.path(), &[]);
    refused(&again, 1, &["is not finished", &old, &new, "1 secrets"]);
    let said = succeeded(rekey(folder.path(), &["--status"]));
    for word in [
        format!("in force: {old}"),
        format!("sealed under {new}: 30 secrets"),
        format!("sealed under {old}: 1 secrets"),
        format!("under {new}, 1 to go"),
    ] {
        assert!(said.stdout.contains(&word), "{word} in {}", said.stdout);
    }

    // A backup of this needs both.
    let out = file("backup.db");
    let taken = succeeded(backup(folder.path(), &out));
    for name in ["kek", "kek.next"] {
        assert!(taken.stdout.contains(path(&file(name))), "{}", taken.stdout);
    }
    kms.stop();
    let target = |names: &[(&str, &str)]| {
        let target = tempfile::tempdir().expect("a folder");
        for (from, to) in names {
            fs::copy(file(from), target.path().join(to)).expect("copied");
        }
        target
    };
    let ledger = ("ledger.key", "ledger.key");
    for (names, missing) in [
        (&[("kek", "kek"), ledger][..], Some(&new)),
        (&[("kek.next", "kek"), ledger][..], Some(&old)),
        (
            &[("kek", "kek"), ("kek.next", "kek.next"), ledger][..],
            None,
        ),
        (&[("kek.next", "kek"), ("kek", "kek.old"), ledger][..], None),
    ] {
        let target = target(names);
        let restored = succeeded(restore(target.path(), &out, &[]));
        match missing {
            Some(id) => {
                let said = warnings(&restored);
                assert_eq!(said.len(), 1, "{said:?}");
                assert!(said[0].contains(id.as_str()), "{said:?}");
                start_is_refused(target.path(), &[id, "is not finished"]);
            }
            None => {
                assert_eq!(restored.stderr, "");
                let kms = KmsProcess::start(target.path(), &UNTHROTTLED);
                book.check(&kms).await;
                kms.stop();
            }
        }
    }

    // Nor does it start here without either.
    for (name, id) in [("kek", &old), ("kek.next", &new)] {
        let aside = file("aside");
        fs::rename(file(name), &aside).expect("moved");
        start_is_refused(folder.path(), &[id, "is not finished"]);
        fs::rename(&aside, file(name)).expect("moved");
    }
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    spoilt.0[0].revoke(&kms).await.ok();
    kms.stop();
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let ended = {
        let folder = folder.path().to_owned();
        tokio::task::spawn_blocking(move || rekey(&folder, &["--status", "--wait"]))
    };
    succeeded(ended.await.expect("no panic"));
    book.check(&kms).await;
    kms.stop();
    assert_eq!(pins(&open_store(folder.path())), [new.clone(), new]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_the_store_holds_up_the_end_and_then_nothing_of_the_old_key_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let book = Book::fill(&kms, &[("Ed25519", 10), ("RSA-2048", 2)]).await;
    let store = open_store(folder.path());
    let [old, _] = pins(&store);
    let blobs = handles(&store);
    // As a backup does, for minutes.
    let reader = open_store(folder.path());
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM receipts")
        .expect("a snapshot");
    succeeded(rekey(folder.path(), &[]));
    eventually("a hint", || async {
        let kek = check(&kms, "kek").await;
        text(&kek["detail"])
            .contains("holds up the end")
            .then_some(())
    })
    .await;
    assert_eq!(pins(&store)[0], old);
    assert_eq!(sealed(&store).len(), 1, "all are sealed anew");
    assert!(holds(&store_files(folder.path()), &bytes_of(&old)));
    book.check(&kms).await;
    drop(reader);
    eventually("the end", || async {
        (pins(&store)[0] != old).then_some(())
    })
    .await;
    let files = store_files(folder.path());
    assert!(!holds(&files, &bytes_of(&old)));
    for blob in blobs {
        assert!(!holds(&files, &blob[21..]), "an old secret is left");
    }
    drop(store);
    kms.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_the_change_is_restored_with_the_old_key_beside_the_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let book = Book::fill(&kms, &[("Ed25519", 10), ("AES-256", 10)]).await;
    let out = file("backup.db");
    succeeded(backup(folder.path(), &out));
    let ended = {
        let folder = folder.path().to_owned();
        tokio::task::spawn_blocking(move || rekey(&folder, &["--wait"]))
    };
    succeeded(ended.await.expect("no panic"));
    kms.stop();
    let new = pins(&open_store(folder.path()))[0].clone();

    let target = tempfile::tempdir().expect("a folder");
    for name in ["kek", "ledger.key"] {
        fs::copy(file(name), target.path().join(name)).expect("copied");
    }
    let restored = succeeded(restore(target.path(), &out, &[]));
    let said = warnings(&restored);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("is not the key-encryption key"),
        "{said:?}"
    );
    start_is_refused(target.path(), &["is not the one"]);
    fs::copy(file("kek.old"), target.path().join("kek.old")).expect("copied");
    let kms = KmsProcess::start(target.path(), &UNTHROTTLED);
    book.check(&kms).await;
    eventually("the end", || async {
        let [in_force, to] = pins(&open_store(target.path()));
        (in_force == new && to == new).then_some(())
    })
    .await;
    book.check(&kms).await;
    kms.stop();
}
