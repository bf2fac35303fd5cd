//! A crash between the token and the store, and a token that has lost a key: neither
//! leaves a key without metadata, or metadata that pretends to be a key.

use std::fs;

use serde_json::json;

use crate::support::token_service::TokenService;
use crate::support::{KmsProcess, eventually, in_scope};

/// Whether a request is at this function of the module, which hangs.
async fn is_at(service: &TokenService, function: &str) {
    eventually("the call", || async {
        (service.counted(function) > 0).then_some(())
    })
    .await;
}

fn sign(key_id: &str) -> serde_json::Value {
    in_scope(json!({ "key_id": key_id, "data": "aGVsbG8=" }))
}

#[tokio::test]
async fn a_key_that_a_crash_left_in_the_token_alone_is_gone_after_the_next_start() {
    let service = TokenService::new();
    let kms = service.start();
    let kept = kms.generate_id("Ed25519").await;
    // The first signature is the new pair's proof: the pair is in the token then.
    service.token.fail(&["C_Sign=hang", "count=C_Sign"]);
    let body = in_scope(json!({ "key_type": "Ed25519", "key_usage": ["sign"] }));
    let making = kms.post_approved("/kms/v1/keys", &body);
    let at_proof = is_at(&service, "C_Sign");
    tokio::pin!(making);
    tokio::select! {
        answer = &mut making => panic!("it hangs: {}", answer.text),
        () = at_proof => {}
    }
    kms.signal("KILL");
    service.token.heal();
    // Two keys of two objects each.
    eventually("the end of the process", || async {
        (service.listed().len() == 4).then_some(())
    })
    .await;

    let mut kms = service.start();
    kms.wait_for_line(&["a key whose making was cut short is given up"]);
    eventually("the token without the orphan", || async {
        (service.listed().len() == 2).then_some(())
    })
    .await;
    assert_eq!(service.objects_of(&kept).len(), 2);
    let listed = kms.get_scoped("/kms/v1/keys").await;
    assert_eq!(listed.ok()["keys"].as_array().map(Vec::len), Some(1));
    kms.post("/kms/v1/sign", &sign(&kept)).await.ok();
    kms.stop();
}

#[tokio::test]
async fn a_revoked_key_whose_erasure_a_crash_cut_off_is_erased_by_the_next_start() {
    let service = TokenService::new();
    let kms = service.start();
    let key_id = kms.generate_id("Ed25519").await;
    service
        .token
        .fail(&["C_DestroyObject=hang", "count=C_DestroyObject"]);
    let reason = in_scope(json!({ "revocation_reason": "compromised" }));
    let path = format!("/kms/v1/keys/{key_id}/revoke");
    let revoking = kms.post_approved(&path, &reason);
    let at_erasure = is_at(&service, "C_DestroyObject");
    tokio::pin!(revoking);
    tokio::select! {
        answer = &mut revoking => panic!("it hangs: {}", answer.text),
        () = at_erasure => {}
    }
    // Refused already, though its secret is still there.
    let refused = kms.post("/kms/v1/sign", &sign(&key_id)).await;
    refused.refused(409, "KEY_REVOKED");
    kms.signal("KILL");
    service.token.heal();

    let kms = service.start();
    eventually("the token without the key", || async {
        service.objects_of(&key_id).is_empty().then_some(())
    })
    .await;
    let details = eventually("the word that it is gone", || async {
        let details = kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await;
        details.ok()["erase_at"].is_null().then_some(details)
    })
    .await;
    assert_eq!(details.body["key_state"], "destroyed");
    kms.stop();
}

async fn check_of_keys(kms: &KmsProcess, status: &str) -> String {
    eventually("the check of keys", || async {
        let health = kms.get("/kms/v1/health").await;
        let checks = health.body["checks"].as_array().expect("checks");
        let keys = checks.iter().find(|check| check["name"] == "keys")?;
        (keys["status"] == status).then(|| keys["detail"].to_string())
    })
    .await
}

#[tokio::test]
async fn a_key_that_the_token_has_lost_is_in_quarantine_until_the_token_has_it_again() {
    let service = TokenService::new();
    let kms = service.start();
    let lost = kms.generate_id("Ed25519").await;
    kms.stop();
    let tokens = service.token.path().join("tokens");
    let before = service.token.path().join("before");
    copy_folder(&tokens, &before);
    let kms = service.start();
    let kept = kms.generate_id("Ed25519").await;
    kms.stop();

    // The token of before has the first key and not the second.
    let now = service.token.path().join("now");
    fs::rename(&tokens, &now).expect("moved");
    fs::rename(&before, &tokens).expect("moved");
    let (known, missing) = (lost, kept);
    let kms = service.start();
    let detail = check_of_keys(&kms, "warn").await;
    assert!(
        detail.contains(&missing) && !detail.contains(&known),
        "{detail}"
    );
    let refused = kms.post("/kms/v1/sign", &sign(&missing)).await;
    let details = refused.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(details, &json!({ "dependency": "hsm" }));
    kms.post("/kms/v1/sign", &sign(&known)).await.ok();
    // Its metadata stays, and says that it is active.
    let shown = kms.get_scoped(&format!("/kms/v1/keys/{missing}")).await;
    assert_eq!(shown.ok()["key_state"], "active");
    let metrics = kms.get("/kms/v1/metrics").await.text;
    assert!(metrics.contains("kms_keys_quarantined 1"), "{metrics}");
    kms.stop();

    fs::remove_dir_all(&tokens).expect("removed");
    fs::rename(&now, &tokens).expect("moved back");
    let kms = service.start();
    check_of_keys(&kms, "pass").await;
    kms.post("/kms/v1/sign", &sign(&missing)).await.ok();
    kms.stop();
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(fs::copy(&path, &target).expect("copied")),
        }
    }
}
