//! A new key-encryption key for a service at work: no request fails by it, nothing is
//! lost whatever the moment of a crash, and in the end nothing of the old is left.

mod book;
mod crashes;
mod interplay;
mod refusals;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde_json::Value;

use self::book::Book;
use crate::backup::succeeded;
use crate::support::{Ended, KmsProcess, MixedLoad, UNTHROTTLED, eventually, open_store};

fn rekey(folder: &Path, arguments: &[&str]) -> Ended {
    let arguments = [&["rekey"], arguments].concat();
    KmsProcess::run(folder, &arguments, &[])
}

/// The ids of the two pins of a store: in force, and that everything is to be sealed
/// under.
fn pins(store: &Connection) -> [String; 2] {
    ["kek_id", "next_kek_id"].map(|name| {
        let query = "SELECT value FROM meta WHERE name = ?1";
        let value = store.query_row(query, [name], |row| row.get::<_, Vec<u8>>(0));
        String::from_utf8(value.expect("a pin")).expect("text")
    })
}

/// How many secrets are sealed under which key, by its id.
fn sealed(store: &Connection) -> BTreeMap<String, i64> {
    let mut query = store
        .prepare(
            "SELECT lower(hex(substr(handle, 2, 8))), count(*) FROM key_handles \
             WHERE handle <> zeroblob(length(handle)) GROUP BY 1",
        )
        .expect("valid SQL");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

/// Every handle there is, erased ones aside.
fn handles(store: &Connection) -> Vec<Vec<u8>> {
    let mut query = store
        .prepare("SELECT handle FROM key_handles WHERE handle <> zeroblob(length(handle))")
        .expect("valid SQL");
    let rows = query.query_map([], |row| row.get(0));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

/// Everything in the files of a store, one behind the other.
fn store_files(folder: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    for name in ["kms.db", "kms.db-wal"] {
        content.extend(fs::read(folder.join(name)).unwrap_or_default());
    }
    content
}

fn holds(content: &[u8], piece: &[u8]) -> bool {
    content.windows(piece.len()).any(|window| window == piece)
}

fn bytes_of(id: &str) -> Vec<u8> {
    (0..id.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&id[place..place + 2], 16).expect("hexadecimal"))
        .collect()
}

/// Lays a key down as an operator does.
fn lay(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
}

/// The check of this name in the health report.
async fn check(kms: &KmsProcess, name: &str) -> Value {
    let health = kms.get_operations("/kms/v1/health").await;
    let checks = health.body["checks"].as_array().expect("checks").clone();
    let found = checks.into_iter().find(|check| check["name"] == name);
    found.expect("a check of that name")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_takes_over_under_load_and_nothing_of_the_old_one_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let book = Book::fill(
        &kms,
        &[("Ed25519", 200), ("AES-256", 200), ("RSA-2048", 60)],
    )
    .await;
    let doomed = Book::fill(&kms, &[("Ed25519", 40)]).await;
    kms.stop();
    let store = open_store(folder.path());
    let [old, _] = pins(&store);
    let blobs = handles(&store);
    drop(store);
    assert_eq!(blobs.len(), 500);
    let before = store_files(folder.path());
    assert!(holds(&before, &bytes_of(&old)) && holds(&before, &blobs[0]));

    // Started anew: nothing is open, so that uses meet handles old and new.
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let load = MixedLoad::new(&kms).await;
    let is_done = AtomicBool::new(false);
    let changing = async {
        let ended = {
            let folder = folder.path().to_owned();
            tokio::task::spawn_blocking(move || rekey(&folder, &["--wait"]))
        };
        let ended = succeeded(ended.await.expect("no panic"));
        is_done.store(true, Ordering::SeqCst);
        ended
    };
    let (ended, (), (), ()) = tokio::join!(
        changing,
        load.until(&kms, "the end", || async { is_done.load(Ordering::SeqCst) }),
        book.use_all_while(&kms, || !is_done.load(Ordering::SeqCst)),
        doomed.revoke_all(&kms),
    );
    for what in ["sign", "verify", "encrypt", "generate", "list"] {
        assert_eq!(load.refused(what), 0, "{what}");
    }
    assert!(ended.stdout.contains("finished"), "{}", ended.output());
    eventually("all is well", || async {
        (check(&kms, "kek").await["status"] == "pass").then_some(())
    })
    .await;
    let metrics = kms.get_operations("/kms/v1/metrics").await;
    assert!(metrics.text.contains("kms_rekey_remaining 0"));
    // Beside the running service, and before anything else can have cleaned up.
    let running = store_files(folder.path());
    assert!(
        !holds(&running, &bytes_of(&old)),
        "the old key's id is left"
    );
    for blob in &blobs {
        assert!(!holds(&running, &blob[21..]), "an old blob is left");
    }
    book.check(&kms).await;
    kms.stop();

    let store = open_store(folder.path());
    let [in_force, next] = pins(&store);
    assert_eq!(in_force, next);
    assert_ne!(in_force, old);
    let by_key = sealed(&store);
    assert_eq!(by_key.keys().collect::<Vec<_>>(), [&in_force]);
    drop(store);
    assert!(!holds(&store_files(folder.path()), &bytes_of(&old)));
    assert!(!folder.path().join("kek.next").exists());
    fs::remove_file(folder.path().join("kek.old")).expect("the old key");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    book.check(&kms).await;
    doomed.check_revoked(&kms).await;
    load.check_with(&kms).await;
    kms.stop();
}
