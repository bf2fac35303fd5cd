//! A key's policy: which modules use it, and what a second person must agree to.

use serde_json::{Value, json};

use crate::support::{APPROVAL, Answer, TestKms, base64, in_scope, text, with};

async fn sign_as(kms: &TestKms, module: &str, key_id: &str) -> Answer {
    let body = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
    kms.post_as(module, "/kms/v1/sign", &body).await
}

async fn generate_as(kms: &TestKms, module: &str, access_policy: Value) -> String {
    let body = in_scope(json!({
        "key_type": "Ed25519", "key_usage": ["sign", "verify"],
        "access_policy": access_policy, "approval_token": APPROVAL,
    }));
    let made = kms.post_as(module, "/kms/v1/keys", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    text(&made.body["key_id"]).to_owned()
}

#[tokio::test]
async fn by_default_the_configured_modules_and_the_creator_use_a_key() {
    let kms = TestKms::start().await;
    let key_id = generate_as(&kms, "M50", json!({})).await;
    let policy = kms.details(&key_id).await["access_policy"].clone();
    assert_eq!(
        policy["allowed_modules"],
        json!(["M21", "M23", "M27", "M29", "M34", "M50"])
    );
    for module in ["M21", "M23", "M27", "M29", "M34", "M50"] {
        sign_as(&kms, module, &key_id).await.ok();
    }
    for module in ["M22", "M51", "m21", "M2"] {
        let answer = sign_as(&kms, module, &key_id).await;
        answer.refused(403, "POLICY_VIOLATION");
    }
}

#[tokio::test]
async fn the_default_modules_are_a_setting() {
    let settings = [("KMS__KEYS__ALLOWED_MODULES", "M27,EPC-12")];
    let kms = TestKms::start_with(&settings).await;
    let key_id = generate_as(&kms, "M50", json!({})).await;
    let policy = kms.details(&key_id).await["access_policy"].clone();
    assert_eq!(policy["allowed_modules"], json!(["M27", "M34", "M50"]));
    let answer = sign_as(&kms, "M21", &key_id).await;
    answer.refused(403, "POLICY_VIOLATION");
}

#[tokio::test]
async fn an_explicit_list_is_exact_and_leaves_out_even_the_creator() {
    let kms = TestKms::start().await;
    let only = json!({ "allowed_modules": ["M27"] });
    let key_id = generate_as(&kms, "M50", only).await;
    sign_as(&kms, "M27", &key_id).await.ok();
    for module in ["M21", "M50"] {
        let answer = sign_as(&kms, module, &key_id).await;
        answer.refused(403, "POLICY_VIOLATION");
    }
}

#[tokio::test]
async fn a_modules_second_name_is_the_same_module() {
    let kms = TestKms::start().await;
    for (first, second) in [
        ("M21", "EPC-1"),
        ("M22", "EPC-2"),
        ("M23", "EPC-3"),
        ("M27", "PM-7"),
        ("M29", "CCP-6"),
        ("M32", "CCP-1"),
        ("M33", "EPC-11"),
        ("M34", "EPC-12"),
        ("M35", "EPC-13"),
    ] {
        for (listed, calling) in [(first, second), (second, first), (second, second)] {
            let only = json!({ "allowed_modules": [listed] });
            let key_id = generate_as(&kms, calling, only).await;
            sign_as(&kms, calling, &key_id).await.ok();
            let details = kms.details(&key_id).await;
            assert_eq!(details["created_by"], first);
            assert_eq!(details["access_policy"]["allowed_modules"], json!([first]));
        }
    }
}

#[tokio::test]
async fn a_caller_that_names_no_module_is_m21_and_a_malformed_name_is_nobody() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({})).await;
    let key_id = text(&made["key_id"]);
    assert_eq!(kms.details(key_id).await["created_by"], "M21");
    for malformed in ["", "M 21", "-M21", "M21,M27", "M21/", &"M".repeat(65)] {
        let answer = sign_as(&kms, malformed, key_id).await;
        answer.refused(401, "UNAUTHENTICATED");
    }
    let request = kms
        .post_request("/kms/v1/sign", &in_scope(json!({})))
        .header("X-Module-Id", &b"M\xFC"[..]);
    Answer::of(request).await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_key_that_requires_approval_is_not_used_without_one() {
    let kms = TestKms::start().await;
    let policy = json!({ "access_policy": { "requires_approval": true } });
    let pair = kms.generate("Ed25519", policy.clone()).await;
    let secret = kms.generate("AES-256", policy).await;
    let pair = json!({ "key_id": pair["key_id"] });
    let secret = json!({ "key_id": secret["key_id"] });

    let approved = json!({ "approval_token": APPROVAL });
    let signing = with(pair.clone(), json!({ "data": "" }));
    let signed = kms
        .post_scoped("/kms/v1/sign", with(signing.clone(), approved.clone()))
        .await;
    let signature = json!({ "signature": signed.ok()["signature"] });
    let encrypting = with(secret.clone(), json!({ "plaintext": "" }));
    let encrypted = kms
        .post_scoped(
            "/kms/v1/encrypt",
            with(encrypting.clone(), approved.clone()),
        )
        .await;
    let encrypted = encrypted.ok();
    let sealed = json!({ "ciphertext": encrypted["ciphertext"], "iv": encrypted["iv"] });

    for (path, fields) in [
        ("/kms/v1/sign", signing.clone()),
        ("/kms/v1/verify", with(signing, signature)),
        ("/kms/v1/encrypt", encrypting),
        ("/kms/v1/decrypt", with(secret, sealed)),
    ] {
        let missing = kms.post_scoped(path, fields.clone()).await;
        missing.refused(403, "UNAUTHORIZED");
        let short = json!({ "approval_token": "123456789" });
        let short = kms.post_scoped(path, with(fields.clone(), short)).await;
        short.refused(403, "UNAUTHORIZED");
        let in_body = with(fields.clone(), approved.clone());
        kms.post_scoped(path, in_body).await.ok();
        let in_header = kms.post_approved(path, &in_scope(fields)).await;
        in_header.ok();
    }
}

