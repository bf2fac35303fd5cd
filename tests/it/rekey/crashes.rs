//! The real binary, killed at random moments of a change of the key.
//!
//! `KMS_REKEY_KILLS` sets how often it is killed between the first and the last
//! secret, and `KMS_REKEY_SEED` makes the same choices again.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::book::Book;
use super::{bytes_of, holds, pins, rekey, sealed, store_files};
use crate::backup::succeeded;
use crate::support::{
    APPROVAL, Answer, KmsProcess, Random, SCOPE_QUERY, Seed, UNTHROTTLED, base64, in_scope,
    open_store, setting,
};

/// Kills in the middle where nobody asks for more.
const KILLS: u64 = 10;

/// The longest time from the begin of a start to its kill, in milliseconds.
const LONGEST: usize = 700;

/// Keys that a client knows to be there, and to be revoked.
#[derive(Default)]
struct Acknowledged {
    made: Vec<String>,
    revoked: Vec<String>,
}

/// Makes keys and revokes some of them until the process is gone.
async fn make_and_revoke(kms: &KmsProcess, acknowledged: &Mutex<Acknowledged>) {
    for number in 0.. {
        let body = in_scope(json!({
            "key_type": "Ed25519", "key_usage": ["sign", "verify"], "approval_token": APPROVAL,
        }));
        let Some(made) = post(kms, "/kms/v1/keys", body).await else {
            return;
        };
        let key_id = made["key_id"].as_str().expect("an id").to_owned();
        if number % 3 != 0 {
            acknowledged.lock().expect("no panic").made.push(key_id);
            continue;
        }
        let body = in_scope(json!({
            "revocation_reason": "retired", "approval_token": APPROVAL,
        }));
        let path = format!("/kms/v1/keys/{key_id}/revoke");
        if post(kms, &path, body).await.is_none() {
            return;
        }
        acknowledged.lock().expect("no panic").revoked.push(key_id);
    }
}

async fn post(kms: &KmsProcess, path: &str, body: serde_json::Value) -> Option<serde_json::Value> {
    let answer = Answer::attempt(kms.request(Method::POST, path).json(&body)).await?;
    assert!(answer.status.is_success(), "{answer:?}");
    Some(answer.body)
}

/// Starts the service, and kills it at a random moment or in an orderly way.
async fn start_and_kill(folder: &Path, random: &mut Random, acknowledged: &Mutex<Acknowledged>) {
    let wait = Duration::from_millis(random.below(LONGEST) as u64);
    if random.percent(40) {
        let kms = KmsProcess::begin(folder, &UNTHROTTLED);
        tokio::time::sleep(wait).await;
        kms.kill();
        return;
    }
    let kms = KmsProcess::start(folder, &UNTHROTTLED);
    let ending = async {
        tokio::time::sleep(wait).await;
        kms.signal("KILL");
    };
    tokio::join!(ending, make_and_revoke(&kms, acknowledged));
    let (status, output) = kms.wait();
    assert_eq!(status.code(), None, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_is_killed_the_next_start_goes_on_and_no_key_is_lost() {
    let seed = Seed::of("KMS_REKEY_SEED");
    let kills = setting("KMS_REKEY_KILLS").unwrap_or(KILLS);
    let mut random = seed.random();
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let book = Book::fill(&kms, &[("Ed25519", 60), ("AES-256", 60), ("RSA-2048", 20)]).await;
    Book::generate_only(&kms, "AES-256", 2_000).await;
    kms.stop();
    let acknowledged = Mutex::new(Acknowledged::default());
    let (mut in_the_middle, mut changes, mut starts) = (0, 0, 0);
    while in_the_middle < kills {
        let store = open_store(folder.path());
        let [old, to] = pins(&store);
        drop(store);
        if old == to && !folder.path().join("kek.next").exists() {
            // The last change is behind: everything is as if it had never been cut off.
            if changes > 0 {
                let _ = fs::remove_file(folder.path().join("kek.old"));
            }
            changes += 1;
            succeeded(rekey(folder.path(), &[]));
        }
        starts += 1;
        assert!(
            starts < 300,
            "{in_the_middle} kills in the middle of {starts}"
        );
        start_and_kill(folder.path(), &mut random, &acknowledged).await;
        let store = open_store(folder.path());
        let [in_force, to] = pins(&store);
        if in_force != to && sealed(&store).len() == 2 {
            in_the_middle += 1;
        }
    }
    let old = pins(&open_store(folder.path()))[0].clone();
    eprintln!("{in_the_middle} kills in the middle of {changes} changes, {starts} starts");

    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    let ended = {
        let folder = folder.path().to_owned();
        tokio::task::spawn_blocking(move || rekey(&folder, &["--status", "--wait"]))
    };
    succeeded(ended.await.expect("no panic"));
    kms.stop();
    assert!(!holds(&store_files(folder.path()), &bytes_of(&old)));
    let store = open_store(folder.path());
    let [in_force, to] = pins(&store);
    assert_eq!(in_force, to);
    assert_eq!(sealed(&store).keys().collect::<Vec<_>>(), [&in_force]);
    drop(store);
    for file in fs::read_dir(folder.path()).expect("a folder") {
        let file = file.expect("an entry").path();
        if file.display().to_string().contains("kek.") {
            fs::remove_file(file).expect("removed");
        }
    }

    let kms = KmsProcess::start(folder.path(), &UNTHROTTLED);
    book.check(&kms).await;
    let acknowledged = acknowledged.into_inner().expect("no panic");
    for key_id in &acknowledged.made {
        let body = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
        kms.post("/kms/v1/sign", &body).await.ok();
    }
    for key_id in &acknowledged.revoked {
        let key = kms
            .get(&format!("/kms/v1/keys/{key_id}?{SCOPE_QUERY}"))
            .await;
        assert_eq!(key.ok()["key_state"], "destroyed");
    }
    kms.stop();
    let verified = KmsProcess::run(folder.path(), &["ledger", "verify"], &[]);
    succeeded(verified);
}
