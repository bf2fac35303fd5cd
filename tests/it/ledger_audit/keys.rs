//! The keys of a ledger: who signed what, and whom an auditor trusts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ed25519_dalek::{Signer as _, SigningKey};
use kms::domain::ledger::VerifierKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{copied, kept_checkpoint, not_verified, public_key, verified, verify};
use crate::ledger_start::{tamper, used_folder};
use crate::support::{KmsProcess, TestKms, UNTHROTTLED, ledger_key, open_store, without};

/// A ledger of 10 receipts by one key and 10 by the next; the first key is left in
/// `first.key`.
async fn handed_over() -> TempDir {
    let folder = used_folder(10).await;
    fs::copy(
        folder.path().join("ledger.key"),
        folder.path().join("first.key"),
    )
    .expect("copied");
    let next = folder.path().join("ledger.key.next");
    fs::write(&next, [5; 32]).expect("written");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).expect("set");
    let kms = TestKms::start_in(folder, &UNTHROTTLED).await;
    kms.leave_receipts(10).await;
    kms.stop().await
}

fn first_key(folder: &Path) -> SigningKey {
    let seed = fs::read(folder.join("first.key")).expect("a key");
    SigningKey::from_bytes(&seed.try_into().expect("32 bytes"))
}

fn verifier_key(key: &SigningKey) -> String {
    VerifierKey::new("kms", key.verifying_key().to_bytes()).to_string()
}

/// A receipt with this key's name and signature in place of its own.
fn signed_again(leaf: &[u8], key: &SigningKey) -> Vec<u8> {
    use sha2::Digest as _;
    let receipt: Value = serde_json::from_slice(leaf).expect("JSON");
    let mut receipt = without(receipt, "signature");
    let hash = sha2::Sha256::digest(key.verifying_key());
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    receipt["signer_key_id"] = json!(name);
    let unsigned = serde_json_canonicalizer::to_vec(&receipt).expect("canonical");
    receipt["signature"] = json!(crate::support::base64(key.sign(&unsigned).to_bytes()));
    serde_json_canonicalizer::to_vec(&receipt).expect("canonical")
}

/// A note with the lines of its signatures by these keys.
fn note(text: &str, keys: &[&SigningKey]) -> String {
    let lines: String = keys
        .iter()
        .map(|key| {
            let name = VerifierKey::new("kms", key.verifying_key().to_bytes());
            let signature = key.sign(text.as_bytes()).to_bytes();
            let bytes = [&name.key_id().to_be_bytes()[..], &signature].concat();
            format!("\u{2014} kms {}\n", crate::support::base64(bytes))
        })
        .collect();
    format!("{text}\n{lines}")
}

