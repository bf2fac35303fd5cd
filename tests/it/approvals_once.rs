//! An approval works once: across repetition, races and restarts, and only where
//! something came of it.

use serde_json::{Value, json};

use crate::support::approver::new_key;
use crate::support::{Approver, SignedKms, all_at_once, base64, in_scope, text, with};

const ROUNDS: usize = 10;

fn alice() -> Approver {
    Approver::new("alice@example.com", 1)
}

#[tokio::test]
async fn a_second_request_with_one_approval_is_refused_and_makes_nothing() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let approval = alice.approve_new_key();
    assert_eq!(service.make(&approval).await.status, 201);
    for _ in 0..2 {
        service
            .make(&approval)
            .await
            .refused_approval("was used already");
    }
    let listed = service.kms.get_scoped("/kms/v1/keys").await;
    assert_eq!(listed.ok()["keys"].as_array().expect("a list").len(), 1);
    assert_eq!(service.kms.ledger_size().await, 3);

    // Another token of the same name is the same approval.
    let jti = json!({ "jti": "one" });
    let first = alice.approve(with(new_key(), jti.clone()));
    assert_eq!(service.make(&first).await.status, 201);
    let second = alice.approve(with(new_key(), with(jti, json!({ "nbf": 1 }))));
    service
        .make(&second)
        .await
        .refused_approval("was used already");
}

#[tokio::test]
async fn an_approval_that_was_used_stays_used_after_a_restart() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let used = alice.approve_new_key();
    assert_eq!(service.make(&used).await.status, 201);
    let service = service.restart().await;
    service
        .make(&used)
        .await
        .refused_approval("was used already");
    assert_eq!(service.make(&alice.approve_new_key()).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_at_once_with_one_approval_one_succeeds() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let guarded = service.key(&alice, "Ed25519", true).await;
    for _ in 0..ROUNDS {
        let make = |approval: &str| {
            let body = json!({
                "key_type": "Ed25519", "key_usage": ["sign", "verify"],
                "approval_token": approval,
            });
            service.kms.post_request("/kms/v1/keys", &in_scope(body))
        };
        let sign = |approval: &str| {
            let body = json!({
                "key_id": guarded, "data": base64(b"data"), "approval_token": approval,
            });
            service.kms.post_request("/kms/v1/sign", &in_scope(body))
        };
        let making = alice.approve_new_key();
        let using = alice.approve_on("key_use", &guarded);
        for requests in [
            (0..4).map(|_| make(&making)).collect::<Vec<_>>(),
            (0..4).map(|_| sign(&using)).collect(),
        ] {
            let before = service.kms.ledger_size().await;
            let answers = all_at_once(requests).await;
            let (done, refused): (Vec<_>, Vec<_>) = answers
                .into_iter()
                .partition(|answer| answer.status.is_success());
            assert_eq!(done.len(), 1);
            for answer in refused {
                answer.refused_approval("was used already");
            }
            let after = service.kms.ledger_size().await;
            assert_eq!(after - before, 4, "a receipt each");
        }
    }
    let listed = service.kms.get_scoped("/kms/v1/keys?limit=100").await;
    let keys = listed.ok()["keys"].as_array().expect("a list").len();
    assert_eq!(keys, ROUNDS + 1);
    let counted = service.kms.details(&guarded).await;
    assert_eq!(counted["key_state"], "active");
}

#[tokio::test]
async fn a_request_that_is_refused_for_another_reason_spends_nothing() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let named = |alias: &str| json!({ "key_alias": alias });
    let first = service
        .make_with(&alice.approve_new_key(), named("taken"))
        .await;
    assert_eq!(first.status, 201, "{}", first.text);
    let approval = alice.approve_new_key();
    let refused = service.make_with(&approval, named("taken")).await;
    refused.refused_fields(&["key_alias"]);
    let made = service.make_with(&approval, named("free")).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

#[tokio::test]
async fn a_use_that_comes_to_nothing_spends_nothing_and_a_bad_signature_is_an_answer() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let key = service.key(&alice, "AES-256", true).await;
    let fields = json!({ "key_id": key, "plaintext": base64(b"data") });
    let approval = alice.approve_on("key_use", &key);
    let encrypted = service
        .post("/kms/v1/encrypt", fields, Some(&approval))
        .await;
    let good = json!({
        "key_id": key, "ciphertext": encrypted.ok()["ciphertext"], "iv": encrypted.body["iv"],
    });
    let bad = with(good.clone(), json!({ "ciphertext": base64([7; 32]) }));
    let approval = alice.approve_on("key_use", &key);
    let refused = service.post("/kms/v1/decrypt", bad, Some(&approval)).await;
    refused.refused(400, "INVALID_REQUEST");
    service
        .post("/kms/v1/decrypt", good.clone(), Some(&approval))
        .await
        .ok();
    let again = service.post("/kms/v1/decrypt", good, Some(&approval)).await;
    again.refused_approval("was used already");

    let key = service.key(&alice, "Ed25519", true).await;
    let fields = json!({
        "key_id": key, "data": base64(b"data"), "signature": base64([7; 64]),
    });
    let approval = alice.approve_on("key_use", &key);
    let verified = service
        .post("/kms/v1/verify", fields.clone(), Some(&approval))
        .await;
    assert_eq!(verified.ok()["valid"], Value::Bool(false));
    let again = service
        .post("/kms/v1/verify", fields, Some(&approval))
        .await;
    again.refused_approval("was used already");
}

#[tokio::test]
async fn a_use_past_the_daily_limit_spends_nothing() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let policy = json!({
        "access_policy": { "requires_approval": true, "max_usage_per_day": 1 },
    });
    let made = service.make_with(&alice.approve_new_key(), policy).await;
    let key = text(&made.body["key_id"]).to_owned();
    let first = alice.approve_on("key_use", &key);
    service.sign(&key, Some(&first)).await.ok();
    // The second approval is as good as before: the limit is what is named.
    let second = alice.approve_on("key_use", &key);
    for _ in 0..2 {
        let refused = service.sign(&key, Some(&second)).await;
        refused.refused(429, "RATE_LIMITED");
    }
}

#[tokio::test]
async fn an_approval_of_a_trust_anchor_is_for_its_certificate_and_works_once() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let certificate = |name: &str| {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        parameters.self_signed(&key).expect("signed").der().to_vec()
    };
    let fingerprint = |der: &[u8]| {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(der);
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (one, other) = (certificate("one"), certificate("other"));
    let approval = alice.approve(json!({
        "operation": "trust_anchor_add", "fingerprint": fingerprint(&one),
    }));
    let add = |der: Vec<u8>| {
        let fields = json!({ "certificate": base64(der), "anchor_type": "root" });
        service.post("/kms/v1/trust-anchors", fields, Some(&approval))
    };
    add(other).await.refused_approval("for another fingerprint");
    let added = add(one.clone()).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let receipt = service.kms.receipt(&added.body["receipt_id"]).await.receipt;
    let approver = &receipt["kms_context"]["approvals"][0]["approver"];
    assert_eq!(approver, "alice@example.com");
    add(one).await.refused_approval("was used already");
}
