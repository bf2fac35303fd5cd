//! How operations fail.
//!
//! A failure is documented by an instance of it. Its status, its headers and its
//! example are what the service makes of that instance, and not a second opinion.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::algorithm::KeyType;
use crate::domain::error::{
    ApprovalFault, AuthenticationFault, AuthorizationFault, CertificateFault, Dependency,
    InactiveReason, KmsError, PolicyFault, RequestFault, algorithm_not_offered,
};
use crate::domain::ids::{KeyId, KeyRef, RequestId};
use crate::domain::key::KeyState;
use crate::domain::wire::WireField as _;
use crate::http::error::error_body;

/// A failure, and what its example is called.
pub(super) type Failure = (&'static str, KmsError);

/// The failures of whatever has a caller.
pub(super) fn of_any_caller() -> Vec<Failure> {
    vec![
        ("no_certificate", AuthenticationFault::NoCertificate.into()),
        (
            "too_fast",
            KmsError::TooManyRequests {
                requests_per_second: 100,
                burst: 500,
                retry_after: Duration::from_secs(1),
            },
        ),
        ("internal", KmsError::internal("")),
        (
            "load",
            KmsError::DependencyUnavailable {
                dependency: Dependency::Load,
                source: None,
            },
        ),
    ]
}

/// Those of a request that names its scope.
pub(super) fn of_a_scope() -> Vec<Failure> {
    vec![
        ("foreign_scope", AuthorizationFault::ForeignScope.into()),
        ("store", away(Dependency::Store)),
    ]
}

/// Those of a body.
pub(super) fn of_a_body() -> Vec<Failure> {
    vec![
        ("wrong_field", KmsError::field("key_id", KeyRef::EXPECTED)),
        (
            "not_json",
            RequestFault::NotJson {
                line: 1,
                column: 17,
            }
            .into(),
        ),
        (
            "too_large",
            RequestFault::BodyTooLarge {
                limit_bytes: 1 << 20,
            }
            .into(),
        ),
        ("media_type", RequestFault::MediaType.into()),
    ]
}

/// That of what may need a second person.
pub(super) fn of_an_approval() -> Vec<Failure> {
    vec![(
        "no_approval",
        AuthorizationFault::from(ApprovalFault::Missing).into(),
    )]
}

/// Those of a use of a key.
pub(super) fn of_a_use() -> Vec<Failure> {
    let mut failures = of_a_key();
    failures.extend([
        (
            "algorithm",
            algorithm_not_offered(KeyType::Ed25519.algorithms()),
        ),
        ("usage", PolicyFault::Usage { operation: "sign" }.into()),
        ("module", PolicyFault::Module.into()),
        (
            "inactive",
            inactive(KeyState::PendingRotation, InactiveReason::NotActive),
        ),
        ("revoked", KmsError::KeyRevoked),
        (
            "daily_limit",
            KmsError::DailyLimitReached {
                limit: 10_000,
                retry_after: Duration::from_secs(3_600),
            },
        ),
        ("hsm", away(Dependency::Hsm)),
        ("ledger", away(Dependency::Ledger)),
    ]);
    failures
}

/// That of a ciphertext.
pub(super) fn of_a_ciphertext() -> Vec<Failure> {
    vec![("undecryptable", RequestFault::Undecryptable.into())]
}

/// Those of a key that is looked for.
pub(super) fn of_a_key() -> Vec<Failure> {
    vec![("no_such_key", KmsError::KeyNotFound)]
}

/// Those of a step in a key's life.
pub(super) fn of_a_step() -> Vec<Failure> {
    let mut failures = of_a_key();
    failures.extend([
        (
            "inactive",
            inactive(KeyState::Archived, InactiveReason::NotActive),
        ),
        ("revoked", KmsError::KeyRevoked),
        ("hsm", away(Dependency::Hsm)),
        ("ledger", away(Dependency::Ledger)),
    ]);
    failures
}

/// Those of a new key.
pub(super) fn of_a_new_key() -> Vec<Failure> {
    vec![
        (
            "alias_taken",
            KmsError::field("key_alias", "an alias that no active key bears"),
        ),
        ("hsm", away(Dependency::Hsm)),
        ("ledger", away(Dependency::Ledger)),
    ]
}

/// That of a certificate.
pub(super) fn of_a_certificate() -> Vec<Failure> {
    vec![(
        "certificate",
        RequestFault::Certificate(CertificateFault::Expired).into(),
    )]
}

/// That of a query.
pub(super) fn of_a_query() -> Vec<Failure> {
    vec![(
        "wrong_parameter",
        KmsError::field("limit", "a whole number from 1 to 1000"),
    )]
}

/// A dependency that is away.
pub(super) fn away(dependency: Dependency) -> KmsError {
    KmsError::DependencyUnavailable {
        dependency,
        source: None,
    }
}

fn inactive(key_state: KeyState, reason: InactiveReason) -> KmsError {
    KmsError::KeyInactive {
        key_state,
        successor_key_id: Some(example_key()),
        reason,
    }
}

/// The key of the examples.
fn example_key() -> KeyId {
    KeyId::from_bytes([
        0x01, 0x8f, 0x6a, 0x1e, 0x7f, 0x3a, 0x7c, 0x3d, 0x9a, 0x51, 0x3b, 0x1f, 0x0c, 0x6a, 0x2d,
        0x4e,
    ])
}

/// The request of the examples.
pub(super) fn example_request() -> RequestId {
    RequestId::from_bytes(*example_key().as_bytes())
}

/// The body that the failure is answered with.
pub(super) fn example(error: &KmsError) -> Value {
    json!({ "error": error_body(error, example_request()) })
}
