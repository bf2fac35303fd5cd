//! The OpenAPI document as a caller gets it, and that it says what is so.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Issuer, KmsProcess, Pki, SCOPE_QUERY, TestKms, UNTHROTTLED, text, with,
};

const PATH: &str = "/kms/v1/openapi.json";

#[tokio::test]
async fn the_document_is_served_to_known_callers_and_printed_for_everybody() {
    let kms = TestKms::start().await;
    let served = kms.get(PATH).await;
    assert_eq!(served.ok()["openapi"], "3.1.0");
    assert_eq!(served.body["info"]["version"], env!("CARGO_PKG_VERSION"));
    let printed = KmsProcess::run(kms.folder(), &["openapi"], &[]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!(printed.stdout, format!("{}\n", served.text));
    // The operations listener has three things, and this is none of them.
    let asked = Answer::of(kms.operations_request(Method::GET, PATH)).await;
    asked.refused(404, "INVALID_REQUEST");
}

#[tokio::test]
async fn nobody_gets_the_document_without_an_identity() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    kms.get(PATH).await.ok();
    let nameless = kms.request_over(&pki.nameless(), Method::GET, PATH);
    assert!(Answer::attempt(nameless).await.is_none());

    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("jwks.json");
    let issuer = Issuer::ed25519("m21", 5);
    std::fs::write(&keys, Issuer::key_set(&[&issuer])).expect("written");
    let keys = keys.display().to_string();
    let settings = [
        ("KMS__AUTH__JWKS", keys.as_str()),
        ("KMS__AUTH__REQUIRE_JWT", "true"),
    ];
    let kms = TestKms::start_with(&settings).await;
    kms.get(PATH).await.refused(401, "UNAUTHENTICATED");
    let request = kms.request(Method::GET, PATH);
    let token = format!("Bearer {}", issuer.token(json!({})));
    Answer::of(request.header("Authorization", token))
        .await
        .ok();
}

/// The example of an operation's request, by its id.
fn example<'a>(document: &'a Value, id: &str) -> &'a Value {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.values().filter_map(Value::as_object);
    let mut operations = operations.flat_map(|item| item.values());
    let operation = operations.find(|operation| operation["operationId"] == id);
    let operation = operation.unwrap_or_else(|| panic!("no {id}"));
    &operation["requestBody"]["content"]["application/json"]["example"]
}

/// Every request of the examples, in the order in which they were recorded. Only what
/// another answer gave is put in its place; the answers are held to the document as all are.
#[tokio::test]
async fn the_examples_of_requests_do_what_they_show() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let document = kms.get(PATH).await.body;
    let example = |id: &str| example(&document, id).clone();
    let post = async |path: &str, body: &Value| {
        let answer = kms.post(path, body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        answer.body
    };
    let key = post("/kms/v1/keys", &example("generateKey")).await;
    let secret =
        json!({ "key_type": "AES-256", "key_usage": ["encrypt", "decrypt"], "key_alias": "db" });
    post("/kms/v1/keys", &with(example("generateKey"), secret)).await;
    let own = format!("/kms/v1/keys/{}", text(&key["key_id"]));
    let alias = "/kms/v1/keys/alias/receipts";
    for (path, id) in [(own.as_str(), "updateKey"), (alias, "updateKeyByAlias")] {
        let request = kms.request(Method::PATCH, path).json(&example(id));
        Answer::of(request).await.ok();
    }
    let signed = post("/kms/v1/sign", &example("sign")).await;
    let verify = with(
        example("verify"),
        json!({ "signature": signed["signature"] }),
    );
    assert_eq!(post("/kms/v1/verify", &verify).await["valid"], true);
    let sealed = post("/kms/v1/encrypt", &example("encrypt")).await;
    let sealed = json!({ "ciphertext": sealed["ciphertext"], "iv": sealed["iv"] });
    let opened = post("/kms/v1/decrypt", &with(example("decrypt"), sealed)).await;
    assert_eq!(opened["plaintext"], example("encrypt")["plaintext"]);
    for operation in ["sign", "verify", "encrypt", "decrypt"] {
        let path = format!("/kms/v1/{operation}/batch");
        let many = post(&path, &example(&format!("{operation}Batch"))).await;
        let items = &example(&format!("{operation}Batch"))["items"];
        let results = many["results"].as_array().map(Vec::len);
        assert_eq!(results, items.as_array().map(Vec::len));
    }
    for (path, id) in [
        (format!("{own}/rotate"), "rotateKey"),
        (format!("{alias}/rotate"), "rotateKeyByAlias"),
        (format!("{own}/archive"), "archiveKey"),
        (format!("{own}/revoke"), "revokeKey"),
        (format!("{own}/restore"), "restoreKey"),
        (format!("{alias}/archive"), "archiveKeyByAlias"),
        (
            "/kms/v1/keys/alias/db/revoke".to_owned(),
            "revokeKeyByAlias",
        ),
        ("/kms/v1/trust-anchors".to_owned(), "addTrustAnchor"),
    ] {
        post(&path, &example(id)).await;
    }
    let receipt = format!(
        "/kms/v1/receipts/{}?{SCOPE_QUERY}",
        text(&signed["receipt_id"])
    );
    kms.get(&receipt).await.ok();
}