#[tokio::test]
async fn a_key_that_requires_none_is_used_without_one() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    kms.sign(&key_id, b"data").await.ok();
}

/// The three steps in a key's life, each with a fresh key to take it on.
async fn lifecycle_steps(kms: &TestKms) -> [(String, Value); 3] {
    let rotated = kms.generate_id("Ed25519").await;
    let revoked = kms.generate_id("Ed25519").await;
    [
        (
            "/kms/v1/keys".to_owned(),
            in_scope(json!({ "key_type": "Ed25519", "key_usage": "sign" })),
        ),
        (
            format!("/kms/v1/keys/{rotated}/rotate"),
            in_scope(json!({})),
        ),
        (
            format!("/kms/v1/keys/{revoked}/revoke"),
            in_scope(json!({ "revocation_reason": "retired" })),
        ),
    ]
}

#[tokio::test]
async fn no_step_in_a_keys_life_goes_without_a_second_person() {
    let kms = TestKms::start().await;
    for (path, body) in lifecycle_steps(&kms).await {
        let missing = kms.post(&path, &body).await;
        missing.refused(403, "UNAUTHORIZED");
        for short in ["", "123456789"] {
            let token = json!({ "approval_token": short });
            let in_body = kms.post(&path, &with(body.clone(), token)).await;
            in_body.refused(403, "UNAUTHORIZED");
            let request = kms
                .post_request(&path, &body)
                .header("X-Approval-Token", short);
            Answer::of(request).await.refused(403, "UNAUTHORIZED");
        }
        let null = json!({ "approval_token": null });
        let null = kms.post(&path, &with(body.clone(), null)).await;
        null.refused(403, "UNAUTHORIZED");

        let token = json!({ "approval_token": APPROVAL });
        let twice = kms.post_approved(&path, &with(body.clone(), token)).await;
        twice.refused_fields(&["approval_token"]);
        let request = kms
            .post_request(&path, &body)
            .header("X-Approval-Token", APPROVAL)
            .header("X-Approval-Token", APPROVAL);
        let two_headers = Answer::of(request).await;
        two_headers.refused_fields(&["approval_token"]);

        let ten = json!({ "approval_token": "1234567890" });
        let approved = kms.post(&path, &with(body, ten)).await;
        assert!(approved.status.is_success(), "{}", approved.text);
    }
    for (path, body) in lifecycle_steps(&kms).await {
        let approved = kms.post_approved(&path, &body).await;
        assert!(approved.status.is_success(), "{}", approved.text);
    }
}

#[tokio::test]
async fn a_refused_step_leaves_the_key_as_it_was() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let before = kms.details(&key_id).await;
    for (step, fields) in [
        ("rotate", json!({})),
        ("revoke", json!({ "revocation_reason": "retired" })),
    ] {
        let path = format!("/kms/v1/keys/{key_id}/{step}");
        let refused = kms.post_scoped(&path, fields).await;
        refused.refused(403, "UNAUTHORIZED");
    }
    assert_eq!(kms.details(&key_id).await, before);
    kms.sign(&key_id, b"data").await.ok();
}

#[tokio::test]
async fn which_operations_need_a_second_person_is_a_setting() {
    let none = [("KMS__APPROVALS__OPERATIONS", "")];
    let kms = TestKms::start_with(&none).await;
    for (path, body) in lifecycle_steps(&kms).await {
        let answer = kms.post(&path, &body).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    let config = kms.get("/kms/v1/config").await;
    let operations = &config.ok()["dual_authorization_required_operations"];
    assert_eq!(operations, &json!([]));
    // A key's own policy asks for one all the same.
    let policy = json!({ "access_policy": { "requires_approval": true } });
    let made = kms.generate("Ed25519", policy).await;
    let signed = kms.sign(text(&made["key_id"]), b"data").await;
    signed.refused(403, "UNAUTHORIZED");
}

#[tokio::test]
async fn a_successor_inherits_the_whole_policy() {
    let kms = TestKms::start().await;
    let policy = json!({
        "allowed_modules": ["M27", "M35"],
        "requires_approval": true,
        "max_usage_per_day": 7,
    });
    let made = kms
        .generate("Ed25519", json!({ "access_policy": policy }))
        .await;
    let rotated = kms.rotate(text(&made["key_id"])).await;
    let successor = text(&rotated.ok()["new_key_id"]);
    assert_eq!(kms.details(successor).await["access_policy"], policy);
    let refused = sign_as(&kms, "M21", successor).await;
    refused.refused(403, "POLICY_VIOLATION");
    let refused = sign_as(&kms, "M27", successor).await;
    refused.refused(403, "UNAUTHORIZED");
}
