//! Revocations that wait before the secret goes, and are taken back.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::lifecycle::time;
use crate::support::{TestKms, eventually, field_names, text};

#[tokio::test]
async fn a_retired_key_comes_back_archived() {
    let kms = TestKms::start().await;
    for reason in ["retired", "policy_violation"] {
        let key_id = kms.generate_id("Ed25519").await;
        let signed = kms.sign(&key_id, b"data").await;
        let signature = &signed.ok()["signature"];
        let revoked = kms.revoke_as(&key_id, reason).await;
        let wait =
            time(&revoked.ok()["erase_at"]).duration_since(time(&revoked.body["revoked_at"]));
        assert_eq!(wait, SignedDuration::from_hours(7 * 24));
        kms.verify(&key_id, b"data", signature)
            .await
            .refused(409, "KEY_REVOKED");

        // Across a restart too, where nothing is in memory.
        let answer = kms.step(&key_id, "restore", json!({})).await;
        let restored = answer.ok();
        assert_eq!(
            field_names(restored),
            ["archived_at", "key_id", "key_state", "receipt_id"]
        );
        assert_eq!(restored["key_state"], "archived");
        let receipt = kms.receipt(&restored["receipt_id"]).await.receipt;
        assert_eq!(receipt["operation"], "key_restored");
        assert_eq!(receipt["kms_context"]["operation_type"], "restore");
        let details = kms.details(&key_id).await;
        assert_eq!(details["archived_at"], restored["archived_at"]);
        for cleared in ["revoked_at", "revocation_reason", "erase_at"] {
            assert_eq!(details[cleared], Value::Null, "{cleared}");
        }
        let verified = kms.verify(&key_id, b"data", signature).await;
        assert_eq!(verified.ok()["valid"], true);
        kms.sign(&key_id, b"data")
            .await
            .refused(409, "KEY_INACTIVE");
        let again = kms.step(&key_id, "restore", json!({})).await;
        again.refused(409, "KEY_INACTIVE");
        kms.revoke(&key_id).await.ok();
        let gone = kms.step(&key_id, "restore", json!({})).await;
        gone.refused(409, "KEY_REVOKED");
    }
}

#[tokio::test]
async fn a_restart_neither_restores_nor_erases() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let sealed = kms.encrypt(&key_id, b"data").await;
    kms.revoke_as(&key_id, "retired").await.ok();
    let before = kms.details(&key_id).await;
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    assert_eq!(kms.details(&key_id).await, before);
    kms.decrypt(&key_id, sealed.ok())
        .await
        .refused(409, "KEY_REVOKED");
    kms.step(&key_id, "restore", json!({})).await.ok();
    kms.decrypt(&key_id, sealed.ok()).await.ok();
}

#[tokio::test]
async fn a_key_that_waits_can_be_hurried_and_by_nothing_but_a_compromise() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    kms.revoke_as(&key_id, "retired").await.ok();
    for reason in ["retired", "policy_violation"] {
        let again = kms.revoke_as(&key_id, reason).await;
        again.refused(409, "KEY_REVOKED");
    }
    let hurried = kms.revoke_as(&key_id, "compromised").await;
    assert_eq!(hurried.ok()["erase_at"], Value::Null);
    let details = kms.details(&key_id).await;
    assert_eq!(details["revocation_reason"], "compromised");
    let gone = kms.step(&key_id, "restore", json!({})).await;
    gone.refused(409, "KEY_REVOKED");
    let again = kms.revoke_as(&key_id, "compromised").await;
    again.refused(409, "KEY_REVOKED");
}

#[tokio::test]
async fn without_a_wait_every_revocation_erases_at_once() {
    let kms = TestKms::start_with(&[("KMS__KEYS__ERASE_AFTER", "0s")]).await;
    let key_id = kms.generate_id("Ed25519").await;
    let revoked = kms.revoke_as(&key_id, "retired").await;
    assert_eq!(revoked.ok()["erase_at"], Value::Null);
    let gone = kms.step(&key_id, "restore", json!({})).await;
    gone.refused(409, "KEY_REVOKED");
}

#[tokio::test]
async fn what_waited_long_enough_is_erased_by_the_service_itself() {
    let kms = TestKms::start_with(&[("KMS__KEYS__ERASE_AFTER", "PT1S")]).await;
    let key_id = kms.generate_id("Ed25519").await;
    let revoked = kms.revoke_as(&key_id, "retired").await;
    assert_ne!(revoked.ok()["erase_at"], Value::Null);
    eventually("the erasure", || async {
        let details = kms.details(&key_id).await;
        details["erase_at"].is_null().then_some(())
    })
    .await;
    let details = kms.details(&key_id).await;
    assert_eq!(details["key_state"], "destroyed");
    assert_eq!(details["revoked_at"], revoked.ok()["revoked_at"]);
    let path = format!("/kms/v1/receipts?key_id={key_id}&operation=key_erased");
    let receipts = kms.get_scoped(&path).await;
    let receipt = &receipts.ok()["receipts"][0]["receipt"];
    assert_eq!(text(&receipt["requesting_module"]), "M33");
    assert_eq!(receipt["kms_context"]["operation_type"], "erase");
    let gone = kms.step(&key_id, "restore", json!({})).await;
    gone.refused(409, "KEY_REVOKED");
}