/// Signs every receipt and the newest checkpoint of this folder with another key,
/// and puts it in the place of the ledger's own.
fn sign_everything_again(folder: &Path, key: &SigningKey) {
    use kms::domain::ledger::{Tree, TreeHash};
    tamper(folder, "DELETE FROM ledger_keys; DELETE FROM checkpoints");
    let store = open_store(folder);
    let mut tree = Tree::new();
    let mut complete = Vec::new();
    for (place, leaf) in super::leaves_between(&store, 0, 10_000).iter().enumerate() {
        let leaf = signed_again(leaf, key);
        tree.push(TreeHash::of_leaf(&leaf), &mut complete);
        store
            .execute(
                "UPDATE receipts SET leaf = ?1 WHERE seq = ?2",
                (leaf, place as i64),
            )
            .expect("changed");
    }
    for complete in complete {
        store
            .execute(
                "UPDATE tiles SET hashes = ?1",
                [TreeHash::join(complete.tile.hashes())],
            )
            .expect("changed");
    }
    let head = note(&tree.checkpoint().to_string(), &[key]);
    store
        .execute("UPDATE ledger_head SET note = ?1", [head])
        .expect("changed");
    let public = key.verifying_key().to_bytes();
    store
        .execute(
            "INSERT INTO ledger_keys (public_key, from_size) VALUES (?1, 0)",
            [public],
        )
        .expect("inserted");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_ledger_is_printed_and_vouches_for_it() {
    let folder = handed_over().await;
    let (first, newest) = (
        verifier_key(&first_key(folder.path())),
        verifier_key(&ledger_key(folder.path())),
    );
    assert_eq!(public_key(folder.path()), newest);
    let all = |folder: &Path| KmsProcess::run(folder, &["ledger", "public-key", "--all"], &[]);
    let both = format!("{first}\n{newest}\n");
    assert_eq!(all(folder.path()).stdout, both);
    // An auditor's copy has no private key.
    let copy = copied(folder.path());
    assert_eq!(public_key(copy.path()), newest);
    assert_eq!(all(copy.path()).stdout, both);

    for key in [&first, &newest] {
        let output = verified(copy.path(), &["--public-key", key]);
        assert!(output.contains(&format!("\nkey: {first}\nkey: {newest}\n")));
        assert!(output.starts_with("verified: 20 receipts\n"));
    }
    let warned = verify(copy.path(), &[]);
    assert_eq!(warned.code, Some(0));
    assert!(warned.stderr.contains("warning: no --public-key was given"));
    assert!(warned.stderr.contains(&first), "{}", warned.stderr);
    let silent = verify(copy.path(), &["--public-key", &first]);
    assert_eq!(silent.stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_takes_a_new_key_over_and_verifies_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut kms = KmsProcess::start(folder.path(), &[]);
    kms.generate_id("Ed25519").await;
    let first = public_key(folder.path());
    let file = folder.path().join("since");
    let since = kept_checkpoint(folder.path(), &file);
    let scratch = folder.path().join("scratch");
    fs::write(&scratch, [6; 32]).expect("written");
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o600)).expect("set");
    fs::rename(&scratch, folder.path().join("ledger.key.next")).expect("laid");
    kms.wait_for_line(&["a new key signs the ledger"]);
    kms.generate_id("Ed25519").await;
    let output = verified(folder.path(), &["--public-key", &first, "--since", &since]);
    assert!(output.starts_with("verified: 2 receipts\n"), "{output}");
    assert_eq!(output.matches("\nkey: ").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_signed_anew_by_another_is_found_by_the_key() {
    let folder = used_folder(300).await;
    let key = public_key(folder.path());
    let copy = copied(folder.path());
    let forger = SigningKey::from_bytes(&[9; 32]);
    sign_everything_again(copy.path(), &forger);
    let output = verified(copy.path(), &[]);
    assert!(
        output.contains(&verifier_key(&forger)),
        "it agrees with itself"
    );
    let words = "the ledger is not signed by a given public key";
    not_verified(copy.path(), &["--public-key", &key], 0, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_put_in_the_place_of_others_are_found() {
    let folder = handed_over().await;
    let other = SigningKey::from_bytes(&[9; 32]).verifying_key();
    let other: String = other
        .as_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let with_key = |statement: &str| {
        let copy = copied(folder.path());
        tamper(
            copy.path(),
            &statement.replace("OTHER", &format!("x'{other}'")),
        );
        let ended = verify(copy.path(), &[]);
        assert_eq!(ended.code, Some(1), "{}", ended.output());
        ended.stdout
    };
    for (statement, words) in [
        (
            "UPDATE ledger_keys SET public_key = OTHER WHERE number = 1",
            "the checkpoint of 0 receipts is not signed",
        ),
        (
            "UPDATE ledger_keys SET public_key = OTHER WHERE number = 2",
            "key 1 of the ledger did not take over",
        ),
        (
            "DELETE FROM ledger_keys WHERE number = 2",
            "the checkpoint of 10 receipts is not signed",
        ),
        (
            "DELETE FROM ledger_keys WHERE number = 1",
            "key 0 of the ledger is no usable key",
        ),
        (
            "UPDATE ledger_keys SET from_size = 9 WHERE number = 2",
            "key 1 of the ledger did not take over",
        ),
        (
            "UPDATE ledger_keys SET handover = NULL WHERE number = 2",
            "key 1 of the ledger did not take over",
        ),
        ("DELETE FROM ledger_keys", "public keys are missing"),
    ] {
        let output = with_key(statement);
        assert!(output.contains(words), "{words}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handover_that_one_key_signed_is_none() {
    let folder = handed_over().await;
    let (first, second) = (first_key(folder.path()), ledger_key(folder.path()));
    let handover: String = open_store(folder.path())
        .query_row(
            "SELECT handover FROM ledger_keys WHERE number = 2",
            [],
            |row| row.get(0),
        )
        .expect("a handover");
    let end = handover.rfind("\n\n").expect("a note") + 1;
    let text = &handover[..end];
    assert_eq!(note(text, &[&first, &second]), handover);
    let forger = SigningKey::from_bytes(&[9; 32]);
    for keys in [
        &[&first][..],
        &[&second],
        &[&first, &forger],
        &[&second, &forger],
    ] {
        let copy = copied(folder.path());
        let one = note(text, keys);
        tamper(
            copy.path(),
            &format!("UPDATE ledger_keys SET handover = '{one}' WHERE number = 2"),
        );
        let words = "key 1 of the ledger did not take over by a checkpoint that both keys signed";
        not_verified(copy.path(), &[], 10, words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_by_a_key_that_retired_is_found() {
    let folder = handed_over().await;
    let copy = copied(folder.path());
    let store = open_store(copy.path());
    let leaf = super::leaves_between(&store, 15, 16).remove(0);
    drop(store);
    let again = signed_again(&leaf, &first_key(folder.path()));
    let again: String = again.iter().map(|byte| format!("{byte:02x}")).collect();
    tamper(
        copy.path(),
        &format!("UPDATE receipts SET leaf = x'{again}' WHERE seq = 15"),
    );
    let words = "receipt 15 is signed by a key that was not in force there";
    not_verified(copy.path(), &[], 15, words);
}
