//! A token that does not answer: its callers get their refusal in time, others their
//! result, and whatever hung serves again afterwards.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::token_service::hsm_check;
use crate::support::{
    KmsProcess, TokenLoad, TokenService, all, base64, eventually, in_scope, text,
};

/// How long a call may take in these tests, and how much later the answer may be on
/// a machine that is busy with other tests.
const DEADLINE: [(&str, &str); 1] = [("KMS__HSM__PKCS11__DEADLINE", "PT1S")];
const BUSY: Duration = Duration::from_millis(1_500);

async fn detail(kms: &KmsProcess) -> String {
    let health = kms.get_operations("/kms/v1/health").await;
    text(&hsm_check(&health.body)["detail"]).to_owned()
}

#[tokio::test]
async fn signatures_that_hang_are_refused_in_time_and_cost_nobody_else_anything() {
    let service = TokenService::new();
    let start = || TokenService::connected(service.start_with(&DEADLINE));
    let (load, kms) = TokenLoad::new(&service, start).await;
    load.wave(&kms).await;
    assert_eq!(load.refusals(), 0);

    service.token.fail(&["C_Sign=hang"]);
    load.take_slowest();
    // Three sessions of eight, and three others in their place.
    for _ in 0..2 {
        tokio::join!(
            load.sign_rsa(&kms),
            load.sign_rsa(&kms),
            load.sign_rsa(&kms)
        );
    }
    assert_eq!(load.refused("sign rsa"), 6);
    let slowest = load.take_slowest();
    assert!(slowest >= Duration::from_secs(1), "{slowest:?}");
    assert!(slowest < Duration::from_secs(1) + BUSY, "{slowest:?}");
    for _ in 0..20 {
        load.encrypt(&kms).await;
    }
    assert_eq!(load.refused("encrypt") + load.refused("decrypt"), 0);
    let slowest = load.take_slowest();
    assert!(slowest < BUSY, "{slowest:?}");

    // All that there are, with all that take their place: who does not need the token
    // is still served, and the rest in time.
    for _ in 0..2 {
        let waves = (0..8).map(|_| load.wave(&kms));
        all(waves).await;
    }
    let slowest = load.take_slowest();
    assert!(slowest < Duration::from_secs(1) + BUSY, "{slowest:?}");
    kms.get("/health").await.ok();
    eventually("hanging sessions in the health report", || async {
        let detail = detail(&kms).await;
        detail.contains("sessions hanging").then_some(())
    })
    .await;

    service.token.heal();
    load.until_served(&kms).await;
    eventually("sessions that all serve again", || async {
        let health = kms.get_operations("/kms/v1/health").await;
        let is_whole = !detail(&kms).await.contains("hanging");
        (health.status == 200 && is_whole).then_some(())
    })
    .await;
    let log = kms.stop();
    assert!(log.contains("its session is given up"), "{log}");
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test]
async fn a_new_key_that_hangs_keeps_no_other_key_from_its_work() {
    let service = TokenService::new();
    let kms = TokenService::connected(service.start_with(&DEADLINE));
    let known = kms.generate_id("Ed25519").await;
    let sign = in_scope(json!({ "key_id": known, "data": base64("data") }));
    kms.post("/kms/v1/sign", &sign).await.ok();
    service.token.fail(&["C_GenerateKeyPair=hang"]);
    let body = in_scope(json!({ "key_type": "Ed25519", "key_usage": ["sign"] }));
    let start = Instant::now();
    let generate = async {
        let answer = kms.post_approved("/kms/v1/keys", &body).await;
        answer.refused(503, "DEPENDENCY_UNAVAILABLE");
        let took = start.elapsed();
        // Three deadlines are for making a key.
        let in_time = Duration::from_secs(3)..Duration::from_secs(4) + BUSY;
        assert!(in_time.contains(&took), "{took:?}");
    };
    let others = async {
        for _ in 0..50 {
            let start = Instant::now();
            kms.post("/kms/v1/sign", &sign).await.ok();
            assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
        }
    };
    tokio::join!(generate, others);
    service.token.heal();
    eventually("a new key", || async {
        let answer = kms.post_approved("/kms/v1/keys", &body).await;
        (answer.status == 201).then_some(())
    })
    .await;
    kms.post("/kms/v1/sign", &sign).await.ok();
    kms.stop();
}

#[tokio::test]
async fn a_service_whose_token_hangs_still_ends() {
    let service = TokenService::new();
    let kms = TokenService::connected(service.start_with(&DEADLINE));
    let known = kms.generate_id("Ed25519").await;
    let sign = in_scope(json!({ "key_id": known, "data": base64("data") }));
    service.token.fail(&["C_SignInit=hang"]);
    let refused = kms.post("/kms/v1/sign", &sign).await;
    refused.refused(503, "DEPENDENCY_UNAVAILABLE");
    let start = Instant::now();
    kms.stop();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
