//! What a field holds whose own type is only `String`, bytes or JSON that is written
//! elsewhere.

use std::marker::PhantomData;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::describe::{
    Described, DescribedObject, Field, Schemas, object, one_of, text, text_like,
};
use super::types::named;
use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::error::ErrorCode;
use crate::domain::ids::{KeyId, ModuleId, ReceiptId, RequestId, TenantId};
use crate::domain::receipt::{OperationName, ReceiptOperation};
use crate::domain::scope::{Environment, Plane};
use crate::domain::time::{Period, Timestamp};

/// A public key.
pub(crate) struct PublicKeyPem;
/// The hash of a certificate.
pub(crate) struct Fingerprint;
/// A hash of the tree.
pub(crate) struct TreeHashText;
/// The one word of liveness.
pub(crate) struct Alive;
/// The text of a signed note.
pub(crate) struct SignedNote;
/// The bytes of a tile.
pub(crate) struct TileBytes;
/// A scrape.
pub(crate) struct MetricsText;
/// This document.
pub(crate) struct OpenApiDocument;

named! {
    PublicKeyPem: "A public key: SubjectPublicKeyInfo in PEM (RFC 7468).",
        text().pattern(Some("^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+\n-----END PUBLIC KEY-----\n$"));
    Fingerprint: "SHA-256 in lower-case hex.", text_like("^[0-9a-f]{64}$", 64, 64);
    TreeHashText: "A hash of the tree: 32 bytes in standard base64.",
        text_like("^[A-Za-z0-9+/]{43}=$", 44, 44).content_encoding("base64");
    Alive: "The process lives.", one_of(["healthy"]);
    SignedNote: "A checkpoint as a signed note (C2SP tlog-checkpoint).", text();
    TileBytes: "Hashes of 32 bytes each, or receipts with their lengths in front (C2SP tlog-tiles).",
        ObjectBuilder::new().schema_type(Type::String).content_media_type("application/octet-stream");
    MetricsText: "Metrics in the text format of Prometheus.", text();
    OpenApiDocument: "An OpenAPI document.",
        ObjectBuilder::new().required("openapi").property("openapi", one_of(["3.1.0"]));
}

/// A key type's periods.
pub(crate) struct RotationScheduleObject;

impl Described for RotationScheduleObject {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        let fields = KeyType::ALL.map(|kind| {
            Field::answered::<Period>(
                kind.as_str(),
                &["How long it signs and encrypts."],
                "",
                schemas,
            )
        });
        Schema::from(object("By key type.", fields.into())).into()
    }
}

/// What a single use answers: what an item of a batch does, and how it came about.
pub(crate) struct Used<T>(PhantomData<T>);

impl<T: DescribedObject> Described for Used<T> {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        let name = format!("{}Answer", T::name().trim_end_matches("Item"));
        schemas.named(name, |schemas| {
            let mut fields = T::fields(schemas);
            fields.push(Field::answered::<KeyId>(
                "key_id",
                &["The key, by its id."],
                "",
                schemas,
            ));
            fields.push(Field::answered::<Algorithm>(
                "algorithm",
                &["How."],
                "",
                schemas,
            ));
            fields.push(Field::answered::<ReceiptId>(
                "receipt_id",
                &["The receipt of this."],
                "",
                schemas,
            ));
            object(T::about(), fields).into()
        })
    }
}

/// A receipt, which the ledger has written.
pub(crate) struct ReceiptObject;

impl Described for ReceiptObject {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        schemas.named("Receipt", |schemas| {
            let context = Schema::from(object("What it was about.", context_fields(schemas)));
            let module = Schema::from(one_of(["KMS"]));
            let signature = text_like("^[A-Za-z0-9+/]{86}==$", 88, 88);
            let mut fields = vec![
                answered::<Environment>("environment", "Of which stage.", schemas),
                shown("kms_context", "What it was about.", context.into()),
                shown("module", "Who attests it.", module.into()),
                answered::<OperationName>("operation", "What happened.", schemas),
                answered::<Plane>("plane", "In which plane.", schemas),
                answered::<ReceiptId>("receipt_id", "Its id.", schemas),
                answered::<RequestId>("request_id", "In answer to which request.", schemas),
                answered::<ModuleId>("requesting_module", "For whom.", schemas),
                shown(
                    "signature",
                    "Ed25519 over the canonical JSON (RFC 8785) of all the rest, in base64.",
                    Schema::from(signature).into(),
                ),
                answered::<String>("signer_key_id", "Which key signed it.", schemas),
                answered::<TenantId>("tenant_id", "Whose.", schemas),
            ];
            fields.push(answered::<Timestamp>("ts", "When.", schemas));
            object("What happened, to which key, for whom.", fields).into()
        })
    }
}

fn context_fields(schemas: &mut Schemas) -> Vec<Field> {
    let algorithms = Algorithm::schema(schemas);
    let types = KeyType::schema(schemas);
    let either = utoipa::openapi::schema::AnyOfBuilder::new()
        .item(algorithms)
        .item(types);
    let code = one_of(ErrorCode::ALL.map(ErrorCode::as_str));
    let verbs = one_of(ReceiptOperation::ALL.map(ReceiptOperation::operation_type));
    let approval = object(
        "One approver's word.",
        vec![
            answered::<String>("approver", "Who agreed.", schemas),
            answered::<String>("jti", "By which token.", schemas),
        ],
    );
    let approvals = super::describe::list(Schema::from(approval));
    let mut approvals = shown(
        "approvals",
        "Who agreed to it.",
        Schema::from(approvals).into(),
    );
    approvals.is_optional = true;
    vec![
        nullable(
            "algorithm",
            "The algorithm; for a step in a key's life its type.",
            Schema::from(either).into(),
        ),
        approvals,
        nullable(
            "error_code",
            "The code of the refusal.",
            Schema::from(code).into(),
        ),
        answered::<Option<String>>(
            "key_id",
            "The key or the anchor; the reference that led to none.",
            schemas,
        ),
        answered::<Option<u32>>("key_size_bits", "The key's size.", schemas),
        shown(
            "operation_type",
            "What, as a verb.",
            Schema::from(verbs).into(),
        ),
        answered::<bool>(
            "success",
            "Whether it was done; of a verification, whether the signature was good.",
            schemas,
        ),
    ]
}

fn answered<T: Described>(name: &str, about: &str, schemas: &mut Schemas) -> Field {
    Field::answered::<T>(name, &[about], "", schemas)
}

fn shown(name: &str, about: &str, schema: RefOr<Schema>) -> Field {
    Field {
        name: name.to_owned(),
        about: about.to_owned(),
        schema,
        is_optional: false,
        is_nullable: false,
    }
}

fn nullable(name: &str, about: &str, schema: RefOr<Schema>) -> Field {
    Field {
        is_nullable: true,
        ..shown(name, about, schema)
    }
}
