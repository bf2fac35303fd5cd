//! Whoever approves is not whoever asks, by name and by key; and who may decide
//! which authorities count.

mod anchors;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::approver::new_key;
use crate::support::{
    Answer, Approver, Issuer, Pki, TestKms, in_scope, in_tenant, spiffe_name, with,
};

/// Module M21 of the usual scope, by its certificate's name.
const M21: &str = "spiffe://test.example/tenant/tenant123/env/prod/plane/laptop/module/M21";

fn alice() -> Approver {
    Approver::new("alice@example.com", 1)
}

fn bob() -> Approver {
    Approver::new("bob@example.com", 2)
}

/// A service over TLS that takes signed approvals only, and tokens too.
struct Desk {
    kms: TestKms,
    pki: Pki,
    issuer: Issuer,
}

impl Desk {
    /// A service that asks for one of these approvers.
    async fn start(approvers: &[&Approver]) -> Self {
        Self::start_with_quorum("1", approvers).await
    }

    async fn start_with_quorum(quorum: &str, approvers: &[&Approver]) -> Self {
        let (pki, issuer) = (Pki::new(), Issuer::ed25519("m21", 5));
        pki.write("m21.json", &Issuer::key_set(&[&issuer]));
        let keys: Vec<Value> = approvers.iter().map(|approver| approver.jwk()).collect();
        pki.write("approvers.json", &json!({ "keys": keys }).to_string());
        let path = |file: &str| pki.path(file).display().to_string();
        let settings = [
            ("KMS__AUTH__JWKS", path("m21.json")),
            ("KMS__APPROVALS__MODE", "signed".to_owned()),
            ("KMS__APPROVALS__JWKS", path("approvers.json")),
            ("KMS__APPROVALS__QUORUM", quorum.to_owned()),
            (
                "KMS__APPROVALS__OPERATIONS",
                "key_lifecycle,trust_anchor".to_owned(),
            ),
        ];
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let kms = TestKms::start_tls(&pki, &settings).await;
        Self { kms, pki, issuer }
    }

    /// Connections of a module of a tenant, in the environment and plane of the
    /// usual scope.
    fn caller(&self, tenant: &str, module: &str) -> Client {
        self.pki.connector(&self.pki.client(tenant, module))
    }

    /// Makes the usual key in the caller's own scope or another one.
    async fn make(&self, caller: &Client, tenant: &str, approval: &str) -> Answer {
        self.make_as(caller, None, tenant, approval).await
    }

    /// The same with a token of the identity service for this subject.
    async fn make_as(
        &self,
        caller: &Client,
        subject: Option<&str>,
        tenant: &str,
        approval: &str,
    ) -> Answer {
        let usual = json!({ "key_type": "Ed25519", "key_usage": ["sign", "verify"] });
        let mut request = self
            .kms
            .request_over(caller, Method::POST, "/kms/v1/keys")
            .header("X-Approval-Token", approval)
            .json(&in_tenant(tenant, usual));
        if let Some(subject) = subject {
            request = request.bearer_auth(self.issuer.token(json!({ "sub": subject })));
        }
        Answer::of(request).await
    }
}

#[track_caller]
fn made(answer: &Answer) -> &Value {
    assert_eq!(answer.status, 201, "{}", answer.text);
    &answer.body
}

#[tokio::test]
async fn nobody_approves_what_their_own_token_asks_for() {
    let (alice, bob) = (alice(), bob());
    let desk = Desk::start(&[&alice, &bob]).await;
    let m21 = desk.caller("tenant123", "M21");
    let make = |subject: &'static str, approval: String| {
        let (desk, m21) = (&desk, &m21);
        async move {
            desk.make_as(m21, Some(subject), "tenant123", &approval)
                .await
        }
    };
    let alices = alice.approve_new_key();
    let refused = make("alice@example.com", alices.clone()).await;
    refused.refused_approval("the approver must not be the caller");
    made(&make("alice@example.com", bob.approve_new_key()).await);
    // What was refused is not spent.
    made(&make("workload-7", alices).await);
    // Without a token nobody says that the caller is Alice.
    made(&desk.make(&m21, "tenant123", &alice.approve_new_key()).await);
}

#[tokio::test]
async fn no_module_approves_what_it_asks_for() {
    assert_eq!(M21, spiffe_name("tenant123", "prod", "laptop", "M21"));
    let module = Approver::new(M21, 3);
    let desk = Desk::start(&[&module]).await;
    let (m21, m27) = (
        desk.caller("tenant123", "M21"),
        desk.caller("tenant123", "M27"),
    );
    let approval = module.approve_new_key();
    for subject in [None, Some("workload-7")] {
        let refused = desk.make_as(&m21, subject, "tenant123", &approval).await;
        refused.refused_approval("the approver must not be the caller");
    }
    made(&desk.make(&m27, "tenant123", &approval).await);
}

