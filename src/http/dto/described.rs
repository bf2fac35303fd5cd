//! How the fields that only the wire knows look on it; the domain's are in
//! `openapi/types.rs`.

use serde_json::json;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

use super::batch::{BatchAnswer, ItemAnswer, ItemList, Reference, Verdict};
use super::fields::{
    AliasChange, ApprovalTokenField, Cursor, DailyLimit, LineCursor, MOST_MODULES, ModuleList,
    NonceField, PageLimit, RotationPeriodField, TreeSize,
};
use super::requests::{AccessPolicyBody, GenerateKeyBody, UpdateKeyBody};
use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::batch::LARGEST_BATCH;
use crate::domain::ids::{KeyAlias, KeyId, ModuleId, NAME_PATTERN, ReceiptId};
use crate::domain::policy::LARGEST_DAILY_LIMIT;
use crate::http::error::FailureBody;
use crate::http::openapi::{
    Described, DescribedObject, Field, Schemas, closed, inside, list, named, object, one_of, text,
    text_like, usage_asked, whole_number, words,
};

named! {
    ApprovalTokenField: "A second person's word, or several joined by commas.",
        text().examples(["approval-token-123"]);
    DailyLimit: "Uses a UTC day.", whole_number(1, LARGEST_DAILY_LIMIT as usize);
    RotationPeriodField: "How long a key signs and encrypts: `PT1S` to `P36500D`.",
        text().pattern(Some(RotationPeriodField::PATTERN)).examples(["P30D"]);
    NonceField: "A nonce of 96 bits: 12 bytes in standard base64.",
        text_like("^[A-Za-z0-9+/]{16}$", 16, 16).content_encoding("base64");
    PageLimit: "How many entries a page holds at most; 100 where absent.",
        whole_number(1, PageLimit::LARGEST).examples([10]);
    TreeSize: "A number of receipts.", whole_number(0, i64::MAX as usize).examples([3, 25]);
    Cursor: "The `next_cursor` of the page before.",
        text_like(Cursor::PATTERN, 32, 32).examples(["01a215154fe373509d9dc55b2c4b2355"]);
    LineCursor: "The `next_cursor` of the page before.",
        text_like(LineCursor::PATTERN, 32, 32).examples(["00000000000000000000000000000001"]);
    Reference: "The caller's own name for an item: any text without control characters.",
        text().max_length(Some(Reference::MOST_CHARACTERS))
            .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*$"));
    Verdict: "What a signature turned out to be.", words!(Verdict);
}

impl Described for ModuleList {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        let module = ModuleId::schema(schemas);
        let list = list(module)
            .min_items(Some(1))
            .max_items(Some(MOST_MODULES));
        Schema::from(list).into()
    }
}

/// An alias, or `null` or the empty text for none.
impl Described for AliasChange {
    fn schema(_: &mut Schemas) -> RefOr<Schema> {
        let name = inside(NAME_PATTERN);
        let text = text_like(&format!("^(?:{name})?$"), 0, KeyAlias::LONGEST);
        let or_null = SchemaType::Array(vec![Type::String, Type::Null]);
        Schema::from(text.schema_type(or_null)).into()
    }
}

impl Described for AccessPolicyBody {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        schemas.asked::<Self>()
    }
}

impl<I: DescribedObject> Described for ItemList<I> {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        let item = schemas.asked::<I>();
        let list = list(item).min_items(Some(1)).max_items(Some(LARGEST_BATCH));
        Schema::from(list).into()
    }
}

/// The body of a new key: what it is for has to fit its type.
pub(crate) fn generate_key_body(schemas: &mut Schemas) -> RefOr<Schema> {
    schemas.named(GenerateKeyBody::name(), |schemas| {
        let families = [
            ("GenerateKeyPairBody", true),
            ("GenerateSecretKeyBody", false),
        ];
        let families = families.map(|(name, is_asymmetric)| {
            schemas.named(name, |schemas| {
                let of_family = || {
                    KeyType::ALL
                        .into_iter()
                        .filter(|kind| kind.is_asymmetric() == is_asymmetric)
                };
                let mut fields = GenerateKeyBody::fields(schemas);
                for field in &mut fields {
                    match field.name.as_str() {
                        "key_type" => {
                            let types = one_of(of_family().map(KeyType::as_str));
                            field.schema = Schema::from(types).into();
                        }
                        "key_usage" => {
                            if let Some(kind) = of_family().next() {
                                field.schema = usage_asked(kind).into();
                            }
                        }
                        _ => {}
                    }
                }
                let about = match is_asymmetric {
                    true => "A new key pair.",
                    false => "A new secret key.",
                };
                closed(object(about, fields)).into()
            })
        });
        let either = families
            .into_iter()
            .fold(OneOfBuilder::new(), OneOfBuilder::item);
        either.into()
    })
}

/// The body of a change: something is to change.
pub(crate) fn update_key_body(schemas: &mut Schemas) -> RefOr<Schema> {
    schemas.named(UpdateKeyBody::name(), |schemas| {
        let policy = AccessPolicyBody::fields(schemas);
        let named = policy.iter().map(|field| {
            let name = &field.name;
            json!({ "required": [name], "properties": { (name): { "not": { "type": "null" } } } })
        });
        let named: Vec<_> = named.collect();
        let any = json!([
            { "required": ["key_alias"] },
            {
                "required": ["access_policy"],
                "properties": { "access_policy": { "type": "object", "anyOf": named } },
            },
        ]);
        let object = object(UpdateKeyBody::about(), UpdateKeyBody::fields(schemas));
        // The library's type of objects has no place for it.
        let any = Extensions::from_iter([("anyOf", any)]);
        closed(object).extensions(Some(any)).into()
    })
}

impl<T: DescribedObject> Described for BatchAnswer<T> {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        let name = format!("{}Batch", T::name().trim_end_matches("Item"));
        schemas.named(name, |schemas| {
            let results = Vec::<ItemAnswer<T>>::schema(schemas);
            let mut fields = vec![
                Field::answered::<KeyId>("key_id", &["The key."], "", schemas),
                Field::answered::<Algorithm>("algorithm", &["The algorithm."], "", schemas),
            ];
            let counted = [
                ("succeeded", "How many have a result."),
                ("failed", "How many have an error."),
            ];
            for (name, about) in counted {
                fields.push(Field::answered::<usize>(name, &[about], "", schemas));
            }
            let about = "What came of each item, in their order.";
            let mut field = Field::answered::<bool>("results", &[about], "", schemas);
            field.schema = results;
            fields.push(field);
            object("What came of a batch.", fields).into()
        })
    }
}

impl<T: DescribedObject> Described for ItemAnswer<T> {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        schemas.named(T::name(), |schemas| {
            let about = ["The caller's own name for it."];
            let mut both = || {
                vec![
                    Field::answered::<Option<Reference>>("reference", &about, "", schemas),
                    Field::answered::<ReceiptId>("receipt_id", &["Its receipt."], "", schemas),
                ]
            };
            let (mut done, mut failed) = (both(), both());
            done.extend(T::fields(schemas));
            let about = ["Why there is no result."];
            failed.push(Field::answered::<FailureBody>("error", &about, "", schemas));
            OneOfBuilder::new()
                .item(Schema::from(object("It has a result.", done)))
                .item(Schema::from(object("It has none.", failed)))
                .into()
        })
    }
}
