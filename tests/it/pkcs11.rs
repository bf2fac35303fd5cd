//! Keys in a PKCS#11 token: where they are, what they can do, and that each stays
//! with the backend that made it.

use serde_json::{Value, json};

use crate::support::token::{LABEL, PIN};
use crate::support::token_service::hsm_check;
use crate::support::{KmsProcess, SCOPE_QUERY, TokenService, base64, eventually, in_scope, text};

const TYPES: [&str; 3] = ["RSA-2048", "Ed25519", "AES-256"];

/// Whether a key does all that it is for, with what it made before where there is
/// something; what it makes now.
async fn works(kms: &KmsProcess, key: &Value, before: Option<&Value>) -> Value {
    let key_id = &key["key_id"];
    if key["public_key"].is_null() {
        let fields = json!({ "key_id": key_id, "plaintext": base64("data") });
        let made = kms.post("/kms/v1/encrypt", &in_scope(fields)).await;
        for made in [Some(made.ok()), before].into_iter().flatten() {
            let fields = json!({
                "key_id": key_id, "ciphertext": made["ciphertext"], "iv": made["iv"],
            });
            let opened = kms.post("/kms/v1/decrypt", &in_scope(fields)).await;
            assert_eq!(opened.ok()["plaintext"], base64("data"));
        }
        return made.body;
    }
    let fields = json!({ "key_id": key_id, "data": base64("data") });
    let made = kms.post("/kms/v1/sign", &in_scope(fields)).await;
    for made in [Some(made.ok()), before].into_iter().flatten() {
        let fields = json!({
            "key_id": key_id, "data": base64("data"), "signature": made["signature"],
        });
        let verified = kms.post("/kms/v1/verify", &in_scope(fields)).await;
        assert_eq!(verified.ok()["valid"], true);
    }
    made.body
}

async fn one_of_each(kms: &KmsProcess) -> Vec<(Value, Value)> {
    let mut keys = Vec::new();
    for key_type in TYPES {
        let key = kms.generate(key_type, json!({})).await;
        let made = works(kms, &key, None).await;
        keys.push((key, made));
    }
    keys
}

async fn all_work(kms: &KmsProcess, keys: &[(Value, Value)]) {
    for (key, made) in keys {
        works(kms, key, Some(made)).await;
    }
}

#[tokio::test]
async fn a_key_is_in_the_token_under_its_id_and_scope_until_it_is_revoked() {
    let service = TokenService::new();
    let kms = service.start();
    let keys = one_of_each(&kms).await;
    for (key, _) in &keys {
        let objects = service.objects_of(text(&key["key_id"]));
        let is_pair = !key["public_key"].is_null();
        assert_eq!(objects.len(), 1 + usize::from(is_pair), "{objects:?}");
        let mut secrets = 0;
        for object in &objects {
            let label = "label:      kms tenant123/prod/laptop\n";
            assert!(object.contains(label), "{object}");
            if object.starts_with("Public Key Object") {
                continue;
            }
            secrets += 1;
            let kept = "sensitive, always sensitive, never extractable, local";
            assert!(object.contains(kept), "{object}");
            let usage = match is_pair {
                true => "Usage:      sign\n",
                false => "Usage:      encrypt, decrypt\n",
            };
            assert!(object.contains(usage), "{object}");
        }
        assert_eq!(secrets, 1);
    }
    for (key, _) in &keys {
        let key_id = text(&key["key_id"]);
        let reason = in_scope(json!({ "revocation_reason": "compromised" }));
        let path = format!("/kms/v1/keys/{key_id}/revoke");
        kms.post_approved(&path, &reason).await.ok();
        eventually("the end of the key in the token", || async {
            service.objects_of(key_id).is_empty().then_some(())
        })
        .await;
        let sign = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
        let refused = kms.post("/kms/v1/sign", &sign).await;
        assert!(!refused.status.is_success());
    }
    assert_eq!(service.listed(), Vec::<String>::new());
}

