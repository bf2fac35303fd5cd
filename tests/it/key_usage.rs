//! A key does what its `key_usage` lists, and nothing else.

use serde_json::{Value, json};

use crate::support::{Answer, TestKms, base64, text};

/// Well-formed, and never valid: what counts is whether it is looked at.
fn request(operation: &str, key_id: &str) -> Value {
    match operation {
        "sign" => json!({ "key_id": key_id, "data": base64("data") }),
        "verify" => json!({ "key_id": key_id, "data": "", "signature": "" }),
        "encrypt" => json!({ "key_id": key_id, "plaintext": base64("data") }),
        "decrypt" => json!({
            "key_id": key_id, "ciphertext": base64([0; 32]), "iv": base64([0; 12]),
        }),
        other => panic!("no operation {other}"),
    }
}

async fn perform(kms: &TestKms, operation: &str, key_id: &str) -> Answer {
    let path = format!("/kms/v1/{operation}");
    kms.post_scoped(&path, request(operation, key_id)).await
}

#[tokio::test]
async fn each_usage_allows_its_own_operation_only() {
    let kms = TestKms::start().await;
    for (key_type, usages) in [
        ("RSA-2048", ["sign", "verify"]),
        ("Ed25519", ["sign", "verify"]),
        ("AES-256", ["encrypt", "decrypt"]),
    ] {
        for usage in usages {
            let made = kms.generate(key_type, json!({ "key_usage": usage })).await;
            let key_id = text(&made["key_id"]);
            assert_eq!(kms.details(key_id).await["key_usage"], json!([usage]));
            for operation in ["sign", "verify", "encrypt", "decrypt"] {
                let answer = perform(&kms, operation, key_id).await;
                if operation != usage {
                    answer.refused(403, "POLICY_VIOLATION");
                } else if operation == "decrypt" {
                    // It was looked at, and is no ciphertext of this key.
                    answer.refused(400, "INVALID_REQUEST");
                } else {
                    answer.ok();
                }
            }
        }
    }
}

#[tokio::test]
async fn a_list_of_usages_allows_each_of_them() {
    let kms = TestKms::start().await;
    let made = kms
        .generate(
            "Ed25519",
            json!({ "key_usage": ["verify", "sign", "sign"] }),
        )
        .await;
    let key_id = text(&made["key_id"]);
    for operation in ["sign", "verify"] {
        perform(&kms, operation, key_id).await.ok();
    }
    let usages = kms.details(key_id).await["key_usage"].clone();
    assert_eq!(usages, json!(["sign", "verify"]));
}

#[tokio::test]
async fn a_successor_inherits_the_usage() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_usage": "verify" }))
        .await;
    let rotated = kms.rotate(text(&made["key_id"])).await;
    let successor = text(&rotated.ok()["new_key_id"]);
    let signed = perform(&kms, "sign", successor).await;
    signed.refused(403, "POLICY_VIOLATION");
    perform(&kms, "verify", successor).await.ok();
}

#[tokio::test]
async fn a_state_is_said_before_a_usage() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_usage": "verify" }))
        .await;
    let key_id = text(&made["key_id"]);
    kms.revoke(key_id).await.ok();
    let signed = perform(&kms, "sign", key_id).await;
    signed.refused(409, "KEY_REVOKED");
}
