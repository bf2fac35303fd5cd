//! Each rule of callers, broken alone.

use serde_json::{Value, json};

use super::super::key_set_source::{KeySetOrigin, KeySetRole};
use super::super::testing::{Signer, StoppedClock};
use super::*;
use crate::domain::error::Dependency;
use crate::domain::peer::SpiffeId;
use crate::domain::scope::{Plane, Scope};
use crate::domain::time::Period;
use crate::ports::clock::Clock as _;
use crate::ports::material::Material as _;
use crate::telemetry::metrics::Metrics;

const PEER: &str = "spiffe://example.org/tenant/acme/env/prod/plane/tenant/module/M27";

struct Gate {
    rules: CallerRules,
    clock: Arc<StoppedClock>,
    signer: Signer,
    folder: tempfile::TempDir,
}

/// A gate that knows one key, asks for nothing and believes nobody.
async fn gate() -> Gate {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    let signer = Signer::ed25519("m21", 1);
    std::fs::write(&path, Signer::set_text(&[&signer])).expect("written");
    let clock = Arc::new(StoppedClock::new());
    let keys = Arc::new(KeySetSource::new(
        KeySetRole::Callers,
        KeySetOrigin::File(path),
        Arc::clone(&clock) as Arc<dyn crate::ports::clock::Clock>,
        Arc::new(Metrics::new("test").expect("names are unique")),
    ));
    keys.start().await.expect("a good file");
    Gate {
        rules: CallerRules {
            tokens: Some(TokenRules {
                keys,
                issuer: None,
                audience: None,
            }),
            require_token: false,
            believe_unidentified: false,
        },
        clock,
        signer,
        folder,
    }
}

impl Gate {
    fn claims(&self, changes: Value) -> Value {
        let mut claims = json!({
            "sub": "workload-7", "module_id": "M27", "tenant_id": "acme",
            "environment": "prod", "exp": self.clock.seconds(300),
        });
        let object = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => object.remove(name),
                _ => object.insert(name.clone(), value.clone()),
            };
        }
        claims
    }

    fn peer(&self) -> Arc<PeerIdentity> {
        Arc::new(PeerIdentity {
            spiffe_id: SpiffeId::parse(PEER).expect("a name"),
            public_key: None,
            not_after: self.clock.now().plus(Period::seconds(60)),
            vouched_by: crate::domain::peer::VouchedBy::Platform,
        })
    }

    fn identify(
        &self,
        peer: bool,
        token: Option<String>,
        module: Option<&str>,
    ) -> Result<Caller, KmsError> {
        let credentials = Credentials {
            peer: peer.then(|| self.peer()),
            bearer: token.map(SecretBytes::from),
            claimed_module: module.map(str::to_owned),
        };
        self.rules.identify(credentials, self.clock.now())
    }

    fn with_token(&self, changes: Value) -> Result<Caller, KmsError> {
        let token = self.signer.token(&self.claims(changes));
        self.identify(true, Some(token), None)
    }

    fn tokens(&mut self) -> &mut TokenRules {
        self.rules.tokens.as_mut().expect("set up for tokens")
    }
}

