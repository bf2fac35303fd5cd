//! A key of another compartment is a key that does not exist.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    APPROVAL, Answer, TestKms, UNKNOWN, UNTHROTTLED, base64, in_scope, in_tenant, text, with,
    without,
};

/// Compartments that differ from the usual one in one part each.
fn foreign_scopes() -> [Value; 4] {
    [
        json!({ "tenant_id": "tenant124" }),
        json!({ "tenant_id": "Tenant123" }),
        json!({ "environment": "staging" }),
        json!({ "plane": "shared" }),
    ]
}

fn query(scope: &Value) -> String {
    let scope = in_scope(scope.clone());
    let part = |name: &str| text(&scope[name]).to_owned();
    format!(
        "tenant_id={}&environment={}&plane={}",
        part("tenant_id"),
        part("environment"),
        part("plane")
    )
}

/// Everything in an answer that a caller could tell two refusals apart by.
#[derive(Debug, PartialEq)]
struct Appearance {
    status: u16,
    error: Value,
    headers: Vec<String>,
    length: usize,
}

impl Appearance {
    fn of(answer: &Answer) -> Self {
        let mut headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        headers.sort_unstable();
        Self {
            status: answer.status.as_u16(),
            error: without(answer.body["error"].clone(), "request_id"),
            headers,
            length: answer.text.len(),
        }
    }
}

/// Every request that names a key, in this scope.
async fn every_request(kms: &TestKms, scope: &Value, key: &str) -> Vec<Answer> {
    let body = |fields: Value| with(in_scope(fields), scope.clone());
    let posts = [
        (
            "/kms/v1/sign".to_owned(),
            json!({ "key_id": key, "data": "" }),
        ),
        (
            "/kms/v1/verify".to_owned(),
            json!({ "key_id": key, "data": "", "signature": "" }),
        ),
        (
            "/kms/v1/encrypt".to_owned(),
            json!({ "key_id": key, "plaintext": "" }),
        ),
        (
            "/kms/v1/decrypt".to_owned(),
            json!({ "key_id": key, "ciphertext": "", "iv": base64([0; 12]) }),
        ),
        (
            "/kms/v1/sign/batch".to_owned(),
            json!({ "key_id": key, "items": [{ "data": "" }, { "data": "" }] }),
        ),
        (
            "/kms/v1/verify/batch".to_owned(),
            json!({ "key_id": key, "items": [{ "data": "", "signature": "" }] }),
        ),
        (
            "/kms/v1/encrypt/batch".to_owned(),
            json!({ "key_id": key, "items": [{ "plaintext": "" }] }),
        ),
        (
            "/kms/v1/decrypt/batch".to_owned(),
            json!({ "key_id": key, "items": [{ "ciphertext": "", "iv": base64([0; 12]) }] }),
        ),
        (
            format!("/kms/v1/keys/{key}/rotate"),
            json!({ "approval_token": APPROVAL }),
        ),
        (
            format!("/kms/v1/keys/{key}/revoke"),
            json!({ "approval_token": APPROVAL, "revocation_reason": "retired" }),
        ),
        // Without an approval too: whether one is needed must not tell.
        (format!("/kms/v1/keys/{key}/rotate"), json!({})),
        (
            format!("/kms/v1/keys/{key}/revoke"),
            json!({ "revocation_reason": "retired" }),
        ),
    ];
    let mut answers = Vec::new();
    for (path, fields) in posts {
        answers.push(kms.post(&path, &body(fields)).await);
    }
    let path = format!("/kms/v1/keys/{key}?{}", query(scope));
    answers.push(kms.get(&path).await);
    answers
}

#[tokio::test]
async fn a_foreign_key_answers_exactly_as_one_that_does_not_exist() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let pair = kms
        .generate("Ed25519", json!({ "key_alias": "pair" }))
        .await;
    let secret = kms.generate("AES-256", json!({})).await;
    let guarded = json!({ "access_policy": { "requires_approval": true } });
    let guarded = kms.generate("RSA-2048", guarded).await;
    let destroyed = kms.generate("Ed25519", json!({})).await;
    kms.revoke(text(&destroyed["key_id"])).await.ok();

    for scope in foreign_scopes() {
        let unknown = every_request(&kms, &scope, UNKNOWN).await;
        for made in [&pair, &secret, &guarded, &destroyed] {
            let foreign = every_request(&kms, &scope, text(&made["key_id"])).await;
            assert_eq!(foreign.len(), unknown.len());
            for (foreign, unknown) in foreign.iter().zip(&unknown) {
                foreign.refused(404, "KEY_NOT_FOUND");
                assert_eq!(Appearance::of(foreign), Appearance::of(unknown));
            }
        }
        let unknown = every_request(&kms, &scope, "alias/rest").await;
        let foreign = every_request(&kms, &scope, "alias/pair").await;
        for (foreign, unknown) in foreign.iter().zip(&unknown) {
            foreign.refused(404, "KEY_NOT_FOUND");
            assert_eq!(Appearance::of(foreign), Appearance::of(unknown));
        }
    }
    // None of it did anything, and in their own scope they are all there.
    for made in [&pair, &secret, &guarded] {
        let details = kms.details(text(&made["key_id"])).await;
        assert_eq!(details["key_state"], "active");
    }
    kms.sign("alias/pair", b"data").await.ok();
}

