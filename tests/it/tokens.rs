//! A token of the identity service beside a certificate: it must be good, and say
//! what the certificate says.

mod forgeries;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::approver::seconds_since_1970;
use crate::support::{
    Answer, Issuer, Pki, SCOPE_QUERY, TestKms, UNKNOWN, base64, in_scope, text, with,
};

const LIST: &str = "/kms/v1/keys";

/// A service over TLS that knows some keys of the identity service.
struct Gate {
    kms: TestKms,
    pki: Pki,
}

impl Gate {
    async fn start(issuers: &[&Issuer], settings: &[(&str, &str)]) -> Self {
        let pki = Pki::new();
        pki.write("m21.json", &Issuer::key_set(issuers));
        let keys = pki.path("m21.json").display().to_string();
        let settings = [&[("KMS__AUTH__JWKS", keys.as_str())], settings].concat();
        let kms = TestKms::start_tls(&pki, &settings).await;
        Self { kms, pki }
    }

    /// Connections of a module of the usual scope. Without naming any, module M21
    /// asks.
    fn module(&self, module: &str) -> Client {
        self.pki.connector(&self.pki.client("tenant123", module))
    }

    /// A list of keys with these headers.
    async fn list(&self, headers: &[(&str, &str)]) -> Answer {
        let mut request = self
            .kms
            .request(Method::GET, &format!("{LIST}?{SCOPE_QUERY}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    }

    /// A list of keys with this token.
    async fn list_with(&self, token: &str) -> Answer {
        self.list(&[("Authorization", &format!("Bearer {token}"))])
            .await
    }

    /// A signature by one of these connections, not asked for yet.
    fn signing(&self, client: &Client, key_id: &str) -> RequestBuilder {
        let body = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
        self.kms
            .request_over(client, Method::POST, "/kms/v1/sign")
            .json(&body)
    }
}

fn issuer() -> Issuer {
    Issuer::ed25519("ed", 5)
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_taken_beside_a_certificate() {
    let issuers = [issuer(), Issuer::rs256("rs"), Issuer::ps256("ps")];
    let all: Vec<&Issuer> = issuers.iter().collect();
    let required = [("KMS__AUTH__REQUIRE_JWT", "true")];
    let gate = Gate::start(&all, &required).await;
    for issuer in &issuers {
        gate.list_with(&issuer.token(json!({}))).await.ok();
        for typ in ["JWT", "at+jwt", "application/at+jwt"] {
            let header = with(issuer.header(), json!({ "typ": typ }));
            let token = issuer.sign(&header, &Issuer::claims(json!({})));
            gate.list_with(&token).await.ok();
        }
    }
}

#[tokio::test]
async fn every_required_claim_is_missed_by_its_name() {
    let issuer = issuer();
    let gate = Gate::start(&[&issuer], &[]).await;
    for claim in ["sub", "module_id", "tenant_id", "environment", "exp"] {
        let rule = format!("lacks the claim {claim}");
        let absent = issuer.token(json!({ claim: null }));
        gate.list_with(&absent).await.refused_token(&rule);
        for value in [json!(null), json!(""), json!([1]), json!({}), json!(true)] {
            let claims = with(Issuer::claims(json!({})), json!({ claim: value }));
            let token = issuer.sign(&issuer.header(), &claims);
            gate.list_with(&token).await.refused_token(&rule);
        }
    }
    for claim in ["sub", "module_id", "tenant_id", "environment"] {
        for value in [json!(7), json!("a\nb"), json!("x".repeat(257))] {
            let token = issuer.token(json!({ claim: value }));
            let rule = format!("lacks the claim {claim}");
            gate.list_with(&token).await.refused_token(&rule);
        }
    }
    for exp in [json!("1772366400"), json!(1e300)] {
        let token = issuer.token(json!({ "exp": exp }));
        gate.list_with(&token)
            .await
            .refused_token("lacks the claim exp");
    }
}

#[tokio::test]
async fn a_token_holds_between_its_times_and_half_a_minute_more() {
    let issuer = issuer();
    let gate = Gate::start(&[&issuer], &[]).await;
    let at = |from_now: i64| seconds_since_1970() + from_now;
    for (changes, rule) in [
        (json!({ "exp": at(-30) }), "has expired"),
        (json!({ "exp": at(-86_400) }), "has expired"),
        (json!({ "exp": 0 }), "has expired"),
        (json!({ "nbf": at(300) }), "not valid yet"),
        (json!({ "iat": at(300) }), "not valid yet"),
        (json!({ "nbf": "soon" }), "lacks the claim nbf"),
        (json!({ "iat": "soon" }), "lacks the claim iat"),
    ] {
        let refused = gate.list_with(&issuer.token(changes)).await;
        refused.refused_token(rule);
    }
    // Between two clocks that differ a little.
    for changes in [
        json!({ "exp": at(-5) }),
        json!({ "nbf": at(20) }),
        json!({ "iat": at(20) }),
    ] {
        gate.list_with(&issuer.token(changes)).await.ok();
    }
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_they_are_configured() {
    let issuer = issuer();
    let settings = [
        ("KMS__AUTH__ISSUER", "https://m21"),
        ("KMS__AUTH__AUDIENCE", "M33"),
    ];
    let gate = Gate::start(&[&issuer], &settings).await;
    for (iss, aud, rule) in [
        (json!("https://m22"), json!("M33"), "issuer"),
        (json!("https://m21/"), json!("M33"), "issuer"),
        (json!(null), json!("M33"), "lacks the claim iss"),
        (json!(["https://m21"]), json!("M33"), "lacks the claim iss"),
        (json!("https://m21"), json!("M27"), "audience"),
        (json!("https://m21"), json!(["M27", "M3"]), "audience"),
        (json!("https://m21"), json!([]), "audience"),
        (json!("https://m21"), json!(null), "lacks the claim aud"),
        (json!("https://m21"), json!(33), "lacks the claim aud"),
    ] {
        let token = issuer.token(json!({ "iss": iss, "aud": aud }));
        gate.list_with(&token).await.refused_token(rule);
    }
    for aud in [json!("M33"), json!(["M27", "M33"])] {
        let token = issuer.token(json!({ "iss": "https://m21", "aud": aud }));
        gate.list_with(&token).await.ok();
    }

    let gate = Gate::start(&[&issuer], &[]).await;
    let anybodys = issuer.token(json!({ "iss": "https://m22", "aud": "M27" }));
    gate.list_with(&anybodys).await.ok();
}

#[tokio::test]
async fn a_token_says_of_its_bearer_what_the_certificate_says() {
    let issuer = issuer();
    let gate = Gate::start(&[&issuer], &[]).await;
    for (claim, other) in [
        ("module_id", "M27"),
        ("module_id", "m21"),
        ("module_id", "no module"),
        ("tenant_id", "tenant124"),
        ("tenant_id", "Tenant123"),
        ("tenant_id", "GLOBAL"),
        ("environment", "dev"),
        ("environment", "PROD"),
    ] {
        let token = issuer.token(json!({ claim: other }));
        let rule = format!("its {claim} is not the client certificate's");
        gate.list_with(&token).await.refused_token(&rule);
    }
    // A second name of a module is the module.
    let second = issuer.token(json!({ "module_id": "EPC-1" }));
    gate.list_with(&second).await.ok();
    let key_id = gate.kms.generate_id("Ed25519").await;
    let signing = gate.signing(&gate.module("M27"), &key_id);
    let second = issuer.token(json!({ "module_id": "PM-7" }));
    let signed = Answer::of(signing.bearer_auth(second)).await;
    let receipt = gate.kms.receipt(&signed.ok()["receipt_id"]).await.receipt;
    assert_eq!(receipt["requesting_module"], "M27");
}

#[tokio::test]
async fn authorization_is_one_header_of_one_bearer() {
    let issuer = issuer();
    let gate = Gate::start(&[&issuer], &[]).await;
    let token = issuer.token(json!({}));
    let good = format!("Bearer {token}");
    for other in [good.as_str(), "Basic YTpi", ""] {
        for headers in [[good.as_str(), other], [other, good.as_str()]] {
            let headers = headers.map(|value| ("Authorization", value));
            gate.list(&headers).await.refused_token("not several");
        }
    }
    for value in [
        "",
        "Basic YTpi",
        "Bearer",
        "Bearer ",
        &token,
        &format!("Basic {token}"),
        &format!("{good} {token}"),
        &format!("{good}, {good}"),
        &format!("DPoP {token}"),
    ] {
        let refused = gate.list(&[("Authorization", value)]).await;
        refused.refused_token("must be Bearer");
    }
    for scheme in ["bearer", "BEARER"] {
        let value = format!("{scheme} {token}");
        gate.list(&[("Authorization", &value)]).await.ok();
    }
}

/// Every request that needs a caller, none of them well formed.
const REQUESTS: [(Method, &str); 15] = [
    (Method::POST, "/kms/v1/keys"),
    (Method::GET, "/kms/v1/keys"),
    (Method::GET, "/kms/v1/keys/1"),
    (Method::POST, "/kms/v1/keys/1/rotate"),
    (Method::POST, "/kms/v1/keys/1/revoke"),
    (Method::GET, "/kms/v1/keys/alias/1"),
    (Method::POST, "/kms/v1/sign"),
    (Method::POST, "/kms/v1/verify"),
    (Method::POST, "/kms/v1/encrypt"),
    (Method::POST, "/kms/v1/decrypt"),
    (Method::POST, "/kms/v1/trust-anchors"),
    (Method::GET, "/kms/v1/trust-anchors"),
    (Method::DELETE, "/kms/v1/trust-anchors/1"),
    (Method::GET, "/kms/v1/receipts/1"),
    (Method::GET, "/kms/v1/config"),
];

#[tokio::test]
async fn where_a_token_is_required_nothing_is_done_or_said_without_one() {
    let issuer = issuer();
    let required = [("KMS__AUTH__REQUIRE_JWT", "true")];
    let gate = Gate::start(&[&issuer], &required).await;
    for (method, path) in REQUESTS {
        let request = || gate.kms.request(method.clone(), path).body("no JSON");
        let without = Answer::of(request()).await;
        without.refused_token("send one in Authorization: Bearer");
        let bad = Answer::of(request().bearer_auth("a.b.c")).await;
        bad.refused_token("not a JWT");
        let good = request().bearer_auth(issuer.token(json!({})));
        assert_ne!(Answer::of(good).await.status, 401, "{method} {path}");
    }
    gate.kms.get("/kms/v1/health").await.ok();
    assert_eq!(gate.kms.ledger_size().await, 0);
}

#[tokio::test]
async fn where_no_token_is_required_the_certificate_is_enough() {
    let issuer = issuer();
    let gate = Gate::start(&[&issuer], &[]).await;
    gate.list(&[]).await.ok();
    // Who brings one all the same is held to it.
    gate.list_with("a.b.c").await.refused_token("not a JWT");
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_is_not_taken_on_faith() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let gate = Gate { kms, pki };
    gate.list(&[]).await.ok();
    for token in [&issuer().token(json!({})), "a.b.c", "anything"] {
        let refused = gate.list_with(token).await;
        refused.refused_token("not set up for tokens (auth.jwks)");
    }
}

#[tokio::test]
async fn no_header_makes_a_caller_another_module_than_its_certificate() {
    let pki = Pki::new();
    let kms = TestKms::start_tls(&pki, &[]).await;
    let gate = Gate { kms, pki };
    let policy = json!({ "access_policy": { "allowed_modules": ["M27"] } });
    let made = gate.kms.generate("Ed25519", policy).await;
    let key_id = text(&made["key_id"]);
    let (m21, m27) = (gate.module("M21"), gate.module("M27"));
    let claims: [&[u8]; 5] = [b"M27", b"M21", b"PM-7", b"no module", b"M\xFC"];
    for claimed in claims {
        let signing = |client| gate.signing(client, key_id).header("X-Module-Id", claimed);
        let refused = Answer::of(signing(&m21)).await;
        refused.refused(403, "POLICY_VIOLATION");
        let signed = Answer::of(signing(&m27)).await;
        let receipt = gate.kms.receipt(&signed.ok()["receipt_id"]).await.receipt;
        assert_eq!(receipt["requesting_module"], "M27");
    }
}

#[tokio::test]
async fn a_token_of_another_module_opens_none_of_its_keys() {
    let issuer = issuer();
    let gate = Gate::start(&[&issuer], &[]).await;
    let policy = json!({ "access_policy": { "allowed_modules": ["M27"] } });
    let made = gate.kms.generate("Ed25519", policy).await;
    let key_id = text(&made["key_id"]);
    let (m21, m27) = (gate.module("M21"), gate.module("M27"));
    let token = |module: &str| issuer.token(json!({ "module_id": module }));
    let signing = |client, module| {
        let request = gate.signing(client, key_id).bearer_auth(token(module));
        Answer::of(request)
    };
    for module in ["M27", "PM-7"] {
        let refused = signing(&m21, module).await;
        refused.refused_token("its module_id is not the client certificate's");
    }
    let refused = signing(&m21, "M21").await;
    refused.refused(403, "POLICY_VIOLATION");
    let refused = signing(&m27, "M21").await;
    refused.refused_token("its module_id is not the client certificate's");
    signing(&m27, "M27").await.ok();
}

#[tokio::test]
async fn who_calls_is_asked_before_anything_is_read_or_done() {
    let issuer = issuer();
    let gate = Gate::start(&[&issuer], &[]).await;
    let policy = json!({ "access_policy": { "max_usage_per_day": 1 } });
    let made = gate.kms.generate("Ed25519", policy).await;
    let good = in_scope(json!({ "key_id": made["key_id"], "data": base64("data") }));
    let unknown = with(good.clone(), json!({ "key_id": UNKNOWN }));
    let foreign = with(good.clone(), json!({ "tenant_id": "tenant124" }));
    let odd = json!({ "key_id": 1, "unknown": true });
    let before = gate.kms.ledger_size().await;
    let expired = issuer.token(json!({ "exp": 0 }));
    let foreign_token = issuer.token(json!({ "tenant_id": "tenant124" }));
    let post = |body: String, token: &str| {
        let request = gate.kms.request(Method::POST, "/kms/v1/sign");
        let request = request.header("Content-Type", "application/json");
        Answer::of(request.bearer_auth(token).body(body))
    };
    let bodies = [&good, &unknown, &foreign, &odd].map(Value::to_string);
    for body in bodies.into_iter().chain([String::new(), "{".to_owned()]) {
        for (token, rule) in [
            (expired.as_str(), "has expired"),
            (&foreign_token, "its tenant_id"),
            ("a.b.c", "not a JWT"),
        ] {
            post(body.clone(), token).await.refused_token(rule);
        }
    }
    assert_eq!(gate.kms.ledger_size().await, before);
    // The one use of the day is still to be had.
    let token = issuer.token(json!({}));
    post(good.to_string(), &token).await.ok();
    let second = post(good.to_string(), &token).await;
    second.refused(429, "RATE_LIMITED");
}
