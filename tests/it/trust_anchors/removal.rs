//! Trust anchors are listed, and removed for good.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{add, added, request, root};
use crate::support::{
    APPROVAL, Answer, SCOPE_QUERY, TestKms, UNKNOWN, field_names, leaves, text, with, without,
};

/// The path of an anchor, with the usual scope.
fn path_of(trust_anchor_id: &Value) -> String {
    let id = text(trust_anchor_id);
    format!("/kms/v1/trust-anchors/{id}?{SCOPE_QUERY}")
}

async fn remove(kms: &TestKms, trust_anchor_id: &Value) -> Answer {
    let request = kms.request(Method::DELETE, &path_of(trust_anchor_id));
    Answer::of(request).await
}

/// The anchors of a page, and where the next one begins.
async fn page(kms: &TestKms, query: &str) -> (Vec<Value>, Value) {
    let path = format!("/kms/v1/trust-anchors?{query}");
    let answer = kms.get(&path).await;
    let body = answer.ok();
    assert_eq!(field_names(body), ["next_cursor", "trust_anchors"]);
    let anchors = body["trust_anchors"].as_array().expect("a list");
    (anchors.clone(), body["next_cursor"].clone())
}

/// Checks that a receipt was signed at once after something happened.
#[track_caller]
fn assert_just_before(happened: &Value, signed: &Value) {
    let instant = |value| text(value).parse::<Timestamp>().expect("an instant");
    let passed = instant(happened).duration_until(instant(signed));
    assert!((0..60).contains(&passed.as_secs()), "{happened} {signed}");
}

#[tokio::test]
async fn an_anchor_is_listed_with_what_it_is() {
    let kms = TestKms::start().await;
    let certificate = root();
    let body = request(certificate.der(), "internal_ca");
    let answer = kms.post_as("M32", "/kms/v1/trust-anchors", &body).await;
    let anchor = added(&answer);
    let (anchors, next) = page(&kms, SCOPE_QUERY).await;
    let [listed] = anchors.as_slice() else {
        panic!("one anchor, and not {anchors:?}");
    };
    let receipt = kms.receipt(&anchor["receipt_id"]).await.receipt;
    assert_just_before(&listed["added_at"], &receipt["ts"]);
    assert_eq!(
        without(listed.clone(), "added_at"),
        json!({
            "trust_anchor_id": anchor["trust_anchor_id"],
            "tenant_id": "tenant123",
            "environment": "prod",
            "plane": "laptop",
            "anchor_type": "internal_ca",
            "fingerprint": anchor["fingerprint"],
            "subject": anchor["subject"],
            "not_before": "2020-01-01T00:00:00.000000Z",
            "not_after": anchor["not_after"],
            "added_by": "M32",
        })
    );
    assert_eq!(next, Value::Null);
}

#[tokio::test]
async fn anchors_come_in_pages_oldest_first_and_each_once() {
    let kms = TestKms::start().await;
    let mut wanted = Vec::new();
    for _ in 0..5 {
        let answer = add(&kms, &request(root().der(), "root")).await;
        wanted.push(added(&answer)["trust_anchor_id"].clone());
        let foreign = request(root().der(), "root");
        let foreign = with(foreign, json!({ "tenant_id": "tenant124" }));
        added(&add(&kms, &foreign).await);
    }
    let size = kms.ledger_size().await;
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    let mut query = format!("{SCOPE_QUERY}&limit=2");
    loop {
        let (anchors, next) = page(&kms, &query).await;
        sizes.push(anchors.len());
        found.extend(anchors.iter().map(|one| one["trust_anchor_id"].clone()));
        let Some(next) = next.as_str() else { break };
        query = format!("{SCOPE_QUERY}&limit=2&cursor={next}");
    }
    assert_eq!((sizes, found), (vec![2, 2, 1], wanted));
    assert_eq!(kms.ledger_size().await, size, "a list leaves no receipt");

    for (field, wrong) in [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "many"),
        ("cursor", "zz"),
        ("cursor", UNKNOWN),
    ] {
        let path = format!("/kms/v1/trust-anchors?{SCOPE_QUERY}&{field}={wrong}");
        kms.get(&path).await.refused_fields(&[field]);
    }
    let filter = format!("/kms/v1/trust-anchors?{SCOPE_QUERY}&key_type=Ed25519");
    kms.get(&filter).await.refused_fields(&["key_type"]);
    let answer = kms.get("/kms/v1/trust-anchors").await;
    answer.refused_fields(&["tenant_id", "environment", "plane"]);
}

#[tokio::test]
async fn a_removed_anchor_is_gone_for_good_and_may_come_back_as_another() {
    let kms = TestKms::start().await;
    let (certificate, other) = (root(), root());
    let body = request(certificate.der(), "root");
    let first = added(&add(&kms, &body).await).clone();
    let stays = added(&add(&kms, &request(other.der(), "root")).await).clone();
    let removed = remove(&kms, &first["trust_anchor_id"]).await;
    let removed = removed.ok();
    assert_eq!(
        field_names(removed),
        ["receipt_id", "removed_at", "trust_anchor_id"]
    );
    assert_eq!(removed["trust_anchor_id"], first["trust_anchor_id"]);
    let receipt = kms.receipt(&removed["receipt_id"]).await.receipt;
    assert_just_before(&removed["removed_at"], &receipt["ts"]);

    let again = remove(&kms, &first["trust_anchor_id"]).await;
    again.refused(404, "INVALID_REQUEST");
    let kms = TestKms::start_in(kms.stop().await, &[]).await;
    let (anchors, _) = page(&kms, SCOPE_QUERY).await;
    assert_eq!(anchors.len(), 1);
    assert_eq!(anchors[0]["trust_anchor_id"], stays["trust_anchor_id"]);

    let second = added(&add(&kms, &body).await).clone();
    assert_ne!(second["trust_anchor_id"], first["trust_anchor_id"]);
    assert_eq!(second["fingerprint"], first["fingerprint"]);
    remove(&kms, &second["trust_anchor_id"]).await.ok();
}

