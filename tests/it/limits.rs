//! A key's daily limit is exact, whoever asks at once, and outlives the process.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{
    APPROVAL, Answer, KmsProcess, TestKms, UNTHROTTLED, all_at_once, base64, in_scope, text, with,
};

async fn limited(kms: &TestKms, key_type: &str, limit: u64) -> String {
    let policy = json!({ "access_policy": { "max_usage_per_day": limit } });
    let made = kms.generate(key_type, policy).await;
    text(&made["key_id"]).to_owned()
}

#[track_caller]
fn assert_limited(answer: &Answer, limit: u64) {
    let details = answer.refused(429, "RATE_LIMITED");
    assert_eq!(details["limit"], limit, "{}", answer.text);
    let seconds: u64 = answer.headers["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("seconds");
    assert!((1..=86_400).contains(&seconds), "{seconds}");
}

fn signing(kms: &TestKms, key_id: &str) -> RequestBuilder {
    let body = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
    kms.post_request("/kms/v1/sign", &body)
}

fn verifying(kms: &TestKms, key_id: &str) -> RequestBuilder {
    let body = in_scope(json!({
        "key_id": key_id, "data": base64("data"), "signature": base64([0; 64]),
    }));
    kms.post_request("/kms/v1/verify", &body)
}

/// Guards the one step of check and count: with two, some round lets more through.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_uses_at_once_exactly_as_many_succeed_as_are_left() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    for _ in 0..5 {
        let key_id = limited(&kms, "Ed25519", 50).await;
        let requests = (0..90)
            .map(|number| match number % 2 {
                0 => signing(&kms, &key_id),
                _ => verifying(&kms, &key_id),
            })
            .collect();
        let answers = all_at_once(requests).await;
        let (done, refused): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((done.len(), refused.len()), (50, 40));
        for answer in refused {
            assert_limited(answer, 50);
        }
        let late = kms.sign(&key_id, b"data").await;
        assert_limited(&late, 50);
    }
}

#[tokio::test]
async fn signing_and_verifying_count_together() {
    let kms = TestKms::start().await;
    let key_id = limited(&kms, "Ed25519", 3).await;
    let signed = kms.sign(&key_id, b"data").await;
    let signature = &signed.ok()["signature"];
    kms.verify(&key_id, b"data", signature).await.ok();
    let failed = kms.verify(&key_id, b"other", signature).await;
    assert_eq!(failed.ok()["valid"], false);
    assert_limited(&kms.sign(&key_id, b"data").await, 3);
    assert_limited(&kms.verify(&key_id, b"data", signature).await, 3);
}

#[tokio::test]
async fn encrypting_and_decrypting_count_together_failed_tags_included() {
    let kms = TestKms::start().await;
    let key_id = limited(&kms, "AES-256", 3).await;
    let answer = kms.encrypt(&key_id, b"data").await;
    let encrypted = answer.ok();
    kms.decrypt(&key_id, encrypted).await.ok();
    let changed = json!({ "ciphertext": base64([0; 32]) });
    let failed = kms
        .decrypt(&key_id, &with(encrypted.clone(), changed))
        .await;
    failed.refused(400, "INVALID_REQUEST");
    assert_limited(&kms.decrypt(&key_id, encrypted).await, 3);
    assert_limited(&kms.encrypt(&key_id, b"data").await, 3);
}

