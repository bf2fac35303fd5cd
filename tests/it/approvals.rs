//! Dual authorization by signature: each rule refuses alone, says so, and leaves
//! its receipt.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::approver::{new_key, seconds_since_1970};
use crate::support::{Approver, KmsProcess, SignedKms, base64, eventually, in_scope, text, with};

fn alice() -> Approver {
    Approver::new("alice@example.com", 1)
}

fn bob() -> Approver {
    Approver::new("bob@example.com", 2)
}

#[tokio::test]
async fn a_signed_approval_lets_one_new_key_be_made() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let made = service.make(&alice.approve_new_key()).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn any_ten_characters_are_no_approval_any_longer() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let without = service.post("/kms/v1/keys", with(json!({}), new_key_fields()), None);
    without.await.refused_approval("needs an approval");
    let refused = service.make("approval-token-123").await;
    refused.refused_approval("not a signed JWT");
    assert_eq!(
        service.kms.ledger_size().await,
        2,
        "each refusal has a receipt"
    );
}

fn new_key_fields() -> Value {
    json!({ "key_type": "Ed25519", "key_usage": ["sign", "verify"] })
}

#[tokio::test]
async fn an_approval_of_something_else_is_refused_with_what_differs() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    for (claim, other) in [
        ("operation", json!("key_rotate")),
        ("tenant_id", json!("tenant124")),
        ("environment", json!("dev")),
        ("plane", json!("tenant")),
        ("key_type", json!("RSA-2048")),
        ("key_usage", json!(["sign"])),
    ] {
        let token = alice.approve(with(new_key(), json!({ claim: other })));
        let refused = service.make(&token).await;
        refused.refused_approval(&format!("for another {claim}"));
        let token = alice.approve(with(new_key(), json!({ claim: null })));
        let refused = service.make(&token).await;
        refused.refused_approval(&format!("lacks the claim {claim}"));
    }
}

#[tokio::test]
async fn an_approval_for_one_key_is_none_for_another() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let one = service.key(&alice, "Ed25519", false).await;
    let other = service.key(&alice, "Ed25519", false).await;
    let approval = alice.approve_on("key_rotate", &one);
    let refused = service.rotate(&other, &approval).await;
    refused.refused_approval("for another key_id");
    let revoking = alice.approve_on("key_revoke", &one);
    let refused = service.rotate(&one, &revoking).await;
    refused.refused_approval("for another operation");
    service.rotate(&one, &approval).await.ok();

    let path = format!("/kms/v1/keys/{other}/revoke");
    let fields = json!({ "revocation_reason": "retired" });
    let approval = alice.approve_on("key_revoke", &other);
    let revoked = service.post(&path, fields, Some(&approval)).await;
    assert_eq!(revoked.ok()["key_state"], "destroyed");
}

#[tokio::test]
async fn an_approval_holds_for_a_quarter_of_an_hour_at_most_and_only_now() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let now = seconds_since_1970();
    for (changes, rule) in [
        (json!({ "iat": now - 800, "exp": now - 60 }), "has expired"),
        (json!({ "exp": now + 960 }), "longer than 15 minutes"),
        (
            json!({ "iat": now + 300, "exp": now + 600 }),
            "not valid yet",
        ),
        (json!({ "nbf": now + 300 }), "not valid yet"),
        (json!({ "iat": null }), "lacks the claim iat"),
        (json!({ "exp": null }), "lacks the claim exp"),
    ] {
        let token = alice.approve(with(new_key(), changes));
        service.make(&token).await.refused_approval(rule);
    }
}

#[tokio::test]
async fn an_approval_names_itself_its_audience_and_its_signer() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    for (changes, rule) in [
        (json!({ "jti": null }), "lacks the claim jti"),
        (json!({ "jti": "x".repeat(129) }), "lacks the claim jti"),
        (json!({ "aud": "M21" }), "audience is not M33"),
        (json!({ "aud": null }), "lacks the claim aud"),
        (json!({ "iss": "bob@example.com" }), "iss and sub"),
        (
            json!({ "iss": "bob@example.com", "sub": "bob@example.com" }),
            "iss and sub",
        ),
        (json!({ "sub": null }), "lacks the claim sub"),
    ] {
        let token = alice.approve(with(new_key(), changes));
        service.make(&token).await.refused_approval(rule);
    }
    let list = alice.approve(with(new_key(), json!({ "aud": ["M27", "M33"] })));
    assert_eq!(service.make(&list).await.status, 201);
}

