//! A key's life: what each state allows, and what rotation and revocation leave.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::{Answer, TestKms, field_names, in_scope, text};

/// Everything that can be done with a key.
const OPERATIONS: [&str; 6] = ["sign", "verify", "encrypt", "decrypt", "rotate", "revoke"];

/// A key with something that it protected while it was active.
struct Subject {
    key_id: String,
    protected: Value,
}

impl Subject {
    /// A key of the type that serves this operation.
    async fn of(kms: &TestKms, operation: &str) -> Self {
        let encrypts = matches!(operation, "encrypt" | "decrypt");
        let key_type = if encrypts { "AES-256" } else { "Ed25519" };
        let key_id = kms.generate_id(key_type).await;
        let protected = match encrypts {
            true => kms.encrypt(&key_id, b"data").await,
            false => kms.sign(&key_id, b"data").await,
        };
        Self {
            protected: protected.ok().clone(),
            key_id,
        }
    }

    async fn perform(&self, kms: &TestKms, operation: &str) -> Answer {
        let key_id = &self.key_id;
        match operation {
            "sign" => kms.sign(key_id, b"data").await,
            "verify" => {
                let signature = &self.protected["signature"];
                kms.verify(key_id, b"data", signature).await
            }
            "encrypt" => kms.encrypt(key_id, b"data").await,
            "decrypt" => kms.decrypt(key_id, &self.protected).await,
            "rotate" => kms.rotate(key_id).await,
            "revoke" => kms.revoke(key_id).await,
            other => panic!("no operation {other}"),
        }
    }
}

/// The instant in a field.
pub(crate) fn time(value: &Value) -> Timestamp {
    let written = text(value);
    assert!(written.ends_with('Z'), "{written}");
    written.parse().expect("RFC 3339")
}

#[tokio::test]
async fn an_active_key_does_everything() {
    let kms = TestKms::start().await;
    for operation in OPERATIONS {
        let subject = Subject::of(&kms, operation).await;
        subject.perform(&kms, operation).await.ok();
    }
}

#[tokio::test]
async fn a_replaced_key_reads_the_past_and_can_be_revoked_and_names_its_successor() {
    let kms = TestKms::start().await;
    for operation in OPERATIONS {
        let subject = Subject::of(&kms, operation).await;
        let rotated = kms.rotate(&subject.key_id).await;
        let successor = &rotated.ok()["new_key_id"];
        let answer = subject.perform(&kms, operation).await;
        if matches!(operation, "verify" | "decrypt" | "revoke") {
            answer.ok();
        } else {
            assert_eq!(
                answer.refused(409, "KEY_INACTIVE"),
                &json!({ "key_state": "pending_rotation", "successor_key_id": successor }),
                "{operation}"
            );
        }
    }
}

#[tokio::test]
async fn a_destroyed_key_does_nothing_any_more() {
    let kms = TestKms::start().await;
    for rotated_before in [false, true] {
        for operation in OPERATIONS {
            let subject = Subject::of(&kms, operation).await;
            if rotated_before {
                kms.rotate(&subject.key_id).await.ok();
            }
            kms.revoke(&subject.key_id).await.ok();
            let answer = subject.perform(&kms, operation).await;
            let details = answer.refused(409, "KEY_REVOKED");
            assert_eq!(details["key_state"], "destroyed", "{operation}");
        }
    }
}

#[tokio::test]
async fn what_was_verified_before_a_rotation_is_verified_after_it() {
    let kms = TestKms::start().await;
    let subject = Subject::of(&kms, "verify").await;
    kms.rotate(&subject.key_id).await.ok();
    let verified = subject.perform(&kms, "verify").await;
    assert_eq!(verified.ok()["valid"], true);
    let successor = kms.details(&subject.key_id).await["successor_key_id"].clone();
    let signature = &subject.protected["signature"];
    let elsewhere = kms.verify(text(&successor), b"data", signature).await;
    assert_eq!(elsewhere.ok()["valid"], false);
}

#[tokio::test]
async fn a_rotation_answers_with_the_new_key_and_the_end_of_the_old_ones_grace() {
    let kms = TestKms::start().await;
    for key_type in ["RSA-2048", "Ed25519", "AES-256"] {
        let made = kms
            .generate(key_type, json!({ "key_alias": key_type }))
            .await;
        let old_id = text(&made["key_id"]);
        let answer = kms.rotate(old_id).await;
        let rotated = answer.ok();
        assert_eq!(
            field_names(rotated),
            [
                "grace_until",
                "new_key_id",
                "new_public_key",
                "old_key_id",
                "receipt_id"
            ]
        );
        assert_eq!(rotated["old_key_id"], old_id);
        assert_ne!(rotated["new_key_id"], old_id);

        let old = kms.details(old_id).await;
        let new = kms.details(text(&rotated["new_key_id"])).await;
        assert_eq!(old["key_state"], "pending_rotation");
        assert_eq!(old["successor_key_id"], rotated["new_key_id"]);
        assert_eq!(old["public_key"], made["public_key"]);
        assert_eq!(old["grace_until"], rotated["grace_until"]);
        assert_eq!(
            time(&old["grace_until"]).duration_since(time(&old["rotated_at"])),
            SignedDuration::from_hours(7 * 24)
        );

        assert_eq!(new["key_state"], "active");
        assert_eq!(new["predecessor_key_id"], old_id);
        assert_eq!(new["successor_key_id"], Value::Null);
        assert_eq!(new["rotation_count"], 1);
        assert_eq!(new["public_key"], rotated["new_public_key"]);
        assert_eq!(new["grace_until"], Value::Null);
        for inherited in [
            "key_type",
            "key_usage",
            "key_alias",
            "access_policy",
            "algorithms",
        ] {
            assert_eq!(new[inherited], old[inherited], "{inherited}");
        }
        match key_type {
            "AES-256" => assert_eq!(rotated["new_public_key"], Value::Null),
            _ => assert_ne!(rotated["new_public_key"], made["public_key"]),
        }
    }
}