#[tokio::test]
async fn what_is_refused_does_not_count() {
    let kms = TestKms::start().await;
    let policy = json!({ "max_usage_per_day": 1, "requires_approval": true });
    let made = kms
        .generate(
            "Ed25519",
            json!({ "key_usage": "sign", "access_policy": policy }),
        )
        .await;
    let key_id = text(&made["key_id"]);
    let body = in_scope(json!({
        "key_id": key_id, "data": base64("data"), "approval_token": APPROVAL,
    }));
    for _ in 0..3 {
        let module = kms.post_as("M99", "/kms/v1/sign", &body).await;
        module.refused(403, "POLICY_VIOLATION");
        let usage = Answer::of(verifying(&kms, key_id)).await;
        usage.refused(403, "POLICY_VIOLATION");
        let approval = kms.sign(key_id, b"data").await;
        approval.refused(403, "UNAUTHORIZED");
        let algorithm = with(body.clone(), json!({ "algorithm": "RS256" }));
        let algorithm = kms.post("/kms/v1/sign", &algorithm).await;
        algorithm.refused_fields(&["algorithm"]);
        let data = with(body.clone(), json!({ "data": "?" }));
        let data = kms.post("/kms/v1/sign", &data).await;
        data.refused_fields(&["data"]);
        kms.details(key_id).await;
    }
    kms.post("/kms/v1/sign", &body).await.ok();
    assert_limited(&kms.post("/kms/v1/sign", &body).await, 1);
    assert_limited(&kms.post("/kms/v1/sign", &body).await, 1);
}

#[tokio::test]
async fn each_key_has_a_limit_of_its_own_and_a_successor_starts_anew() {
    let kms = TestKms::start().await;
    let first = limited(&kms, "Ed25519", 1).await;
    let second = limited(&kms, "Ed25519", 1).await;
    kms.sign(&first, b"data").await.ok();
    assert_limited(&kms.sign(&first, b"data").await, 1);
    kms.sign(&second, b"data").await.ok();

    let rotated = kms.rotate(&first).await;
    let successor = text(&rotated.ok()["new_key_id"]);
    kms.sign(successor, b"data").await.ok();
    assert_limited(&kms.sign(successor, b"data").await, 1);
    let verified = Answer::of(verifying(&kms, &first)).await;
    assert_limited(&verified, 1);
}

#[tokio::test]
async fn the_default_limit_is_a_setting() {
    let settings = [("KMS__KEYS__MAX_USAGE_PER_DAY", "2")];
    let kms = TestKms::start_with(&settings).await;
    let key_id = kms.generate_id("Ed25519").await;
    kms.sign(&key_id, b"data").await.ok();
    kms.sign(&key_id, b"data").await.ok();
    assert_limited(&kms.sign(&key_id, b"data").await, 2);
    let config = kms.get("/kms/v1/config").await;
    assert_eq!(config.ok()["max_usage_per_day_default"], 2);
}

#[tokio::test]
async fn the_count_outlives_an_orderly_restart() {
    let mut kms = TestKms::start().await;
    let key_id = limited(&kms, "Ed25519", 4).await;
    for _ in 0..2 {
        for request in [signing(&kms, &key_id), verifying(&kms, &key_id)] {
            Answer::of(request).await.ok();
        }
        kms = TestKms::start_in(kms.stop().await, &[]).await;
    }
    assert_limited(&kms.sign(&key_id, b"data").await, 4);
}

async fn post_to(process: &KmsProcess, path: &str, body: &Value) -> Answer {
    let url = format!("http://{}{path}", process.api());
    Answer::of(reqwest::Client::new().post(url).json(body)).await
}

/// Guards that the count is durable when the answer leaves, and not some time later.
#[tokio::test]
async fn the_count_outlives_a_killed_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = KmsProcess::start(folder.path(), &[]);
    let generation = in_scope(json!({
        "key_type": "Ed25519", "key_usage": "sign", "approval_token": APPROVAL,
        "access_policy": { "max_usage_per_day": 3 },
    }));
    let made = post_to(&process, "/kms/v1/keys", &generation).await;
    let signing = in_scope(json!({ "key_id": made.body["key_id"], "data": "" }));
    for _ in 0..2 {
        post_to(&process, "/kms/v1/sign", &signing).await.ok();
    }
    process.signal("KILL");
    process.wait();

    let process = KmsProcess::start(folder.path(), &[]);
    post_to(&process, "/kms/v1/sign", &signing).await.ok();
    let fourth = post_to(&process, "/kms/v1/sign", &signing).await;
    assert_limited(&fourth, 3);
}