#[tokio::test]
async fn a_list_shows_the_keys_of_its_own_compartment_only() {
    let kms = TestKms::start().await;
    let mut made = vec![(json!({}), kms.generate_id("Ed25519").await)];
    for scope in foreign_scopes() {
        let body = in_scope(json!({ "key_type": "Ed25519", "key_usage": "sign" }));
        let answer = kms
            .post_approved("/kms/v1/keys", &with(body, scope.clone()))
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        made.push((scope, text(&answer.body["key_id"]).to_owned()));
    }
    for (scope, key_id) in made {
        let listed = kms.get(&format!("/kms/v1/keys?{}", query(&scope))).await;
        let keys = listed.ok()["keys"].as_array().expect("a list");
        assert_eq!(keys.len(), 1, "{scope}");
        assert_eq!(keys[0]["key_id"], key_id);
        for (name, value) in scope.as_object().expect("an object") {
            assert_eq!(&keys[0][name], value);
        }
    }
    let nobody = kms
        .get(&format!(
            "/kms/v1/keys?{}",
            query(&json!({ "plane": "product" }))
        ))
        .await;
    assert_eq!(nobody.ok(), &json!({ "keys": [], "next_cursor": null }));
}

#[tokio::test]
async fn a_cursor_leads_nowhere_in_another_compartment() {
    let kms = TestKms::start().await;
    for _ in 0..3 {
        kms.generate_id("Ed25519").await;
    }
    let page = kms.get_scoped("/kms/v1/keys?limit=1").await;
    let cursor = text(&page.ok()["next_cursor"]);
    let scope = query(&json!({ "tenant_id": "tenant124" }));
    let elsewhere = kms
        .get(&format!("/kms/v1/keys?{scope}&cursor={cursor}"))
        .await;
    assert_eq!(elsewhere.ok()["keys"], json!([]));
}

#[tokio::test]
async fn a_receipt_of_another_compartment_is_not_found() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({})).await;
    let receipt_id = text(&made["receipt_id"]);
    kms.receipt(&made["receipt_id"]).await;
    for scope in foreign_scopes() {
        let find = async |receipt_id: &str| {
            let path = format!("/kms/v1/receipts/{receipt_id}?{}", query(&scope));
            let answer = kms.get(&path).await;
            answer.refused(404, "INVALID_REQUEST");
            Appearance::of(&answer)
        };
        assert_eq!(find(receipt_id).await, find(UNKNOWN).await);
    }
}

#[tokio::test]
async fn the_same_alias_in_two_compartments_is_two_keys() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_alias": "same" }))
        .await;
    for scope in foreign_scopes() {
        let body = in_scope(json!({
            "key_type": "Ed25519", "key_usage": ["sign", "verify"], "key_alias": "same",
        }));
        let other = kms
            .post_approved("/kms/v1/keys", &with(body, scope.clone()))
            .await;
        assert_eq!(other.status, 201, "{}", other.text);
        assert_ne!(other.body["key_id"], made["key_id"]);
        let body = in_scope(json!({ "key_id": "alias/same", "data": base64("data") }));
        let signed = kms.post("/kms/v1/sign", &with(body, scope)).await;
        assert_eq!(signed.ok()["key_id"], other.body["key_id"]);
        // One's signature is nothing to the other.
        let verified = kms
            .verify("alias/same", b"data", &signed.body["signature"])
            .await;
        assert_eq!(verified.ok()["valid"], false);
        assert_eq!(verified.body["key_id"], made["key_id"]);
    }
}

#[tokio::test]
async fn revoking_in_one_compartment_leaves_the_alias_of_another() {
    let kms = TestKms::start().await;
    kms.generate("Ed25519", json!({ "key_alias": "same" }))
        .await;
    let body = in_tenant(
        "tenant124",
        json!({ "key_type": "Ed25519", "key_usage": "sign", "key_alias": "same" }),
    );
    let other = kms.post_approved("/kms/v1/keys", &body).await;
    assert_eq!(other.status, 201, "{}", other.text);
    let revocation = in_tenant("tenant124", json!({ "revocation_reason": "retired" }));
    let revoked = kms
        .post_approved("/kms/v1/keys/alias/same/revoke", &revocation)
        .await;
    assert_eq!(revoked.ok()["key_id"], other.body["key_id"]);
    kms.sign("alias/same", b"data").await.ok();
}

#[tokio::test]
async fn a_read_without_a_scope_is_refused_by_its_names() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({})).await;
    let key_id = text(&made["key_id"]);
    let receipt_id = text(&made["receipt_id"]);
    for path in [
        "/kms/v1/keys".to_owned(),
        format!("/kms/v1/keys/{key_id}"),
        format!("/kms/v1/receipts/{receipt_id}"),
    ] {
        let answer = Answer::of(kms.request(Method::GET, &path)).await;
        answer.refused_fields(&["tenant_id", "environment", "plane"]);
    }
}
