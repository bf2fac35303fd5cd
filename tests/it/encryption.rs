//! What is encrypted opens with what it was made with, and with nothing else.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{Answer, TestKms, base64, field_names, text, unbase64, with, without};

const TAG: usize = 16;

/// The name in the request, and the name in the answer.
const NAMES: [(&str, &str); 4] = [
    ("AES-256-GCM", "AES-256-GCM"),
    ("A256GCM", "AES-256-GCM"),
    ("ChaCha20-Poly1305", "ChaCha20-Poly1305"),
    ("CHACHA20-POLY1305", "ChaCha20-Poly1305"),
];

async fn encrypt(kms: &TestKms, key_id: &str, plaintext: &[u8], fields: Value) -> Value {
    let body = json!({ "key_id": key_id, "plaintext": base64(plaintext) });
    let answer = kms.post_scoped("/kms/v1/encrypt", with(body, fields)).await;
    answer.ok().clone()
}

/// The request that opens what `encrypt` answered.
fn opening(encrypted: &Value, fields: Value) -> Value {
    let body = json!({
        "key_id": encrypted["key_id"],
        "ciphertext": encrypted["ciphertext"],
        "iv": encrypted["iv"],
        "algorithm": encrypted["algorithm"],
    });
    with(body, fields)
}

async fn decrypt(kms: &TestKms, fields: Value) -> Answer {
    kms.post_scoped("/kms/v1/decrypt", fields).await
}

/// Everything of a refusal that may not depend on what was wrong.
#[track_caller]
fn undecryptable(answer: &Answer) -> Value {
    let details = answer.refused(400, "INVALID_REQUEST");
    assert_eq!(details, &json!({}));
    without(answer.body["error"].clone(), "request_id")
}

fn flipped(bytes: &[u8], place: usize) -> String {
    let mut changed = bytes.to_vec();
    changed[place] ^= 0x80;
    base64(changed)
}

#[tokio::test]
async fn every_algorithm_opens_what_it_closed_under_each_of_its_names() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let large: Vec<u8> = (0..512 * 1024).map(|place| (place % 251) as u8).collect();
    for (asked, answered) in NAMES {
        for aad in [
            json!({}),
            json!({ "aad": null }),
            json!({ "aad": base64("row 7") }),
        ] {
            for plaintext in [&b""[..], b"secret", &large] {
                let fields = with(aad.clone(), json!({ "algorithm": asked }));
                let encrypted = encrypt(&kms, &key_id, plaintext, fields.clone()).await;
                assert_eq!(
                    field_names(&encrypted),
                    ["algorithm", "ciphertext", "iv", "key_id", "receipt_id"]
                );
                assert_eq!(encrypted["key_id"], key_id);
                assert_eq!(encrypted["algorithm"], answered);
                assert_eq!(unbase64(&encrypted["iv"]).len(), 12);
                let ciphertext = unbase64(&encrypted["ciphertext"]);
                assert_eq!(ciphertext.len(), plaintext.len() + TAG);

                let opened = decrypt(&kms, opening(&encrypted, fields)).await;
                let body = opened.ok();
                assert_eq!(
                    field_names(body),
                    ["algorithm", "key_id", "plaintext", "receipt_id"]
                );
                assert_eq!(body["key_id"], key_id);
                assert_eq!(body["algorithm"], answered);
                assert!(unbase64(&body["plaintext"]) == plaintext);
            }
        }
    }
}

#[tokio::test]
async fn no_algorithm_and_null_are_aes_gcm() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    for fields in [json!({}), json!({ "algorithm": null })] {
        let encrypted = encrypt(&kms, &key_id, b"secret", fields.clone()).await;
        assert_eq!(encrypted["algorithm"], "AES-256-GCM");
        let request = with(without(opening(&encrypted, json!({})), "algorithm"), fields);
        let opened = decrypt(&kms, request).await;
        assert_eq!(opened.ok()["algorithm"], "AES-256-GCM");
        assert_eq!(unbase64(&opened.body["plaintext"]), b"secret");
    }
}

#[tokio::test]
async fn an_empty_aad_is_none() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let encrypted = encrypt(&kms, &key_id, b"secret", json!({ "aad": "" })).await;
    let opened = decrypt(&kms, opening(&encrypted, json!({}))).await;
    opened.ok();
}

#[tokio::test]
async fn no_two_encryptions_share_an_iv_or_a_ciphertext() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    for algorithm in ["AES-256-GCM", "ChaCha20-Poly1305"] {
        let mut ivs = HashSet::new();
        let mut ciphertexts = HashSet::new();
        for _ in 0..32 {
            let fields = json!({ "algorithm": algorithm });
            let encrypted = encrypt(&kms, &key_id, b"always the same", fields).await;
            assert!(ivs.insert(text(&encrypted["iv"]).to_owned()));
            assert!(ciphertexts.insert(text(&encrypted["ciphertext"]).to_owned()));
        }
    }
}

#[tokio::test]
async fn the_caller_cannot_choose_the_iv() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let fields = json!({
        "key_id": key_id, "plaintext": base64("secret"), "iv": base64([0; 12]),
    });
    let answer = kms.post_scoped("/kms/v1/encrypt", fields).await;
    answer.refused_fields(&["iv"]);
}

