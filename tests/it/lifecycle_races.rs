//! However requests overlap, a key has one history.

use serde_json::{Value, json};

use crate::support::{Answer, TestKms, UNTHROTTLED, all_at_once, base64, in_scope, text};

const ROUNDS: usize = 20;

async fn active_keys_of(kms: &TestKms, alias: &str) -> Vec<Value> {
    let path = format!("/kms/v1/keys?alias={alias}&key_state=active");
    let listed = kms.get_scoped(&path).await;
    listed.ok()["keys"].as_array().expect("a list").clone()
}

/// Guards the check of the key's version in the transaction: without it both
/// rotations would succeed and the line would have two heads.
#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_at_once_leave_one_successor() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    for round in 0..ROUNDS {
        let alias = format!("line-{round}");
        let made = kms.generate("Ed25519", json!({ "key_alias": alias })).await;
        let key_id = text(&made["key_id"]);
        let (one, other) = tokio::join!(kms.rotate(key_id), kms.rotate(key_id));
        let (won, lost) = match one.status.as_u16() {
            200 => (one, other),
            _ => (other, one),
        };
        let successor = &won.ok()["new_key_id"];
        let details = lost.refused(409, "KEY_INACTIVE");
        assert_eq!(details["key_state"], "pending_rotation");
        assert_eq!(&details["successor_key_id"], successor);

        let active = active_keys_of(&kms, &alias).await;
        assert_eq!(active.len(), 1);
        assert_eq!(&active[0]["key_id"], successor);
        assert_eq!(active[0]["rotation_count"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_and_a_revocation_at_once_happen_in_one_order_or_the_other() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    for round in 0..ROUNDS {
        let alias = format!("line-{round}");
        let made = kms.generate("Ed25519", json!({ "key_alias": alias })).await;
        let key_id = text(&made["key_id"]);
        let (rotated, revoked) = tokio::join!(kms.rotate(key_id), kms.revoke(key_id));
        revoked.ok();
        let details = kms.details(key_id).await;
        assert_eq!(details["key_state"], "destroyed");
        let active = active_keys_of(&kms, &alias).await;
        if rotated.status == 200 {
            assert_eq!(active.len(), 1);
            assert_eq!(active[0]["key_id"], rotated.body["new_key_id"]);
            assert_eq!(details["successor_key_id"], rotated.body["new_key_id"]);
        } else {
            rotated.refused(409, "KEY_REVOKED");
            assert!(active.is_empty());
            assert_eq!(details["successor_key_id"], Value::Null);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_revocations_at_once_one_succeeds() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    for _ in 0..ROUNDS {
        let key_id = kms.generate_id("Ed25519").await;
        let requests = (0..4).map(|_| kms.revoke_request(&key_id)).collect();
        let answers = all_at_once(requests).await;
        let (done, refused): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.status == 200);
        assert_eq!(done.len(), 1);
        for answer in refused {
            answer.refused(409, "KEY_REVOKED");
        }
    }
}

/// The answers of signatures that were asked for at the same time as a revocation,
/// and the revocation's.
async fn signatures_and_a_revocation(kms: &TestKms) -> (Vec<Answer>, Answer) {
    let key_id = kms.generate_id("Ed25519").await;
    let body = in_scope(json!({ "key_id": key_id, "data": base64("data") }));
    let mut requests: Vec<_> = (0..24)
        .map(|_| kms.post_request("/kms/v1/sign", &body))
        .collect();
    requests.insert(12, kms.revoke_request(&key_id));
    let mut answers = all_at_once(requests).await;
    let revoked = answers.remove(12);
    revoked.ok();
    let late = kms.sign(&key_id, b"data").await;
    late.refused(409, "KEY_REVOKED");
    (answers, revoked)
}

/// Guards the same check for uses: a signature that was made before the
/// revocation and kept after it would stand behind it in the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn no_signature_stands_behind_the_revocation_of_its_key() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    let mut signed_before = 0;
    for _ in 0..ROUNDS {
        let (answers, revoked) = signatures_and_a_revocation(&kms).await;
        let revocation = kms.receipt(&revoked.body["receipt_id"]).await;
        assert_eq!(revocation.receipt["operation"], "key_revoked");
        for answer in answers.iter().filter(|answer| answer.status == 200) {
            let signature = kms.receipt(&answer.body["receipt_id"]).await;
            assert_eq!(signature.receipt["kms_context"]["success"], true);
            assert!(signature.leaf_index < revocation.leaf_index);
            signed_before += 1;
        }
    }
    assert!(signed_before > 0, "no signature ever came before");
}

/// Guards the way out for a use whose key was erased under its hands: that is the
/// caller's business, and no fault of the service.
#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_a_revocation_overtakes_is_refused_for_it() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    for _ in 0..ROUNDS {
        let (answers, _) = signatures_and_a_revocation(&kms).await;
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.refused(409, "KEY_REVOKED");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_keys_for_one_alias_at_once_one_is_made() {
    let kms = TestKms::start_with(&UNTHROTTLED).await;
    for round in 0..ROUNDS {
        let alias = format!("line-{round}");
        let body = in_scope(json!({
            "key_type": "Ed25519", "key_usage": "sign", "key_alias": alias,
            "approval_token": crate::support::APPROVAL,
        }));
        let requests = (0..4)
            .map(|_| kms.post_request("/kms/v1/keys", &body))
            .collect();
        let answers = all_at_once(requests).await;
        let (made, refused): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(made.len(), 1);
        for answer in refused {
            answer.refused_fields(&["key_alias"]);
        }
        assert_eq!(active_keys_of(&kms, &alias).await.len(), 1);
    }
}
