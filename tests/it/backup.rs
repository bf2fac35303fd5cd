//! A backup of a service at work, and the way back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::ledger::checkpoint_of;
use crate::support::{Ended, KmsProcess, MixedLoad, TestKms, UNTHROTTLED, base64, in_scope, text};

pub(crate) fn backup(folder: &Path, out: &Path) -> Ended {
    KmsProcess::run(folder, &["backup", "--out", path(out)], &[])
}

pub(crate) fn restore(folder: &Path, from: &Path, more: &[&str]) -> Ended {
    let arguments = [&["restore", "--from", path(from)], more].concat();
    KmsProcess::run(folder, &arguments, &[])
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[track_caller]
pub(crate) fn succeeded(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}", ended.output());
    ended
}

/// Checks that this was refused with this code, in these words, and that nothing
/// came of it in the folder.
#[track_caller]
pub(crate) fn refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.output());
    for word in words {
        assert!(ended.stderr.contains(word), "{word} in {}", ended.stderr);
    }
}

/// Puts the secrets of one data folder into another.
pub(crate) fn copy_secrets(from: &Path, to: &Path) {
    for name in ["kek", "ledger.key"] {
        fs::copy(from.join(name), to.join(name)).expect("copied");
    }
}

/// A new folder with the secrets of this one.
pub(crate) fn folder_with_secrets(of: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy_secrets(of, folder.path());
    folder
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

/// The folder of a service that left so many receipts and stopped, and a backup of it.
pub(crate) async fn backed_up(receipts: usize) -> (TempDir, PathBuf) {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    kms.leave_receipts(receipts).await;
    let folder = kms.stop().await;
    let out = folder.path().join("backup.db");
    succeeded(backup(folder.path(), &out));
    (folder, out)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_has_all_that_was_acknowledged_and_serves_as_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let signer = kms.generate_id("Ed25519").await;
    let (before, meanwhile) = (MixedLoad::new(&kms).await, MixedLoad::new(&kms).await);
    before.until_acknowledged(&kms, 100).await;
    let out = folder.path().join("out").join("backup.db");
    fs::create_dir(folder.path().join("out")).expect("made");
    let taking = {
        let (folder, out) = (folder.path().to_owned(), out.clone());
        tokio::task::spawn_blocking(move || backup(&folder, &out))
    };
    meanwhile
        .until(&kms, "the backup", || async { taking.is_finished() })
        .await;
    let taken = succeeded(taking.await.expect("no panic"));
    for what in ["sign", "verify", "encrypt", "generate", "list"] {
        assert_eq!(meanwhile.refused(what), 0, "{what}");
    }
    let slowest = meanwhile.slowest();
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let keys = kms.get("/kms/v1/ledger/keys").await;
    let verifier_key = text(&keys.ok()["keys"][0]["verifier_key"]).to_owned();
    kms.stop();

    assert_eq!(names(out.parent().expect("a folder")), ["backup.db"]);
    let mode = fs::metadata(&out).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let words = [
        "newest checkpoint:\nkms\n",
        path(&folder.path().join("kek")),
        path(&folder.path().join("ledger.key")),
    ]
    .map(|word| (word.to_owned(), taken.stdout.contains(word)));
    assert!(words.iter().all(|(_, is_said)| *is_said), "{words:?}");
    let size = taken
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("ledger: ")?.strip_suffix(" receipts"))
        .and_then(|size| size.parse::<u64>().ok())
        .expect("a size");
    let note = taken.stdout.split("newest checkpoint:\n").nth(1);
    let end = note
        .and_then(|note| note.find("\nThe keys in it"))
        .expect("a note");
    let note = &note.expect("a note")[..end];
    assert_eq!(checkpoint_of(note, &verifier_key).size(), size);

    let target = folder_with_secrets(folder.path());
    let restored = succeeded(restore(target.path(), &out, &[]));
    assert_eq!(restored.stderr, "", "there is nothing to warn of");
    assert!(
        restored
            .stdout
            .contains(&format!("{size} receipts, verified"))
    );
    let mode = fs::metadata(target.path().join("kms.db")).expect("a file");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert_eq!(names(target.path()), ["kek", "kms.db", "ledger.key"]);
    let kms = KmsProcess::start(target.path(), &UNTHROTTLED);
    before.check_with(&kms).await;
    let body = in_scope(json!({ "key_id": signer, "data": base64("data") }));
    kms.post("/kms/v1/sign", &body).await.ok();
    kms.stop();
    let verified = KmsProcess::run(target.path(), &["ledger", "verify"], &[]);
    let verified = succeeded(verified);
    assert!(
        verified.stdout.contains(&format!("size: {}", size + 1)),
        "{}",
        verified.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_that_opens_anything_is_in_a_backup() {
    let (folder, out) = backed_up(5).await;
    let content = fs::read(out).expect("a backup");
    for name in ["kek", "ledger.key"] {
        let secret = fs::read(folder.path().join(name)).expect("a secret");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        for form in [
            secret.clone(),
            base64(&secret).into_bytes(),
            hex.into_bytes(),
        ] {
            let is_in_it = content.windows(form.len()).any(|piece| piece == form);
            assert!(!is_in_it, "{name}");
            let part = &form[..form.len() / 2];
            assert!(
                !content.windows(part.len()).any(|piece| piece == part),
                "{name}"
            );
        }
    }
    // What is searched for is found where it is: the ledger's public key.
    let store = Connection::open(folder.path().join("kms.db")).expect("a store");
    let public_key: Vec<u8> = store
        .query_row("SELECT public_key FROM ledger_keys", [], |row| row.get(0))
        .expect("a key");
    assert!(content.windows(32).any(|piece| piece == public_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_written_over_nothing_and_a_failed_one_leaves_nothing() {
    let (folder, out) = backed_up(5).await;
    let before = fs::read(&out).expect("a backup");
    let again = backup(folder.path(), &out);
    refused(&again, 1, &[path(&out), "is there already"]);
    assert!(fs::read(&out).expect("a backup") == before);

    let empty = tempfile::tempdir().expect("a folder");
    let out = empty.path().join("backup.db");
    refused(&backup(empty.path(), &out), 1, &["kms.db"]);
    assert_eq!(names(empty.path()), Vec::<String>::new());
    let nowhere = folder.path().join("missing").join("backup.db");
    refused(&backup(folder.path(), &nowhere), 1, &["missing"]);

    let database = folder.path().join("kms.db");
    let whole = fs::read(&database).expect("a store");
    fs::write(&database, &whole[..whole.len() / 2]).expect("written");
    let out = folder.path().join("second.db");
    refused(&backup(folder.path(), &out), 1, &[path(&database)]);
    let left: Vec<_> = names(folder.path())
        .into_iter()
        .filter(|name| name.contains("second"))
        .collect();
    assert_eq!(left, Vec::<String>::new());

    let memory = KmsProcess::run(
        folder.path(),
        &["backup", "--out", path(&out)],
        &[("KMS__STORE__URL", "memory:")],
    );
    refused(&memory, 1, &["store.url"]);
    let faulty = KmsProcess::run(
        folder.path(),
        &["backup", "--out", path(&out)],
        &[("KMS__SERVER__LISTEN", "nowhere")],
    );
    refused(&faulty, 64, &["server.listen"]);
    let without = KmsProcess::run(folder.path(), &["backup"], &[]);
    refused(&without, 2, &["--out"]);
}

/// As from a container that nothing can be copied out of.
#[tokio::test]
async fn a_backup_can_go_to_standard_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &[]);
    let key_id = kms.generate_id("Ed25519").await;
    // What one that was killed has left behind.
    fs::write(folder.path().join("backup.passing"), "old").expect("written");
    let before = names(folder.path());
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_kms"))
        .args(["backup", "--out", "-"])
        .env_clear()
        .env("KMS__DATA_DIR", folder.path())
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{told}");
    assert!(told.contains("backup: standard output"), "{told}");
    let mut after = names(folder.path());
    after.push("backup.passing".to_owned());
    after.sort();
    assert_eq!(after, before, "nothing is left beside the store");
    kms.stop();

    let elsewhere = folder_with_secrets(folder.path());
    let snapshot = elsewhere.path().join("backup");
    fs::write(&snapshot, &said.stdout).expect("written");
    succeeded(restore(elsewhere.path(), &snapshot, &[]));
    let kms = KmsProcess::start(elsewhere.path(), &[]);
    kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await.ok();
    kms.stop();
}

/// Root beside a service that is not root would leave files that the service cannot
/// open.
#[tokio::test]
async fn what_would_write_beside_the_service_runs_as_its_user() {
    let kms = TestKms::start().await;
    kms.generate_id("Ed25519").await;
    let folder = kms.stop().await;
    let database = folder.path().join("kms.db");
    let key = folder.path().join("ledger.key");
    let give_to = |user: u32| {
        for path in [folder.path(), &database, &key] {
            std::os::unix::fs::chown(path, Some(user), None).expect("this test runs as root");
        }
    };
    let snapshot = tempfile::tempdir().expect("a folder");
    let out = snapshot.path().join("backup");
    succeeded(backup(folder.path(), &out));
    give_to(65_532);
    let before = names(folder.path());
    let new_folder = folder_with_secrets(folder.path());
    std::os::unix::fs::chown(new_folder.path(), Some(65_532), None).expect("root");
    for arguments in [
        &["ledger", "archive", "--before", "2100-01-01"][..],
        &["ledger", "rotate-key"],
        &["rekey"],
        &["backup", "--out", "-"],
    ] {
        let ended = KmsProcess::run(folder.path(), arguments, &[]);
        refused(&ended, 1, &["belongs to user 65532", "--reuid=65532"]);
        assert_eq!(names(folder.path()), before, "{arguments:?}");
    }
    let ended = restore(new_folder.path(), &out, &[]);
    refused(&ended, 1, &["belongs to user 65532"]);
    give_to(0);
    succeeded(KmsProcess::run(folder.path(), &["rekey"], &[]));
}