#[track_caller]
fn fault(identified: Result<Caller, KmsError>) -> AuthenticationFault {
    match identified {
        Err(KmsError::Unauthenticated(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn token_fault(identified: Result<Caller, KmsError>) -> TokenFault {
    match fault(identified) {
        AuthenticationFault::Token(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_is_an_identity_whatever_the_module_header_says() {
    let gate = gate().await;
    let caller = gate.identify(true, None, Some("M21")).expect("identified");
    assert_eq!(caller.module().as_str(), "M27");
    assert_eq!(caller.subject(), None);
    let own = SpiffeId::parse(PEER).expect("a name").scope().clone();
    assert!(caller.authorize(&own).is_ok());
    let foreign = Scope {
        plane: Plane::Laptop,
        ..own
    };
    assert!(caller.authorize(&foreign).is_err());
}

#[tokio::test]
async fn nobody_is_believed_without_a_certificate() {
    let gate = gate().await;
    let token = gate.signer.token(&gate.claims(json!({})));
    for token in [None, Some(token)] {
        let refused = fault(gate.identify(false, token, Some("M21")));
        assert_eq!(refused, AuthenticationFault::NoCertificate);
    }
}

#[tokio::test]
async fn a_certificate_that_ended_while_the_connection_stood_is_none() {
    let gate = gate().await;
    let peer = gate.peer();
    gate.clock.advance(Period::seconds(59));
    let ask = |peer: &Arc<PeerIdentity>| {
        let credentials = Credentials {
            peer: Some(Arc::clone(peer)),
            ..Credentials::default()
        };
        gate.rules.identify(credentials, gate.clock.now())
    };
    assert!(ask(&peer).is_ok());
    gate.clock.advance(Period::seconds(1));
    assert_eq!(fault(ask(&peer)), AuthenticationFault::CertificateExpired);
}

#[tokio::test]
async fn a_token_adds_its_subject() {
    let gate = gate().await;
    let caller = gate.with_token(json!({})).expect("identified");
    assert_eq!(caller.subject(), Some("workload-7"));
    assert!(caller.peer().is_some());
    let second_name = gate.with_token(json!({ "module_id": "PM-7" }));
    assert_eq!(
        second_name.expect("the same module").module().as_str(),
        "M27"
    );
}

#[tokio::test]
async fn a_token_that_is_required_must_come() {
    let mut gate = gate().await;
    gate.rules.require_token = true;
    assert_eq!(
        token_fault(gate.identify(true, None, None)),
        TokenFault::Missing
    );
    assert!(gate.with_token(json!({})).is_ok());
    gate.rules.believe_unidentified = true;
    assert_eq!(
        token_fault(gate.identify(false, None, None)),
        TokenFault::Missing
    );
}

#[tokio::test]
async fn a_token_that_nobody_can_check_is_refused_beside_a_certificate() {
    let mut gate = gate().await;
    gate.rules.tokens = None;
    let refused = token_fault(gate.with_token(json!({})));
    assert_eq!(refused, TokenFault::NotExpected);
}

#[tokio::test]
async fn every_claim_that_is_required_is_missed() {
    let gate = gate().await;
    for claim in ["sub", "module_id", "tenant_id", "environment", "exp"] {
        for value in [json!(null), json!(""), json!([1])] {
            let refused = token_fault(gate.with_token(json!({ claim: value })));
            assert_eq!(refused, TokenFault::ClaimMissing(claim), "{value}");
        }
    }
}

#[tokio::test]
async fn a_token_holds_between_its_times() {
    let gate = gate().await;
    let at = |from_now| gate.clock.seconds(from_now);
    for (changes, expected) in [
        (json!({ "exp": at(-30) }), TokenFault::Expired),
        (json!({ "nbf": at(31) }), TokenFault::NotYetValid),
        (json!({ "iat": at(31) }), TokenFault::NotYetValid),
    ] {
        assert_eq!(token_fault(gate.with_token(changes)), expected);
    }
    let within = json!({ "exp": at(-29), "nbf": at(30), "iat": at(30) });
    assert!(gate.with_token(within).is_ok());
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_they_are_configured() {
    let mut gate = gate().await;
    let strange = json!({ "iss": "https://other", "aud": "M99" });
    assert!(gate.with_token(strange.clone()).is_ok());
    gate.tokens().issuer = Some("https://iam".to_owned());
    assert_eq!(token_fault(gate.with_token(strange)), TokenFault::Issuer);
    let none = token_fault(gate.with_token(json!({})));
    assert_eq!(none, TokenFault::ClaimMissing("iss"));
    gate.tokens().audience = Some("M33".to_owned());
    for (aud, expected) in [
        (json!("M99"), TokenFault::Audience),
        (json!(["M99"]), TokenFault::Audience),
        (json!(null), TokenFault::ClaimMissing("aud")),
    ] {
        let changes = json!({ "iss": "https://iam", "aud": aud });
        assert_eq!(token_fault(gate.with_token(changes)), expected, "{aud}");
    }
    let both = json!({ "iss": "https://iam", "aud": ["M99", "M33"] });
    assert!(gate.with_token(both).is_ok());
}

#[tokio::test]
async fn a_token_of_somebody_else_is_refused() {
    let gate = gate().await;
    for (claim, other) in [
        ("module_id", "M21"),
        ("module_id", "not a module"),
        ("tenant_id", "acme2"),
        ("environment", "dev"),
        ("environment", "PROD"),
    ] {
        let refused = token_fault(gate.with_token(json!({ claim: other })));
        assert_eq!(refused, TokenFault::Inconsistent(claim), "{other}");
    }
}

#[tokio::test]
async fn a_token_of_an_unknown_key_asks_for_a_new_set_and_a_forged_one_does_not() {
    let gate = gate().await;
    let ask = |signer: &Signer| {
        let token = signer.token(&gate.claims(json!({})));
        token_fault(gate.identify(true, Some(token), None))
    };
    let keys = &gate.rules.tokens.as_ref().expect("set up").keys;
    assert_eq!(ask(&Signer::ed25519("m21", 9)), TokenFault::Signature);
    assert!(!keys.is_missed());
    assert_eq!(ask(&Signer::ed25519("new", 9)), TokenFault::UnknownKey);
    assert!(keys.is_missed());
}

#[tokio::test]
async fn in_development_a_token_that_can_be_checked_decides() {
    let mut gate = gate().await;
    gate.rules.believe_unidentified = true;
    let token = gate.signer.token(&gate.claims(json!({})));
    let caller = gate
        .identify(false, Some(token.clone()), None)
        .expect("identified");
    assert_eq!(caller.module().as_str(), "M27");
    assert_eq!(caller.subject(), Some("workload-7"));
    let own = SpiffeId::parse(PEER).expect("a name").scope().clone();
    assert!(caller.authorize(&own).is_ok());
    let foreign = Scope {
        tenant_id: "other".parse().expect("valid"),
        ..own
    };
    assert!(caller.authorize(&foreign).is_err());

    assert!(
        gate.identify(false, Some(token.clone()), Some("PM-7"))
            .is_ok()
    );
    let other = token_fault(gate.identify(false, Some(token), Some("M21")));
    assert_eq!(other, TokenFault::OtherModule);
    for claim in ["module_id", "tenant_id", "environment"] {
        let odd = gate
            .signer
            .token(&gate.claims(json!({ claim: "not/a/name" })));
        let refused = token_fault(gate.identify(false, Some(odd), None));
        assert_eq!(refused, TokenFault::ClaimMissing(claim));
    }
    assert_eq!(
        token_fault(gate.identify(false, Some("x".to_owned()), None)),
        TokenFault::Malformed
    );
}

#[tokio::test]
async fn in_development_without_keys_a_token_says_nothing() {
    let mut gate = gate().await;
    gate.rules.believe_unidentified = true;
    gate.rules.tokens = None;
    let caller = gate.identify(false, Some("anything".to_owned()), Some("M29"));
    assert_eq!(caller.expect("believed").module().as_str(), "M29");
}

#[tokio::test]
async fn without_any_key_set_tokens_cannot_be_checked() {
    let mut gate = gate().await;
    let missing = gate.folder.path().join("not-there");
    gate.tokens().keys = Arc::new(KeySetSource::new(
        KeySetRole::Callers,
        KeySetOrigin::File(missing),
        Arc::clone(&gate.clock) as Arc<dyn crate::ports::clock::Clock>,
        Arc::new(Metrics::new("test").expect("names are unique")),
    ));
    assert!(
        gate.rules
            .tokens
            .as_ref()
            .expect("set up")
            .keys
            .reload()
            .await
            .is_err()
    );
    let away = gate.with_token(json!({}));
    assert!(matches!(
        away,
        Err(KmsError::DependencyUnavailable {
            dependency: Dependency::Iam,
            ..
        })
    ));
    assert!(
        gate.identify(true, None, None).is_ok(),
        "who brings none needs none"
    );
}