#[tokio::test]
async fn the_key_of_the_callers_certificate_approves_nothing() {
    let alice = alice();
    let desk = Desk::start(&[&alice]).await;
    let authority = desk.pki.authority();
    let own = authority.client_with_key(M21, &alice.private_key());
    let own = desk.pki.connector(&own);
    let approval = alice.approve_new_key();
    for subject in [None, Some("workload-7")] {
        let refused = desk.make_as(&own, subject, "tenant123", &approval).await;
        refused.refused_approval("the approver's key must not be the caller's own");
    }
    // The same module with a key of its own, and with another one of that kind.
    let m21 = desk.caller("tenant123", "M21");
    made(&desk.make(&m21, "tenant123", &approval).await);
    let other = authority.client_with_key(M21, &bob().private_key());
    let other = desk.pki.connector(&other);
    let approval = alice.approve_new_key();
    made(&desk.make(&other, "tenant123", &approval).await);
}

#[tokio::test]
async fn in_a_quorum_too_the_caller_does_not_count() {
    let (alice, bob, module) = (alice(), bob(), Approver::new(M21, 3));
    let desk = Desk::start_with_quorum("2", &[&alice, &bob, &module]).await;
    let m21 = desk.caller("tenant123", "M21");
    let both = |one: &Approver, other: &Approver| {
        let tokens = [one.approve_new_key(), other.approve_new_key()];
        tokens.join(",")
    };
    for approval in [both(&module, &bob), both(&bob, &module)] {
        let refused = desk.make(&m21, "tenant123", &approval).await;
        refused.refused_approval("the approver must not be the caller");
    }
    let subject = Some("alice@example.com");
    for approval in [both(&alice, &bob), both(&bob, &alice)] {
        let refused = desk.make_as(&m21, subject, "tenant123", &approval).await;
        refused.refused_approval("the approver must not be the caller");
    }
    let approval = both(&alice, &bob);
    made(&desk.make(&m21, "tenant123", &approval).await);
}

#[tokio::test]
async fn a_receipt_names_who_asked_and_who_approved() {
    let alice = alice();
    let desk = Desk::start(&[&alice]).await;
    let m27 = desk.caller("tenant123", "M27");
    let approval = alice.approve(with(new_key(), json!({ "jti": "made-1" })));
    let answer = desk.make(&m27, "tenant123", &approval).await;
    let receipt = desk.kms.receipt(&made(&answer)["receipt_id"]).await.receipt;
    assert_eq!(receipt["requesting_module"], "M27");
    assert_eq!(
        receipt["kms_context"]["approvals"],
        json!([{ "approver": "alice@example.com", "jti": "made-1" }])
    );
}

#[tokio::test]
async fn an_approval_for_one_tenant_is_none_for_another() {
    let alice = alice();
    let desk = Desk::start(&[&alice]).await;
    let (own, other) = (
        desk.caller("tenant123", "M21"),
        desk.caller("tenant124", "M21"),
    );
    let approval = alice.approve_new_key();
    let refused = desk.make(&other, "tenant124", &approval).await;
    refused.refused_approval("for another tenant_id");
    // However good it is, it opens no other tenant's scope.
    let refused = desk.make(&other, "tenant123", &approval).await;
    refused.refused_approval("is not the caller's");
    let listed = desk.kms.get_scoped("/kms/v1/keys").await;
    assert_eq!(listed.ok()["keys"], json!([]));

    let key = made(&desk.make(&own, "tenant123", &approval).await)["key_id"].clone();
    let key = key.as_str().expect("an id");
    let revoking = alice.approve_on("key_revoke", key);
    let revoke = |caller: &Client, tenant: &str| {
        let fields = json!({ "revocation_reason": "retired" });
        let path = format!("/kms/v1/keys/{key}/revoke");
        let request = desk.kms.request_over(caller, Method::POST, &path);
        let request = request.header("X-Approval-Token", &revoking);
        Answer::of(request.json(&in_tenant(tenant, fields)))
    };
    let refused = revoke(&other, "tenant123").await;
    refused.refused_approval("is not the caller's");
    let refused = revoke(&other, "tenant124").await;
    refused.refused(404, "KEY_NOT_FOUND");
    revoke(&own, "tenant123").await.ok();
}

#[tokio::test]
async fn an_approval_for_one_plane_or_environment_is_none_for_another() {
    let alice = alice();
    let desk = Desk::start(&[&alice]).await;
    let name = spiffe_name("tenant123", "staging", "shared", "M21");
    let elsewhere = desk.pki.authority().client_named(&name);
    let elsewhere = desk.pki.connector(&elsewhere);
    let make = |approval: String| {
        let fields = json!({
            "key_type": "Ed25519", "key_usage": ["sign", "verify"],
            "environment": "staging", "plane": "shared", "approval_token": approval,
        });
        let request = desk
            .kms
            .request_over(&elsewhere, Method::POST, "/kms/v1/keys");
        Answer::of(request.json(&in_scope(fields)))
    };
    for (place, rule) in [
        (json!({}), "for another environment"),
        (json!({ "environment": "staging" }), "for another plane"),
        (json!({ "plane": "shared" }), "for another environment"),
    ] {
        let approval = alice.approve(with(new_key(), place));
        make(approval).await.refused_approval(rule);
    }
    let place = json!({ "environment": "staging", "plane": "shared" });
    made(&make(alice.approve(with(new_key(), place))).await);
}