#[tokio::test]
async fn only_a_signature_of_a_known_approver_counts() {
    let (alice, bob) = (alice(), bob());
    let service = SignedKms::start(&[&alice]).await;
    let refused = service.make(&bob.approve_new_key()).await;
    refused.refused_approval("known approver's key");
    let forger = Approver::new("alice@example.com", 9);
    let refused = service.make(&forger.approve_new_key()).await;
    refused.refused_approval("signature does not verify");

    let claims = alice.claims(new_key());
    let header = |alg: &str| json!({ "alg": alg, "kid": "alice@example.com" });
    for alg in ["none", "None", "HS256", "RS256", "PS256", "eddsa"] {
        let token = alice.sign(&header(alg), &claims);
        service.make(&token).await.refused_approval("alg");
    }
    let key = jsonwebtoken::EncodingKey::from_secret(text(&alice.jwk()["x"]).as_bytes());
    let mut hmac = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    hmac.kid = Some("alice@example.com".to_owned());
    let token = jsonwebtoken::encode(&hmac, &claims, &key).expect("signed");
    service.make(&token).await.refused_approval("alg");

    let good = alice.approve_new_key();
    let parts: Vec<&str> = good.split('.').collect();
    let other = alice.approve(json!({}));
    let payload = other.split('.').nth(1).expect("three parts");
    for (tampered, rule) in [
        (format!("{}.{payload}.{}", parts[0], parts[2]), "signature"),
        (format!("{}.{}.", parts[0], parts[1]), "not a signed JWT"),
        (format!("{}.{}", parts[0], parts[1]), "not a signed JWT"),
        (format!("{good}="), "not a signed JWT"),
        (format!("{good}.x"), "not a signed JWT"),
    ] {
        service.make(&tampered).await.refused_approval(rule);
    }
    assert_eq!(service.make(&good).await.status, 201);
}

#[tokio::test]
async fn a_quorum_of_two_is_two_people_with_two_keys() {
    let (alice, bob) = (alice(), bob());
    let bobs_name_for_alices_key = Approver::new("carol@example.com", 1).with_kid("again");
    let approvers = [&alice, &bob, &bobs_name_for_alices_key];
    let service = SignedKms::start_with_quorum("2", &approvers).await;
    let one = alice.approve_new_key();
    let refused = service.make(&one).await;
    refused.refused_approval("2 different approvers are needed, 1 agreed");
    let refused = service.make(&format!("{one},{one}")).await;
    refused.refused_approval("was used already");
    let again = alice.approve_new_key();
    let refused = service.make(&format!("{one},{again}")).await;
    refused.refused_approval("from one approver");
    let same_key = bobs_name_for_alices_key.approve_new_key();
    let refused = service.make(&format!("{one},{same_key}")).await;
    refused.refused_approval("signed with one key");
    let nine = [one.as_str(); 9].join(",");
    service.make(&nine).await.refused_approval("at most 8");

    let made = service
        .make(&format!("{one}, {}", bob.approve_new_key()))
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let receipt = service.kms.receipt(&made.body["receipt_id"]).await.receipt;
    let approvals = receipt["kms_context"]["approvals"].as_array();
    assert_eq!(approvals.expect("a list").len(), 2);
}

#[tokio::test]
async fn every_use_of_a_key_that_asks_for_it_takes_an_approval() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let key = service.key(&alice, "Ed25519", true).await;
    let approve = || alice.approve_on("key_use", &key);
    service
        .sign(&key, None)
        .await
        .refused_approval("needs an approval");
    let rotating = alice.approve_on("key_rotate", &key);
    let refused = service.sign(&key, Some(&rotating)).await;
    refused.refused_approval("for another operation");
    let signed = service.sign(&key, Some(&approve())).await;
    let fields = json!({
        "key_id": key, "data": base64(b"data"), "signature": signed.ok()["signature"],
    });
    let refused = service.post("/kms/v1/verify", fields.clone(), None).await;
    refused.refused_approval("needs an approval");
    let verified = service
        .post("/kms/v1/verify", fields, Some(&approve()))
        .await;
    assert_eq!(verified.ok()["valid"], true);

    let key = service.key(&alice, "AES-256", true).await;
    let approve = || alice.approve_on("key_use", &key);
    let fields = json!({ "key_id": key, "plaintext": base64(b"data") });
    let refused = service.post("/kms/v1/encrypt", fields.clone(), None).await;
    refused.refused_approval("needs an approval");
    let encrypted = service
        .post("/kms/v1/encrypt", fields, Some(&approve()))
        .await;
    let fields = json!({
        "key_id": key, "ciphertext": encrypted.ok()["ciphertext"], "iv": encrypted.body["iv"],
    });
    let refused = service.post("/kms/v1/decrypt", fields.clone(), None).await;
    refused.refused_approval("needs an approval");
    let decrypted = service
        .post("/kms/v1/decrypt", fields, Some(&approve()))
        .await;
    assert_eq!(decrypted.ok()["plaintext"], base64(b"data"));
}

