//! Another alias, another policy.

use serde_json::{Value, json};

use crate::support::{TestKms, text};

#[tokio::test]
async fn an_alias_is_given_moved_and_taken_away() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let updated = kms.update(&key_id, json!({ "key_alias": "line" })).await;
    assert_eq!(updated.ok()["key_alias"], "line");
    assert_eq!(updated.ok()["key_id"], key_id.as_str());
    kms.sign("alias/line", b"data").await.ok();
    let receipt = kms.receipt(&updated.ok()["receipt_id"]).await.receipt;
    assert_eq!(receipt["operation"], "key_updated");
    assert_eq!(receipt["kms_context"]["operation_type"], "update");
    assert_eq!(receipt["kms_context"]["key_id"], key_id.as_str());

    // By its alias too, which it loses with that.
    let moved = kms
        .update("alias/line", json!({ "key_alias": "other" }))
        .await;
    assert_eq!(moved.ok()["key_alias"], "other");
    kms.sign("alias/line", b"data")
        .await
        .refused(404, "KEY_NOT_FOUND");
    kms.sign("alias/other", b"data").await.ok();
    let other = kms
        .generate("Ed25519", json!({ "key_alias": "line" }))
        .await;
    let taken = kms.update(&key_id, json!({ "key_alias": "line" })).await;
    taken.refused_fields(&["key_alias"]);
    assert_eq!(kms.details(&key_id).await["key_alias"], "other");

    let bare = kms.update(&key_id, json!({ "key_alias": null })).await;
    assert_eq!(bare.ok()["key_alias"], Value::Null);
    kms.sign("alias/other", b"data")
        .await
        .refused(404, "KEY_NOT_FOUND");
    let freed = json!({ "key_alias": "other" });
    kms.update(text(&other["key_id"]), freed).await.ok();
}

#[tokio::test]
async fn a_policy_changes_in_its_parts_and_counts_from_then_on() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let before = kms.details(&key_id).await["access_policy"].clone();
    kms.sign(&key_id, b"data").await.ok();
    let limited = json!({ "access_policy": { "max_usage_per_day": 1 } });
    let updated = kms.update(&key_id, limited).await;
    let after = &updated.ok()["access_policy"];
    assert_eq!(after["max_usage_per_day"], 1);
    for stays in ["allowed_modules", "requires_approval"] {
        assert_eq!(after[stays], before[stays], "{stays}");
    }
    kms.sign(&key_id, b"data")
        .await
        .refused(429, "RATE_LIMITED");
    let others = json!({
        "access_policy": { "max_usage_per_day": 10, "allowed_modules": ["EPC-3"] }
    });
    kms.update(&key_id, others).await.ok();
    kms.sign(&key_id, b"data")
        .await
        .refused(403, "POLICY_VIOLATION");
    let everyone = json!({
        "access_policy": { "requires_approval": true, "allowed_modules": ["M21"] }
    });
    kms.update(&key_id, everyone).await.ok();
    kms.sign(&key_id, b"data")
        .await
        .refused(403, "UNAUTHORIZED");
    // A successor inherits what the policy is now.
    let policy = kms.details(&key_id).await["access_policy"].clone();
    let rotated = kms.rotate(&key_id).await;
    let successor = kms.details(text(&rotated.ok()["new_key_id"])).await;
    assert_eq!(successor["access_policy"], policy);
}

#[tokio::test]
async fn a_key_that_reads_the_past_changes_its_policy_alone() {
    let kms = TestKms::start().await;
    let replaced = kms.generate_id("Ed25519").await;
    kms.rotate(&replaced).await.ok();
    let archived = kms.generate_id("Ed25519").await;
    kms.step(&archived, "archive", json!({})).await.ok();
    let policy = json!({ "access_policy": { "max_usage_per_day": 7 } });
    for key_id in [&replaced, &archived] {
        for alias in [json!("line"), Value::Null] {
            let refused = kms.update(key_id, json!({ "key_alias": alias })).await;
            refused.refused(409, "KEY_INACTIVE");
        }
        let updated = kms.update(key_id, policy.clone()).await;
        assert_eq!(updated.ok()["access_policy"]["max_usage_per_day"], 7);
    }
    for reason in ["compromised", "retired"] {
        let key_id = kms.generate_id("Ed25519").await;
        kms.revoke_as(&key_id, reason).await.ok();
        let refused = kms.update(&key_id, policy.clone()).await;
        refused.refused(409, "KEY_REVOKED");
    }
}

#[tokio::test]
async fn an_update_of_nothing_and_a_malformed_one_are_refused_by_name() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    for (fields, faulty) in [
        (json!({}), "key_alias"),
        (json!({ "access_policy": {} }), "key_alias"),
        (json!({ "access_policy": null }), "key_alias"),
        (json!({ "key_alias": "-x" }), "key_alias"),
        (json!({ "key_alias": 7 }), "key_alias"),
        (
            json!({ "access_policy": { "max_usage_per_day": 0 } }),
            "access_policy.max_usage_per_day",
        ),
        (json!({ "key_type": "AES-256" }), "key_type"),
        (json!({ "rotation_period": "P1D" }), "rotation_period"),
    ] {
        let refused = kms.update(&key_id, fields).await;
        refused.refused_fields(&[faulty]);
    }
}