#[tokio::test]
async fn an_alias_follows_its_line_and_the_rotations_are_counted() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_alias": "line" }))
        .await;
    let mut newest = text(&made["key_id"]).to_owned();
    for rotations in 1..=3 {
        let answer = kms.rotate("alias/line").await;
        assert_eq!(answer.ok()["old_key_id"], newest);
        newest = text(&answer.body["new_key_id"]).to_owned();
        let details = kms.details("alias/line").await;
        assert_eq!(details["key_id"], newest);
        assert_eq!(details["rotation_count"], rotations);
        let signed = kms.sign("alias/line", b"data").await;
        assert_eq!(signed.ok()["key_id"], newest);
    }
}

#[tokio::test]
async fn a_new_key_lives_as_long_as_its_type_is_scheduled_for() {
    let kms = TestKms::start().await;
    for (key_type, days) in [("RSA-2048", 90), ("Ed25519", 365), ("AES-256", 90)] {
        let details = kms.details(&kms.generate_id(key_type).await).await;
        assert_eq!(
            time(&details["valid_until"]).duration_since(time(&details["created_at"])),
            SignedDuration::from_hours(days * 24),
            "{key_type}"
        );
    }
}

#[tokio::test]
async fn a_revocation_answers_when_and_the_metadata_stays() {
    let kms = TestKms::start().await;
    for reason in ["compromised", "retired", "policy_violation"] {
        let made = kms
            .generate("Ed25519", json!({ "key_alias": reason }))
            .await;
        let key_id = text(&made["key_id"]);
        let before = kms.details(key_id).await;
        let body = in_scope(json!({ "revocation_reason": reason }));
        let answer = kms
            .post_approved(&format!("/kms/v1/keys/{key_id}/revoke"), &body)
            .await;
        let revoked = answer.ok();
        assert_eq!(
            field_names(revoked),
            [
                "erase_at",
                "key_id",
                "key_state",
                "receipt_id",
                "revoked_at"
            ]
        );
        assert_eq!(revoked["key_id"], key_id);
        assert_eq!(revoked["key_state"], "destroyed");

        let after = kms.details(key_id).await;
        assert_eq!(after["revoked_at"], revoked["revoked_at"]);
        assert!(time(&after["revoked_at"]) >= time(&after["created_at"]));
        assert_eq!(after["revocation_reason"], reason);
        assert_eq!(after["erase_at"], revoked["erase_at"]);
        assert_eq!(after["erase_at"].is_null(), reason == "compromised");
        assert_eq!(after["rotate_at"], Value::Null);
        let changed = [
            "key_state",
            "revoked_at",
            "revocation_reason",
            "rotate_at",
            "erase_at",
        ];
        for name in &changed[..4] {
            assert_ne!(after[name], before[name], "{name}");
        }
        for (name, value) in before.as_object().expect("an object") {
            if !changed.contains(&name.as_str()) {
                assert_eq!(&after[name], value, "{name}");
            }
        }
        let listed = kms.get_scoped("/kms/v1/keys?key_state=destroyed").await;
        let keys = listed.ok()["keys"].as_array().expect("a list");
        assert!(keys.iter().any(|key| key["key_id"] == key_id));
    }
}

#[tokio::test]
async fn a_second_revocation_is_refused_and_changes_nothing() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    kms.revoke(&key_id).await.ok();
    let before = kms.details(&key_id).await;
    let body = in_scope(json!({ "revocation_reason": "retired" }));
    let again = kms
        .post_approved(&format!("/kms/v1/keys/{key_id}/revoke"), &body)
        .await;
    again.refused(409, "KEY_REVOKED");
    assert_eq!(kms.details(&key_id).await, before);
}

#[tokio::test]
async fn revoking_a_replaced_key_leaves_its_successor_alone() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_alias": "line" }))
        .await;
    let old_id = text(&made["key_id"]);
    let rotated = kms.rotate(old_id).await;
    kms.revoke(old_id).await.ok();
    let signed = kms.sign("alias/line", b"data").await;
    assert_eq!(signed.ok()["key_id"], rotated.ok()["new_key_id"]);
}

#[tokio::test]
async fn states_outlive_a_restart() {
    let kms = TestKms::start().await;
    let replaced = kms.generate_id("Ed25519").await;
    let destroyed = kms.generate_id("Ed25519").await;
    kms.rotate(&replaced).await.ok();
    kms.revoke(&destroyed).await.ok();
    let before = [kms.details(&replaced).await, kms.details(&destroyed).await];
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    let after = [kms.details(&replaced).await, kms.details(&destroyed).await];
    assert_eq!(after, before);
    let signed = kms.sign(&replaced, b"data").await;
    signed.refused(409, "KEY_INACTIVE");
    let signed = kms.sign(&destroyed, b"data").await;
    signed.refused(409, "KEY_REVOKED");
}