#[tokio::test]
async fn a_receipt_names_who_approved_and_by_which_token() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let approval = |jti: &str| alice.approve(with(new_key(), json!({ "jti": jti })));
    let made = service.make(&approval("made-1")).await;
    let key = text(&made.body["key_id"]).to_owned();
    let receipt = service.kms.receipt(&made.body["receipt_id"]).await.receipt;
    assert_eq!(
        receipt["kms_context"]["approvals"],
        json!([{ "approver": "alice@example.com", "jti": "made-1" }])
    );
    let rotation = json!({ "operation": "key_rotate", "key_id": key, "jti": "rotated-1" });
    let token = alice.approve(rotation);
    let rotated = service.rotate(&key, &token).await;
    let found = service.kms.receipt(&rotated.ok()["receipt_id"]).await;
    assert_eq!(
        found.receipt["kms_context"]["approvals"][0]["jti"],
        "rotated-1"
    );
    // No part of the token either: neither what it says nor its signature.
    for part in token.split('.') {
        assert!(!found.text.contains(part), "{part} in {}", found.text);
    }

    let guarded = service.key(&alice, "Ed25519", true).await;
    let usage = json!({ "operation": "key_use", "key_id": guarded, "jti": "used-1" });
    let signed = service.sign(&guarded, Some(&alice.approve(usage))).await;
    let receipt = service
        .kms
        .receipt(&signed.ok()["receipt_id"])
        .await
        .receipt;
    assert_eq!(receipt["kms_context"]["approvals"][0]["jti"], "used-1");
}

#[tokio::test]
async fn what_kms_approve_prints_the_service_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let pem = folder.path().join("approver.pem");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    std::fs::write(&pem, key.serialize_pem()).expect("written");
    let pem = pem.display().to_string();
    let own = ["approve", "--signing-key", &pem, "--approver", "dora"];
    let run = |arguments: &[&str]| {
        let arguments = [own.as_slice(), arguments].concat();
        let ended = KmsProcess::run(folder.path(), &arguments, &[]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout.trim_end().to_owned()
    };
    let jwk: Value = serde_json::from_str(&run(&["--print-jwk"])).expect("JSON");
    let service = SignedKms::start_with_keys(&[jwk]).await;
    let token = run(&[
        "--operation",
        "key_generate",
        "--tenant",
        "tenant123",
        "--environment",
        "prod",
        "--plane",
        "laptop",
        "--key-type",
        "Ed25519",
        "--key-usage",
        "sign,verify",
    ]);
    let made = service.make(&token).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn a_key_set_that_cannot_be_used_stops_the_start_and_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let jwks = folder.path().join("approvers.json");
    let path = jwks.display().to_string();
    let settings = [
        ("KMS__APPROVALS__MODE", "signed"),
        ("KMS__APPROVALS__JWKS", path.as_str()),
    ];
    let private = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"canary"}]}"#;
    for (text, why) in [
        (None, "cannot be read"),
        (Some("{}"), "no list of keys"),
        (Some(private), "private key"),
    ] {
        if let Some(text) = text {
            std::fs::write(&jwks, text).expect("written");
        }
        let ended = KmsProcess::run(folder.path(), &["serve"], &settings);
        let output = ended.output();
        assert_eq!(ended.code, Some(1), "{output}");
        assert!(
            output.contains("approvals.jwks") && output.contains(why),
            "{output}"
        );
        assert!(!output.contains("canary"), "{output}");
    }
}

#[tokio::test]
async fn new_approvers_are_known_without_a_restart() {
    let (alice, bob) = (alice(), bob());
    let service = SignedKms::start(&[&alice]).await;
    let refused = service.make(&bob.approve_new_key()).await;
    refused.refused_approval("known approver's key");
    service.publish(&[&bob]);
    eventually("the new key set", || async {
        let made = service.make(&bob.approve_new_key()).await;
        (made.status == 201).then_some(())
    })
    .await;
    let refused = service.make(&alice.approve_new_key()).await;
    refused.refused_approval("known approver's key");
}

/// Answers every request with 503 until there is a body to answer.
async fn serve_key_set(listener: TcpListener, body: watch::Receiver<Option<String>>) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let (status, body) = match &*body.borrow() {
            Some(body) => ("200 OK", body.clone()),
            None => ("503 Service Unavailable", String::new()),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}");
        let _ = stream
            .write_all(format!("{head}\r\n\r\n{body}").as_bytes())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_is_away_leaves_the_service_unready_until_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}/jwks", listener.local_addr().expect("bound"));
    let (publish, body) = watch::channel(None);
    tokio::spawn(serve_key_set(listener, body));
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [
        ("KMS__APPROVALS__MODE", "signed"),
        ("KMS__APPROVALS__JWKS", address.as_str()),
    ];
    let kms = KmsProcess::start(folder.path(), &settings);
    let alice = alice();
    let approval = json!({ "approval_token": alice.approve_new_key() });
    let body = in_scope(with(new_key_fields(), approval));
    let refused = kms.post("/kms/v1/keys", &body).await;
    let details = refused.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(details["dependency"], "iam");
    let health = kms.get("/kms/v1/health").await;
    assert_eq!(health.status, 503, "{}", health.text);
    let check = health.body["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|check| check["name"] == "approvers_jwks");
    assert_eq!(check.expect("a check of the key set")["status"], "fail");

    publish.send_replace(Some(json!({ "keys": [alice.jwk()] }).to_string()));
    eventually("the key set", || async {
        let health = kms.get("/kms/v1/health").await;
        (health.status == 200).then_some(())
    })
    .await;
    let made = kms.post("/kms/v1/keys", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
}
