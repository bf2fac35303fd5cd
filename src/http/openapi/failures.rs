//! What is answered where something fails: one envelope, with details by code.
//!
//! A failure is documented by an instance of it. Its status, its headers and its
//! example are what the service makes of that instance, and not a second opinion.

use std::time::Duration;

use serde_json::{Value, json};

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::describe::{Described, DescribedObject, Field, Schemas, list, object, one_of};
use crate::domain::algorithm::KeyType;
use crate::domain::error::{
    ApprovalFault, AuthenticationFault, AuthorizationFault, CertificateFault, Dependency,
    ErrorCode, FieldProblem, InactiveReason, KmsError, PolicyFault, RequestFault,
    algorithm_not_offered,
};
use crate::domain::ids::{KeyId, KeyRef, RequestId};
use crate::domain::key::KeyState;
use crate::domain::wire::WireField as _;
use crate::http::error::FailureBody;

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

/// The envelope with this code.
pub(super) fn envelope(code: ErrorCode, schemas: &mut Schemas) -> RefOr<Schema> {
    schemas.named(schema_name(code), |schemas| {
        let mut fields = failure_fields(&[code], details(code, schemas), schemas);
        fields.push(field(
            "request_id",
            "The request's id, also in `X-Request-Id`.",
            RequestId::schema(schemas),
        ));
        let error = Schema::from(object("", fields));
        object("", vec![field("error", "What failed.", error.into())]).into()
    })
}

/// `KEY_NOT_FOUND` as the name of a schema: `KeyNotFoundError`.
fn schema_name(code: ErrorCode) -> String {
    let words = code.as_str().split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{first}{}", rest.to_ascii_lowercase())
    });
    let mut name: String = words.collect();
    if !name.ends_with("Error") {
        name.push_str("Error");
    }
    name
}

/// A failure without the request that it belongs to: of one item of a batch.
impl DescribedObject for FailureBody {
    fn name() -> String {
        "ItemFailure".to_owned()
    }

    fn about() -> String {
        "Why one item of a batch has no result.".to_owned()
    }

    fn fields(schemas: &mut Schemas) -> Vec<Field> {
        let any = Schema::from(ObjectBuilder::new());
        failure_fields(&ErrorCode::ALL, any, schemas)
    }
}

impl Described for FailureBody {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        schemas.answered::<Self>()
    }
}

fn failure_fields(codes: &[ErrorCode], details: Schema, schemas: &mut Schemas) -> Vec<Field> {
    let code = one_of(codes.iter().map(|code| code.as_str()));
    let mut retryable = ObjectBuilder::new().schema_type(Type::Boolean);
    if let [code] = codes {
        retryable = retryable.enum_values(Some([crate::http::error::retryable(*code)]));
    }
    vec![
        field("code", "What kind of failure.", Schema::from(code).into()),
        field(
            "message",
            "The same for people. It may change.",
            String::schema(schemas),
        ),
        field("details", "What belongs to the code.", details.into()),
        field(
            "retryable",
            "Whether the same request may succeed later.",
            Schema::from(retryable).into(),
        ),
    ]
}

fn details(code: ErrorCode, schemas: &mut Schemas) -> Schema {
    match code {
        ErrorCode::InvalidRequest => {
            let mut fault = vec![
                field("field", "The field, by its path.", String::schema(schemas)),
                field(
                    "problem",
                    "What is the matter with it.",
                    Schema::from(one_of(FieldProblem::ALL.map(FieldProblem::as_str))).into(),
                ),
                field("expected", "What would be right.", String::schema(schemas)),
            ];
            fault.push(optional(
                "reason",
                "What exactly is wrong with a certificate.",
                String::schema(schemas),
            ));
            let faults = Schema::from(list(Schema::from(object("", fault))));
            object(
                "",
                vec![
                    optional("errors", "Every field that is wrong.", faults.into()),
                    optional(
                        "limit_bytes",
                        "The largest body that is taken.",
                        u64::schema(schemas),
                    ),
                ],
            )
            .into()
        }
        ErrorCode::KeyInactive => object(
            "",
            vec![
                field(
                    "key_state",
                    "The state the key is in.",
                    KeyState::schema(schemas),
                ),
                optional(
                    "successor_key_id",
                    "The key that took its place.",
                    KeyId::schema(schemas),
                ),
            ],
        )
        .into(),
        ErrorCode::KeyRevoked => {
            let destroyed = one_of([KeyState::Destroyed.as_str()]);
            object(
                "",
                vec![field(
                    "key_state",
                    "The state the key is in.",
                    Schema::from(destroyed).into(),
                )],
            )
            .into()
        }
        ErrorCode::RateLimited => object(
            "",
            vec![
                field("limit", "How much is allowed.", u64::schema(schemas)),
                field(
                    "limit_kind",
                    "In what time.",
                    Schema::from(one_of(["max_usage_per_day", "requests_per_second"])).into(),
                ),
                optional(
                    "burst",
                    "How many requests may come at once.",
                    u32::schema(schemas),
                ),
                field(
                    "retry_after_seconds",
                    "As in `Retry-After`.",
                    u64::schema(schemas),
                ),
            ],
        )
        .into(),
        ErrorCode::DependencyUnavailable => {
            let dependency = one_of(Dependency::ALL.map(Dependency::as_str));
            object(
                "",
                vec![field(
                    "dependency",
                    "What is away.",
                    Schema::from(dependency).into(),
                )],
            )
            .into()
        }
        ErrorCode::Unauthenticated
        | ErrorCode::Unauthorized
        | ErrorCode::PolicyViolation
        | ErrorCode::KeyNotFound
        | ErrorCode::InternalError => ObjectBuilder::new().max_properties(Some(0)).into(),
    }
}

fn field(name: &str, about: &str, schema: RefOr<Schema>) -> Field {
    Field {
        name: name.to_owned(),
        about: about.to_owned(),
        schema,
        is_optional: false,
        is_nullable: false,
    }
}

fn optional(name: &str, about: &str, schema: RefOr<Schema>) -> Field {
    Field {
        is_optional: true,
        ..field(name, about, schema)
    }
}

/// The body that the failure is answered with.
pub(super) fn example(error: &KmsError) -> Value {
    json!({ "error": crate::http::error::error_body(error, example_request()) })
}

/// The schema of [`crate::http::error::ErrorBody`] in an unhealthy report.
impl Described for crate::http::error::ErrorBody {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        schemas.named("ReadinessFailure", |schemas| {
            let code = ErrorCode::DependencyUnavailable;
            let mut fields = failure_fields(&[code], details(code, schemas), schemas);
            fields.push(field(
                "request_id",
                "The request's id.",
                RequestId::schema(schemas),
            ));
            object("Why the service is not fit to serve.", fields).into()
        })
    }
}
