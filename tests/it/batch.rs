//! Batches do what as many single requests would have done, item by item.

mod limits;
mod refusals;

use serde_json::{Value, json};

use crate::support::{Answer, TestKms, base64, field_names, in_scope, text, unbase64, with};

/// The results of a batch that was answered.
#[track_caller]
fn results(answer: &Answer) -> &Vec<Value> {
    let body = answer.ok();
    assert_eq!(
        field_names(body),
        ["algorithm", "failed", "key_id", "results", "succeeded"]
    );
    let results = body["results"].as_array().expect("a list");
    let failed = results.iter().filter(|result| result["error"].is_object());
    assert_eq!(body["failed"], failed.count());
    let succeeded = results.iter().filter(|result| result["error"].is_null());
    assert_eq!(body["succeeded"], succeeded.count());
    results
}

/// Checks that an item was refused with this code, and gives the details.
#[track_caller]
fn refused<'a>(result: &'a Value, code: &str) -> &'a Value {
    assert_eq!(field_names(result), ["error", "receipt_id", "reference"]);
    let error = &result["error"];
    assert_eq!(
        field_names(error),
        ["code", "details", "message", "retryable"]
    );
    assert_eq!(error["code"], code, "{error}");
    &error["details"]
}

/// So many messages to sign, each another.
fn messages(number: usize) -> Value {
    (0..number)
        .map(|number| json!({ "data": base64(format!("message {number}")) }))
        .collect()
}

impl TestKms {
    /// A batch of these items with the key's default.
    async fn batch(&self, operation: &str, key_id: &str, items: Value) -> Answer {
        let fields = json!({ "key_id": key_id, "items": items });
        self.post_scoped(&format!("/kms/v1/{operation}/batch"), fields)
            .await
    }
}

#[tokio::test]
async fn what_a_batch_signed_verifies_alone_and_the_other_way_round() {
    let kms = TestKms::start().await;
    for (key_type, algorithms) in [
        (
            "RSA-2048",
            ["RSA-PSS-SHA256", "RSA-PKCS1v15-SHA256"].as_slice(),
        ),
        ("Ed25519", &["Ed25519"]),
    ] {
        let key_id = kms.generate_id(key_type).await;
        for algorithm in algorithms {
            let choice = json!({ "key_id": key_id, "algorithm": algorithm });
            let batch = with(choice.clone(), json!({ "items": messages(5) }));
            let signed = kms.post_scoped("/kms/v1/sign/batch", batch).await;
            assert_eq!(signed.body["key_id"], key_id.as_str());
            assert_eq!(signed.body["algorithm"], *algorithm);
            assert_eq!(results(&signed).len(), 5);
            let mut items = Vec::new();
            for (place, result) in results(&signed).iter().enumerate() {
                assert_eq!(
                    field_names(result),
                    ["receipt_id", "reference", "signature"]
                );
                let data = base64(format!("message {place}"));
                let item = json!({ "data": data, "signature": result["signature"] });
                let alone = with(choice.clone(), item);
                let verified = kms.post_scoped("/kms/v1/verify", alone).await;
                assert_eq!(verified.ok()["valid"], true);
                let alone = with(choice.clone(), json!({ "data": data }));
                let signed = kms.post_scoped("/kms/v1/sign", alone).await;
                items.push(json!({ "data": data, "signature": signed.ok()["signature"] }));
            }
            items[2]["data"] = json!(base64("another message"));
            let batch = with(choice, json!({ "items": items }));
            let verified = kms.post_scoped("/kms/v1/verify/batch", batch).await;
            for (place, result) in results(&verified).iter().enumerate() {
                assert_eq!(
                    field_names(result),
                    ["receipt_id", "reference", "status", "valid"]
                );
                assert_eq!(result["valid"], place != 2);
                let status = if place == 2 { "failed" } else { "verified" };
                assert_eq!(result["status"], status);
            }
            assert_eq!(verified.body["failed"], 0);
        }
    }
}

