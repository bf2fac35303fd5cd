//! Whatever goes wrong on the way to an operation, the answer is the envelope.

use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::support::{Answer, TestKms, UNKNOWN, in_scope};

#[tokio::test]
async fn an_unknown_path_is_404_in_the_envelope() {
    let kms = TestKms::start().await;
    for path in [
        "/",
        "/kms",
        "/kms/v1",
        "/kms/v1/",
        "/kms/v1/keys/",
        "/kms/v1/signs",
        "/kms/v2/keys",
        "/KMS/v1/keys",
        "//kms/v1/keys",
        "/kms/v1/keys/x/rotate/y",
        "/kms/v1/sign/",
        "/%00",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = Answer::of(kms.request(method, path)).await;
            let details = answer.refused(404, "INVALID_REQUEST");
            assert_eq!(details, &json!({}), "{path}");
        }
    }
    let operations = kms.operations_request(Method::GET, "/kms/v1/config");
    let answer = Answer::of(operations).await;
    answer.refused(404, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_wrong_method_is_405_and_says_which_are_right() {
    let kms = TestKms::start().await;
    let get = ["GET", "HEAD"].as_slice();
    for (path, methods) in [
        (
            "/kms/v1/keys".to_owned(),
            ["GET", "HEAD", "POST"].as_slice(),
        ),
        (format!("/kms/v1/keys/{UNKNOWN}"), &["GET", "HEAD", "PATCH"]),
        ("/kms/v1/keys/alias/a".to_owned(), &["GET", "HEAD", "PATCH"]),
        (format!("/kms/v1/keys/{UNKNOWN}/versions"), get),
        (format!("/kms/v1/keys/{UNKNOWN}/archive"), &["POST"]),
        (format!("/kms/v1/keys/{UNKNOWN}/restore"), &["POST"]),
        (format!("/kms/v1/keys/{UNKNOWN}/rotate"), &["POST"]),
        (format!("/kms/v1/keys/{UNKNOWN}/revoke"), &["POST"]),
        ("/kms/v1/sign".to_owned(), &["POST"]),
        ("/kms/v1/verify".to_owned(), &["POST"]),
        ("/kms/v1/encrypt".to_owned(), &["POST"]),
        ("/kms/v1/decrypt".to_owned(), &["POST"]),
        ("/kms/v1/sign/batch".to_owned(), &["POST"]),
        ("/kms/v1/verify/batch".to_owned(), &["POST"]),
        ("/kms/v1/encrypt/batch".to_owned(), &["POST"]),
        ("/kms/v1/decrypt/batch".to_owned(), &["POST"]),
        ("/kms/v1/trust-anchors".to_owned(), &["GET", "HEAD", "POST"]),
        (format!("/kms/v1/trust-anchors/{UNKNOWN}"), &["DELETE"]),
        (format!("/kms/v1/receipts/{UNKNOWN}"), get),
        ("/kms/v1/config".to_owned(), get),
        ("/kms/v1/health".to_owned(), get),
        ("/kms/v1/metrics".to_owned(), get),
        ("/health".to_owned(), get),
    ] {
        for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::GET] {
            if methods.contains(&method.as_str()) {
                continue;
            }
            let answer = Answer::of(kms.request(method, &path)).await;
            answer.refused(405, "INVALID_REQUEST");
            let allow = answer.headers[ALLOW].to_str().expect("text");
            let mut allowed: Vec<&str> = allow.split(',').map(str::trim).collect();
            allowed.sort_unstable();
            assert_eq!(allowed, methods, "{path}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_415() {
    let kms = TestKms::start().await;
    let body = in_scope(json!({ "key_type": "Ed25519", "key_usage": "sign" })).to_string();
    let send = async |media_type: Option<&str>| {
        let mut request = kms.request(Method::POST, "/kms/v1/keys").body(body.clone());
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        Answer::of(request).await
    };
    for wrong in [
        None,
        Some(""),
        Some("text/plain"),
        Some("application/jsonp"),
        Some("application/x-www-form-urlencoded"),
        Some("text/json"),
    ] {
        send(wrong).await.refused(415, "INVALID_REQUEST");
    }
    // Read, and refused only for the approval that is missing.
    for right in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
    ] {
        send(Some(right)).await.refused(403, "UNAUTHORIZED");
    }
}

#[tokio::test]
async fn a_malformed_key_id_is_400_and_named_wherever_it_stands() {
    let kms = TestKms::start().await;
    for malformed in [
        "key-123",
        "018f6a1e7f3a7c3d9a513b1f0c6a2d4e",
        "018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4g",
        "%7B018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e%7D",
        "alias%2F",
        "alias%2F-a",
        "alias%2Fa%2Fb",
        "Alias%2Fa",
        "%FF",
        "%00",
    ] {
        let path = format!("/kms/v1/keys/{malformed}");
        kms.get_scoped(&path).await.refused_fields(&["key_id"]);
        let fields = json!({ "approval_token": crate::support::APPROVAL });
        let rotated = kms.post_scoped(&format!("{path}/rotate"), fields).await;
        rotated.refused_fields(&["key_id"]);
    }
    for malformed in [
        json!("key-123"),
        json!(""),
        json!("alias/"),
        json!("alias/a b"),
        json!("alias/../a"),
        json!(format!(" {UNKNOWN}")),
        json!(format!("urn:uuid:{UNKNOWN}")),
        json!(7),
        json!([UNKNOWN]),
        json!({ "id": UNKNOWN }),
        json!(null),
    ] {
        let signed = kms
            .post_scoped("/kms/v1/sign", json!({ "key_id": malformed, "data": "" }))
            .await;
        signed.refused_fields(&["key_id"]);
    }
    let receipt = kms.get_scoped("/kms/v1/receipts/receipt-1").await;
    receipt.refused_fields(&["receipt_id"]);
}

#[tokio::test]
async fn a_well_formed_id_of_nothing_is_404() {
    let kms = TestKms::start().await;
    let upper_case = UNKNOWN.to_uppercase();
    for unknown in [UNKNOWN, &upper_case, "alias/nobody"] {
        kms.sign(unknown, b"data")
            .await
            .refused(404, "KEY_NOT_FOUND");
        kms.rotate(unknown).await.refused(404, "KEY_NOT_FOUND");
        kms.revoke(unknown).await.refused(404, "KEY_NOT_FOUND");
        let details = kms.get_scoped(&format!("/kms/v1/keys/{unknown}")).await;
        details.refused(404, "KEY_NOT_FOUND");
    }
    let receipt = kms.get_scoped(&format!("/kms/v1/receipts/{UNKNOWN}")).await;
    receipt.refused(404, "INVALID_REQUEST");
}

#[tokio::test]
async fn faults_of_a_query_are_named() {
    let kms = TestKms::start().await;
    for (query, fields) in [
        ("limit=0", ["limit"].as_slice()),
        ("limit=1001", &["limit"]),
        ("limit=-1", &["limit"]),
        ("limit=ten", &["limit"]),
        ("limit=", &["limit"]),
        ("cursor=x", &["cursor"]),
        ("cursor=", &["cursor"]),
        ("cursor=018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e", &["cursor"]),
        ("cursor=%FF018f6a1e7f3a7c3d9a513b1f0c6a2d4e", &["cursor"]),
        ("cursor=+18f6a1e7f3a7c3d9a513b1f0c6a2d4e", &["cursor"]),
        ("key_state=Active", &["key_state"]),
        ("key_type=AES-128", &["key_type"]),
        ("alias=a/b", &["alias"]),
        ("colour=red", &["colour"]),
        ("tenant_id=other", &["tenant_id"]),
        ("limit=0&key_state=dead&x=1", &["key_state", "limit", "x"]),
    ] {
        let answer = kms.get_scoped(&format!("/kms/v1/keys?{query}")).await;
        answer.refused_fields(fields);
    }
    let wrong_scope = "tenant_id=-a&environment=live&plane=desk";
    let answer = kms.get(&format!("/kms/v1/keys?{wrong_scope}")).await;
    answer.refused_fields(&["tenant_id", "environment", "plane"]);
    for extreme in ["limit=1", "limit=1000"] {
        let answer = kms.get_scoped(&format!("/kms/v1/keys?{extreme}")).await;
        answer.ok();
    }
}

#[tokio::test]
async fn every_answer_has_ids_of_its_own() {
    let kms = TestKms::start().await;
    let mut seen = Vec::new();
    for path in ["/kms/v1/config", "/kms/v1/config", "/nowhere", "/nowhere"] {
        let answer = kms.get(path).await;
        for name in ["x-request-id", "x-trace-id", "x-span-id"] {
            let id = answer.headers[name].to_str().expect("text").to_owned();
            assert!(!seen.contains(&id), "{name} {id}");
            seen.push(id);
        }
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let request = kms
        .request(Method::GET, "/nowhere")
        .header("X-Request-Id", "mine");
    let answer = Answer::of(request).await;
    answer.refused(404, "INVALID_REQUEST");
    assert_ne!(answer.headers["x-request-id"], "mine");
}

/// Guards the logs and the answers of refusals: what was sent may be secret.
#[tokio::test]
async fn a_refusal_never_repeats_a_value() {
    const CANARY: &str = "c4n4ry-v4lu3";
    let kms = TestKms::start().await;
    let generation = json!({
        "tenant_id": "t", "environment": "dev", "plane": "laptop", "key_type": "Ed25519",
        "key_usage": "encrypt", "key_alias": "a", "access_policy": {}, "approval_token": "",
    });
    let use_of_key = json!({
        "tenant_id": "t", "environment": "dev", "plane": "laptop", "key_id": UNKNOWN,
        "data": "", "signature": "", "algorithm": "RS256", "approval_token": "",
    });
    let mut answers = Vec::new();
    for (path, body) in [
        ("/kms/v1/keys", &generation),
        ("/kms/v1/verify", &use_of_key),
    ] {
        for field in body.as_object().expect("an object").keys() {
            let values = [
                json!(format!("{CANARY} {CANARY}")),
                json!([CANARY]),
                json!({ "allowed_modules": CANARY, "requires_approval": CANARY }),
            ];
            for value in values {
                let mut body = body.clone();
                body[field] = value;
                answers.push(kms.post(path, &body).await);
            }
        }
        let not_json = format!("{{\"tenant_id\": \"{CANARY}\", {CANARY}}}");
        let request = kms.request(Method::POST, path).body(not_json);
        answers.push(Answer::of(request.header(CONTENT_TYPE, "application/json")).await);
        let list = json!([CANARY]);
        answers.push(kms.post(path, &list).await);
        answers.push(kms.post_as(&format!("{CANARY} "), path, &Value::Null).await);
    }
    for path in [
        format!("/{CANARY}"),
        format!("/kms/v1/keys/{CANARY}"),
        format!("/kms/v1/keys/alias/{CANARY}"),
        format!("/kms/v1/receipts/{CANARY}"),
        format!("/kms/v1/keys?limit={CANARY}&cursor={CANARY}&key_state={CANARY}"),
    ] {
        answers.push(kms.get_scoped(&path).await);
    }
    for answer in answers {
        assert!(answer.status.is_client_error(), "{}", answer.text);
        assert!(!answer.text.contains(CANARY), "{}", answer.text);
        for (name, value) in &answer.headers {
            let value = value.to_str().expect("text");
            assert!(!value.contains(CANARY), "{name}: {value}");
        }
    }
}
