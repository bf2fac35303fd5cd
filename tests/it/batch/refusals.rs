//! What concerns a batch as a whole refuses all of it, as the single request is
//! refused, with one receipt; what is malformed leaves none.

use reqwest::Method;
use serde_json::{Value, json};

use super::messages;
use crate::support::{
    APPROVAL, Answer, FaultyDisk, KmsProcess, TestKms, UNKNOWN, UNTHROTTLED, base64, eventually,
    in_scope, text, with,
};

/// Each operation with an item that reads well.
fn operations() -> [(&'static str, Value); 4] {
    let nonce = base64([0; 12]);
    [
        ("sign", json!({ "data": "" })),
        ("verify", json!({ "data": "", "signature": "" })),
        ("encrypt", json!({ "plaintext": "" })),
        ("decrypt", json!({ "ciphertext": "", "iv": nonce })),
    ]
}

/// Asks for the same as a batch of three and alone, and checks that both are refused
/// in the same words, each with one receipt.
async fn refused_alike(
    kms: &TestKms,
    module: &str,
    choice: &Value,
    (operation, item): &(&str, Value),
    (status, code): (u16, &str),
) {
    let batch = with(choice.clone(), json!({ "items": [item, item, item] }));
    let alone = with(choice.clone(), item.clone());
    let mut said = Vec::new();
    for (path, fields) in [
        (format!("/kms/v1/{operation}/batch"), batch),
        (format!("/kms/v1/{operation}"), alone),
    ] {
        let before = kms.ledger_size().await;
        let answer = kms.post_as(module, &path, &in_scope(fields)).await;
        answer.refused(status, code);
        assert_eq!(kms.ledger_size().await, before + 1, "{path}");
        let newest = kms.get_scoped("/kms/v1/receipts?limit=1000").await;
        let newest = newest.ok()["receipts"]
            .as_array()
            .and_then(|all| all.last());
        let receipt = newest.expect("a receipt")["receipt"].clone();
        let mut error = answer.body["error"].clone();
        error
            .as_object_mut()
            .expect("an object")
            .remove("request_id");
        said.push((
            error,
            receipt["operation"].clone(),
            receipt["kms_context"].clone(),
        ));
    }
    assert_eq!(said[0], said[1], "{operation}");
}

#[tokio::test]
async fn a_batch_is_refused_as_the_single_request_is() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let pair = kms.generate_id("Ed25519").await;
    let secret = kms.generate_id("AES-256").await;
    let key_of = |operation: &str| match operation {
        "sign" | "verify" => json!({ "key_id": pair }),
        _ => json!({ "key_id": secret }),
    };
    for operation in &operations() {
        let own = key_of(operation.0);
        let refused = async |module: &str, choice: &Value, wanted| {
            refused_alike(&kms, module, choice, operation, wanted).await;
        };
        let unknown = json!({ "key_id": UNKNOWN });
        refused("M21", &unknown, (404, "KEY_NOT_FOUND")).await;
        let elsewhere = with(own.clone(), json!({ "tenant_id": "other" }));
        let answer = kms
            .post(
                &format!("/kms/v1/{}/batch", operation.0),
                &in_scope(with(elsewhere, json!({ "items": [operation.1] }))),
            )
            .await;
        answer.refused(404, "KEY_NOT_FOUND");
        refused("M99", &own, (403, "POLICY_VIOLATION")).await;
        let other = key_of(if own == key_of("sign") {
            "encrypt"
        } else {
            "sign"
        });
        refused("M21", &other, (403, "POLICY_VIOLATION")).await;
        let guarded = json!({ "access_policy": { "requires_approval": true } });
        let key_type = if own == key_of("sign") {
            "Ed25519"
        } else {
            "AES-256"
        };
        let guarded = kms.generate(key_type, guarded).await;
        let guarded = json!({ "key_id": guarded["key_id"] });
        refused("M21", &guarded, (403, "UNAUTHORIZED")).await;
    }
    let algorithm = json!({ "key_id": pair, "algorithm": "RS256" });
    let signing = &operations()[0];
    refused_alike(&kms, "M21", &algorithm, signing, (400, "INVALID_REQUEST")).await;
    let rotated = kms.rotate(&pair).await;
    rotated.ok();
    let old = json!({ "key_id": pair });
    refused_alike(&kms, "M21", &old, signing, (409, "KEY_INACTIVE")).await;
    kms.revoke(&pair).await.ok();
    kms.revoke(&secret).await.ok();
    for operation in &operations() {
        let own = key_of(operation.0);
        refused_alike(&kms, "M21", &own, operation, (409, "KEY_REVOKED")).await;
    }
}

