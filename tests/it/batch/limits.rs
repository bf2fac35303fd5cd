//! The daily limit is exact, item by item, and one approval is for a whole batch.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{messages, refused, results};
use crate::support::{
    Answer, Approver, SignedKms, TestKms, UNTHROTTLED, all_at_once, base64, in_scope, text,
};

async fn limited(kms: &TestKms, key_type: &str, limit: u64) -> String {
    let policy = json!({ "access_policy": { "max_usage_per_day": limit } });
    let made = kms.generate(key_type, policy).await;
    text(&made["key_id"]).to_owned()
}

#[track_caller]
fn assert_limited(result: &Value, limit: u64) {
    let details = refused(result, "RATE_LIMITED");
    assert_eq!(details["limit"], limit);
    assert_eq!(details["limit_kind"], "max_usage_per_day");
    assert_eq!(result["error"]["retryable"], true);
}

#[tokio::test]
async fn items_past_the_limit_fail_alone_and_the_first_are_done() {
    let kms = TestKms::start().await;
    let key_id = limited(&kms, "Ed25519", 7).await;
    kms.sign(&key_id, b"data").await.ok();
    let before = kms.ledger_size().await;
    let signed = kms.batch("sign", &key_id, messages(10)).await;
    for (place, result) in results(&signed).iter().enumerate() {
        match place {
            0..6 => assert!(result["signature"].is_string(), "{place}: {result}"),
            _ => assert_limited(result, 7),
        }
        let receipt = kms.receipt(&result["receipt_id"]).await;
        assert_eq!(receipt.leaf_index, before + place as u64);
        let said = &receipt.receipt["kms_context"];
        assert_eq!(said["success"], place < 6);
        let code = if place < 6 {
            json!(null)
        } else {
            json!("RATE_LIMITED")
        };
        assert_eq!(said["error_code"], code);
    }
    let late = kms.batch("sign", &key_id, messages(2)).await;
    for result in results(&late) {
        assert_limited(result, 7);
    }
    assert_eq!(late.body["succeeded"], 0);
    assert_eq!(kms.ledger_size().await, before + 12);
    kms.sign(&key_id, b"data")
        .await
        .refused(429, "RATE_LIMITED");
    assert_eq!(kms.details(&key_id).await["usage"]["used"], 7);
}

#[tokio::test]
async fn ciphertexts_that_do_not_open_are_counted_and_the_count_outlives_the_process() {
    let kms = TestKms::start().await;
    let key_id = limited(&kms, "AES-256", 3).await;
    let items = vec![json!({ "ciphertext": "", "iv": base64([0; 12]) }); 2];
    let decrypted = kms.batch("decrypt", &key_id, json!(items)).await;
    for result in results(&decrypted) {
        refused(result, "INVALID_REQUEST");
    }
    let folder = kms.stop().await;
    let kms = TestKms::start_in(folder, &[]).await;
    let items = json!([{ "plaintext": "" }, { "plaintext": "" }]);
    let encrypted = kms.batch("encrypt", &key_id, items).await;
    assert!(results(&encrypted)[0]["ciphertext"].is_string());
    assert_limited(&results(&encrypted)[1], 3);
}

/// Guards the one step of check and count: with two, some round lets more through.
#[tokio::test(flavor = "multi_thread")]
async fn of_batches_and_single_uses_at_once_exactly_as_many_succeed_as_are_left() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let batch_of = |key_id: &str, number: usize| -> RequestBuilder {
        let fields = json!({ "key_id": key_id, "items": messages(number) });
        kms.post_request("/kms/v1/sign/batch", &in_scope(fields))
    };
    let single = |key_id: &str| -> RequestBuilder {
        let fields = json!({ "key_id": key_id, "data": base64("data") });
        kms.post_request("/kms/v1/sign", &in_scope(fields))
    };
    for _ in 0..3 {
        let key_id = limited(&kms, "Ed25519", 200).await;
        let requests = (1..40)
            .map(|number| match number % 2 {
                0 => batch_of(&key_id, number),
                _ => single(&key_id),
            })
            .collect();
        let answers: Vec<Answer> = all_at_once(requests).await;
        let done: u64 = answers
            .iter()
            .map(|answer| match answer.status.as_u16() {
                429 => 0,
                _ => answer.ok()["succeeded"].as_u64().unwrap_or(1),
            })
            .sum();
        assert_eq!(done, 200);
        for answer in answers
            .iter()
            .filter(|answer| answer.body["results"].is_array())
        {
            // The first of each are done, and none after the first that is not.
            let results = results(answer);
            let first_refused = results
                .iter()
                .position(|result| result["error"].is_object());
            for result in &results[first_refused.unwrap_or(results.len())..] {
                assert_limited(result, 200);
            }
        }
        assert_eq!(kms.details(&key_id).await["usage"]["used"], 200);
    }
}

