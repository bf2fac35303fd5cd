//! Every operation, allowed or refused, leaves one receipt that says what happened.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::support::{
    APPROVAL, Answer, TestKms, UNKNOWN, base64, field_names, in_scope, leaves, text, with,
};

/// What a receipt of this key should say, apart from ids and times.
struct Expected<'a> {
    operation: &'a str,
    operation_type: &'a str,
    key_id: &'a Value,
    algorithm: &'a str,
    key_size_bits: u32,
    success: bool,
}

impl Expected<'_> {
    async fn check(&self, kms: &TestKms, answer: &Answer) {
        assert!(answer.status.is_success(), "{}", answer.text);
        let found = kms.receipt(&answer.body["receipt_id"]).await;
        let receipt = &found.receipt;
        assert_eq!(
            field_names(receipt),
            [
                "environment",
                "kms_context",
                "module",
                "operation",
                "plane",
                "receipt_id",
                "request_id",
                "requesting_module",
                "signature",
                "signer_key_id",
                "tenant_id",
                "ts"
            ]
        );
        assert_eq!(receipt["receipt_id"], answer.body["receipt_id"]);
        assert_eq!(receipt["tenant_id"], "tenant123");
        assert_eq!(receipt["environment"], "prod");
        assert_eq!(receipt["plane"], "laptop");
        assert_eq!(receipt["module"], "KMS");
        assert_eq!(receipt["operation"], self.operation);
        assert_eq!(receipt["requesting_module"], "M27");
        let request_id = answer.headers["x-request-id"].to_str().expect("text");
        assert_eq!(receipt["request_id"], request_id);
        let written = text(&receipt["ts"]);
        assert!(written.ends_with('Z'), "{written}");
        written.parse::<jiff::Timestamp>().expect("RFC 3339");
        assert_eq!(
            receipt["kms_context"],
            json!({
                "key_id": self.key_id,
                "operation_type": self.operation_type,
                "algorithm": self.algorithm,
                "key_size_bits": self.key_size_bits,
                "success": self.success,
                "error_code": null,
            })
        );
    }
}

async fn as_m27(kms: &TestKms, path: &str, fields: Value) -> Answer {
    let size = kms.ledger_size().await;
    let answer = kms.post_as("M27", path, &in_scope(fields)).await;
    assert_eq!(kms.ledger_size().await, size + 1, "{path}: {}", answer.text);
    answer
}

#[tokio::test]
async fn the_life_and_use_of_a_pair_is_told_receipt_by_receipt() {
    let kms = TestKms::start().await;
    for (key_type, algorithm, bits) in [
        ("RSA-2048", "RSA-PSS-SHA256", 2048),
        ("Ed25519", "Ed25519", 256),
    ] {
        let generation = json!({
            "key_type": key_type, "key_usage": ["sign", "verify"], "approval_token": APPROVAL,
        });
        let made = as_m27(&kms, "/kms/v1/keys", generation).await;
        let key_id = &made.body["key_id"];
        let mut expected = Expected {
            operation: "key_generated",
            operation_type: "generate",
            key_id,
            algorithm: key_type,
            key_size_bits: bits,
            success: true,
        };
        expected.check(&kms, &made).await;

        let signing = json!({ "key_id": key_id, "data": base64("data") });
        let signed = as_m27(&kms, "/kms/v1/sign", signing.clone()).await;
        expected.operation = "signature_created";
        expected.operation_type = "sign";
        expected.algorithm = algorithm;
        expected.check(&kms, &signed).await;

        let signature = json!({ "signature": signed.body["signature"] });
        let verifying = with(signing, signature);
        let verified = as_m27(&kms, "/kms/v1/verify", verifying.clone()).await;
        expected.operation = "signature_verified";
        expected.operation_type = "verify";
        expected.check(&kms, &verified).await;

        let other_data = with(verifying, json!({ "data": base64("other") }));
        let failed = as_m27(&kms, "/kms/v1/verify", other_data).await;
        assert_eq!(failed.ok()["valid"], false);
        expected.success = false;
        expected.check(&kms, &failed).await;

        let id = text(key_id);
        let approved = json!({ "approval_token": APPROVAL });
        let path = format!("/kms/v1/keys/{id}/rotate");
        let rotated = as_m27(&kms, &path, approved.clone()).await;
        expected.operation = "key_rotated";
        expected.operation_type = "rotate";
        expected.algorithm = key_type;
        expected.success = true;
        expected.check(&kms, &rotated).await;

        let path = format!("/kms/v1/keys/{id}/revoke");
        let revocation = with(approved, json!({ "revocation_reason": "retired" }));
        let revoked = as_m27(&kms, &path, revocation).await;
        expected.operation = "key_revoked";
        expected.operation_type = "revoke";
        expected.check(&kms, &revoked).await;
    }
}