#[tokio::test]
async fn what_a_batch_encrypted_decrypts_alone_and_the_other_way_round() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    for algorithm in ["AES-256-GCM", "ChaCha20-Poly1305"] {
        let choice = json!({ "key_id": key_id, "algorithm": algorithm });
        let items: Vec<Value> = (0..4)
            .map(|place| match place {
                0 => json!({ "plaintext": "" }),
                1 => json!({ "plaintext": base64("one"), "aad": base64("row 1") }),
                _ => json!({ "plaintext": base64("two") }),
            })
            .collect();
        let batch = with(choice.clone(), json!({ "items": items }));
        let encrypted = kms.post_scoped("/kms/v1/encrypt/batch", batch).await;
        let mut sealed = Vec::new();
        for (item, result) in items.iter().zip(results(&encrypted)) {
            assert_eq!(
                field_names(result),
                ["ciphertext", "iv", "receipt_id", "reference"]
            );
            assert_eq!(unbase64(&result["iv"]).len(), 12);
            let alone = json!({
                "ciphertext": result["ciphertext"], "iv": result["iv"], "aad": item["aad"],
            });
            let alone = with(choice.clone(), alone);
            let decrypted = kms.post_scoped("/kms/v1/decrypt", alone).await;
            assert_eq!(decrypted.ok()["plaintext"], item["plaintext"]);
            let alone = with(choice.clone(), item.clone());
            let encrypted = kms.post_scoped("/kms/v1/encrypt", alone).await;
            let encrypted = encrypted.ok();
            sealed.push(json!({
                "ciphertext": encrypted["ciphertext"], "iv": encrypted["iv"], "aad": item["aad"],
            }));
        }
        // Equal plaintexts, and never one nonce.
        assert_ne!(results(&encrypted)[2]["iv"], results(&encrypted)[3]["iv"]);
        sealed[2]["aad"] = json!(base64("another row"));
        let batch = with(choice, json!({ "items": sealed }));
        let decrypted = kms.post_scoped("/kms/v1/decrypt/batch", batch).await;
        for (place, result) in results(&decrypted).iter().enumerate() {
            if place == 2 {
                refused(result, "INVALID_REQUEST");
                assert_eq!(result["error"]["retryable"], false);
            } else {
                assert_eq!(
                    field_names(result),
                    ["plaintext", "receipt_id", "reference"]
                );
                assert_eq!(result["plaintext"], items[place]["plaintext"]);
            }
        }
    }
}

#[tokio::test]
async fn a_failure_in_a_batch_says_what_the_single_request_says() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("AES-256").await;
    let item = json!({ "ciphertext": base64([7; 32]), "iv": base64([7; 12]) });
    let batch = kms.batch("decrypt", &key_id, json!([item])).await;
    let alone = with(item, json!({ "key_id": key_id }));
    let alone = kms.post_scoped("/kms/v1/decrypt", alone).await;
    let mut said = alone.body["error"].clone();
    said.as_object_mut()
        .expect("an object")
        .remove("request_id");
    assert_eq!(results(&batch)[0]["error"], said);
}

#[tokio::test]
async fn each_reference_comes_back_with_its_result() {
    let kms = TestKms::start().await;
    let key_id = kms.generate_id("Ed25519").await;
    let longest = "\u{1f511}".repeat(128);
    // Two of one name are the caller's own business.
    let references = [
        json!("row 1"),
        json!(null),
        json!(""),
        json!(longest),
        json!("row 1"),
        json!("\"quoted\" / \\"),
    ];
    let items: Vec<Value> = references
        .iter()
        .map(|reference| json!({ "data": "", "reference": reference }))
        .chain([json!({ "data": "" })])
        .collect();
    let signed = kms.batch("sign", &key_id, json!(items)).await;
    let given_back: Vec<&Value> = results(&signed)
        .iter()
        .map(|result| &result["reference"])
        .collect();
    let wanted: Vec<&Value> = references.iter().chain([&Value::Null]).collect();
    assert_eq!(given_back, wanted);
    let metrics = kms.get("/kms/v1/metrics").await.text;
    assert!(!metrics.contains("row 1"));
    let receipt = kms.receipt(&results(&signed)[0]["receipt_id"]).await;
    assert!(!receipt.text.contains("row 1"), "{}", receipt.text);
}

