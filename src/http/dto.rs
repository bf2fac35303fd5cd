//! Requests and answers as they look on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::error::ErrorBody;
use super::fields::{WireObject, wire_object};
use crate::domain::algorithm::{AeadAlgorithm, Algorithm, KeyType, SigningAlgorithm};
use crate::domain::binary::Base64Bytes;
use crate::domain::error::FieldFault;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef, ModuleId, ReceiptId, TenantId, TrustAnchorId};
use crate::domain::key::{HsmBackendName, KeyRecord, KeyState, KeyUsageSet, RevocationReason};
use crate::domain::policy::{AccessPolicyChoice, ApprovalGroup, LARGEST_DAILY_LIMIT};
use crate::domain::scope::{Environment, Plane};
use crate::domain::secret::SecretBytes;
use crate::domain::time::{Period, Timestamp};
use crate::domain::trust_anchor::AnchorType;
use crate::domain::wire::{Unparsable, WireField};

wire_object! {
    /// `POST /kms/v1/keys`
    scoped GenerateKeyBody {
        /// What kind of key.
        key_type: KeyType,
        /// What for.
        key_usage: KeyUsageSet,
        /// The alias of its line.
        key_alias: Option<KeyAlias>,
        /// What its maker chooses of its policy.
        access_policy: Option<AccessPolicyBody>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// The part of a key's policy that its maker chooses.
    AccessPolicyBody {
        /// The modules that may use the key.
        allowed_modules: Option<ModuleList>,
        /// Whether every use needs an approval.
        requires_approval: Option<bool>,
        /// Uses a UTC day.
        max_usage_per_day: Option<DailyLimit>,
    }
}

wire_object! {
    /// `POST /kms/v1/keys/{key_id}/rotate`
    scoped RotateKeyBody {
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/keys/{key_id}/revoke`
    scoped RevokeKeyBody {
        /// Why.
        revocation_reason: RevocationReason,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/sign`
    scoped SignBody {
        /// With which key.
        key_id: KeyRef,
        /// The message.
        data: Base64Bytes,
        /// How; the key's default where absent.
        algorithm: Option<SigningAlgorithm>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/verify`
    scoped VerifyBody {
        /// With which key.
        key_id: KeyRef,
        /// The message.
        data: Base64Bytes,
        /// The signature.
        signature: Base64Bytes,
        /// How; the key's default where absent.
        algorithm: Option<SigningAlgorithm>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/encrypt`
    scoped EncryptBody {
        /// With which key.
        key_id: KeyRef,
        /// The message.
        plaintext: Base64Bytes,
        /// How; the key's default where absent.
        algorithm: Option<AeadAlgorithm>,
        /// What is authenticated beside it.
        aad: Option<Base64Bytes>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/decrypt`
    scoped DecryptBody {
        /// With which key.
        key_id: KeyRef,
        /// The ciphertext with its tag at the end.
        ciphertext: Base64Bytes,
        /// The nonce that the encryption answered.
        iv: NonceField,
        /// How; the key's default where absent.
        algorithm: Option<AeadAlgorithm>,
        /// What was authenticated beside it.
        aad: Option<Base64Bytes>,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// `POST /kms/v1/trust-anchors`
    scoped AddTrustAnchorBody {
        /// Base64 of DER or of PEM.
        certificate: Base64Bytes,
        /// What it is to be.
        anchor_type: AnchorType,
        /// A second person's word.
        approval_token: Option<ApprovalTokenField>,
    }
}

wire_object! {
    /// The query of a look-up: the scope and nothing else.
    scoped ScopeQuery {}
}

wire_object! {
    /// The query of `GET /kms/v1/keys`.
    scoped ListKeysQuery {
        /// Only those in this state.
        key_state: Option<KeyState>,
        /// Only those of this type.
        key_type: Option<KeyType>,
        /// Only those that bear, or bore, this alias.
        alias: Option<KeyAlias>,
        /// At most so many.
        limit: Option<PageLimit>,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    }
}

/// A request body that may carry an approval.
pub(crate) trait ApprovableBody: WireObject {
    /// Takes the approval out.
    fn take_approval(&mut self) -> Option<ApprovalTokenField>;
}

macro_rules! approvable {
    ($($body:ident),*) => {
        $(impl ApprovableBody for $body {
            fn take_approval(&mut self) -> Option<ApprovalTokenField> {
                self.approval_token.take()
            }
        })*
    };
}

approvable!(
    GenerateKeyBody,
    RotateKeyBody,
    RevokeKeyBody,
    SignBody,
    VerifyBody,
    EncryptBody,
    DecryptBody,
    AddTrustAnchorBody
);

/// An approval token in a body.
pub(crate) struct ApprovalTokenField(pub(crate) SecretBytes);

impl WireField for ApprovalTokenField {
    const EXPECTED: &'static str = "an approval token, as a string";
}

impl<'de> Deserialize<'de> for ApprovalTokenField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|token| Self(SecretBytes::from(token)))
    }
}

impl WireField for AccessPolicyBody {
    const EXPECTED: &'static str =
        "an object of allowed_modules, requires_approval, max_usage_per_day";

    fn faults_inside(value: &serde_json::Value) -> Vec<FieldFault> {
        value.as_object().map(Self::faults).unwrap_or_default()
    }
}

impl From<AccessPolicyBody> for AccessPolicyChoice {
    fn from(body: AccessPolicyBody) -> Self {
        Self {
            allowed_modules: body.allowed_modules.map(|list| list.0),
            requires_approval: body.requires_approval,
            max_usage_per_day: body.max_usage_per_day.map(|limit| limit.0),
        }
    }
}

/// Modules that may use a key.
pub(crate) struct ModuleList(Vec<ModuleId>);

/// More modules than the platform will ever have.
const MOST_MODULES: usize = 256;

impl WireField for ModuleList {
    const EXPECTED: &'static str = "a list of 1 to 256 modules such as M21";
}

impl<'de> Deserialize<'de> for ModuleList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let modules = Vec::<ModuleId>::deserialize(deserializer)?;
        if modules.is_empty() || modules.len() > MOST_MODULES {
            return Err(serde::de::Error::custom(Self::EXPECTED));
        }
        Ok(Self(modules))
    }
}

/// Uses a UTC day.
pub(crate) struct DailyLimit(u64);

impl WireField for DailyLimit {
    const EXPECTED: &'static str = "a whole number from 1 to 9007199254740991";
}

impl<'de> Deserialize<'de> for DailyLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = u64::deserialize(deserializer)?;
        if (1..=LARGEST_DAILY_LIMIT).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err(serde::de::Error::custom(Self::EXPECTED))
        }
    }
}

/// A nonce of 96 bits.
pub(crate) struct NonceField(pub(crate) [u8; 12]);

impl WireField for NonceField {
    const EXPECTED: &'static str =
        "the iv that encrypt answered: 12 bytes in standard base64 with padding";
}

impl<'de> Deserialize<'de> for NonceField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Base64Bytes::deserialize(deserializer)?.into_bytes();
        <[u8; 12]>::try_from(bytes.as_ref())
            .map(Self)
            .map_err(|_| serde::de::Error::custom(Self::EXPECTED))
    }
}

/// How many keys a page holds.
#[derive(Clone, Copy)]
pub(crate) struct PageLimit(pub(crate) usize);

impl PageLimit {
    /// Where the query says nothing.
    pub(crate) const DEFAULT: Self = Self(100);
    const LARGEST: usize = 1_000;
}

impl WireField for PageLimit {
    const EXPECTED: &'static str = "a whole number from 1 to 1000";
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .ok()
            .filter(|limit| (1..=Self::LARGEST).contains(limit))
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(Self::EXPECTED))
    }
}

/// Where a page begins. Opaque to callers, who give back what they got.
pub(crate) struct Cursor(pub(crate) KeyId);

impl Cursor {
    /// The text of a cursor.
    pub(crate) fn encode(after: KeyId) -> String {
        after
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn decode(text: &str) -> Option<Self> {
        let digits = |place: usize| text.get(2 * place..2 * place + 2);
        let mut bytes = [0u8; 16];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits(place)?, 16).ok()?;
        }
        Some(Self(KeyId::from_bytes(bytes)))
    }
}

impl WireField for Cursor {
    const EXPECTED: &'static str = "the next_cursor of the page before";
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::decode(&text).ok_or_else(|| serde::de::Error::custom(Unparsable(Self::EXPECTED)))
    }
}

/// 201 of `POST /kms/v1/keys`.
#[derive(Serialize)]
pub(crate) struct GeneratedAnswer {
    pub(crate) key_id: KeyId,
    pub(crate) public_key: Option<String>,
    pub(crate) key_type: KeyType,
    pub(crate) key_state: KeyState,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) valid_until: Timestamp,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of `GET /kms/v1/keys`.
#[derive(Serialize)]
pub(crate) struct KeyListAnswer {
    pub(crate) keys: Vec<KeyAnswer>,
    pub(crate) next_cursor: Option<String>,
}

/// A key's metadata.
#[derive(Serialize)]
pub(crate) struct KeyAnswer {
    key_id: KeyId,
    tenant_id: TenantId,
    environment: Environment,
    plane: Plane,
    key_type: KeyType,
    key_usage: KeyUsageSet,
    key_alias: Option<KeyAlias>,
    key_state: KeyState,
    algorithms: Vec<Algorithm>,
    public_key: Option<String>,
    access_policy: AccessPolicyAnswer,
    hsm_backend: HsmBackendName,
    created_at: Timestamp,
    created_by: ModuleId,
    valid_until: Timestamp,
    rotation_count: u32,
    predecessor_key_id: Option<KeyId>,
    successor_key_id: Option<KeyId>,
    rotated_at: Option<Timestamp>,
    grace_until: Option<Timestamp>,
    archived_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    revocation_reason: Option<RevocationReason>,
}

#[derive(Serialize)]
struct AccessPolicyAnswer {
    allowed_modules: Vec<ModuleId>,
    requires_approval: bool,
    max_usage_per_day: u64,
}

impl From<KeyRecord> for KeyAnswer {
    fn from(record: KeyRecord) -> Self {
        Self {
            key_id: record.key_id,
            tenant_id: record.scope.tenant_id,
            environment: record.scope.environment,
            plane: record.scope.plane,
            key_type: record.key_type,
            key_usage: record.key_usage,
            key_alias: record.key_alias,
            key_state: record.key_state,
            algorithms: record.algorithms,
            public_key: record.public_key,
            access_policy: AccessPolicyAnswer {
                allowed_modules: record.access_policy.allowed_modules,
                requires_approval: record.access_policy.requires_approval,
                max_usage_per_day: record.access_policy.max_usage_per_day,
            },
            hsm_backend: record.backend,
            created_at: record.created_at,
            created_by: record.created_by,
            valid_until: record.valid_until,
            rotation_count: record.rotation_count,
            predecessor_key_id: record.predecessor_key_id,
            successor_key_id: record.successor_key_id,
            rotated_at: record.rotated_at,
            grace_until: record.grace_until,
            archived_at: record.archived_at,
            revoked_at: record.revoked_at,
            revocation_reason: record.revocation_reason,
        }
    }
}

/// 200 of rotate.
#[derive(Serialize)]
pub(crate) struct RotatedAnswer {
    pub(crate) old_key_id: KeyId,
    pub(crate) new_key_id: KeyId,
    pub(crate) new_public_key: Option<String>,
    pub(crate) grace_until: Option<Timestamp>,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of revoke.
#[derive(Serialize)]
pub(crate) struct RevokedAnswer {
    pub(crate) key_id: KeyId,
    pub(crate) revoked_at: Timestamp,
    pub(crate) key_state: KeyState,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of sign.
#[derive(Serialize)]
pub(crate) struct SignedAnswer {
    pub(crate) signature: String,
    pub(crate) key_id: KeyId,
    pub(crate) algorithm: Algorithm,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of verify.
#[derive(Serialize)]
pub(crate) struct VerifiedAnswer {
    pub(crate) valid: bool,
    pub(crate) status: &'static str,
    pub(crate) key_id: KeyId,
    pub(crate) algorithm: Algorithm,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of encrypt.
#[derive(Serialize)]
pub(crate) struct EncryptedAnswer {
    pub(crate) ciphertext: String,
    pub(crate) iv: String,
    pub(crate) key_id: KeyId,
    pub(crate) algorithm: Algorithm,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of decrypt.
#[derive(Serialize)]
pub(crate) struct DecryptedAnswer {
    pub(crate) plaintext: String,
    pub(crate) key_id: KeyId,
    pub(crate) algorithm: Algorithm,
    pub(crate) receipt_id: ReceiptId,
}

/// 201 of `POST /kms/v1/trust-anchors`.
#[derive(Serialize)]
pub(crate) struct TrustAnchorAnswer {
    pub(crate) trust_anchor_id: TrustAnchorId,
    pub(crate) anchor_type: AnchorType,
    pub(crate) fingerprint: String,
    pub(crate) subject: String,
    pub(crate) not_after: Timestamp,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of `GET /kms/v1/receipts/{receipt_id}`. The receipt is what the ledger
/// keeps, byte for byte, so that its signature can be checked as it stands.
#[derive(Serialize)]
pub(crate) struct ReceiptAnswer {
    pub(crate) receipt: Box<RawValue>,
    pub(crate) leaf_index: u64,
}

/// `GET /kms/v1/health`
#[derive(Serialize)]
pub(crate) struct HealthAnswer {
    pub(crate) status: &'static str,
    pub(crate) checks: Vec<CheckAnswer>,
    /// What every answer has that is not 2xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ErrorBody>,
}

#[derive(Serialize)]
pub(crate) struct CheckAnswer {
    pub(crate) name: &'static str,
    pub(crate) status: &'static str,
    pub(crate) detail: String,
}

/// `GET /health`
#[derive(Serialize)]
pub(crate) struct LivenessAnswer {
    pub(crate) status: &'static str,
    pub(crate) service: &'static str,
    pub(crate) version: &'static str,
}

/// `GET /kms/v1/config`
#[derive(Serialize)]
pub(crate) struct ConfigAnswer {
    pub(crate) key_rotation_schedule: BTreeMap<&'static str, Period>,
    pub(crate) rotation_grace_period: Period,
    pub(crate) allowed_algorithms: Vec<Algorithm>,
    pub(crate) max_usage_per_day_default: u64,
    pub(crate) dual_authorization_required_operations: Vec<ApprovalGroup>,
}
