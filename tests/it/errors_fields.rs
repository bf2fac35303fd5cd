//! Every fault in a body is named, all of them at once.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::support::{Answer, TestKms, UNKNOWN, UNTHROTTLED, base64, in_scope, with, without};

const SCOPE: &str = r#""tenant_id":"tenant123","environment":"prod","plane":"laptop""#;

/// Every body with each of its fields right, and the fields it can go without.
fn bodies() -> Vec<(String, Value, &'static [&'static str])> {
    vec![
        (
            "/kms/v1/keys".to_owned(),
            in_scope(json!({
                "key_type": "Ed25519", "key_usage": "sign", "key_alias": "a",
                "access_policy": {}, "approval_token": "1234567890",
            })),
            &["key_alias", "access_policy", "approval_token"],
        ),
        (
            "/kms/v1/sign".to_owned(),
            in_scope(json!({
                "key_id": UNKNOWN, "data": "", "algorithm": "RS256",
                "approval_token": "1234567890",
            })),
            &["algorithm", "approval_token"],
        ),
        (
            "/kms/v1/verify".to_owned(),
            in_scope(json!({
                "key_id": UNKNOWN, "data": "", "signature": "", "algorithm": "RS256",
                "approval_token": "1234567890",
            })),
            &["algorithm", "approval_token"],
        ),
        (
            "/kms/v1/encrypt".to_owned(),
            in_scope(json!({
                "key_id": UNKNOWN, "plaintext": "", "algorithm": "A256GCM", "aad": "",
                "approval_token": "1234567890",
            })),
            &["algorithm", "aad", "approval_token"],
        ),
        (
            "/kms/v1/decrypt".to_owned(),
            in_scope(json!({
                "key_id": UNKNOWN, "ciphertext": "", "iv": base64([0; 12]),
                "algorithm": "A256GCM", "aad": "", "approval_token": "1234567890",
            })),
            &["algorithm", "aad", "approval_token"],
        ),
        (
            format!("/kms/v1/keys/{UNKNOWN}/rotate"),
            in_scope(json!({ "approval_token": "1234567890" })),
            &["approval_token"],
        ),
        (
            format!("/kms/v1/keys/{UNKNOWN}/revoke"),
            in_scope(json!({
                "revocation_reason": "retired", "approval_token": "1234567890",
            })),
            &["approval_token"],
        ),
        (
            "/kms/v1/trust-anchors".to_owned(),
            in_scope(json!({
                "certificate": "", "anchor_type": "root", "approval_token": "1234567890",
            })),
            &["approval_token"],
        ),
    ]
}

fn problem<'a>(answer: &'a Answer, field: &str) -> &'a Value {
    let errors = answer.body["error"]["details"]["errors"]
        .as_array()
        .expect("a list of errors");
    let fault = errors.iter().find(|error| error["field"] == field);
    let fault = fault.expect("this field");
    assert!(
        fault["expected"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    &fault["problem"]
}

#[tokio::test]
async fn each_missing_field_is_named_and_the_optional_ones_are_not_missed() {
    let kms = TestKms::start().await;
    for (path, body, optional) in bodies() {
        for field in body.as_object().expect("an object").keys() {
            let answer = kms.post(&path, &without(body.clone(), field)).await;
            if optional.contains(&field.as_str()) {
                let error = &answer.body["error"];
                let named = error["details"]["errors"].to_string();
                assert!(!named.contains(&format!("{field:?}")), "{path}: {named}");
            } else {
                answer.refused_fields(&[field]);
                assert_eq!(problem(&answer, field), "missing");
            }
        }
    }
}

#[tokio::test]
async fn each_ill_typed_field_is_named() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    for (path, body, _) in bodies() {
        for field in body.as_object().expect("an object").keys() {
            for wrong in [json!(7), json!(true), json!([[]]), json!(1.5), json!([7])] {
                let changed = with(body.clone(), json!({ field: wrong }));
                let answer = kms.post(&path, &changed).await;
                answer.refused_fields(&[field]);
                assert_eq!(problem(&answer, field), "invalid");
            }
        }
    }
}