#[tokio::test]
async fn a_malformed_batch_is_named_by_path_and_leaves_no_receipt() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let pair = kms.generate_id("Ed25519").await;
    let before = kms.ledger_size().await;
    let good = json!({ "data": "" });
    for (items, named) in [
        (json!(null), ["items"].as_slice()),
        (json!("data"), &["items"]),
        (good.clone(), &["items"]),
        (json!([]), &["items"]),
        (json!(vec![&good; 1_001]), &["items"]),
        (json!([good, 7]), &["items[1]"]),
        (json!([null]), &["items[0]"]),
        // A list of the fields in their order is no object.
        (json!([[null, ""]]), &["items[0]"]),
        (json!([good, {}]), &["items[1].data"]),
        (json!([{ "data": "" , "aad": "" }]), &["items[0].aad"]),
        (
            json!([good, good, good, { "data": "=" }]),
            &["items[3].data"],
        ),
        (
            json!([{ "data": "", "key_id": pair }]),
            &["items[0].key_id"],
        ),
        (
            json!([{ "data": "", "reference": 7 }]),
            &["items[0].reference"],
        ),
        (
            json!([{ "data": "", "reference": "x".repeat(129) }, { "reference": "a\tb" }]),
            &["items[0].reference", "items[1].reference", "items[1].data"],
        ),
    ] {
        let answer = kms.batch("sign", &pair, items).await;
        answer.refused_fields(named);
    }
    let missing = kms.post_scoped("/kms/v1/sign/batch", json!({ "key_id": pair }));
    missing.await.refused_fields(&["items"]);
    let both = json!({ "key_id": 7, "items": [{}], "datum": "" });
    let both = kms.post_scoped("/kms/v1/sign/batch", both).await;
    both.refused_fields(&["key_id", "items[0].data", "datum"]);
    for (operation, item) in operations() {
        for field in item.as_object().expect("an object").keys() {
            let wrong = with(item.clone(), json!({ field: 7 }));
            let answer = kms.batch(operation, &pair, json!([item, wrong])).await;
            answer.refused_fields(&[&format!("items[1].{field}")]);
        }
    }
    let twice = format!(
        r#"{{"tenant_id":"tenant123","environment":"prod","plane":"laptop","key_id":"{pair}","items":[{{"data":""}},{{"data":"","data":""}}]}}"#
    );
    let request = kms.request(Method::POST, "/kms/v1/sign/batch");
    let request = request
        .header("Content-Type", "application/json")
        .body(twice);
    Answer::of(request).await.refused_fields(&["items[1].data"]);
    assert_eq!(kms.ledger_size().await, before);
    assert_eq!(kms.details(&pair).await["usage"]["used"], 0);
}

#[tokio::test]
async fn an_approval_comes_once_with_a_batch_too() {
    let kms = TestKms::start().await;
    let guarded = json!({ "access_policy": { "requires_approval": true } });
    let made = kms.generate("Ed25519", guarded).await;
    let fields = json!({
        "key_id": made["key_id"], "items": messages(2), "approval_token": APPROVAL,
    });
    let path = "/kms/v1/sign/batch";
    kms.post_scoped(path, fields.clone()).await.ok();
    let twice = kms.post_approved(path, &in_scope(fields)).await;
    twice.refused_fields(&["approval_token"]);
}

#[tokio::test]
async fn a_batch_is_bounded_by_its_bytes_as_any_body_is() {
    let kms = TestKms::start_with(&[("KMS__SERVER__MAX_BODY_BYTES", "4096")]).await;
    let pair = kms.generate_id("Ed25519").await;
    kms.batch("sign", &pair, messages(50)).await.ok();
    let too_large = kms.batch("sign", &pair, messages(500)).await;
    let details = too_large.refused(413, "INVALID_REQUEST");
    assert_eq!(details["limit_bytes"], 4096);
    assert_eq!(kms.details(&pair).await["usage"]["used"], 50);
}

/// The caller's one allowance is for requests, and batches are in their operation's.
#[tokio::test]
async fn a_batch_counts_in_the_rate_of_its_operation() {
    let kms = TestKms::start_with(&[
        ("KMS__LIMITS__GROUPS__SIGN__REQUESTS_PER_SECOND", "1"),
        ("KMS__LIMITS__GROUPS__SIGN__BURST", "2"),
    ])
    .await;
    let made = kms.generate("Ed25519", json!({})).await;
    let pair = text(&made["key_id"]);
    let signed = kms.batch("sign", pair, messages(20)).await;
    assert_eq!(signed.headers["ratelimit-limit"], "2");
    assert_eq!(signed.headers["ratelimit-remaining"], "1");
    signed.ok();
    let item = json!([{ "data": "", "signature": "" }]);
    let verified = kms.batch("verify", pair, item).await;
    assert_eq!(verified.headers["ratelimit-limit"], "500");
}

#[tokio::test]
async fn while_the_store_is_away_nothing_of_a_batch_is_given_out_or_counted() {
    let disk = FaultyDisk::new();
    let kms = KmsProcess::start(disk.folder(), &disk.settings());
    let key_id = kms.generate_id("Ed25519").await;
    let body = in_scope(json!({ "key_id": key_id, "items": messages(50) }));
    let sign = async || kms.post("/kms/v1/sign/batch", &body).await;
    sign().await.ok();
    disk.fail("write EIO");
    let away = sign().await;
    let details = away.refused(503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(details["dependency"], "ledger");
    disk.heal();
    eventually("a batch after the fault", async || {
        (sign().await.status == 200).then_some(())
    })
    .await;
    let details = kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await;
    assert_eq!(details.ok()["usage"]["used"], 100);
    kms.stop();
}
