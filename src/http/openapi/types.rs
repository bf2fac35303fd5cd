//! How the types of the domain look on the wire. They are described here and not
//! where they are defined, since only this room knows OpenAPI; what they are bounded
//! by (lengths, patterns, words) they say themselves.

use utoipa::openapi::schema::{AnyOfBuilder, KnownFormat, ObjectBuilder};
use utoipa::openapi::{RefOr, Schema, SchemaFormat};

use super::describe::{Described, Schemas, list, one_of, text, text_like};
use crate::domain::algorithm::{AeadAlgorithm, Algorithm, KeyType, SigningAlgorithm};
use crate::domain::binary::Base64Bytes;
use crate::domain::ids::{
    KeyAlias, KeyId, KeyRef, ModuleId, NAME_PATTERN, ReceiptId, RequestId, TenantId, TrustAnchorId,
    UUID_LENGTH, UUID_PATTERN,
};
use crate::domain::key::{HsmBackendName, KeyState, RevocationReason};
use crate::domain::key_usage::{KeyUsage, KeyUsageSet};
use crate::domain::ledger::TilePath;
use crate::domain::policy::ApprovalGroup;
use crate::domain::receipt::OperationName;
use crate::domain::scope::{Environment, Plane};
use crate::domain::time::{Period, Timestamp};
use crate::domain::trust_anchor::AnchorType;
use crate::service::{CheckStatus, HealthStatus};

/// Describes types by a schema that bears their name.
macro_rules! named {
    ($($type:ident: $about:literal, $schema:expr;)*) => {
        $(impl Described for $type {
            fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
                schemas.named(stringify!($type), |_| {
                    Schema::from($schema.description(Some($about)))
                })
            }
        })*
    };
}
pub(crate) use named;

/// The words of a closed list.
macro_rules! words {
    ($type:ident) => {
        one_of($type::ALL.iter().map(|one| one.as_str()))
    };
}
pub(crate) use words;

fn name(longest: usize) -> ObjectBuilder {
    text_like(NAME_PATTERN, 1, longest)
}

fn uuid() -> ObjectBuilder {
    text_like(UUID_PATTERN, UUID_LENGTH, UUID_LENGTH)
        .format(Some(SchemaFormat::Custom("uuid".to_owned())))
}

named! {
    TenantId: "A tenant of the platform; `GLOBAL` is the platform itself.",
        name(TenantId::LONGEST).examples(["tenant123"]);
    Environment: "The stage a key belongs to.", words!(Environment);
    Plane: "The part of the platform a key belongs to.", words!(Plane);
    ModuleId: "A module of the platform. Second names (`EPC-1`) are read as the first (`M21`).",
        name(ModuleId::LONGEST).examples(["M21"]);
    KeyAlias: "The name of a line of rotated keys.",
        name(KeyAlias::LONGEST).examples(["receipts"]);
    KeyId: "One key; a rotated key is a new one.",
        uuid().examples(["01a21515-4fe3-7350-9d9d-c55b2c4b2355"]);
    ReceiptId: "One receipt.",
        uuid().examples(["01a21515-50b2-728c-9d0e-7b4cc023dd3e"]);
    TrustAnchorId: "One trust anchor.",
        uuid().examples(["01a21515-4bfd-7c5a-8a4e-2f9d6b1c7e30"]);
    RequestId: "One request; it leads to the log lines.",
        uuid().examples(["01a21515-50ad-724f-8a82-539981ea71c3"]);
    KeyRef: "A key: its id, or `alias/<name>` for the active key of that alias.",
        key_ref().examples(["alias/receipts", "018f6a1e-7f3a-7c3d-9a51-3b1f0c6a2d4e"]);
    KeyType: "What kind of key.", words!(KeyType);
    KeyState: "Where a key stands in its life.", words!(KeyState);
    KeyUsage: "One thing a key may be used for.", words!(KeyUsage);
    RevocationReason: "Why a key is revoked. A compromised one loses its secret at once.",
        words!(RevocationReason);
    HsmBackendName: "Which backend holds a key.", words!(HsmBackendName);
    SigningAlgorithm: "A signature algorithm, by its own name or that of RFC 7518.",
        one_of(SigningAlgorithm::NAMES.map(|(name, _)| name));
    AeadAlgorithm: "An algorithm of authenticated encryption, by its own name or another that is read.",
        one_of(AeadAlgorithm::NAMES.map(|(name, _)| name));
    Algorithm: "An algorithm, by its own name.", one_of(every_algorithm());
    AnchorType: "What an anchor is to the platform.", words!(AnchorType);
    ApprovalGroup: "Operations that need a second person together.", words!(ApprovalGroup);
    OperationName: "What a receipt attests.", words!(OperationName);
    HealthStatus: "Whether the service is fit to serve.", words!(HealthStatus);
    CheckStatus: "How one check went.", words!(CheckStatus);
    Timestamp: "A time in UTC (RFC 3339).",
        text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .pattern(Some(Timestamp::PATTERN)).examples(["2026-03-01T12:00:00.000000Z"]);
    Period: "A length of time (ISO 8601); a day is 24 hours.",
        text().pattern(Some(Period::PATTERN)).min_length(Some(3)).examples(["P90D"]);
    Base64Bytes: "Bytes in standard base64 with padding (RFC 4648 section 4).",
        text().pattern(Some(Base64Bytes::PATTERN)).content_encoding("base64")
            .examples(["SGVsbG8="]);
    TilePath: "`<L>/<N>` or `entries/<N>`, with `.p/<W>` behind it for part of a tile (C2SP \
        tlog-tiles): level 0 to 63, the index in groups of three digits of which all but the last \
        have an `x` in front, the width 1 to 255. Its slashes may stand in the path as they are.",
        text().pattern(Some(TilePath::PATTERN)).max_length(Some(64))
            .examples(["0/000", "0/x001/067.p/8", "entries/000"]);
}

/// The two forms as one pattern, so that whoever generates from it meets both.
fn key_ref() -> ObjectBuilder {
    let (alias, id) = (inside(NAME_PATTERN), inside(UUID_PATTERN));
    // The pattern alone would let an alias be too long by what an id is shorter.
    let prefix = KeyRef::ALIAS_PREFIX;
    text_like(
        &format!("^(?:{id}|{prefix}{alias})$"),
        prefix.len() + 1,
        prefix.len() + KeyAlias::LONGEST,
    )
}

/// A pattern without its anchors.
pub(crate) fn inside(pattern: &str) -> &str {
    pattern.trim_start_matches('^').trim_end_matches('$')
}

fn every_algorithm() -> impl Iterator<Item = &'static str> {
    KeyType::ALL
        .into_iter()
        .flat_map(KeyType::algorithms)
        .map(|algorithm| algorithm.as_str())
}

/// In answers a list; requests have [`usage_asked`].
impl Described for KeyUsageSet {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        let usage = KeyUsage::schema(schemas);
        Schema::from(list(usage).min_items(Some(1)).unique_items(true)).into()
    }
}

/// The usages that fit these key types, as requests have them: a list, or one of them.
pub(crate) fn usage_asked(key_type: KeyType) -> Schema {
    let fitting = || {
        one_of(
            KeyUsage::ALL
                .into_iter()
                .filter(|usage| usage.fits(key_type))
                .map(KeyUsage::as_str),
        )
    };
    let either = AnyOfBuilder::new()
        .item(Schema::from(
            list(Schema::from(fitting())).min_items(Some(1)),
        ))
        .item(Schema::from(fitting()));
    either.description(Some("What for: a list, or one.")).into()
}
