//! Bearer tokens over plain HTTP in development: a token that can be checked is
//! not taken on faith, and `Authorization` is read strictly.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::support::approver::seconds_since_1970;
use crate::support::{Answer, Approver, SCOPE_QUERY, TestKms, with};

const LIST: &str = "/kms/v1/keys";

fn issuer() -> Approver {
    Approver::new("m21", 5)
}

/// A service that knows the issuer's key, and its folder of keys.
async fn start(issuer: &Approver, settings: &[(&str, &str)]) -> (TestKms, tempfile::TempDir) {
    let keys = tempfile::tempdir().expect("a folder");
    let path = keys.path().join("jwks.json");
    let set = json!({ "keys": [issuer.jwk()] }).to_string();
    std::fs::write(&path, set).expect("written");
    let path = path.display().to_string();
    let settings = [&[("KMS__AUTH__JWKS", path.as_str())], settings].concat();
    (TestKms::start_with(&settings).await, keys)
}

fn token(issuer: &Approver, changes: Value) -> String {
    let claims = json!({
        "sub": "workload-7", "module_id": "M27", "tenant_id": "tenant123",
        "environment": "prod", "exp": seconds_since_1970() + 300, "aud": "M33",
    });
    let header = json!({ "alg": "EdDSA", "kid": "m21", "typ": "at+jwt" });
    issuer.sign(&header, &with(claims, changes))
}

async fn list(kms: &TestKms, query: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = kms.request(Method::GET, &format!("{LIST}?{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

async fn list_with(kms: &TestKms, token: &str) -> Answer {
    list(
        kms,
        SCOPE_QUERY,
        &[(AUTHORIZATION.as_str(), &format!("Bearer {token}"))],
    )
    .await
}

#[track_caller]
fn refused_token(answer: &Answer, rule: &str) {
    answer.refused(401, "UNAUTHENTICATED");
    let message = answer.body["error"]["message"].as_str().expect("a message");
    assert!(message.contains(rule), "{rule:?} is not in {message:?}");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn authorization_is_read_strictly_even_where_nobody_asks_for_it() {
    let kms = TestKms::start().await;
    let twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer a")];
    let answer = list(&kms, SCOPE_QUERY, &twice).await;
    refused_token(&answer, "not several");
    for value in ["Basic YTpi", "Bearer", "Bearer a b", "a.b.c"] {
        let answer = list(&kms, SCOPE_QUERY, &[("Authorization", value)]).await;
        refused_token(&answer, "must be Bearer");
    }
    // Without keys to check it with, a token means nothing here.
    list_with(&kms, "a.b.c").await.ok();
}

#[tokio::test]
async fn a_token_that_can_be_checked_decides_who_calls() {
    let issuer = issuer();
    let (kms, _keys) = start(&issuer, &[]).await;
    list(&kms, SCOPE_QUERY, &[]).await.ok();
    list_with(&kms, &token(&issuer, json!({}))).await.ok();
    let bearer = format!("Bearer {}", token(&issuer, json!({})));
    let own = [("Authorization", bearer.as_str()), ("X-Module-Id", "PM-7")];
    list(&kms, SCOPE_QUERY, &own).await.ok();
    let other = [("Authorization", bearer.as_str()), ("X-Module-Id", "M21")];
    refused_token(&list(&kms, SCOPE_QUERY, &other).await, "X-Module-Id");
    let foreign = SCOPE_QUERY.replace("tenant123", "tenant124");
    let answer = list(&kms, &foreign, &own).await;
    answer.refused(403, "UNAUTHORIZED");
}

#[tokio::test]
async fn a_bad_token_is_refused_with_the_rule_and_a_challenge() {
    let issuer = issuer();
    let settings = [
        ("KMS__AUTH__REQUIRE_JWT", "true"),
        ("KMS__AUTH__AUDIENCE", "M33"),
    ];
    let (kms, _keys) = start(&issuer, &settings).await;
    refused_token(&list(&kms, SCOPE_QUERY, &[]).await, "Authorization: Bearer");
    let now = seconds_since_1970();
    for (changes, rule) in [
        (json!({ "exp": now - 60 }), "has expired"),
        (json!({ "nbf": now + 300 }), "not valid yet"),
        (json!({ "aud": "M21" }), "audience"),
        (json!({ "tenant_id": null }), "lacks the claim tenant_id"),
        (json!({ "exp": "never" }), "lacks the claim exp"),
    ] {
        let answer = list_with(&kms, &token(&issuer, changes)).await;
        refused_token(&answer, rule);
    }
    let forged = token(&Approver::new("m21", 6), json!({}));
    refused_token(&list_with(&kms, &forged).await, "signature");
    refused_token(&list_with(&kms, "a.b.c").await, "not a JWT");
    list_with(&kms, &token(&issuer, json!({}))).await.ok();
}