#[tokio::test]
async fn the_use_of_a_secret_is_told_receipt_by_receipt() {
    let kms = TestKms::start().await;
    let made = kms.generate("AES-256", json!({})).await;
    let key_id = &made["key_id"];
    for algorithm in ["AES-256-GCM", "ChaCha20-Poly1305"] {
        let encrypting = json!({
            "key_id": key_id, "plaintext": base64("data"), "algorithm": algorithm,
        });
        let encrypted = as_m27(&kms, "/kms/v1/encrypt", encrypting).await;
        let mut expected = Expected {
            operation: "encrypt",
            operation_type: "encrypt",
            key_id,
            algorithm,
            key_size_bits: 256,
            success: true,
        };
        expected.check(&kms, &encrypted).await;

        let decrypting = json!({
            "key_id": key_id, "algorithm": algorithm,
            "ciphertext": encrypted.body["ciphertext"], "iv": encrypted.body["iv"],
        });
        let decrypted = as_m27(&kms, "/kms/v1/decrypt", decrypting).await;
        expected.operation = "decrypt";
        expected.operation_type = "decrypt";
        expected.check(&kms, &decrypted).await;
    }
}

#[tokio::test]
async fn every_refused_operation_leaves_a_receipt_with_its_code() {
    let kms = TestKms::start().await;
    let active = kms
        .generate("Ed25519", json!({ "key_usage": "sign" }))
        .await;
    let limited = json!({ "access_policy": { "max_usage_per_day": 1 } });
    let limited = kms.generate("Ed25519", limited).await;
    kms.sign(text(&limited["key_id"]), b"data").await.ok();
    let destroyed = kms.generate("Ed25519", json!({})).await;
    kms.revoke(text(&destroyed["key_id"])).await.ok();
    let replaced = kms.generate("Ed25519", json!({})).await;
    kms.rotate(text(&replaced["key_id"])).await.ok();
    let secret = kms.generate("AES-256", json!({})).await;

    let path = |key: &Value, step: &str| format!("/kms/v1/keys/{}/{step}", text(&key["key_id"]));
    let use_of = |key: &Value| json!({ "key_id": key["key_id"], "data": "" });
    let sign = || "/kms/v1/sign".to_owned();
    let approved = json!({ "approval_token": APPROVAL });
    let reason = json!({ "revocation_reason": "retired" });
    let generation = json!({ "key_type": "RSA-2048", "key_usage": "encrypt" });
    let verifying = with(use_of(&active), json!({ "signature": "" }));
    let rs256 = with(use_of(&active), json!({ "algorithm": "RS256" }));
    let decrypting = json!({
        "key_id": secret["key_id"], "ciphertext": "", "iv": base64([0; 12]),
    });
    let anchor = json!({ "certificate": "", "anchor_type": "root" });
    let unknown = json!({ "key_id": UNKNOWN, "data": "" });
    let unknown_path = format!("/kms/v1/keys/{UNKNOWN}/rotate");
    let id = |key: &Value| key["key_id"].clone();

    // Path, fields, then operation, key and code of the receipt.
    let cases = [
        (
            sign(),
            unknown,
            "signature_created",
            json!(UNKNOWN),
            "KEY_NOT_FOUND",
        ),
        (
            sign(),
            json!({ "key_id": "alias/a", "data": "" }),
            "signature_created",
            json!("alias/a"),
            "KEY_NOT_FOUND",
        ),
        (
            sign(),
            use_of(&destroyed),
            "signature_created",
            id(&destroyed),
            "KEY_REVOKED",
        ),
        (
            sign(),
            use_of(&replaced),
            "signature_created",
            id(&replaced),
            "KEY_INACTIVE",
        ),
        (
            sign(),
            use_of(&limited),
            "signature_created",
            id(&limited),
            "RATE_LIMITED",
        ),
        (
            sign(),
            use_of(&secret),
            "signature_created",
            id(&secret),
            "POLICY_VIOLATION",
        ),
        (
            sign(),
            rs256,
            "signature_created",
            id(&active),
            "INVALID_REQUEST",
        ),
        (
            "/kms/v1/verify".to_owned(),
            verifying,
            "signature_verified",
            id(&active),
            "POLICY_VIOLATION",
        ),
        (
            "/kms/v1/decrypt".to_owned(),
            decrypting,
            "decrypt",
            id(&secret),
            "INVALID_REQUEST",
        ),
        (
            "/kms/v1/encrypt".to_owned(),
            json!({ "key_id": id(&active), "plaintext": "" }),
            "encrypt",
            id(&active),
            "POLICY_VIOLATION",
        ),
        (
            "/kms/v1/keys".to_owned(),
            generation.clone(),
            "key_generated",
            Value::Null,
            "INVALID_REQUEST",
        ),
        (
            "/kms/v1/keys".to_owned(),
            with(generation, json!({ "key_usage": "sign" })),
            "key_generated",
            Value::Null,
            "UNAUTHORIZED",
        ),
        (
            path(&active, "rotate"),
            json!({}),
            "key_rotated",
            id(&active),
            "UNAUTHORIZED",
        ),
        (
            path(&replaced, "rotate"),
            approved.clone(),
            "key_rotated",
            id(&replaced),
            "KEY_INACTIVE",
        ),
        (
            unknown_path,
            approved.clone(),
            "key_rotated",
            json!(UNKNOWN),
            "KEY_NOT_FOUND",
        ),
        (
            path(&active, "revoke"),
            reason.clone(),
            "key_revoked",
            id(&active),
            "UNAUTHORIZED",
        ),
        (
            path(&destroyed, "revoke"),
            with(reason, approved),
            "key_revoked",
            id(&destroyed),
            "KEY_REVOKED",
        ),
        (
            "/kms/v1/trust-anchors".to_owned(),
            anchor,
            "trust_anchor_updated",
            Value::Null,
            "INVALID_REQUEST",
        ),
    ];
    let first = usize::try_from(kms.ledger_size().await).expect("few");
    let mut expected = Vec::new();
    for (path, fields, operation, key_id, code) in cases {
        let answer = as_m27(&kms, &path, fields).await;
        assert_eq!(answer.body["error"]["code"], code, "{path}");
        let request_id = answer.body["error"]["request_id"].clone();
        expected.push((operation, key_id, code, request_id));
    }
    let folder = kms.stop().await;
    let receipts = leaves(folder.path()).split_off(first);
    assert_eq!(receipts.len(), expected.len());
    for (leaf, (operation, key_id, code, request_id)) in receipts.iter().zip(expected) {
        let receipt: Value = serde_json::from_str(leaf).expect("JSON");
        assert_eq!(receipt["operation"], operation, "{leaf}");
        assert_eq!(receipt["request_id"], request_id, "{leaf}");
        assert_eq!(receipt["requesting_module"], "M27", "{leaf}");
        let context = &receipt["kms_context"];
        assert_eq!(context["key_id"], key_id, "{leaf}");
        assert_eq!(context["success"], false, "{leaf}");
        assert_eq!(context["error_code"], code, "{leaf}");
    }
}