#[tokio::test]
async fn a_removal_and_its_refusals_leave_receipts() {
    let kms = TestKms::start().await;
    let anchor = added(&add(&kms, &request(root().der(), "root")).await).clone();
    let removed = remove(&kms, &anchor["trust_anchor_id"]).await;
    let receipt = kms.receipt(&removed.ok()["receipt_id"]).await.receipt;
    assert_eq!(receipt["operation"], "trust_anchor_updated");
    let mut expected = json!({
        "key_id": anchor["trust_anchor_id"],
        "operation_type": "trust_anchor_remove",
        "algorithm": null,
        "key_size_bits": null,
        "success": true,
        "error_code": null,
    });
    assert_eq!(receipt["kms_context"], expected);

    let again = remove(&kms, &anchor["trust_anchor_id"]).await;
    again.refused(404, "INVALID_REQUEST");
    let folder = kms.stop().await;
    let leaves = leaves(folder.path());
    let refusal: Value = serde_json::from_str(&leaves[2]).expect("JSON");
    expected["success"] = json!(false);
    expected["error_code"] = json!("INVALID_REQUEST");
    assert_eq!(refusal["kms_context"], expected);
    assert_eq!(leaves.len(), 3);
}

#[tokio::test]
async fn an_anchor_of_another_compartment_answers_like_none() {
    let kms = TestKms::start().await;
    let anchor = added(&add(&kms, &request(root().der(), "root")).await).clone();
    let id = text(&anchor["trust_anchor_id"]);
    let mut answers = Vec::new();
    for (id, query) in [
        (UNKNOWN, SCOPE_QUERY),
        (id, "tenant_id=tenant124&environment=prod&plane=laptop"),
        (id, "tenant_id=tenant123&environment=dev&plane=laptop"),
        (id, "tenant_id=tenant123&environment=prod&plane=shared"),
        (id, "tenant_id=GLOBAL&environment=prod&plane=laptop"),
    ] {
        let path = format!("/kms/v1/trust-anchors/{id}?{query}");
        let answer = Answer::of(kms.request(Method::DELETE, &path)).await;
        answer.refused(404, "INVALID_REQUEST");
        let error = without(answer.body["error"].clone(), "request_id");
        answers.push((answer.status, error));
        if query != SCOPE_QUERY {
            assert_eq!(page(&kms, query).await.0, Vec::<Value>::new());
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(page(&kms, SCOPE_QUERY).await.0.len(), 1);
}

#[tokio::test]
async fn a_malformed_removal_is_refused_by_name_and_leaves_no_receipt() {
    let kms = TestKms::start().await;
    let delete = async |path: &str| Answer::of(kms.request(Method::DELETE, path)).await;
    for malformed in ["anchor-1", "alias%2Froot", "%FF", &UNKNOWN.replace('-', "")] {
        let path = format!("/kms/v1/trust-anchors/{malformed}?{SCOPE_QUERY}");
        delete(&path).await.refused_fields(&["trust_anchor_id"]);
    }
    let path = format!("/kms/v1/trust-anchors/{UNKNOWN}");
    let answer = delete(&path).await;
    answer.refused_fields(&["tenant_id", "environment", "plane"]);
    let answer = delete(&format!("{path}?{SCOPE_QUERY}&approval_token=1234567890")).await;
    answer.refused_fields(&["approval_token"]);
    let request = kms.request(Method::DELETE, &format!("{path}?{SCOPE_QUERY}"));
    let twice = request
        .header("X-Approval-Token", APPROVAL)
        .header("X-Approval-Token", APPROVAL);
    Answer::of(twice).await.refused_fields(&["approval_token"]);
    assert_eq!(kms.ledger_size().await, 0);
}

#[tokio::test]
async fn a_second_person_is_asked_for_a_removal_too() {
    let settings = [("KMS__APPROVALS__OPERATIONS", "trust_anchor")];
    let kms = TestKms::start_with(&settings).await;
    let body = request(root().der(), "root");
    let answer = kms.post_approved("/kms/v1/trust-anchors", &body).await;
    let id = added(&answer)["trust_anchor_id"].clone();
    let approved = |token: &str| {
        kms.request(Method::DELETE, &path_of(&id))
            .header("X-Approval-Token", token)
    };
    remove(&kms, &id).await.refused(403, "UNAUTHORIZED");
    let short = Answer::of(approved("123456789")).await;
    short.refused(403, "UNAUTHORIZED");
    assert_eq!(page(&kms, SCOPE_QUERY).await.0.len(), 1);
    Answer::of(approved(APPROVAL)).await.ok();
    assert_eq!(page(&kms, SCOPE_QUERY).await.0.len(), 0);
}

#[tokio::test]
async fn the_metrics_name_the_steps_of_an_anchor() {
    let kms = TestKms::start().await;
    let anchor = added(&add(&kms, &request(root().der(), "root")).await).clone();
    page(&kms, SCOPE_QUERY).await;
    remove(&kms, &anchor["trust_anchor_id"]).await.ok();
    let metrics = kms.get("/kms/v1/metrics").await.text;
    for (operation, status) in [
        ("add_trust_anchor", 201),
        ("list_trust_anchors", 200),
        ("remove_trust_anchor", 200),
    ] {
        let line = format!(r#"kms_requests_total{{operation="{operation}",status="{status}"}} 1"#);
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}
