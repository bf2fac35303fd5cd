//! Keys are made, found and listed as the contract says.

use serde_json::{Value, json};

use crate::support::{APPROVAL, TestKms, field_names, in_scope};

#[tokio::test]
async fn a_new_key_is_answered_with_exactly_the_fields_of_the_contract() {
    let kms = TestKms::start().await;
    for (key_type, algorithms) in [
        ("RSA-2048", json!(["RSA-PSS-SHA256", "RSA-PKCS1v15-SHA256"])),
        ("Ed25519", json!(["Ed25519"])),
        ("AES-256", json!(["AES-256-GCM", "ChaCha20-Poly1305"])),
    ] {
        let made = kms.generate(key_type, json!({})).await;
        assert_eq!(
            field_names(&made),
            [
                "algorithms",
                "key_id",
                "key_state",
                "key_type",
                "public_key",
                "receipt_id",
                "valid_until"
            ]
        );
        assert_eq!(made["key_type"], key_type);
        assert_eq!(made["key_state"], "active");
        assert_eq!(made["algorithms"], algorithms);
        assert_eq!(
            made["key_id"].as_str().expect("a text").as_bytes()[14],
            b'7'
        );
        assert!(made["valid_until"].as_str().expect("a text").ends_with('Z'));
        match key_type {
            "AES-256" => assert_eq!(made["public_key"], Value::Null),
            _ => {
                let pem = made["public_key"].as_str().expect("a PEM");
                assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
                assert!(pem.ends_with("-----END PUBLIC KEY-----\n"), "{pem}");
            }
        }
    }
}

#[tokio::test]
async fn the_usage_may_be_one_string_and_the_approval_may_come_in_the_body() {
    let kms = TestKms::start().await;
    let body = in_scope(json!({
        "key_type": "Ed25519",
        "key_usage": "sign",
        "approval_token": APPROVAL,
    }));
    let made = kms.post("/kms/v1/keys", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn metadata_says_everything_but_the_secret() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({ "key_alias": "a.b" })).await;
    let id = made["key_id"].as_str().expect("an id");
    let answer = kms.get_scoped(&format!("/kms/v1/keys/{id}")).await;
    let key = answer.ok();
    assert_eq!(key["key_id"], made["key_id"]);
    assert_eq!(key["tenant_id"], "tenant123");
    assert_eq!(key["environment"], "prod");
    assert_eq!(key["plane"], "laptop");
    assert_eq!(key["key_usage"], json!(["sign", "verify"]));
    assert_eq!(key["key_alias"], "a.b");
    assert_eq!(key["key_state"], "active");
    assert_eq!(key["public_key"], made["public_key"]);
    assert_eq!(key["rotation_count"], 0);
    assert_eq!(key["hsm_backend"], "software");
    assert_eq!(
        key["access_policy"],
        json!({
            "allowed_modules": ["M21", "M23", "M27", "M29", "M34"],
            "requires_approval": false,
            "max_usage_per_day": 10_000,
        })
    );
    let words = answer.text.to_lowercase();
    for word in ["handle", "secret", "private"] {
        assert!(!words.contains(word), "{word}");
    }
}

#[tokio::test]
async fn a_key_is_found_by_its_alias_in_both_spellings_of_the_path() {
    let kms = TestKms::start().await;
    let made = kms.generate("AES-256", json!({ "key_alias": "db" })).await;
    for path in ["/kms/v1/keys/alias/db", "/kms/v1/keys/alias%2Fdb"] {
        let answer = kms.get_scoped(path).await;
        assert_eq!(answer.ok()["key_id"], made["key_id"], "{path}");
    }
    let none = kms.get_scoped("/kms/v1/keys/alias/none").await;
    none.refused(404, "KEY_NOT_FOUND");
}

#[tokio::test]
async fn an_alias_belongs_to_one_active_key_and_is_free_after_it() {
    let kms = TestKms::start().await;
    let first = kms.generate("Ed25519", json!({ "key_alias": "one" })).await;
    let body = in_scope(json!({
        "key_type": "Ed25519", "key_usage": "sign", "key_alias": "one",
    }));
    let second = kms.post_approved("/kms/v1/keys", &body).await;
    second.refused_fields(&["key_alias"]);

    let id = first["key_id"].as_str().expect("an id");
    let revoke = in_scope(json!({ "revocation_reason": "compromised" }));
    let revoked = kms
        .post_approved(&format!("/kms/v1/keys/{id}/revoke"), &revoke)
        .await;
    revoked.ok();
    kms.get_scoped("/kms/v1/keys/alias/one")
        .await
        .refused(404, "KEY_NOT_FOUND");
    let again = kms.post_approved("/kms/v1/keys", &body).await;
    assert_eq!(again.status, 201, "{}", again.text);
}

#[tokio::test]
async fn keys_are_listed_page_by_page_and_by_filter() {
    let kms = TestKms::start().await;
    let mut made = Vec::new();
    for number in 0..5 {
        let key_type = if number % 2 == 0 {
            "Ed25519"
        } else {
            "AES-256"
        };
        made.push(kms.generate_id(key_type).await);
    }
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = kms
            .get_scoped(&format!("/kms/v1/keys?limit=2{cursor}"))
            .await;
        let keys = page.ok()["keys"].as_array().expect("a list").clone();
        assert!(keys.len() <= 2);
        listed.extend(
            keys.iter()
                .map(|key| key["key_id"].as_str().expect("an id").to_owned()),
        );
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, made);

    let ids = async |query: &str| -> usize {
        let page = kms.get_scoped(&format!("/kms/v1/keys?{query}")).await;
        page.ok()["keys"].as_array().expect("a list").len()
    };
    assert_eq!(ids("key_type=Ed25519").await, 3);
    assert_eq!(ids("key_state=active&key_type=AES-256").await, 2);
    assert_eq!(ids("key_state=destroyed").await, 0);
    assert_eq!(ids("alias=nobody").await, 0);
}

#[tokio::test]
async fn a_usage_that_does_not_fit_the_type_is_refused_by_name() {
    let kms = TestKms::start().await;
    for (key_type, usage) in [
        ("RSA-2048", json!(["encrypt"])),
        ("Ed25519", json!(["sign", "decrypt"])),
        ("AES-256", json!("sign")),
    ] {
        let body = in_scope(json!({ "key_type": key_type, "key_usage": usage }));
        let answer = kms.post_approved("/kms/v1/keys", &body).await;
        answer.refused_fields(&["key_usage"]);
    }
}
