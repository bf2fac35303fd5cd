//! Each rule of signed approvals, broken alone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::testing::{Signer, StoppedClock, compact, header_of};
use super::*;
use crate::domain::approval::ApprovalOperation;
use crate::domain::caller::Reach;
use crate::domain::error::AuthorizationFault;
use crate::domain::peer::{PeerIdentity, SpiffeId};
use crate::domain::scope::{Environment, Plane, Scope};
use crate::ports::clock::Clock as _;

const KEY_ID: &str = "018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e";
const PEER: &str = "spiffe://example.org/tenant/acme/env/prod/plane/tenant/module/M21";

struct Desk {
    clock: StoppedClock,
    alice: Signer,
    bob: Signer,
    quorum: u8,
    caller: Caller,
    subject: ApprovalSubject,
}

fn scope() -> Scope {
    Scope {
        tenant_id: "acme".parse().expect("valid"),
        environment: Environment::Prod,
        plane: Plane::Tenant,
    }
}

fn desk() -> Desk {
    Desk {
        clock: StoppedClock::new(),
        alice: Signer::ed25519("a", 1).owned_by("alice"),
        bob: Signer::ed25519("b", 2).owned_by("bob"),
        quorum: 1,
        caller: Caller::new("M21".parse().expect("valid"), Reach::AnyScope),
        subject: ApprovalSubject {
            operation: ApprovalOperation::KeyRotate,
            scope: scope(),
            target: ApprovalTarget::Key(KEY_ID.parse().expect("valid")),
        },
    }
}

impl Desk {
    /// Everything that an approval of the rotation needs, by Alice.
    fn claims(&self) -> Value {
        json!({
            "aud": "M33", "iss": "alice", "sub": "alice", "jti": "1",
            "iat": self.clock.seconds(0), "exp": self.clock.seconds(900),
            "operation": "key_rotate", "tenant_id": "acme", "environment": "prod",
            "plane": "tenant", "key_id": KEY_ID,
        })
    }