#[tokio::test]
async fn what_never_reaches_an_operation_leaves_none() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let size = kms.ledger_size().await;
    assert_eq!(size, 1);
    let good = json!({ "key_id": key_id, "data": "" });

    kms.post("/kms/v1/sign", &json!({}))
        .await
        .refused(400, "INVALID_REQUEST");
    let misspelt = with(good.clone(), json!({ "dat": "" }));
    let answer = kms.post_scoped("/kms/v1/sign", misspelt).await;
    answer.refused_fields(&["dat"]);
    let malformed = with(good.clone(), json!({ "key_id": "key-123" }));
    let answer = kms.post_scoped("/kms/v1/sign", malformed).await;
    answer.refused_fields(&["key_id"]);
    let answer = kms.post_scoped("/kms/v1/keys/x/rotate", json!({})).await;
    answer.refused_fields(&["key_id"]);
    let both = in_scope(with(good.clone(), json!({ "approval_token": APPROVAL })));
    let answer = kms.post_approved("/kms/v1/sign", &both).await;
    answer.refused_fields(&["approval_token"]);
    let answer = kms.post_scoped("/kms/v1/signs", good.clone()).await;
    answer.refused(404, "INVALID_REQUEST");
    kms.get("/kms/v1/sign")
        .await
        .refused(405, "INVALID_REQUEST");
    let body = in_scope(good);
    let answer = kms.post_as("no module", "/kms/v1/sign", &body).await;
    answer.refused(401, "UNAUTHENTICATED");
    let request = kms
        .request(Method::POST, "/kms/v1/sign")
        .header(CONTENT_TYPE, "text/plain")
        .body(body.to_string());
    Answer::of(request).await.refused(415, "INVALID_REQUEST");
    let large = kms.sign(&key_id, &vec![0; 1024 * 1024]).await;
    large.refused(413, "INVALID_REQUEST");

    kms.details(&key_id).await;
    kms.get_scoped("/kms/v1/keys").await.ok();
    kms.get_scoped(&format!("/kms/v1/receipts/{UNKNOWN}"))
        .await
        .refused(404, "INVALID_REQUEST");
    assert_eq!(kms.ledger_size().await, size);
}
