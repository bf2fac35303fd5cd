//! Signatures are what their algorithm says, and anybody can check them.

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    APPROVAL, Answer, TestKms, base64, field_names, in_scope, text, unbase64, with,
};

const DATA: &[u8] = b"Hello, World!";

/// A key type, the name in the request, and the name in the answer.
const NAMES: [(&str, Option<&str>, &str); 8] = [
    ("RSA-2048", None, "RSA-PSS-SHA256"),
    ("RSA-2048", Some("RSA-PSS-SHA256"), "RSA-PSS-SHA256"),
    ("RSA-2048", Some("PS256"), "RSA-PSS-SHA256"),
    (
        "RSA-2048",
        Some("RSA-PKCS1v15-SHA256"),
        "RSA-PKCS1v15-SHA256",
    ),
    ("RSA-2048", Some("RS256"), "RSA-PKCS1v15-SHA256"),
    ("Ed25519", None, "Ed25519"),
    ("Ed25519", Some("Ed25519"), "Ed25519"),
    ("Ed25519", Some("EdDSA"), "Ed25519"),
];

fn named(algorithm: Option<&str>) -> Value {
    algorithm.map_or_else(|| json!({}), |name| json!({ "algorithm": name }))
}

async fn sign_with(kms: &TestKms, key_id: &str, data: &[u8], algorithm: Option<&str>) -> Answer {
    let fields = json!({ "key_id": key_id, "data": base64(data) });
    kms.post_scoped("/kms/v1/sign", with(fields, named(algorithm)))
        .await
}

async fn verify_with(
    kms: &TestKms,
    key_id: &str,
    data: &[u8],
    signature: &[u8],
    algorithm: Option<&str>,
) -> Answer {
    let fields = json!({
        "key_id": key_id, "data": base64(data), "signature": base64(signature),
    });
    kms.post_scoped("/kms/v1/verify", with(fields, named(algorithm)))
        .await
}

#[track_caller]
fn assert_validity(answer: &Answer, valid: bool, what: &str) {
    let body = answer.ok();
    assert_eq!(body["valid"], valid, "{what}: {}", answer.text);
    let status = if valid { "verified" } else { "failed" };
    assert_eq!(body["status"], status, "{what}: {}", answer.text);
}

#[tokio::test]
async fn every_algorithm_signs_and_verifies_under_each_of_its_names() {
    let kms = TestKms::start().await;
    for (key_type, asked, answered) in NAMES {
        let key_id = kms.generate_id(key_type).await;
        let signed = sign_with(&kms, &key_id, DATA, asked).await;
        let body = signed.ok();
        assert_eq!(
            field_names(body),
            ["algorithm", "key_id", "receipt_id", "signature"]
        );
        assert_eq!(body["key_id"], key_id);
        assert_eq!(body["algorithm"], answered);

        let signature = unbase64(&body["signature"]);
        let length = if key_type == "RSA-2048" { 256 } else { 64 };
        assert_eq!(signature.len(), length);
        for name in [asked, Some(answered)] {
            let verified = verify_with(&kms, &key_id, DATA, &signature, name).await;
            assert_validity(&verified, true, answered);
            assert_eq!(
                field_names(&verified.body),
                ["algorithm", "key_id", "receipt_id", "status", "valid"]
            );
            assert_eq!(verified.body["key_id"], key_id);
            assert_eq!(verified.body["algorithm"], answered);
        }
    }
}

#[tokio::test]
async fn rsa_signatures_are_of_their_own_scheme_and_of_no_other() {
    let kms = TestKms::start().await;
    let made = kms.generate("RSA-2048", json!({})).await;
    let key_id = text(&made["key_id"]);
    let public = rsa::PublicKey::from_public_key_pem(text(&made["public_key"])).expect("a PEM");

    // What `pss_verify` accepts has a salt of 32 bytes.
    for name in ["PS256", "RSA-PSS-SHA256"] {
        let signed = sign_with(&kms, key_id, DATA, Some(name)).await;
        let signature = unbase64(&signed.ok()["signature"]);
        assert!(public.pss_verify::<Sha256>(DATA, &signature).is_ok());
        assert!(public.pkcs1v15_verify::<Sha256>(DATA, &signature).is_err());
        let other_salt = rsa::pss::VerifyingKey::<Sha256>::new_with_salt_len(public.clone(), 20);
        let parsed = signature.as_slice().try_into().expect("a signature");
        assert!(rsa::signature::Verifier::verify(&other_salt, DATA, &parsed).is_err());
    }
    for name in ["RS256", "RSA-PKCS1v15-SHA256"] {
        let signed = sign_with(&kms, key_id, DATA, Some(name)).await;
        let signature = unbase64(&signed.ok()["signature"]);
        assert!(public.pkcs1v15_verify::<Sha256>(DATA, &signature).is_ok());
        assert!(public.pss_verify::<Sha256>(DATA, &signature).is_err());
    }
}