fn alice() -> Approver {
    Approver::new("alice@example.com", 1)
}

#[tokio::test]
async fn one_approval_is_for_one_batch_and_every_receipt_names_it() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let key = service.key(&alice, "Ed25519", true).await;
    let fields = json!({ "key_id": key, "items": messages(3) });
    let path = "/kms/v1/sign/batch";
    let missing = service.post(path, fields.clone(), None).await;
    missing.refused(403, "UNAUTHORIZED");
    let before = service.kms.ledger_size().await;

    let approval = alice.approve_on("key_use", &key);
    let signed = service.post(path, fields.clone(), Some(&approval)).await;
    for result in results(&signed) {
        let receipt = service.kms.receipt(&result["receipt_id"]).await.receipt;
        let approvals = &receipt["kms_context"]["approvals"];
        assert_eq!(approvals.as_array().expect("a list").len(), 1);
        assert_eq!(approvals[0]["approver"], "alice@example.com");
    }
    assert_eq!(service.kms.ledger_size().await, before + 3);
    // Neither for another batch nor for a single use.
    let again = service.post(path, fields, Some(&approval)).await;
    again.refused_approval("was used already");
    let alone = service.sign(&key, Some(&approval)).await;
    alone.refused_approval("was used already");
    assert_eq!(service.kms.ledger_size().await, before + 5);
}

#[tokio::test]
async fn a_batch_in_which_nothing_came_of_it_spends_no_approval_and_one_success_does() {
    let alice = alice();
    let service = SignedKms::start(&[&alice]).await;
    let key = service.key(&alice, "AES-256", true).await;
    let sealing = json!({ "key_id": key, "plaintext": base64("data") });
    let approval = alice.approve_on("key_use", &key);
    let encrypted = service.post("/kms/v1/encrypt", sealing, Some(&approval));
    let encrypted = encrypted.await;
    let good = json!({ "ciphertext": encrypted.ok()["ciphertext"], "iv": encrypted.body["iv"] });
    let bad = json!({ "ciphertext": base64([7; 32]), "iv": base64([7; 12]) });
    let path = "/kms/v1/decrypt/batch";
    let approval = alice.approve_on("key_use", &key);
    let of = |items: Value| json!({ "key_id": key, "items": items });
    for _ in 0..2 {
        let refused_all = service.post(path, of(json!([bad, bad])), Some(&approval));
        let refused_all = refused_all.await;
        for result in results(&refused_all) {
            refused(result, "INVALID_REQUEST");
            let receipt = service.kms.receipt(&result["receipt_id"]).await;
            assert!(!receipt.text.contains("approvals"), "{}", receipt.text);
        }
    }
    let mixed = service.post(path, of(json!([bad, good])), Some(&approval));
    let mixed = mixed.await;
    assert_eq!(mixed.ok()["succeeded"], 1);
    let named = async |place: usize| {
        let receipt_id = &results(&mixed)[place]["receipt_id"];
        let receipt = service.kms.receipt(receipt_id).await;
        receipt.text.contains("alice@example.com")
    };
    assert_eq!((named(0).await, named(1).await), (false, true));
    let again = service.post(path, of(json!([good])), Some(&approval)).await;
    again.refused_approval("was used already");
}
