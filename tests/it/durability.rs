//! What was acknowledged is there after any end of the process, however sudden.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{
    APPROVAL, Answer, KmsProcess, SCOPE_QUERY, all, base64, eventually, in_scope,
};

/// Room for a test that asks as fast as it can.
const UNLIMITED: [(&str, &str); 2] = [
    ("KMS__LIMITS__REQUESTS_PER_SECOND", "100000"),
    ("KMS__LIMITS__BURST", "100000"),
];

/// Callers at once.
const CALLERS: usize = 8;

/// What the service has said that it did.
#[derive(Default)]
struct Acknowledged {
    /// Public keys by id.
    keys: BTreeMap<String, String>,
    receipts: Vec<Receipt>,
}

struct Receipt {
    receipt_id: String,
    operation: &'static str,
    key_id: String,
    request_id: String,
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A number from `from` up to `below` that nobody can foresee.
fn random(from: usize, below: usize) -> usize {
    let number = uuid::Uuid::new_v4().as_u128() % (below - from) as u128;
    from + usize::try_from(number).expect("small")
}

/// Asks once; `None` once the process is gone. The answer and its request id.
async fn ask(request: reqwest::RequestBuilder) -> Option<(u16, Value, String)> {
    let answer = Answer::attempt(request).await?;
    let request_id = answer.headers.get("x-request-id")?;
    let request_id = request_id.to_str().expect("text").to_owned();
    Some((answer.status.as_u16(), answer.body, request_id))
}

fn sign_request(kms: &KmsProcess, key_id: &str) -> reqwest::RequestBuilder {
    let body = in_scope(json!({ "key_id": key_id, "data": base64(key_id) }));
    kms.request(Method::POST, "/kms/v1/sign").json(&body)
}

fn generate_request(kms: &KmsProcess) -> reqwest::RequestBuilder {
    let body = in_scope(json!({
        "key_type": "Ed25519",
        "key_usage": ["sign", "verify"],
        "approval_token": APPROVAL,
    }));
    kms.request(Method::POST, "/kms/v1/keys").json(&body)
}

/// Signs with every key in turn, and makes a new one now and then, until the
/// process is gone.
async fn keep_asking(kms: &KmsProcess, acknowledged: &Mutex<Acknowledged>) {
    for turn in 0usize.. {
        let key_id = {
            let known = acknowledged.lock().expect("no panic");
            let keys = known.keys.keys();
            keys.cycle().nth(turn).cloned().expect("a key")
        };
        if turn % 8 == 7 {
            let Some((status, body, request_id)) = ask(generate_request(kms)).await else {
                return;
            };
            assert_eq!(status, 201, "{body}");
            let key_id = text(&body["key_id"]);
            let mut known = acknowledged.lock().expect("no panic");
            known.receipts.push(Receipt {
                receipt_id: text(&body["receipt_id"]),
                operation: "key_generated",
                key_id: key_id.clone(),
                request_id,
            });
            known.keys.insert(key_id, text(&body["public_key"]));
        } else {
            let Some((status, body, request_id)) = ask(sign_request(kms, &key_id)).await else {
                return;
            };
            assert_eq!(status, 200, "{body}");
            acknowledged
                .lock()
                .expect("no panic")
                .receipts
                .push(Receipt {
                    receipt_id: text(&body["receipt_id"]),
                    operation: "signature_created",
                    key_id,
                    request_id,
                });
        }
    }
}

/// Asks with many callers and kills the process in the middle of it.
async fn ask_until_killed(kms: KmsProcess, acknowledged: &Mutex<Acknowledged>) {
    let count = || acknowledged.lock().expect("no panic").receipts.len();
    let enough = count() + random(20, 150);
    let callers = std::iter::repeat_with(|| keep_asking(&kms, acknowledged)).take(CALLERS);
    let killing = async {
        eventually("enough answers", || async {
            (count() >= enough).then_some(())
        })
        .await;
        kms.signal("KILL");
    };
    tokio::join!(killing, all(callers));
    let (status, output) = kms.wait();
    assert_eq!(status.code(), None, "{output}");
}

/// Looks every receipt up and compares it; the leaf indexes.
async fn check_receipts(kms: &KmsProcess, receipts: &[Receipt]) -> BTreeSet<u64> {
    let mut indexes = BTreeSet::new();
    for known in receipts {
        let path = format!("/kms/v1/receipts/{}", known.receipt_id);
        let found = kms.get_scoped(&path).await;
        let receipt = &found.ok()["receipt"];
        assert_eq!(receipt["receipt_id"], known.receipt_id);
        assert_eq!(receipt["operation"], known.operation);
        assert_eq!(receipt["request_id"], known.request_id);
        assert_eq!(receipt["tenant_id"], "tenant123");
        assert_eq!(receipt["kms_context"]["key_id"], known.key_id);
        assert_eq!(receipt["kms_context"]["success"], true);
        let leaf_index = found.body["leaf_index"].as_u64().expect("a number");
        assert!(indexes.insert(leaf_index), "two receipts at {leaf_index}");
    }
    indexes
}

/// The places of all receipts in the database of a stopped service.
fn places_in(folder: &std::path::Path) -> Vec<u64> {
    let store = Connection::open(folder.join("kms.db")).expect("a database");
    let mut query = store
        .prepare("SELECT seq FROM receipts ORDER BY seq")
        .expect("a query");
    let places = query
        .query_map([], |row| row.get::<_, i64>(0))
        .expect("rows");
    places
        .map(|place| u64::try_from(place.expect("a number")).expect("from 0"))
        .collect()
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let acknowledged = Mutex::new(Acknowledged::default());
    let mut checked = 0;
    let mut indexes = BTreeSet::new();
    for round in 0..=5 {
        let kms = KmsProcess::start(folder.path(), &UNLIMITED);
        {
            let known = std::mem::take(&mut *acknowledged.lock().expect("no panic"));
            let found = check_receipts(&kms, &known.receipts[checked..]).await;
            assert!(indexes.is_disjoint(&found), "a place was given twice");
            indexes.extend(found);
            checked = known.receipts.len();
            for (key_id, public_key) in &known.keys {
                let key = kms.get_scoped(&format!("/kms/v1/keys/{key_id}")).await;
                assert_eq!(key.ok()["public_key"], *public_key);
                assert_eq!(key.body["key_state"], "active");
                let signed = ask(sign_request(&kms, key_id)).await.expect("an answer");
                assert_eq!(signed.0, 200, "{}", signed.1);
            }
            *acknowledged.lock().expect("no panic") = known;
        }
        if round == 5 {
            kms.stop();
            break;
        }
        for _ in 0..3 {
            let made = kms.generate("Ed25519", json!({})).await;
            let mut known = acknowledged.lock().expect("no panic");
            known
                .keys
                .insert(text(&made["key_id"]), text(&made["public_key"]));
        }
        ask_until_killed(kms, &acknowledged).await;
    }
    let places = places_in(folder.path());
    assert!(places.iter().copied().eq(0..places.len() as u64));
    assert!(indexes.last() < places.last());
    assert_eq!(indexes.len(), checked);
}

#[tokio::test]
async fn a_daily_limit_holds_across_a_kill() {
    const LIMIT: usize = 80;
    let folder = tempfile::tempdir().expect("a folder");
    let kms = KmsProcess::start(folder.path(), &UNLIMITED);
    let policy = json!({ "access_policy": { "max_usage_per_day": LIMIT } });
    let made = kms.generate("Ed25519", policy).await;
    let key_id = text(&made["key_id"]);

    let used = Mutex::new(Vec::new());
    let use_up = async |kms: &KmsProcess| {
        while let Some((status, body, _)) = ask(sign_request(kms, &key_id)).await {
            if status == 429 {
                return;
            }
            assert_eq!(status, 200, "{body}");
            let receipt_id = text(&body["receipt_id"]);
            used.lock().expect("no panic").push(receipt_id);
        }
    };
    let enough = random(5, LIMIT - 2 * CALLERS);
    let killing = async {
        eventually("enough uses", || async {
            (used.lock().expect("no panic").len() >= enough).then_some(())
        })
        .await;
        kms.signal("KILL");
    };
    let callers = std::iter::repeat_with(|| use_up(&kms)).take(CALLERS);
    tokio::join!(killing, all(callers));
    kms.wait();

    let kms = KmsProcess::start(folder.path(), &UNLIMITED);
    let callers = std::iter::repeat_with(|| use_up(&kms)).take(CALLERS);
    all(callers).await;
    let used = used.into_inner().expect("no panic");
    // What was under way at the kill may have been counted, and nothing else.
    assert!(used.len() + CALLERS >= LIMIT, "{} of {LIMIT}", used.len());

    let mut days: BTreeMap<String, usize> = BTreeMap::new();
    for receipt_id in &used {
        let found = kms
            .get(&format!("/kms/v1/receipts/{receipt_id}?{SCOPE_QUERY}"))
            .await;
        let ts = text(&found.ok()["receipt"]["ts"]);
        *days.entry(ts[..10].to_owned()).or_default() += 1;
    }
    assert!(days.values().all(|uses| *uses <= LIMIT), "{days:?}");
    kms.stop();
}

/// Everything that can be asked of the keys of the usual scope.
async fn everything(kms: &KmsProcess) -> (Value, Vec<String>) {
    let keys = kms.get_scoped("/kms/v1/keys").await.ok().clone();
    let metrics = kms.get_operations("/kms/v1/metrics").await.text;
    let totals = metrics
        .lines()
        .filter(|line| line.starts_with("kms_keys_total") || line.starts_with("kms_ledger_size"))
        .map(str::to_owned)
        .collect();
    (keys, totals)
}

#[tokio::test]
async fn keys_aliases_and_states_are_the_same_after_a_restart() {
    for end in [|kms: KmsProcess| drop(kms.stop()), KmsProcess::kill] {
        let folder = tempfile::tempdir().expect("a folder");
        let kms = KmsProcess::start(folder.path(), &[]);
        let named = kms
            .generate("Ed25519", json!({ "key_alias": "line" }))
            .await;
        let named = text(&named["key_id"]);
        let rotated = kms
            .post_approved(
                &format!("/kms/v1/keys/{named}/rotate"),
                &in_scope(json!({})),
            )
            .await;
        let successor = text(&rotated.ok()["new_key_id"]);
        let revoked = kms.generate_id("Ed25519").await;
        let reason = in_scope(json!({ "revocation_reason": "compromised" }));
        let revoke = format!("/kms/v1/keys/{revoked}/revoke");
        kms.post_approved(&revoke, &reason).await.ok();
        let cipher = kms.generate_id("AES-256").await;
        let rsa = kms.generate_id("RSA-2048").await;

        let data = base64("kept");
        let body = |key_id: &str| in_scope(json!({ "key_id": key_id, "data": data }));
        let mut signed = Vec::new();
        for key_id in [&successor, &rsa] {
            let answer = kms.post("/kms/v1/sign", &body(key_id)).await;
            signed.push((key_id, answer.ok()["signature"].clone()));
        }
        let encrypted = kms
            .post(
                "/kms/v1/encrypt",
                &in_scope(json!({ "key_id": cipher, "plaintext": data, "aad": base64("aad") })),
            )
            .await;
        let encrypted = encrypted.ok();
        let before = everything(&kms).await;

        end(kms);
        let kms = KmsProcess::start(folder.path(), &[]);
        assert_eq!(everything(&kms).await, before);
        let found = kms.get_scoped("/kms/v1/keys/alias/line").await;
        assert_eq!(found.ok()["key_id"], successor);
        for (key_id, signature) in signed {
            let mut verify = body(key_id);
            verify["signature"] = signature;
            let verified = kms.post("/kms/v1/verify", &verify).await;
            assert_eq!(verified.ok()["valid"], true);
            kms.post("/kms/v1/sign", &body(key_id)).await.ok();
        }
        let decrypted = kms
            .post(
                "/kms/v1/decrypt",
                &in_scope(json!({
                    "key_id": cipher,
                    "ciphertext": encrypted["ciphertext"],
                    "iv": encrypted["iv"],
                    "aad": base64("aad"),
                })),
            )
            .await;
        assert_eq!(decrypted.ok()["plaintext"], data);
        let replaced = kms.post("/kms/v1/sign", &body(&named)).await;
        assert_eq!(
            replaced.refused(409, "KEY_INACTIVE")["successor_key_id"],
            successor
        );
        let gone = kms.post("/kms/v1/sign", &body(&revoked)).await;
        gone.refused(409, "KEY_REVOKED");
        let again = kms.post_approved(&revoke, &reason).await;
        again.refused(409, "KEY_REVOKED");
        kms.stop();
    }
}