#[tokio::test]
async fn an_ed25519_signature_is_valid_elsewhere() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({})).await;
    let public = VerifyingKey::from_public_key_pem(text(&made["public_key"])).expect("a PEM");
    let signed = kms.sign(text(&made["key_id"]), DATA).await;
    let signature = unbase64(&signed.ok()["signature"]);
    let signature = ed25519_dalek::Signature::from_slice(&signature).expect("64 bytes");
    assert!(public.verify_strict(DATA, &signature).is_ok());
    assert!(public.verify_strict(b"Hello, World?", &signature).is_err());
}

#[tokio::test]
async fn a_salted_scheme_never_repeats_itself_and_the_others_always_do() {
    let kms = TestKms::start().await;
    let rsa = kms.generate_id("RSA-2048").await;
    let edwards = kms.generate_id("Ed25519").await;
    for (key_id, algorithm, repeats) in [
        (&rsa, "PS256", false),
        (&rsa, "RS256", true),
        (&edwards, "EdDSA", true),
    ] {
        let first = sign_with(&kms, key_id, DATA, Some(algorithm)).await;
        let second = sign_with(&kms, key_id, DATA, Some(algorithm)).await;
        let same = first.ok()["signature"] == second.ok()["signature"];
        assert_eq!(same, repeats, "{algorithm}");
    }
}

#[tokio::test]
async fn a_wrong_signature_is_an_answer_and_no_error() {
    let kms = TestKms::start().await;
    for (key_type, algorithm) in [
        ("RSA-2048", "PS256"),
        ("RSA-2048", "RS256"),
        ("Ed25519", "EdDSA"),
    ] {
        let key_id = kms.generate_id(key_type).await;
        let other_key = kms.generate_id(key_type).await;
        let signed = sign_with(&kms, &key_id, DATA, Some(algorithm)).await;
        let good = unbase64(&signed.ok()["signature"]);
        let verify = async |key_id: &str, data: &[u8], signature: &[u8]| {
            verify_with(&kms, key_id, data, signature, Some(algorithm)).await
        };
        assert_validity(&verify(&key_id, DATA, &good).await, true, algorithm);

        let wrong_data = verify(&key_id, b"Hello, World?", &good).await;
        assert_validity(&wrong_data, false, "other data");
        assert_validity(&verify(&key_id, b"", &good).await, false, "no data");
        assert_validity(&verify(&other_key, DATA, &good).await, false, "other key");
        let mut flipped = good.clone();
        for place in [0, good.len() / 2, good.len() - 1] {
            flipped[place] ^= 1;
            let answer = verify(&key_id, DATA, &flipped).await;
            assert_validity(&answer, false, "a changed bit");
            flipped[place] ^= 1;
        }
        let longer = [good.as_slice(), &[0]].concat();
        for signature in [&[][..], &good[1..], &good[..good.len() - 1], &longer] {
            let answer = verify(&key_id, DATA, signature).await;
            assert_validity(&answer, false, "another length");
        }
    }
}

#[tokio::test]
async fn a_signature_of_one_scheme_fails_under_the_other_of_the_same_key() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("RSA-2048").await;
    for (made_as, checked_as) in [("PS256", "RS256"), ("RS256", "PS256")] {
        let signed = sign_with(&kms, &key_id, DATA, Some(made_as)).await;
        let signature = unbase64(&signed.ok()["signature"]);
        let answer = verify_with(&kms, &key_id, DATA, &signature, Some(checked_as)).await;
        assert_validity(&answer, false, checked_as);
    }
}