#[tokio::test]
async fn chacha20_is_not_among_a_token_keys_algorithms_and_is_refused() {
    let service = TokenService::new();
    let kms = service.start();
    let key = kms.generate("AES-256", json!({})).await;
    assert_eq!(key["algorithms"], json!(["AES-256-GCM"]));
    let encrypt = |algorithm: &str| {
        let fields = json!({
            "key_id": key["key_id"], "plaintext": base64("data"), "algorithm": algorithm,
        });
        let body = in_scope(fields);
        let kms = &kms;
        async move { kms.post("/kms/v1/encrypt", &body).await }
    };
    encrypt("A256GCM").await.ok();
    for name in ["ChaCha20-Poly1305", "CHACHA20-POLY1305"] {
        encrypt(name).await.refused_fields(&["algorithm"]);
    }
}

#[tokio::test]
async fn keys_in_a_token_outlive_the_service() {
    let service = TokenService::new();
    let kms = service.start();
    let keys = one_of_each(&kms).await;
    let log = kms.stop();
    assert!(log.contains("token connected"), "{log}");
    let kms = service.start();
    all_work(&kms, &keys).await;
    let health = kms.get_operations("/kms/v1/health").await;
    assert_eq!(hsm_check(&health.body)["status"], "pass", "{}", health.text);
}

#[tokio::test]
async fn a_key_stays_with_its_backend_when_new_ones_go_to_the_other() {
    let service = TokenService::new();
    // Software alone, then the token with the old key-encryption key still there.
    let kms = service.start_without_token();
    let in_software = one_of_each(&kms).await;
    kms.stop();
    let kms = service.start();
    all_work(&kms, &in_software).await;
    let in_token = one_of_each(&kms).await;
    for (key, _) in &in_software {
        assert_eq!(
            service.objects_of(text(&key["key_id"])),
            Vec::<String>::new()
        );
    }
    for (key, _) in &in_token {
        assert_ne!(
            service.objects_of(text(&key["key_id"])),
            Vec::<String>::new()
        );
    }
    kms.stop();

    // New ones in software again, with the token still named.
    let kms = service.start_with(&[("KMS__HSM__BACKEND", "software")]);
    let kms = TokenService::connected(kms);
    all_work(&kms, &in_software).await;
    all_work(&kms, &in_token).await;
    let listed = service.listed().len();
    let newer = one_of_each(&kms).await;
    all_work(&kms, &newer).await;
    assert_eq!(service.listed().len(), listed);
    let algorithms = &newer[2].0["algorithms"];
    assert_eq!(*algorithms, json!(["AES-256-GCM", "ChaCha20-Poly1305"]));
    kms.stop();

    // Without a token its keys are away, and the others are not.
    let kms = service.start_without_token();
    all_work(&kms, &in_software).await;
    all_work(&kms, &newer).await;
    let sign = json!({ "key_id": in_token[0].0["key_id"], "data": base64("data") });
    let refused = kms.post("/kms/v1/sign", &in_scope(sign)).await;
    let details = refused.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(*details, json!({ "dependency": "hsm" }));
}

#[tokio::test]
async fn the_pin_is_told_to_nobody() {
    let service = TokenService::new();
    let printed = service.run(&["check-config"], &[]).output();
    assert!(printed.contains("hsm.pkcs11.pin"), "{printed}");
    let trace = [("KMS__LOG__LEVEL", "trace"), ("KMS__LOG__FORMAT", "json")];
    let kms = TokenService::connected(service.start_with(&trace));
    let keys = one_of_each(&kms).await;
    service.token.fail(&["C_Sign=0x30", "C_Login=0xa0"]);
    let sign = in_scope(json!({ "key_id": keys[0].0["key_id"], "data": base64("data") }));
    let refused = kms.post("/kms/v1/sign", &sign).await;
    refused.refused(503, "DEPENDENCY_UNAVAILABLE");
    kms.signal("HUP");
    let health = eventually("a report", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        (health.status == 503).then_some(health)
    })
    .await;
    let keys = kms.get(&format!("/kms/v1/keys?{SCOPE_QUERY}")).await;
    let config = kms.get("/kms/v1/config").await;
    let metrics = kms.get_operations("/kms/v1/metrics").await;
    let checked = service.run(&["hsm", "check"], &[]).output();
    let log = kms.stop();
    assert!(log.contains(LABEL), "{log}");
    for (what, told) in [
        ("check-config", &printed),
        ("the health report", &health.text),
        ("the list of keys", &keys.text),
        ("the policy", &config.text),
        ("the metrics", &metrics.text),
        ("kms hsm check", &checked),
        ("the log", &log),
    ] {
        assert!(!told.contains(PIN), "{what}: {told}");
    }
}
