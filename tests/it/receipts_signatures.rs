//! A receipt can be checked by anybody who has the ledger's public key.

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    FoundReceipt, TestKms, UNTHROTTLED, all_at_once, base64, in_scope, leaves, ledger_key,
    open_store, text, unbase64, without,
};

/// Checks a receipt as its readers do: with nothing of the service's own code.
#[track_caller]
fn assert_genuine(leaf: &str, public: &VerifyingKey) {
    let receipt: Value = serde_json::from_str(leaf).expect("JSON");
    let canonical = serde_json_canonicalizer::to_string(&receipt).expect("canonical");
    assert_eq!(leaf, canonical);
    let signature = unbase64(&receipt["signature"]);
    let signature = Signature::from_slice(&signature).expect("64 bytes");
    let unsigned = without(receipt.clone(), "signature");
    let signed = serde_json_canonicalizer::to_vec(&unsigned).expect("canonical");
    assert!(public.verify_strict(&signed, &signature).is_ok(), "{leaf}");

    let mut changed = unsigned;
    changed["kms_context"]["success"] = json!("changed");
    let changed = serde_json_canonicalizer::to_vec(&changed).expect("canonical");
    assert!(public.verify_strict(&changed, &signature).is_err());
}

#[tokio::test]
async fn a_receipt_is_canonical_json_signed_by_the_ledger() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({})).await;
    let key_id = text(&made["key_id"]);
    let signed = kms.sign(key_id, b"data").await;
    let verified = kms.verify(key_id, b"data", &signed.ok()["signature"]).await;
    let public = ledger_key(kms.folder()).verifying_key();
    for receipt_id in [
        &made["receipt_id"],
        &signed.body["receipt_id"],
        &verified.ok()["receipt_id"],
    ] {
        let found = kms.receipt(receipt_id).await;
        assert_genuine(&found.text, &public);
    }
}

#[tokio::test]
async fn every_receipt_of_the_ledger_names_and_bears_the_one_signer() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    kms.sign(&key_id, b"data").await.ok();
    kms.sign("alias/\u{e9}", b"data")
        .await
        .refused_fields(&["key_id"]);
    kms.sign("alias/nobody", b"data")
        .await
        .refused(404, "KEY_NOT_FOUND");
    kms.revoke(&key_id).await.ok();
    kms.sign(&key_id, b"data").await.refused(409, "KEY_REVOKED");
    // The signer stays the same over a restart.
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    kms.generate_id("AES-256").await;
    let folder = kms.stop().await;

    let public = ledger_key(folder.path()).verifying_key();
    let hash = Sha256::digest(public.as_bytes());
    let signer: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let leaves = leaves(folder.path());
    assert_eq!(leaves.len(), 6);
    for leaf in &leaves {
        assert_genuine(leaf, &public);
        let receipt: Value = serde_json::from_str(leaf).expect("JSON");
        assert_eq!(receipt["signer_key_id"], signer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_requests_at_once_take_every_place_once() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let made = kms.generate("Ed25519", json!({})).await;
    let body = in_scope(json!({ "key_id": made["key_id"], "data": base64("data") }));
    let requests = (0..60)
        .map(|_| kms.post_request("/kms/v1/sign", &body))
        .collect();
    let mut receipt_ids = vec![made["receipt_id"].clone()];
    for answer in all_at_once(requests).await {
        receipt_ids.push(answer.ok()["receipt_id"].clone());
    }
    let mut places = Vec::new();
    for receipt_id in &receipt_ids {
        let FoundReceipt {
            receipt,
            leaf_index,
            ..
        } = kms.receipt(receipt_id).await;
        assert_eq!(&receipt["receipt_id"], receipt_id);
        places.push(leaf_index);
    }
    places.sort_unstable();
    assert!(places.into_iter().eq(0..61));
    assert_eq!(kms.ledger_size().await, 61);
}

#[tokio::test]
async fn a_receipt_reads_the_same_in_the_answer_and_in_the_ledger_and_after_a_restart() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({})).await;
    let before = kms.receipt(&made["receipt_id"]).await;
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    let after = kms.receipt(&made["receipt_id"]).await;
    assert_eq!(after.text, before.text);
    assert_eq!(after.leaf_index, before.leaf_index);
    assert_eq!(kms.ledger_size().await, 1);
    let folder = kms.stop().await;
    assert_eq!(leaves(folder.path()), [before.text]);
}

#[tokio::test]
async fn the_ledger_refuses_to_be_changed_even_in_its_own_file() {
    let kms = TestKms::start().await;
    kms.generate_id("Ed25519").await;
    kms.generate_id("Ed25519").await;
    let folder = kms.stop().await;
    let before = leaves(folder.path());
    let store = open_store(folder.path());
    for statement in [
        "DELETE FROM receipts",
        "DELETE FROM receipts WHERE seq = 1",
        "UPDATE receipts SET leaf = x'7B7D' WHERE seq = 0",
        "UPDATE receipts SET seq = 7 WHERE seq = 1",
        "UPDATE receipts SET tenant_id = 'other'",
        "INSERT OR REPLACE INTO receipts SELECT 0, receipt_id, tenant_id, environment, plane, \
         x'7B7D' FROM receipts WHERE seq = 0",
        "INSERT INTO receipts SELECT 7, x'00000000000000000000000000000000', tenant_id, \
         environment, plane, leaf FROM receipts WHERE seq = 0",
    ] {
        assert!(store.execute_batch(statement).is_err(), "{statement}");
    }
    drop(store);
    assert_eq!(leaves(folder.path()), before);
}
