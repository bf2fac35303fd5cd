//! A token that is not there yet, that is locked, or that is not the one it was: the
//! service runs all the while, and takes up its keys as soon as it can.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::token::{LABEL, PIN, TokenFolder};
use crate::support::token_service::hsm_check;
use crate::support::{
    Answer, BACK_WITHIN, KmsProcess, TokenService, base64, eventually, in_scope, text,
};

async fn try_to_generate(kms: &KmsProcess) -> Answer {
    let body = in_scope(json!({ "key_type": "Ed25519", "key_usage": ["sign", "verify"] }));
    kms.post_approved("/kms/v1/keys", &body).await
}

async fn try_to_sign(kms: &KmsProcess, key_id: &str) -> Answer {
    let body = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
    kms.post("/kms/v1/sign", &body).await
}

fn is_away(answer: &Answer) {
    let details = answer.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(*details, json!({ "dependency": "hsm" }));
}

async fn is_unready(kms: &KmsProcess) -> Value {
    let health = eventually("a report", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        let is_probed = health.body["checks"][0]["name"] == "hsm";
        (health.status == 503 && is_probed).then_some(health)
    })
    .await;
    assert_eq!(health.body["status"], "unhealthy");
    hsm_check(&health.body).clone()
}

async fn back_within_time(attempt: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !attempt().await {
        assert!(start.elapsed() < BACK_WITHIN, "it is not back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_service_starts_without_a_token_and_works_once_there_is_one() {
    let service = TokenService::on(TokenFolder::without_token());
    let kms = service.start_with(&[]);
    kms.get("/health").await.ok();
    kms.get_operations("/health").await.ok();
    let check = is_unready(&kms).await;
    assert_eq!(check["status"], "fail");
    let detail = text(&check["detail"]);
    assert!(detail.contains("no token is connected"), "{detail}");
    assert!(detail.contains("there is no token labelled"), "{detail}");
    is_away(&try_to_generate(&kms).await);

    service.token.add_token(LABEL);
    back_within_time(async || try_to_generate(&kms).await.status == 201).await;
    let key_id = kms.generate_id("RSA-2048").await;
    try_to_sign(&kms, &key_id).await.ok();
    eventually("readiness", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        (health.status == 200).then_some(())
    })
    .await;
    kms.stop();
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_until_the_configuration_is_read_again() {
    let service = TokenService::new();
    service.token.fail(&["count=C_Login"]);
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("UTF-8");
    let write = |pin: &str| {
        let text = format!("[hsm.pkcs11]\npin = \"{pin}\"\n");
        fs::write(folder.path().join("development.toml"), text).expect("written");
    };
    write("0815-4711");
    let mut kms = service.start_configured(directory, &[("KMS__HSM__PKCS11__PIN", "")]);
    kms.wait_for_line(&["the token does not take the PIN", "CKR_PIN_INCORRECT"]);
    // Requests and probes: of these each would have tried.
    let check = is_unready(&kms).await;
    for _ in 0..50 {
        is_away(&try_to_generate(&kms).await);
    }
    let detail = text(&check["detail"]);
    assert!(detail.contains("not tried again before"), "{detail}");
    // Longer than any wait between attempts.
    let start = Instant::now();
    while start.elapsed().as_secs() < 2 {
        is_away(&try_to_generate(&kms).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(service.counted("C_Login"), 1);
    // As wrong as before, it is tried again once, since somebody asked for it.
    kms.signal("HUP");
    kms.wait_for_line(&["not reloaded", "hsm_pin"]);
    is_away(&try_to_generate(&kms).await);
    assert_eq!(service.counted("C_Login"), 2);

    write(PIN);
    kms.signal("HUP");
    back_within_time(async || try_to_generate(&kms).await.status == 201).await;
    assert_eq!(service.counted("C_Login"), 3);
    let log = kms.stop();
    for pin in [PIN, "0815-4711"] {
        assert!(!log.contains(pin), "{log}");
    }
}

#[tokio::test]
async fn a_reload_that_waits_for_the_token_keeps_nobody_else_waiting() {
    let service = TokenService::new();
    service.token.fail(&["C_Login=hang"]);
    // One thread for everything that must not wait.
    let mut kms = service.start_with(&[("TOKIO_WORKER_THREADS", "1")]);
    // It answers after the first probe.
    kms.get("/health").await.ok();
    kms.signal("HUP");
    kms.wait_for_line(&["SIGHUP"]);
    for _ in 0..20 {
        let asked = kms.get("/health");
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
        answer.expect("it waits for nothing").ok();
    }
    service.token.heal();
    let kms = TokenService::connected(kms);
    assert_eq!(try_to_generate(&kms).await.status, 201);
    kms.stop();
}

#[tokio::test]
async fn another_token_with_the_same_label_is_not_taken_for_the_one() {
    let service = TokenService::new();
    let kms = service.start();
    let key_id = kms.generate_id("Ed25519").await;
    try_to_sign(&kms, &key_id).await.ok();

    // The other one bears the label and, copied by somebody, an object of the id.
    let (tokens, away) = (
        service.token.path().join("tokens"),
        service.token.path().join("away"),
    );
    fs::rename(&tokens, &away).expect("moved");
    fs::create_dir(&tokens).expect("made");
    service.token.add_token(LABEL);
    service.token.fail(&["C_SignInit=once:0x32"]);
    let mut kms = kms;
    let refusal = eventually("a refusal", || async {
        let signed = try_to_sign(&kms, &key_id).await;
        (signed.status != 200).then_some(signed)
    })
    .await;
    is_away(&refusal);
    kms.wait_for_line(&["the token cannot be connected", "it is another"]);
    let check = is_unready(&kms).await;
    let detail = text(&check["detail"]);
    assert!(detail.contains("it is another"), "{detail}");
    is_away(&try_to_sign(&kms, &key_id).await);
    is_away(&try_to_generate(&kms).await);
    kms.stop();

    // A service that starts with the other one uses it for new keys, and says where
    // the old ones are.
    let mut kms = service.start();
    assert_eq!(try_to_generate(&kms).await.status, 201);
    is_away(&try_to_sign(&kms, &key_id).await);
    kms.wait_for_line(&["the key is in the token with serial"]);
    kms.stop();

    // With the right one back everything is as before.
    fs::remove_dir_all(&tokens).expect("removed");
    fs::rename(&away, &tokens).expect("moved back");
    let kms = service.start();
    try_to_sign(&kms, &key_id).await.ok();
    kms.stop();
}