#[tokio::test]
async fn each_unknown_field_is_named_a_misspelt_aad_above_all() {
    let kms = TestKms::start().await;
    for (path, body, _) in bodies() {
        for unknown in ["aadd", "AAD", "tenantId", "", " data"] {
            let changed = with(body.clone(), json!({ unknown: "x" }));
            let answer = kms.post(&path, &changed).await;
            answer.refused_fields(&[unknown]);
            assert_eq!(problem(&answer, unknown), "unknown");
        }
    }
    // Fields of the other operations are unknown as well.
    let fields = json!({ "key_id": UNKNOWN, "data": "", "aad": "" });
    let answer = kms.post_scoped("/kms/v1/sign", fields).await;
    answer.refused_fields(&["aad"]);
}

#[tokio::test]
async fn values_out_of_range_are_named() {
    let kms = TestKms::start().await;
    let long = "x".repeat(129);
    let generation = json!({ "key_type": "Ed25519", "key_usage": "sign" });
    for (field, wrong) in [
        ("tenant_id", json!("")),
        ("tenant_id", json!("-a")),
        ("tenant_id", json!("a b")),
        ("tenant_id", json!("a/b")),
        ("tenant_id", json!("ä")),
        ("tenant_id", json!(long)),
        ("environment", json!("production")),
        ("environment", json!("Prod")),
        ("plane", json!("cloud")),
        ("plane", json!("")),
        ("key_type", json!("RSA-4096")),
        ("key_type", json!("ed25519")),
        ("key_usage", json!([])),
        ("key_usage", json!("")),
        ("key_usage", json!("signs")),
        ("key_usage", json!(["sign", "signs"])),
        ("key_usage", json!(["sign", null])),
        ("key_usage", json!(null)),
        ("key_alias", json!("")),
        ("key_alias", json!("alias/a")),
        ("key_alias", json!(long)),
        ("access_policy", json!("open")),
    ] {
        let body = with(in_scope(generation.clone()), json!({ field: wrong }));
        let answer = kms.post_approved("/kms/v1/keys", &body).await;
        answer.refused_fields(&[field]);
    }
    let reason = json!({ "revocation_reason": "lost" });
    let path = format!("/kms/v1/keys/{UNKNOWN}/revoke");
    let answer = kms.post_scoped(&path, reason).await;
    answer.refused_fields(&["revocation_reason"]);
    let longest = "x".repeat(128);
    let extreme = json!({ "tenant_id": longest, "key_alias": longest });
    let body = with(in_scope(generation), extreme);
    let answer = kms.post_approved("/kms/v1/keys", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

#[tokio::test]
async fn faults_inside_the_policy_are_named_from_the_outside() {
    let kms = TestKms::start().await;
    let many: Vec<String> = (0..257).map(|number| format!("M{number}")).collect();
    for (policy, fields) in [
        (
            json!({ "allowed_modules": [] }),
            ["access_policy.allowed_modules"].as_slice(),
        ),
        (
            json!({ "allowed_modules": many }),
            &["access_policy.allowed_modules"],
        ),
        (
            json!({ "allowed_modules": "M21" }),
            &["access_policy.allowed_modules"],
        ),
        (
            json!({ "allowed_modules": ["M 21"] }),
            &["access_policy.allowed_modules"],
        ),
        (
            json!({ "requires_approval": "true" }),
            &["access_policy.requires_approval"],
        ),
        (
            json!({ "max_usage_per_day": 0 }),
            &["access_policy.max_usage_per_day"],
        ),
        (
            json!({ "max_usage_per_day": -1 }),
            &["access_policy.max_usage_per_day"],
        ),
        (
            json!({ "max_usage_per_day": 1.5 }),
            &["access_policy.max_usage_per_day"],
        ),
        (
            json!({ "max_usage_per_day": 9_007_199_254_740_992_u64 }),
            &["access_policy.max_usage_per_day"],
        ),
        (json!({ "max_usage": 1 }), &["access_policy.max_usage"]),
        (
            json!({ "x": 1, "requires_approval": 1, "max_usage_per_day": "1" }),
            &[
                "access_policy.x",
                "access_policy.requires_approval",
                "access_policy.max_usage_per_day",
            ],
        ),
    ] {
        let body = in_scope(json!({
            "key_type": "Ed25519", "key_usage": "sign", "access_policy": policy,
        }));
        let answer = kms.post_approved("/kms/v1/keys", &body).await;
        answer.refused_fields(fields);
    }
}

#[tokio::test]
async fn all_faults_are_named_at_once() {
    let kms = TestKms::start().await;
    let body = json!({
        "tenant_id": "?", "plane": 7, "key_type": null, "key_usage": ["fly"],
        "access_policy": { "x": 1 }, "colour": "red",
    });
    let answer = kms.post("/kms/v1/keys", &body).await;
    answer.refused_fields(&[
        "tenant_id",
        "environment",
        "plane",
        "key_type",
        "key_usage",
        "access_policy.x",
        "colour",
    ]);
    let empty = kms.post("/kms/v1/decrypt", &json!({})).await;
    empty.refused_fields(&[
        "tenant_id",
        "environment",
        "plane",
        "key_id",
        "ciphertext",
        "iv",
    ]);
}

#[tokio::test]
async fn only_strict_standard_base64_is_taken() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    for wrong in [
        "-_-_",
        "SGVsbG8",
        "SGVsbG8==",
        "SGVsbG8=\n",
        " SGVsbG8=",
        "SGVs bG8=",
        "SGVsbG9=",
        "SGVsbG8=SGVsbG8=",
        "=",
        "S",
        "ä",
    ] {
        let signing = json!({ "key_id": key_id, "data": wrong });
        let answer = kms.post_scoped("/kms/v1/sign", signing).await;
        answer.refused_fields(&["data"]);
        let verifying = json!({ "key_id": key_id, "data": wrong, "signature": wrong });
        let answer = kms.post_scoped("/kms/v1/verify", verifying).await;
        answer.refused_fields(&["data", "signature"]);
        let encrypting = json!({ "key_id": key_id, "plaintext": wrong, "aad": wrong });
        let answer = kms.post_scoped("/kms/v1/encrypt", encrypting).await;
        answer.refused_fields(&["plaintext", "aad"]);
        let decrypting = json!({
            "key_id": key_id, "ciphertext": wrong, "iv": wrong, "aad": wrong,
        });
        let answer = kms.post_scoped("/kms/v1/decrypt", decrypting).await;
        answer.refused_fields(&["ciphertext", "iv", "aad"]);
        let anchor = json!({ "certificate": wrong, "anchor_type": "root" });
        let answer = kms.post_scoped("/kms/v1/trust-anchors", anchor).await;
        answer.refused_fields(&["certificate"]);
    }
}

async fn post_text(kms: &TestKms, path: &str, body: String) -> Answer {
    let request = kms
        .request(Method::POST, path)
        .header(CONTENT_TYPE, "application/json")
        .body(body);
    Answer::of(request).await
}

#[tokio::test]
async fn a_field_that_comes_twice_is_named() {
    let kms = TestKms::start().await;
    for (field, values) in [
        ("data", r#""data":"","data":"""#),
        ("data", r#""data":"","data":"AAAA""#),
        (
            "algorithm",
            r#""data":"","algorithm":null,"algorithm":"RS256""#,
        ),
        ("tenant_id", r#""data":"","tenant_id":"other""#),
    ] {
        let body = format!(r#"{{{SCOPE},"key_id":"{UNKNOWN}",{values}}}"#);
        let answer = post_text(&kms, "/kms/v1/sign", body).await;
        answer.refused_fields(&[field]);
        assert_eq!(problem(&answer, field), "duplicate");
    }
}

/// Guards the naming of duplicates: the first of the two may be anything, and
/// neither its text nor its number is the name of a field.
#[tokio::test]
async fn a_field_that_comes_twice_is_named_whatever_came_first() {
    let kms = TestKms::start().await;
    for first in ["31337", "true", "[31337]", r#""`31337`""#, "null", "1.5"] {
        let body = format!(r#"{{{SCOPE},"key_id":"{UNKNOWN}","data":{first},"data":""}}"#);
        let answer = post_text(&kms, "/kms/v1/sign", body).await;
        answer.refused_fields(&["data"]);
        assert!(!answer.text.contains("31337"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_field_of_the_policy_that_comes_twice_is_named_from_the_outside() {
    let kms = TestKms::start().await;
    let policy = r#"{"requires_approval":true,"requires_approval":true}"#;
    let body =
        format!(r#"{{{SCOPE},"key_type":"Ed25519","key_usage":"sign","access_policy":{policy}}}"#);
    let answer = post_text(&kms, "/kms/v1/keys", body).await;
    answer.refused_fields(&["access_policy.requires_approval"]);
}