/// Long enough for the pool and for several turns of everything.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_batch_is_one_write_with_a_receipt_an_item() {
    let kms = TestKms::start().await;
    let ledger_key = kms.verifier_key().await;
    let key_id = kms.generate_id("Ed25519").await;
    let before = kms.checkpoint().await.size();
    let commits = kms.commits().await;
    let signed = kms.batch("sign", &key_id, messages(1_000)).await;
    assert_eq!(kms.commits().await, commits + 1);
    assert_eq!(kms.checkpoint().await.size(), before + 1_000);
    let results = results(&signed);
    assert_eq!(results.len(), 1_000);
    assert_eq!(signed.body["succeeded"], 1_000);
    assert_eq!(kms.details(&key_id).await["usage"]["used"], 1_000);
    let request_id = signed.headers["x-request-id"].to_str().expect("text");
    for place in [0, 1, 9, 10, 500, 999] {
        let receipt_id = &results[place]["receipt_id"];
        let (leaf, leaf_index) = kms.proved(receipt_id, &ledger_key).await;
        assert_eq!(leaf_index, before + place as u64);
        let receipt: Value = serde_json::from_str(&leaf).expect("JSON");
        assert_eq!(receipt["operation"], "signature_created");
        assert_eq!(receipt["request_id"], request_id);
        let said = &receipt["kms_context"];
        assert_eq!(said["key_id"], key_id.as_str());
        assert_eq!(said["algorithm"], "Ed25519");
        assert_eq!(
            (&said["success"], &said["error_code"]),
            (&json!(true), &json!(null))
        );
        let data = format!("message {place}");
        let verified = kms
            .verify(&key_id, data.as_bytes(), &results[place]["signature"])
            .await;
        assert_eq!(verified.ok()["valid"], true);
    }
    let metrics = kms.get("/kms/v1/metrics").await.text;
    for series in [
        r#"kms_key_usage_total{key_type="Ed25519",operation="sign"} 1000"#,
        r#"kms_requests_total{operation="sign_batch",status="200"} 1"#,
        r#"kms_hsm_operation_latency_ms_count{operation="sign_batch"} 1"#,
    ] {
        assert!(metrics.contains(series), "{series}");
    }
}

impl TestKms {
    /// How many durable writes of receipts there were.
    async fn commits(&self) -> u64 {
        let metrics = self.get("/kms/v1/metrics").await.text;
        let counted = metrics
            .lines()
            .find_map(|line| line.strip_prefix("kms_ledger_commit_latency_ms_count "));
        counted.map_or(0, |count| count.parse().expect("a number"))
    }
}

#[tokio::test]
async fn the_receipt_of_each_item_says_how_it_went() {
    let kms = TestKms::start().await;
    let pair = kms.generate_id("Ed25519").await;
    let signed = kms.sign(&pair, b"data").await;
    let signature = &signed.ok()["signature"];
    let good = json!({ "data": base64("data"), "signature": signature });
    let wrong = json!({ "data": base64("other"), "signature": signature });
    let verified = kms.batch("verify", &pair, json!([good, wrong])).await;

    let secret = kms.generate_id("AES-256").await;
    let encrypted = kms.encrypt(&secret, b"data").await;
    let good = json!({ "ciphertext": encrypted.ok()["ciphertext"], "iv": encrypted.body["iv"] });
    let wrong = with(good.clone(), json!({ "iv": base64([0; 12]) }));
    let decrypted = kms.batch("decrypt", &secret, json!([good, wrong])).await;

    for (answer, operation, expected) in [
        (
            &verified,
            "signature_verified",
            [json!([true, null]), json!([false, null])],
        ),
        (
            &decrypted,
            "decrypt",
            [json!([true, null]), json!([false, "INVALID_REQUEST"])],
        ),
    ] {
        for (result, expected) in results(answer).iter().zip(expected) {
            let receipt = kms.receipt(&result["receipt_id"]).await.receipt;
            assert_eq!(receipt["operation"], operation);
            let said = &receipt["kms_context"];
            assert_eq!(json!([said["success"], said["error_code"]]), expected);
        }
    }
    // What was wrong has used the key as well.
    assert_eq!(kms.details(&pair).await["usage"]["used"], 3);
    assert_eq!(kms.details(&secret).await["usage"]["used"], 3);
}

#[tokio::test]
async fn an_alias_names_the_key_of_a_batch_too() {
    let kms = TestKms::start().await;
    let made = kms
        .generate("Ed25519", json!({ "key_alias": "rows" }))
        .await;
    let signed = kms.batch("sign", "alias/rows", messages(2)).await;
    assert_eq!(results(&signed).len(), 2);
    assert_eq!(signed.body["key_id"], made["key_id"]);
    let receipt = kms
        .receipt(&results(&signed)[1]["receipt_id"])
        .await
        .receipt;
    let key_id = text(&made["key_id"]);
    assert_eq!(receipt["kms_context"]["key_id"], key_id);
    // Not before anybody asks for it by the request's own scope.
    let elsewhere = with(in_scope(json!({})), json!({ "plane": "shared" }));
    let fields = json!({ "key_id": "alias/rows", "items": messages(1) });
    let foreign = kms
        .post("/kms/v1/sign/batch", &with(elsewhere, fields))
        .await;
    foreign.refused(404, "KEY_NOT_FOUND");
}
