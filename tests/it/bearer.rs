//! Bearer tokens over plain HTTP in development: a token that can be checked is
//! not taken on faith, and `Authorization` is read strictly.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde_json::json;

use crate::support::approver::seconds_since_1970;
use crate::support::{Answer, Issuer, SCOPE_QUERY, TestKms};

const LIST: &str = "/kms/v1/keys";

fn issuer() -> Issuer {
    Issuer::ed25519("m21", 5)
}

/// A service that knows the issuer's key, and its folder of keys.
async fn start(issuer: &Issuer, settings: &[(&str, &str)]) -> (TestKms, tempfile::TempDir) {
    let keys = tempfile::tempdir().expect("a folder");
    let path = keys.path().join("jwks.json");
    std::fs::write(&path, Issuer::key_set(&[issuer])).expect("written");
    let path = path.display().to_string();
    let settings = [&[("KMS__AUTH__JWKS", path.as_str())], settings].concat();
    (TestKms::start_with(&settings).await, keys)
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

#[tokio::test]
async fn authorization_is_read_strictly_even_where_nobody_asks_for_it() {
    let kms = TestKms::start().await;
    let twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer a")];
    let answer = list(&kms, SCOPE_QUERY, &twice).await;
    answer.refused_token("not several");
    for value in ["Basic YTpi", "Bearer", "Bearer a b", "a.b.c"] {
        let answer = list(&kms, SCOPE_QUERY, &[("Authorization", value)]).await;
        answer.refused_token("must be Bearer");
    }
    // Without keys to check it with, a token means nothing here.
    list_with(&kms, "a.b.c").await.ok();
}

#[tokio::test]
async fn a_token_that_can_be_checked_decides_who_calls() {
    let issuer = issuer();
    let (kms, _keys) = start(&issuer, &[]).await;
    list(&kms, SCOPE_QUERY, &[]).await.ok();
    list_with(&kms, &issuer.token(json!({}))).await.ok();
    let bearer = format!("Bearer {}", issuer.token(json!({})));
    let own = [("Authorization", bearer.as_str()), ("X-Module-Id", "EPC-1")];
    list(&kms, SCOPE_QUERY, &own).await.ok();
    let other = [("Authorization", bearer.as_str()), ("X-Module-Id", "M27")];
    list(&kms, SCOPE_QUERY, &other)
        .await
        .refused_token("X-Module-Id");
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
    list(&kms, SCOPE_QUERY, &[])
        .await
        .refused_token("Authorization: Bearer");
    let now = seconds_since_1970();
    for (changes, rule) in [
        (json!({ "exp": now - 60 }), "has expired"),
        (json!({ "nbf": now + 300 }), "not valid yet"),
        (json!({ "aud": "M21" }), "audience"),
        (json!({ "tenant_id": null }), "lacks the claim tenant_id"),
        (json!({ "exp": "never" }), "lacks the claim exp"),
    ] {
        let answer = list_with(&kms, &issuer.token(changes)).await;
        answer.refused_token(rule);
    }
    let forged = Issuer::ed25519("m21", 6).token(json!({}));
    list_with(&kms, &forged).await.refused_token("signature");
    list_with(&kms, "a.b.c").await.refused_token("not a JWT");
    list_with(&kms, &issuer.token(json!({}))).await.ok();
}
