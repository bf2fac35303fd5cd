//! RSA pairs that are made beforehand: a burst of new keys does not wait for them to be
//! made, and nobody waits while they are.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    APPROVAL, KmsProcess, TestKms, UNTHROTTLED, all_at_once, base64, eventually, in_scope, text,
};

/// How many pairs are kept ready; making one takes long in a build for debugging.
const STOCK: u64 = 6;

fn settings() -> [(&'static str, &'static str); 3] {
    [
        UNTHROTTLED[0],
        UNTHROTTLED[1],
        ("KMS__HSM__SOFTWARE__RSA_STOCK", "6"),
    ]
}

async fn value(kms: &TestKms, series: &str) -> u64 {
    let metrics = kms.get("/kms/v1/metrics").await.text;
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{series} in {metrics}"))
}

async fn ready(kms: &TestKms) -> u64 {
    value(kms, "kms_rsa_stock ").await
}

async fn pairs(kms: &TestKms, source: &str) -> u64 {
    let series = format!("kms_rsa_pairs_total{{source=\"{source}\"}}");
    value(kms, &series).await
}

async fn full(kms: &TestKms) {
    eventually("a full stock", || async {
        (ready(kms).await == STOCK).then_some(())
    })
    .await;
}

/// So many RSA keys, asked for at the same time.
async fn burst(kms: &TestKms, keys: u64) -> Vec<Value> {
    let body = in_scope(json!({ "key_type": "RSA-2048", "key_usage": ["sign", "verify"] }));
    let requests = (0..keys).map(|_| {
        kms.request(Method::POST, "/kms/v1/keys")
            .header("X-Approval-Token", APPROVAL)
            .json(&body)
    });
    let made = all_at_once(requests.collect()).await;
    made.into_iter()
        .map(|answer| {
            assert_eq!(answer.status, 201, "{}", answer.text);
            answer.body
        })
        .collect()
}

async fn sign_and_verify(kms: &TestKms, key_id: &Value) {
    let fields = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
    let signed = kms.post("/kms/v1/sign", &fields).await;
    let mut fields = fields;
    fields["signature"] = signed.ok()["signature"].clone();
    let verified = kms.post("/kms/v1/verify", &fields).await;
    assert_eq!(verified.ok()["valid"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_new_rsa_keys_is_served_from_the_stock_and_each_pair_serves_one() {
    let kms = TestKms::start_with(&settings()).await;
    full(&kms).await;
    let mut made = burst(&kms, STOCK).await;
    assert_eq!(pairs(&kms, "stock").await, STOCK);
    assert_eq!(pairs(&kms, "generated").await, 0);
    // It is filled up again, and a second burst meets other pairs.
    full(&kms).await;
    made.extend(burst(&kms, STOCK).await);
    assert_eq!(pairs(&kms, "stock").await, 2 * STOCK);
    let different: BTreeSet<&str> = made.iter().map(|key| text(&key["public_key"])).collect();
    assert_eq!(different.len(), made.len());
    for key in &made {
        sign_and_verify(&kms, &key["key_id"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_signed_with_and_made_while_the_stock_fills() {
    let kms = TestKms::start_with(&settings()).await;
    let key = kms
        .generate(
            "Ed25519",
            json!({ "access_policy": { "max_usage_per_day": 1_000_000 } }),
        )
        .await;
    let mut signed = 0;
    while ready(&kms).await < STOCK {
        sign_and_verify(&kms, &key["key_id"]).await;
        signed += 1;
    }
    assert!(signed > 0, "it was full before anybody could ask");
    // More than there are: whoever finds none waits for one of their own.
    burst(&kms, 2 * STOCK).await;
    let (stock, generated) = (pairs(&kms, "stock").await, pairs(&kms, "generated").await);
    assert_eq!(stock + generated, 2 * STOCK);
    assert!(stock >= STOCK, "{stock} of them were in stock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_stock_makes_a_pair_when_it_is_asked_for() {
    let kms = TestKms::start().await;
    burst(&kms, 2).await;
    assert_eq!(pairs(&kms, "stock").await, 0);
    assert_eq!(pairs(&kms, "generated").await, 2);
    assert_eq!(ready(&kms).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fills_its_stock_stops_at_once_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("KMS__HSM__SOFTWARE__RSA_STOCK", "1024")];
    let kms = KmsProcess::start(folder.path(), &settings);
    eventually("a pair", || async {
        let metrics = kms.get_operations("/kms/v1/metrics").await.text;
        assert!(
            metrics.contains("\nkms_rsa_stock_target 1024\n"),
            "{metrics}"
        );
        (!metrics.contains("\nkms_rsa_stock 0\n")).then_some(())
    })
    .await;
    // A clean end within the deadline, though the stock is far from full.
    let output = kms.stop();
    assert!(output.contains("stopped"), "{output}");
}