/// Guards against an oracle: whatever was wrong, the caller learns the same.
#[tokio::test]
async fn whatever_was_changed_the_refusal_is_the_very_same() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let other_key = kms.generate_id("AES-256").await;
    let mut refusals = Vec::new();
    for (algorithm, other) in [
        ("AES-256-GCM", "ChaCha20-Poly1305"),
        ("ChaCha20-Poly1305", "AES-256-GCM"),
    ] {
        let aad = json!({ "aad": base64("row 7"), "algorithm": algorithm });
        let encrypted = encrypt(&kms, &key_id, b"a secret of some length", aad.clone()).await;
        let ciphertext = unbase64(&encrypted["ciphertext"]);
        let iv = unbase64(&encrypted["iv"]);
        let good = opening(&encrypted, aad);
        decrypt(&kms, good.clone()).await.ok();

        let last = ciphertext.len() - 1;
        let longer = [ciphertext.as_slice(), &[0]].concat();
        for change in [
            json!({ "ciphertext": flipped(&ciphertext, 0) }),
            json!({ "ciphertext": flipped(&ciphertext, last - TAG) }),
            json!({ "ciphertext": flipped(&ciphertext, last - TAG + 1) }),
            json!({ "ciphertext": flipped(&ciphertext, last) }),
            json!({ "ciphertext": base64(&ciphertext[..last]) }),
            json!({ "ciphertext": base64(&ciphertext[1..]) }),
            json!({ "ciphertext": base64(&ciphertext[..TAG]) }),
            json!({ "ciphertext": base64(&ciphertext[..TAG - 1]) }),
            json!({ "ciphertext": base64(&ciphertext[..1]) }),
            json!({ "ciphertext": "" }),
            json!({ "ciphertext": base64(longer) }),
            json!({ "iv": flipped(&iv, 0) }),
            json!({ "iv": flipped(&iv, 11) }),
            json!({ "aad": base64("row 8") }),
            json!({ "aad": base64("row 7\0") }),
            json!({ "aad": "" }),
            json!({ "aad": null }),
            json!({ "algorithm": other }),
            json!({ "key_id": other_key }),
        ] {
            let answer = decrypt(&kms, with(good.clone(), change)).await;
            refusals.push(undecryptable(&answer));
        }
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
}

/// Guards the separation of one secret's two uses: with a shared key stream the
/// plaintexts would show in the XOR, with a shared key one would open the other.
#[tokio::test]
async fn one_key_serves_two_algorithms_that_do_not_cross() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    for (made_as, opened_as) in [
        ("AES-256-GCM", "ChaCha20-Poly1305"),
        ("ChaCha20-Poly1305", "AES-256-GCM"),
    ] {
        let fields = json!({ "algorithm": made_as });
        let encrypted = encrypt(&kms, &key_id, b"secret", fields).await;
        let crossed = opening(&encrypted, json!({ "algorithm": opened_as }));
        undecryptable(&decrypt(&kms, crossed).await);
        decrypt(&kms, opening(&encrypted, json!({}))).await.ok();
    }
}

#[tokio::test]
async fn an_iv_of_another_length_is_refused_by_name() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let encrypted = encrypt(&kms, &key_id, b"secret", json!({})).await;
    for length in [0, 8, 11, 13, 16, 24] {
        let fields = json!({ "iv": base64(vec![7; length]) });
        let answer = decrypt(&kms, opening(&encrypted, fields)).await;
        answer.refused_fields(&["iv"]);
    }
    let missing = without(opening(&encrypted, json!({})), "iv");
    decrypt(&kms, missing).await.refused_fields(&["iv"]);
}

#[tokio::test]
async fn an_algorithm_that_does_not_encrypt_is_refused_by_name() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let encrypted = encrypt(&kms, &key_id, b"secret", json!({})).await;
    for algorithm in ["RSA-PSS-SHA256", "Ed25519", "aes-256-gcm", "A128GCM", ""] {
        let wrong = json!({ "algorithm": algorithm });
        let fields = json!({ "key_id": key_id, "plaintext": "" });
        let answer = kms
            .post_scoped("/kms/v1/encrypt", with(fields, wrong.clone()))
            .await;
        answer.refused_fields(&["algorithm"]);
        let answer = decrypt(&kms, opening(&encrypted, wrong)).await;
        answer.refused_fields(&["algorithm"]);
    }
}

#[tokio::test]
async fn a_key_pair_neither_encrypts_nor_decrypts() {
    let kms = TestKms::start().await;
    let secret = kms.generate_id("AES-256").await;
    let encrypted = encrypt(&kms, &secret, b"secret", json!({})).await;
    for key_type in ["RSA-2048", "Ed25519"] {
        let key_id = kms.generate_id(key_type).await;
        let answer = kms.encrypt(&key_id, b"secret").await;
        answer.refused(403, "POLICY_VIOLATION");
        let answer = kms.decrypt(&key_id, &encrypted).await;
        answer.refused(403, "POLICY_VIOLATION");
    }
}

#[tokio::test]
async fn a_ciphertext_outlives_a_restart() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let encrypted = encrypt(&kms, &key_id, b"secret", json!({})).await;
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    let opened = kms.decrypt(&key_id, &encrypted).await;
    assert_eq!(unbase64(&opened.ok()["plaintext"]), b"secret");
}