#[tokio::test]
async fn empty_and_large_data_are_signed_like_any_other() {
    let kms = TestKms::start().await;
    let large = vec![0x5A; 512 * 1024];
    for key_type in ["RSA-2048", "Ed25519"] {
        let key_id = kms.generate_id(key_type).await;
        for data in [&b""[..], &large] {
            let signed = kms.sign(&key_id, data).await;
            let signature = &signed.ok()["signature"];
            let verified = kms.verify(&key_id, data, signature).await;
            assert_validity(&verified, true, key_type);
        }
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_the_keys_is_refused_by_name() {
    let kms = TestKms::start().await;
    for (key_type, foreign) in [
        ("RSA-2048", ["Ed25519", "EdDSA"]),
        ("Ed25519", ["RSA-PSS-SHA256", "RS256"]),
    ] {
        let key_id = kms.generate_id(key_type).await;
        let unknown = ["A256GCM", "AES-256-GCM", "ps256", "HS256", "none", ""];
        for algorithm in foreign.into_iter().chain(unknown) {
            let signed = sign_with(&kms, &key_id, DATA, Some(algorithm)).await;
            signed.refused_fields(&["algorithm"]);
            let verified = verify_with(&kms, &key_id, DATA, b"x", Some(algorithm)).await;
            verified.refused_fields(&["algorithm"]);
        }
    }
}

#[tokio::test]
async fn no_algorithm_and_null_are_the_keys_default() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("RSA-2048").await;
    let fields = json!({ "key_id": key_id, "data": base64(DATA), "algorithm": null });
    let signed = kms.post_scoped("/kms/v1/sign", fields.clone()).await;
    assert_eq!(signed.ok()["algorithm"], "RSA-PSS-SHA256");
    let fields = with(fields, json!({ "signature": signed.body["signature"] }));
    let verified = kms.post_scoped("/kms/v1/verify", fields).await;
    assert_validity(&verified, true, "null");
}

#[tokio::test]
async fn a_key_signs_by_its_alias_and_is_answered_by_its_id() {
    let kms = TestKms::start().await;
    let made = kms.generate("Ed25519", json!({ "key_alias": "log" })).await;
    let signed = kms.sign("alias/log", DATA).await;
    assert_eq!(signed.ok()["key_id"], made["key_id"]);
    let verified = kms
        .verify("alias/log", DATA, &signed.body["signature"])
        .await;
    assert_validity(&verified, true, "by alias");
    assert_eq!(verified.body["key_id"], made["key_id"]);
}

#[tokio::test]
async fn a_symmetric_key_neither_signs_nor_verifies() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let signed = kms.sign(&key_id, DATA).await;
    signed.refused(403, "POLICY_VIOLATION");
    let verified = kms.verify(&key_id, DATA, &json!("AAAA")).await;
    verified.refused(403, "POLICY_VIOLATION");
}

/// The client example of the service that this one takes the place of, with only
/// the host and the key's id changed.
#[tokio::test]
async fn the_client_of_the_original_runs_as_it_stands() {
    let kms = TestKms::start().await;
    let generation = json!({
        "tenant_id": "tenant123",
        "environment": "prod",
        "plane": "laptop",
        "key_type": "RSA-2048",
        "key_usage": "sign",
        "key_alias": "my-signing-key",
    });
    let request = kms
        .post_request("/kms/v1/keys", &generation)
        .header("X-Approval-Token", APPROVAL);
    let made = Answer::of(request).await;
    assert_eq!(made.status, 201, "{}", made.text);

    let signature = json!({
        "key_id": made.body["key_id"],
        "data": "SGVsbG8sIFdvcmxkIQ==",
        "algorithm": "RSA-PSS-SHA256",
        "tenant_id": "tenant123",
        "environment": "prod",
        "plane": "laptop",
    });
    let signed = kms.post("/kms/v1/sign", &signature).await;
    let signature = unbase64(&signed.ok()["signature"]);
    let public = rsa::PublicKey::from_public_key_pem(text(&made.body["public_key"]));
    let verified = public
        .expect("a PEM")
        .pss_verify::<Sha256>(DATA, &signature);
    assert!(verified.is_ok());
    let by_alias = in_scope(json!({ "key_id": "alias/my-signing-key", "data": base64(DATA) }));
    kms.post("/kms/v1/sign", &by_alias).await.ok();
}