    /// The same with some claims changed; `null` takes one away.
    fn claims_with(&self, changes: Value) -> Value {
        let mut claims = self.claims();
        let object = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => object.remove(name),
                _ => object.insert(name.clone(), value.clone()),
            };
        }
        claims
    }

    fn bobs(&self, token_id: &str) -> String {
        let names = json!({ "iss": "bob", "sub": "bob", "jti": token_id });
        self.bob.token(&self.claims_with(names))
    }

    fn judge(&self, tokens: &str) -> Result<Vec<Grant>, ApprovalFault> {
        let keys = Signer::set(&[&self.alice, &self.bob]);
        self.judge_with(tokens, &keys)
    }

    fn judge_with(&self, tokens: &str, keys: &KeySet) -> Result<Vec<Grant>, ApprovalFault> {
        let (caller, subject) = (&self.caller, &self.subject);
        let now = self.clock.now();
        match verify(tokens.as_bytes(), keys, caller, subject, self.quorum, now) {
            Ok(approval) => {
                approval.covers(subject).expect("for this subject");
                Ok(approval.grants().to_vec())
            }
            Err(KmsError::Unauthorized(AuthorizationFault::Approval(fault))) => Err(fault),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// The fault of Alice's approval with these changes.
    fn fault(&self, changes: Value) -> ApprovalFault {
        let token = self.alice.token(&self.claims_with(changes));
        self.judge(&token).expect_err("refused")
    }

    fn with_peer(mut self, public_key: Option<PublicKeyNumbers>) -> Self {
        self.caller = Caller::of_peer(
            Arc::new(PeerIdentity {
                spiffe_id: SpiffeId::parse(PEER).expect("a name"),
                public_key,
                not_after: self.clock.now().plus(Period::days(1)),
                vouched_by: crate::domain::peer::VouchedBy::Platform,
            }),
            Some("carol".to_owned()),
        );
        self
    }
}

#[test]
fn an_approval_that_keeps_every_rule_is_one_grant() {
    let desk = desk();
    let grants = desk
        .judge(&desk.alice.token(&desk.claims()))
        .expect("accepted");
    let expected = Grant {
        approver: "alice".to_owned(),
        token_id: "1".to_owned(),
        usable_until: desk.clock.now().plus(Period::seconds(930)),
    };
    assert_eq!(grants, [expected]);
}

#[test]
fn the_audience_is_this_service() {
    let desk = desk();
    for aud in [
        json!("m33"),
        json!("M21"),
        json!(["M21", "M3"]),
        json!([]),
        json!(""),
    ] {
        assert_eq!(desk.fault(json!({ "aud": aud })), ApprovalFault::Audience);
    }
    let missing = ApprovalFault::ClaimMissing("aud");
    assert_eq!(desk.fault(json!({ "aud": null })), missing);
    assert_eq!(desk.fault(json!({ "aud": 33 })), missing);
    let list = desk
        .alice
        .token(&desk.claims_with(json!({ "aud": ["M21", "M33"] })));
    assert!(desk.judge(&list).is_ok());
}

#[test]
fn iss_and_sub_name_the_one_whose_key_signed() {
    let desk = desk();
    for (changes, fault) in [
        (json!({ "iss": null }), ApprovalFault::ClaimMissing("iss")),
        (json!({ "sub": null }), ApprovalFault::ClaimMissing("sub")),
        (json!({ "sub": "" }), ApprovalFault::ClaimMissing("sub")),
        (json!({ "iss": "bob" }), ApprovalFault::NotTheSigner),
        (json!({ "iss": "Alice" }), ApprovalFault::NotTheSigner),
        (
            json!({ "iss": "bob", "sub": "bob" }),
            ApprovalFault::NotTheSigner,
        ),
    ] {
        assert_eq!(desk.fault(changes.clone()), fault, "{changes}");
    }
    let unowned = Signer::ed25519("a", 1);
    let keys = Signer::set(&[&unowned]);
    let any_name = unowned.token(&desk.claims_with(json!({ "iss": "zoe", "sub": "zoe" })));
    assert!(desk.judge_with(&any_name, &keys).is_ok());
}

#[test]
fn an_approval_lives_a_quarter_of_an_hour_at_most_and_only_now() {
    let desk = desk();
    let at = |from_now: i64| desk.clock.seconds(from_now);
    for (changes, fault) in [
        (json!({ "iat": null }), ApprovalFault::ClaimMissing("iat")),
        (json!({ "exp": null }), ApprovalFault::ClaimMissing("exp")),
        (json!({ "exp": "soon" }), ApprovalFault::ClaimMissing("exp")),
        (json!({ "nbf": "soon" }), ApprovalFault::ClaimMissing("nbf")),
        (json!({ "exp": at(901) }), ApprovalFault::LivesTooLong),
        (
            json!({ "iat": at(-600), "exp": at(301) }),
            ApprovalFault::LivesTooLong,
        ),
        (
            json!({ "iat": at(-930), "exp": at(-30) }),
            ApprovalFault::Expired,
        ),
        (json!({ "iat": at(31) }), ApprovalFault::NotYetValid),
        (json!({ "nbf": at(31) }), ApprovalFault::NotYetValid),
    ] {
        assert_eq!(desk.fault(changes.clone()), fault, "{changes}");
    }
    for changes in [
        json!({ "iat": at(-929), "exp": at(-29) }),
        json!({ "iat": at(30), "nbf": at(30) }),
    ] {
        let token = desk.alice.token(&desk.claims_with(changes.clone()));
        assert!(desk.judge(&token).is_ok(), "{changes}");
    }
}

#[test]
fn an_approval_has_a_name_of_its_own() {
    let desk = desk();
    for jti in [
        json!(null),
        json!(""),
        json!(1),
        json!("x".repeat(129)),
        json!("a\nb"),
    ] {
        let fault = desk.fault(json!({ "jti": jti }));
        assert_eq!(fault, ApprovalFault::ClaimMissing("jti"), "{jti}");
    }
    let longest = desk.claims_with(json!({ "jti": "x".repeat(128) }));
    assert!(desk.judge(&desk.alice.token(&longest)).is_ok());
}

#[test]
fn an_approval_is_for_this_operation_in_this_place_on_this_key() {
    let desk = desk();
    for (claim, other) in [
        ("operation", "key_revoke"),
        ("tenant_id", "acme2"),
        ("environment", "dev"),
        ("plane", "shared"),
        ("key_id", "018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4f"),
        ("key_id", "alias/a"),
    ] {
        let fault = desk.fault(json!({ claim: other }));
        assert_eq!(fault, ApprovalFault::Mismatch(claim), "{claim}");
        let fault = desk.fault(json!({ claim: null }));
        assert_eq!(fault, ApprovalFault::ClaimMissing(claim), "{claim}");
    }
}

#[test]
fn an_approval_of_a_new_key_is_for_its_type_and_usage() {
    let mut desk = desk();
    desk.subject.operation = ApprovalOperation::KeyGenerate;
    desk.subject.target = ApprovalTarget::NewKey {
        key_type: KeyType::Rsa2048,
        key_usage: KeyUsageSet::of([KeyUsage::Sign, KeyUsage::Verify]).expect("not empty"),
    };
    let changes = |key_type: Value, key_usage: Value| {
        json!({
            "operation": "key_generate", "key_id": null,
            "key_type": key_type, "key_usage": key_usage,
        })
    };
    let both = json!(["verify", "sign"]);
    let good = desk.claims_with(changes(json!("RSA-2048"), both.clone()));
    assert!(
        desk.judge(&desk.alice.token(&good)).is_ok(),
        "a set has no order"
    );
    for (key_type, key_usage, fault) in [
        (
            json!("Ed25519"),
            both.clone(),
            ApprovalFault::Mismatch("key_type"),
        ),
        (
            json!("rsa-2048"),
            both.clone(),
            ApprovalFault::Mismatch("key_type"),
        ),
        (
            json!(null),
            both.clone(),
            ApprovalFault::ClaimMissing("key_type"),
        ),
        (
            json!("RSA-2048"),
            json!("sign"),
            ApprovalFault::Mismatch("key_usage"),
        ),
        (
            json!("RSA-2048"),
            json!([]),
            ApprovalFault::Mismatch("key_usage"),
        ),
        (
            json!("RSA-2048"),
            json!(["sign", "verify", "x"]),
            ApprovalFault::Mismatch("key_usage"),
        ),
        (
            json!("RSA-2048"),
            json!(null),
            ApprovalFault::ClaimMissing("key_usage"),
        ),
    ] {
        let fault_found = desk.fault(changes(key_type, key_usage.clone()));
        assert_eq!(fault_found, fault, "{key_usage}");
    }
    desk.subject.target = ApprovalTarget::NewKey {
        key_type: KeyType::Rsa2048,
        key_usage: KeyUsageSet::of([KeyUsage::Sign]).expect("not empty"),
    };
    let one = desk.claims_with(changes(json!("RSA-2048"), json!("sign")));
    assert!(
        desk.judge(&desk.alice.token(&one)).is_ok(),
        "one text is a set of one"
    );
}

#[test]
fn an_approval_of_an_anchor_is_for_its_fingerprint() {
    let mut desk = desk();
    let fingerprint = "ab".repeat(32);
    desk.subject.operation = ApprovalOperation::TrustAnchorAdd;
    desk.subject.target = ApprovalTarget::Certificate {
        fingerprint: fingerprint.clone(),
    };
    let changes = |text: Value| json!({ "operation": "trust_anchor_add", "fingerprint": text });
    let good = desk.claims_with(changes(json!(fingerprint)));
    assert!(desk.judge(&desk.alice.token(&good)).is_ok());
    for other in ["AB".repeat(32), "cd".repeat(32)] {
        let fault = desk.fault(changes(json!(other)));
        assert_eq!(fault, ApprovalFault::Mismatch("fingerprint"));
    }
    let fault = desk.fault(changes(json!(null)));
    assert_eq!(fault, ApprovalFault::ClaimMissing("fingerprint"));
}

#[test]
fn nobody_approves_their_own_request() {
    let desk = desk().with_peer(None);
    for name in ["carol", PEER] {
        let own = Signer::ed25519("a", 1).owned_by(name);
        let keys = Signer::set(&[&own]);
        let token = own.token(&desk.claims_with(json!({ "iss": name, "sub": name })));
        let fault = desk.judge_with(&token, &keys).expect_err("refused");
        assert_eq!(fault, ApprovalFault::SelfApproval, "{name}");
    }
    assert!(desk.judge(&desk.alice.token(&desk.claims())).is_ok());
}

#[test]
fn nobody_approves_with_the_callers_own_key() {
    for signer in [Signer::ed25519("a", 1), Signer::ps256("a")] {
        let desk = desk().with_peer(Some(signer.numbers()));
        let alice = signer.owned_by("alice");
        let keys = Signer::set(&[&alice]);
        let fault = desk.judge_with(&alice.token(&desk.claims()), &keys);
        assert_eq!(fault.expect_err("refused"), ApprovalFault::CallersKey);
    }
    let other = desk().with_peer(Some(Signer::ed25519("c", 9).numbers()));
    assert!(other.judge(&other.alice.token(&other.claims())).is_ok());
}

#[test]
fn a_quorum_is_of_different_people_with_different_keys() {
    let mut desk = desk();
    desk.quorum = 2;
    let alices = desk.alice.token(&desk.claims());
    let too_few = ApprovalFault::Quorum {
        needed: 2,
        given: 1,
    };
    assert_eq!(desk.judge(&alices).expect_err("one"), too_few);
    let approvers: Vec<String> = desk
        .judge(&format!("{alices}, {}", desk.bobs("2")))
        .expect("two people")
        .into_iter()
        .map(|grant| grant.approver)
        .collect();
    assert_eq!(approvers, ["alice", "bob"]);

    let twice = format!("{alices},{alices}");
    assert_eq!(
        desk.judge(&twice).expect_err("twice"),
        ApprovalFault::AlreadyUsed
    );
    let one_id = format!("{alices},{}", desk.bobs("1"));
    assert_eq!(
        desk.judge(&one_id).expect_err("one id"),
        ApprovalFault::AlreadyUsed
    );
    let again = desk.alice.token(&desk.claims_with(json!({ "jti": "2" })));
    let same = desk.judge(&format!("{alices},{again}"));
    assert_eq!(same.expect_err("one person"), ApprovalFault::SameApprover);

    let unowned = Signer::ed25519("a", 1);
    let keys = Signer::set(&[&unowned]);
    let zoe = unowned.token(&desk.claims_with(json!({ "iss": "zoe", "sub": "zoe", "jti": "2" })));
    let one_key = desk.judge_with(&format!("{alices},{zoe}"), &keys);
    assert_eq!(one_key.expect_err("one key"), ApprovalFault::SameKey);
}

#[test]
fn one_bad_token_spoils_the_lot() {
    let mut desk = desk();
    desk.quorum = 1;
    let alices = desk.alice.token(&desk.claims());
    for other in ["", "x", " "] {
        for tokens in [format!("{alices},{other}"), format!("{other},{alices}")] {
            let fault = desk.judge(&tokens).expect_err("refused");
            assert_eq!(fault, ApprovalFault::Malformed, "{other:?}");
        }
    }
    assert_eq!(
        desk.judge("").expect_err("nothing"),
        ApprovalFault::Malformed
    );
}

#[test]
fn more_tokens_than_any_quorum_are_not_read() {
    let desk = desk();
    let nine = ["x"; 9].join(",");
    let too_many = ApprovalFault::TooMany { most: 8 };
    assert_eq!(desk.judge(&nine).expect_err("nine"), too_many);
    let eight = ["x"; 8].join(",");
    assert_eq!(
        desk.judge(&eight).expect_err("eight"),
        ApprovalFault::Malformed
    );
}

#[test]
fn a_signature_that_is_none_of_an_approvers_counts_for_nothing() {
    let desk = desk();
    let stranger = Signer::ed25519("s", 9).token(&desk.claims());
    assert_eq!(
        desk.judge(&stranger).expect_err("stranger"),
        ApprovalFault::UnknownKey
    );
    let forged = Signer::ed25519("a", 9).token(&desk.claims());
    assert_eq!(
        desk.judge(&forged).expect_err("forged"),
        ApprovalFault::Signature
    );
    let none = compact(&header_of("none", "a"), &desk.claims(), "AAAA");
    assert_eq!(
        desk.judge(&none).expect_err("none"),
        ApprovalFault::Algorithm
    );
}
