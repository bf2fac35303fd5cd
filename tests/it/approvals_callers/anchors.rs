//! An anchor decides who counts as a tenant's module, so a second person agrees
//! to its coming and its going, and the platform's anchors are the platform's.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Desk, alice, made};
use crate::support::{Answer, Approver, SCOPE_QUERY, TestAuthority, base64, in_tenant, text, with};

fn fingerprint(authority: &TestAuthority) -> String {
    let digest = Sha256::digest(authority.der());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An approval of this operation on this authority, in the usual scope where the
/// changes say nothing else.
fn approve(
    approver: &Approver,
    operation: &str,
    authority: &TestAuthority,
    changes: Value,
) -> String {
    let subject = json!({ "operation": operation, "fingerprint": fingerprint(authority) });
    approver.approve(with(subject, changes))
}

impl Desk {
    async fn add(
        &self,
        caller: &Client,
        tenant: &str,
        authority: &TestAuthority,
        approval: Option<&str>,
    ) -> Answer {
        let fields = json!({
            "certificate": base64(authority.der()), "anchor_type": "internal_ca",
        });
        let mut request = self
            .kms
            .request_over(caller, Method::POST, "/kms/v1/trust-anchors")
            .json(&in_tenant(tenant, fields));
        if let Some(approval) = approval {
            request = request.header("X-Approval-Token", approval);
        }
        Answer::of(request).await
    }

    async fn remove(
        &self,
        caller: &Client,
        tenant: &str,
        anchor: &Value,
        approval: Option<&str>,
    ) -> Answer {
        let id = text(&anchor["trust_anchor_id"]);
        let scope = SCOPE_QUERY.replace("tenant123", tenant);
        let path = format!("/kms/v1/trust-anchors/{id}?{scope}");
        let mut request = self.kms.request_over(caller, Method::DELETE, &path);
        if let Some(approval) = approval {
            request = request.header("X-Approval-Token", approval);
        }
        Answer::of(request).await
    }
}

#[tokio::test]
async fn an_approval_lets_one_certificate_be_taken_in_once() {
    let alice = alice();
    let desk = Desk::start(&[&alice]).await;
    let m32 = desk.caller("tenant123", "M32");
    let (one, other) = (TestAuthority::new("one"), TestAuthority::new("other"));
    let add = async |authority: &TestAuthority, approval: Option<&str>| {
        desk.add(&m32, "tenant123", authority, approval).await
    };

    let without = add(&one, None).await;
    without.refused_approval("needs an approval");
    let approval = approve(&alice, "trust_anchor_add", &one, json!({}));
    let refused = add(&other, Some(&approval)).await;
    refused.refused_approval("for another fingerprint");
    for operation in ["trust_anchor_remove", "key_generate"] {
        let approval = approve(&alice, operation, &one, json!({}));
        let refused = add(&one, Some(&approval)).await;
        refused.refused_approval("for another operation");
    }
    let upper = json!({ "fingerprint": fingerprint(&one).to_uppercase() });
    let upper = approve(&alice, "trust_anchor_add", &one, upper);
    let refused = add(&one, Some(&upper)).await;
    refused.refused_approval("for another fingerprint");
    assert!(
        !desk
            .kms
            .lets_in(&desk.pki, &one.client("tenant123", "M27"))
            .await
    );

    let answer = add(&one, Some(&approval)).await;
    let receipt_id = &made(&answer)["receipt_id"];
    let receipt = desk.kms.receipt(receipt_id).await.receipt;
    assert_eq!(receipt["requesting_module"], "M32");
    let approver = &receipt["kms_context"]["approvals"][0]["approver"];
    assert_eq!(approver, "alice@example.com");
    let again = add(&one, Some(&approval)).await;
    again.refused_approval("was used already");
    assert!(
        desk.kms
            .lets_in(&desk.pki, &one.client("tenant123", "M27"))
            .await
    );
}

#[tokio::test]
async fn an_approval_lets_one_certificate_be_removed_once() {
    let alice = alice();
    let desk = Desk::start(&[&alice]).await;
    let m32 = desk.caller("tenant123", "M32");
    let (one, other) = (TestAuthority::new("one"), TestAuthority::new("other"));
    let add = async |authority| {
        let approval = approve(&alice, "trust_anchor_add", authority, json!({}));
        let answer = desk
            .add(&m32, "tenant123", authority, Some(&approval))
            .await;
        made(&answer).clone()
    };
    let (anchor, others) = (add(&one).await, add(&other).await);
    let remove = async |anchor: &Value, approval: Option<&str>| {
        desk.remove(&m32, "tenant123", anchor, approval).await
    };

    let without = remove(&anchor, None).await;
    without.refused_approval("needs an approval");
    let adding = approve(&alice, "trust_anchor_add", &one, json!({}));
    let refused = remove(&anchor, Some(&adding)).await;
    refused.refused_approval("for another operation");
    let approval = approve(&alice, "trust_anchor_remove", &one, json!({}));
    let refused = remove(&others, Some(&approval)).await;
    refused.refused_approval("for another fingerprint");
    let client = one.client("tenant123", "M27");
    assert!(desk.kms.lets_in(&desk.pki, &client).await);

    let removed = remove(&anchor, Some(&approval)).await;
    let receipt_id = &removed.ok()["receipt_id"];
    let receipt = desk.kms.receipt(receipt_id).await.receipt;
    assert_eq!(receipt["requesting_module"], "M32");
    let approver = &receipt["kms_context"]["approvals"][0]["approver"];
    assert_eq!(approver, "alice@example.com");
    assert!(!desk.kms.lets_in(&desk.pki, &client).await);

    // The same certificate came back, and goes by a new approval only.
    let anchor = add(&one).await;
    let again = remove(&anchor, Some(&approval)).await;
    again.refused_approval("was used already");
    assert!(desk.kms.lets_in(&desk.pki, &client).await);
}

#[tokio::test]
async fn only_the_platform_decides_what_vouches_for_everybody() {
    let alice = alice();
    let desk = Desk::start(&[&alice]).await;
    let platform = desk.caller("GLOBAL", "M32");
    let tenant = desk.caller("tenant123", "M32");
    let authority = TestAuthority::new("everybody's");
    let clients = [
        authority.client("tenant123", "M27"),
        authority.client("tenant124", "M27"),
        authority.client("GLOBAL", "M27"),
    ];
    let are_let_in = async |expected: bool| {
        for client in &clients {
            assert_eq!(desk.kms.lets_in(&desk.pki, client).await, expected);
        }
    };

    let global = json!({ "tenant_id": "GLOBAL" });
    let approval = approve(&alice, "trust_anchor_add", &authority, global.clone());
    let refused = desk
        .add(&tenant, "GLOBAL", &authority, Some(&approval))
        .await;
    refused.refused_approval("is not the caller's");
    let refused = desk
        .add(&tenant, "tenant123", &authority, Some(&approval))
        .await;
    refused.refused_approval("for another tenant_id");
    let tenants = approve(&alice, "trust_anchor_add", &authority, json!({}));
    let refused = desk
        .add(&platform, "GLOBAL", &authority, Some(&tenants))
        .await;
    refused.refused_approval("for another tenant_id");
    are_let_in(false).await;

    let answer = desk
        .add(&platform, "GLOBAL", &authority, Some(&approval))
        .await;
    let anchor = made(&answer);
    are_let_in(true).await;

    let approval = approve(&alice, "trust_anchor_remove", &authority, global);
    let refused = desk
        .remove(&tenant, "GLOBAL", anchor, Some(&approval))
        .await;
    refused.refused_approval("is not the caller's");
    // Among its own anchors a tenant has no such one.
    let unknown = desk
        .remove(&tenant, "tenant123", anchor, Some(&approval))
        .await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    are_let_in(true).await;

    let removed = desk
        .remove(&platform, "GLOBAL", anchor, Some(&approval))
        .await;
    removed.ok();
    are_let_in(false).await;
}
