//! What callers get, object by object.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::ids::{KeyAlias, KeyId, ModuleId, ReceiptId, TenantId, TrustAnchorId};
use crate::domain::key::{HsmBackendName, KeyRecord, KeyState, RevocationReason};
use crate::domain::key_usage::KeyUsageSet;
use crate::domain::policy::ApprovalGroup;
use crate::domain::scope::{Environment, Plane};
use crate::domain::time::{Period, Timestamp};
use crate::domain::trust_anchor::{AnchorType, TrustAnchor};
use crate::http::error::ErrorBody;
use crate::service::UsageReport;

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
    erase_at: Option<Timestamp>,
    rotation_period: Option<Period>,
    rotate_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageAnswer>,
}

/// How much a key is used.
#[derive(Serialize)]
struct UsageAnswer {
    used: u64,
    limit: u64,
    resets_at: Timestamp,
    last_used_at: Option<Timestamp>,
}

impl From<UsageReport> for UsageAnswer {
    fn from(report: UsageReport) -> Self {
        Self {
            used: report.used,
            limit: report.limit,
            resets_at: report.resets_at,
            last_used_at: report.last_used_at,
        }
    }
}

impl KeyAnswer {
    /// A key's metadata, and how much it is used.
    pub(crate) fn with_usage(record: KeyRecord, usage: UsageReport) -> Self {
        Self {
            usage: Some(usage.into()),
            ..record.into()
        }
    }
}

/// 200 of `PATCH /kms/v1/keys/{key_id}`: the metadata, and the receipt.
#[derive(Serialize)]
pub(crate) struct UpdatedAnswer {
    #[serde(flatten)]
    pub(crate) key: KeyAnswer,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of archive and restore.
#[derive(Serialize)]
pub(crate) struct ArchivedAnswer {
    pub(crate) key_id: KeyId,
    pub(crate) key_state: KeyState,
    pub(crate) archived_at: Option<Timestamp>,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of versions: a line of rotations.
#[derive(Serialize)]
pub(crate) struct VersionsAnswer {
    pub(crate) versions: Vec<VersionAnswer>,
    pub(crate) next_cursor: Option<String>,
}

/// One key of a line.
#[derive(Serialize)]
pub(crate) struct VersionAnswer {
    key_id: KeyId,
    key_state: KeyState,
    rotation_count: u32,
    created_at: Timestamp,
    valid_until: Timestamp,
    rotated_at: Option<Timestamp>,
    grace_until: Option<Timestamp>,
    archived_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<KeyRecord> for VersionAnswer {
    fn from(record: KeyRecord) -> Self {
        Self {
            key_id: record.key_id,
            key_state: record.key_state,
            rotation_count: record.rotation_count,
            created_at: record.created_at,
            valid_until: record.valid_until,
            rotated_at: record.rotated_at,
            grace_until: record.grace_until,
            archived_at: record.archived_at,
            revoked_at: record.revoked_at,
        }
    }
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
            erase_at: record.erase_at,
            rotation_period: record.rotation_period,
            rotate_at: record.rotate_at,
            usage: None,
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
    pub(crate) erase_at: Option<Timestamp>,
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

/// 200 of `GET /kms/v1/trust-anchors`.
#[derive(Serialize)]
pub(crate) struct TrustAnchorListAnswer {
    pub(crate) trust_anchors: Vec<TrustAnchorEntry>,
    pub(crate) next_cursor: Option<String>,
}

/// An anchor among others.
#[derive(Serialize)]
pub(crate) struct TrustAnchorEntry {
    trust_anchor_id: TrustAnchorId,
    tenant_id: TenantId,
    environment: Environment,
    plane: Plane,
    anchor_type: AnchorType,
    fingerprint: String,
    subject: String,
    not_before: Timestamp,
    not_after: Timestamp,
    added_at: Timestamp,
    added_by: ModuleId,
}

impl From<TrustAnchor> for TrustAnchorEntry {
    fn from(anchor: TrustAnchor) -> Self {
        Self {
            trust_anchor_id: anchor.trust_anchor_id,
            tenant_id: anchor.scope.tenant_id,
            environment: anchor.scope.environment,
            plane: anchor.scope.plane,
            anchor_type: anchor.anchor_type,
            fingerprint: anchor.certificate.fingerprint,
            subject: anchor.certificate.subject,
            not_before: anchor.certificate.not_before,
            not_after: anchor.certificate.not_after,
            added_at: anchor.added_at,
            added_by: anchor.added_by,
        }
    }
}

/// 200 of `DELETE /kms/v1/trust-anchors/{trust_anchor_id}`.
#[derive(Serialize)]
pub(crate) struct TrustAnchorRemovedAnswer {
    pub(crate) trust_anchor_id: TrustAnchorId,
    pub(crate) removed_at: Timestamp,
    pub(crate) receipt_id: ReceiptId,
}

/// 200 of `GET /kms/v1/receipts/{receipt_id}`. The receipt is what the ledger
/// keeps, byte for byte, so that its signature can be checked as it stands.
#[derive(Serialize)]
pub(crate) struct ReceiptAnswer {
    pub(crate) receipt: Box<RawValue>,
    pub(crate) leaf_index: u64,
    pub(crate) tree_size: u64,
    pub(crate) inclusion_proof: Vec<String>,
    pub(crate) checkpoint: String,
}

/// 200 of `GET /kms/v1/receipts`.
#[derive(Serialize)]
pub(crate) struct ReceiptListAnswer {
    pub(crate) receipts: Vec<ReceiptEntry>,
    pub(crate) next_cursor: Option<String>,
}

/// A receipt among others.
#[derive(Serialize)]
pub(crate) struct ReceiptEntry {
    pub(crate) receipt: Box<RawValue>,
    pub(crate) leaf_index: u64,
}

/// 200 of `GET /kms/v1/ledger/consistency`.
#[derive(Serialize)]
pub(crate) struct ConsistencyAnswer {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) consistency_proof: Vec<String>,
    pub(crate) checkpoint: String,
}

/// 200 of `GET /kms/v1/ledger/keys`.
#[derive(Serialize)]
pub(crate) struct LedgerKeysAnswer {
    pub(crate) keys: Vec<LedgerKeyEntry>,
}

/// A key that signs the ledger or has signed it.
#[derive(Serialize)]
pub(crate) struct LedgerKeyEntry {
    pub(crate) verifier_key: String,
    pub(crate) from_size: u64,
    pub(crate) handover: Option<String>,
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
