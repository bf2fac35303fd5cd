//! What is answered where something fails: one envelope, with details by code.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::describe::{Described, DescribedObject, Field, Schemas, list, object, one_of};
use crate::domain::error::{Dependency, ErrorCode, FieldProblem};
use crate::domain::ids::{KeyId, RequestId};
use crate::domain::key::KeyState;
use crate::http::error::{ErrorBody, FailureBody, retryable};

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
    let mut is_retryable = ObjectBuilder::new().schema_type(Type::Boolean);
    if let [code] = codes {
        is_retryable = is_retryable.enum_values(Some([retryable(*code)]));
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
            Schema::from(is_retryable).into(),
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

/// The schema of [`ErrorBody`] in an unhealthy report.
impl Described for ErrorBody {
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
