//! The ledger at a start: held to what was signed of it, and refused in words when
//! it is not that; and its key, when a new one takes over.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ledger::checkpoint_of;
use crate::support::{KmsProcess, TestKms, UNTHROTTLED, eventually, leaves, open_store, text};

/// The folder of a service that left so many receipts and stopped.
async fn used_folder(receipts: usize) -> TempDir {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    kms.leave_receipts(receipts).await;
    kms.stop().await
}

/// Checks that a start is refused in these words, and changes nothing.
#[track_caller]
fn refused(folder: &Path, words: &[&str]) {
    let before = leaves(folder);
    let ended = KmsProcess::run(folder, &["serve"], &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.output());
    for word in words {
        assert!(
            ended.output().contains(word),
            "{word} in {}",
            ended.output()
        );
    }
    assert_eq!(leaves(folder), before);
}

/// Changes the store as somebody with the file would, whatever the triggers say.
fn tamper(folder: &Path, statements: &str) {
    let store = open_store(folder);
    let mut triggers = store
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .expect("valid SQL");
    let names: Vec<String> = triggers
        .query_map([], |row| row.get(0))
        .expect("rows")
        .map(|name| name.expect("a name"))
        .collect();
    drop(triggers);
    for name in names {
        store
            .execute_batch(&format!("DROP TRIGGER {name}"))
            .expect("dropped");
    }
    store.execute_batch(statements).expect("valid SQL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_changed_at_its_edge_is_not_continued() {
    for (tampering, words) in [
        (
            "DELETE FROM receipts WHERE seq = 299",
            "the newest checkpoint is of 300 receipts, and there are 299",
        ),
        (
            "DELETE FROM receipts WHERE seq = 270",
            "receipt 270 is missing",
        ),
        (
            "UPDATE receipts SET leaf = (SELECT leaf FROM receipts WHERE seq = 280) WHERE seq = 281",
            "the first 300 receipts are not those",
        ),
        (
            "UPDATE receipts SET leaf = CAST(replace(CAST(leaf AS TEXT), 'true', 'false') AS BLOB) \
             WHERE seq = 281",
            "receipt 281 does not bear a good signature",
        ),
        ("DELETE FROM tiles", "tile 0 of level 0 is missing"),
        (
            "UPDATE tiles SET hashes = randomblob(8192)",
            "the first 300 receipts are not those",
        ),
        ("DELETE FROM ledger_head", "there is no checkpoint"),
        (
            "UPDATE ledger_head SET note = replace(note, '300', '299')",
            "not signed by the ledger's key",
        ),
        (
            "DELETE FROM ledger_keys",
            "the ledger's public keys are missing",
        ),
        (
            "DELETE FROM ledger_keys; DELETE FROM ledger_head; DELETE FROM checkpoints",
            "the ledger's public keys are missing",
        ),
    ] {
        let folder = used_folder(300).await;
        tamper(folder.path(), tampering);
        refused(folder.path(), &["the ledger does not verify", words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_put_back_to_an_earlier_state_is_not_continued_unless_told_so() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    kms.leave_receipts(10).await;
    let folder = kms.stop().await;
    let (database, file) = (
        folder.path().join("kms.db"),
        folder.path().join("ledger.checkpoint"),
    );
    let earlier = fs::read(&database).expect("a database");
    let kms = TestKms::start_in(folder, &UNTHROTTLED).await;
    let key = kms.verifier_key().await;
    kms.leave_receipts(10).await;
    let folder = kms.stop().await;
    let note = fs::read_to_string(&file).expect("written at the end");
    assert_eq!(checkpoint_of(&note, &key).size(), 20);

    fs::write(&database, &earlier).expect("written");
    let words = [
        "the ledger has 10 receipts, and had 20",
        "ledger.checkpoint away",
    ];
    refused(folder.path(), &words);

    // Another history of the same length is no better.
    fs::rename(&file, folder.path().join("aside")).expect("moved");
    let kms = TestKms::start_in(folder, &UNTHROTTLED).await;
    kms.leave_receipts(15).await;
    let folder = kms.stop().await;
    fs::rename(folder.path().join("aside"), &file).expect("moved");
    refused(
        folder.path(),
        &[
            "the first 20 receipts are not those",
            "ledger.checkpoint away",
        ],
    );

    fs::write(&file, note.replace("20", "21")).expect("written");
    refused(
        folder.path(),
        &["holds no checkpoint that this store's ledger has signed"],
    );
    fs::remove_file(&file).expect("removed");
    let kms = TestKms::start_in(folder, &UNTHROTTLED).await;
    assert_eq!(kms.ledger_size().await, 25);
}

#[tokio::test]
async fn the_newest_checkpoint_is_written_down_while_running_too() {
    let kms = TestKms::start().await;
    let key = kms.verifier_key().await;
    let file = kms.folder().join("ledger.checkpoint");
    let note = eventually("a checkpoint", || async { fs::read_to_string(&file).ok() }).await;
    assert_eq!(checkpoint_of(&note, &key).size(), 0);
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Lays a new key of the ledger beside the old one.
fn lay_new_key(folder: &Path, byte: u8) {
    let scratch = folder.join("next");
    fs::write(&scratch, [byte; 32]).expect("written");
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o600)).expect("set");
    fs::rename(&scratch, folder.join("ledger.key.next")).expect("moved");
}

async fn keys(kms: &TestKms) -> Vec<Value> {
    let keys = kms.get("/kms/v1/ledger/keys").await;
    keys.ok()["keys"].as_array().expect("a list").clone()
}

async fn wait_for_keys(kms: &TestKms, number: usize) -> Vec<Value> {
    eventually("the takeover", || async {
        let keys = keys(kms).await;
        (keys.len() == number).then_some(keys)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_takes_over_under_load_by_a_checkpoint_that_both_signed() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let old_key = kms.verifier_key().await;
    kms.leave_receipts(5).await;
    lay_new_key(kms.folder(), 77);
    let load = async {
        let mut ids = Vec::new();
        while keys(&kms).await.len() < 2 {
            ids.extend(kms.leave_receipts(20).await);
        }
        ids.extend(kms.leave_receipts(20).await);
        ids
    };
    let ids = load.await;
    let keys = wait_for_keys(&kms, 2).await;
    assert_eq!(text(&keys[0]["verifier_key"]), old_key);
    assert_eq!(
        (&keys[0]["from_size"], &keys[0]["handover"]),
        (&json!(0), &Value::Null)
    );
    let new_key = text(&keys[1]["verifier_key"]).to_owned();
    let from_size = keys[1]["from_size"].as_u64().expect("a number");
    let handover = text(&keys[1]["handover"]);
    for key in [&old_key, &new_key] {
        let checkpoint = checkpoint_of(handover, key);
        assert_eq!(checkpoint.size(), from_size);
        // What the old key signed names the new one.
        assert_eq!(checkpoint.extension(), format!("next key: {new_key}\n"));
    }
    for receipt_id in &ids {
        kms.proved(receipt_id, &new_key).await;
    }
    let folder = kms.stop().await;
    let leaves = leaves(folder.path());
    let signer = |leaf: &String| {
        let leaf: Value = serde_json::from_str(leaf).expect("JSON");
        text(&leaf["signer_key_id"]).to_owned()
    };
    let (before, after) = leaves.split_at(usize::try_from(from_size).expect("few"));
    assert!(!before.is_empty() && !after.is_empty());
    let (old_signer, new_signer) = (signer(&before[0]), signer(&after[0]));
    assert_ne!(old_signer, new_signer);
    assert!(before.iter().all(|leaf| signer(leaf) == old_signer));
    assert!(after.iter().all(|leaf| signer(leaf) == new_signer));
    assert_eq!(
        fs::read(folder.path().join("ledger.key")).expect("a key"),
        [77; 32]
    );
    assert!(!folder.path().join("ledger.key.next").exists());

    // And once more, at the start this time.
    lay_new_key(folder.path(), 78);
    let kms = TestKms::start_in(folder, &UNTHROTTLED).await;
    let keys = wait_for_keys(&kms, 3).await;
    let newest = text(&keys[2]["verifier_key"]);
    for receipt_id in ids.iter().take(3) {
        kms.proved(receipt_id, newest).await;
    }
    let old = kms.get("/kms/v1/health").await;
    assert_eq!(
        old.status, 200,
        "the ledger verifies by its old keys too: {}",
        old.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_makes_the_key_that_takes_over_once() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let old_key = kms.verifier_key().await;
    let ended = KmsProcess::run(kms.folder(), &["ledger", "rotate-key"], &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.output());
    let keys = wait_for_keys(&kms, 2).await;
    assert_eq!(text(&keys[0]["verifier_key"]), old_key);
    assert_eq!(text(&keys[1]["verifier_key"]), ended.stdout.trim());
    eventually("the file to move", || async {
        let is_waiting = kms.folder().join("ledger.key.next").exists();
        (!is_waiting).then_some(())
    })
    .await;
    let folder = kms.stop().await;
    let first = KmsProcess::run(folder.path(), &["ledger", "rotate-key"], &[]);
    assert_eq!(first.code, Some(0), "{}", first.output());
    let second = KmsProcess::run(folder.path(), &["ledger", "rotate-key"], &[]);
    assert_eq!(second.code, Some(1), "{}", second.output());
    assert!(second.output().contains("waits to take over already"));
    let empty = tempfile::tempdir().expect("a folder");
    let ended = KmsProcess::run(empty.path(), &["ledger", "rotate-key"], &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.output());
    assert!(
        ended.output().contains("no such file"),
        "{}",
        ended.output()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_that_was_cut_off_is_finished_by_the_next_start() {
    let folder = used_folder(3).await;
    let old = fs::read(folder.path().join("ledger.key")).expect("a key");
    lay_new_key(folder.path(), 79);
    let kms = TestKms::start_in(folder, &[]).await;
    wait_for_keys(&kms, 2).await;
    let folder = kms.stop().await;
    // As it was between the takeover in the store and that of the files.
    let path = folder.path().join("ledger.key");
    fs::write(&path, &old).expect("written");
    refused(
        folder.path(),
        &["is not the one that signed this store's receipts"],
    );
    lay_new_key(folder.path(), 79);
    let kms = TestKms::start_in(folder, &[]).await;
    assert_eq!(keys(&kms).await.len(), 2);
    assert_eq!(fs::read(&path).expect("a key"), [79; 32]);
    assert!(!kms.folder().join("ledger.key.next").exists());
}

#[tokio::test]
async fn a_new_key_that_cannot_be_used_changes_nothing_and_is_named_in_the_log() {
    let folder = used_folder(3).await;
    fs::write(folder.path().join("ledger.key.next"), "short").expect("written");
    let next = folder.path().join("ledger.key.next");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).expect("set");
    let kms = KmsProcess::start(folder.path(), &[]);
    let output = kms.stop();
    for words in [
        "the ledger's new key did not take over",
        "ledger.key.next is neither 32 bytes",
    ] {
        assert!(output.contains(words), "{words} in {output}");
    }
}
