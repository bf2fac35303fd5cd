//! What callers get of keys, object by object.

use super::fields::{Cursor, LineCursor};
use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::ids::{KeyAlias, KeyId, ModuleId, ReceiptId, TenantId};
use crate::domain::key::{HsmBackendName, KeyRecord, KeyState, RevocationReason};
use crate::domain::key_usage::KeyUsageSet;
use crate::domain::scope::{Environment, Plane};
use crate::domain::time::{Period, Timestamp};
use crate::http::openapi::answer_object;
use crate::http::openapi::texts::PublicKeyPem;
use crate::service::UsageReport;

answer_object! {
    /// 201 of `POST /kms/v1/keys`.
    GeneratedAnswer {
        /// The key.
        pub(crate) key_id: KeyId,
        /// The public half: SPKI in PEM; `null` for a symmetric key.
        pub(crate) public_key: Option<String> => Option<PublicKeyPem>,
        /// What kind of key.
        pub(crate) key_type: KeyType,
        /// Where it stands in its life.
        pub(crate) key_state: KeyState,
        /// What its backend can do with it, the default first.
        pub(crate) algorithms: Vec<Algorithm>,
        /// Until when it signs and encrypts.
        pub(crate) valid_until: Timestamp,
        /// The receipt of this.
        pub(crate) receipt_id: ReceiptId,
    }
}

answer_object! {
    /// 200 of `GET /kms/v1/keys`.
    KeyListAnswer {
        /// The page.
        pub(crate) keys: Vec<KeyAnswer>,
        /// Where the next page begins; `null` where this is the last.
        pub(crate) next_cursor: Option<String> => Option<Cursor>,
    }
}

answer_object! {
    /// A key's metadata.
    KeyAnswer {
        /// The key.
        key_id: KeyId,
        /// Whose.
        tenant_id: TenantId,
        /// Of which stage.
        environment: Environment,
        /// In which plane of the platform.
        plane: Plane,
        /// What kind of key.
        key_type: KeyType,
        /// What for.
        key_usage: KeyUsageSet,
        /// The alias of its line.
        key_alias: Option<KeyAlias>,
        /// Where it stands in its life.
        key_state: KeyState,
        /// What its backend can do with it, the default first.
        algorithms: Vec<Algorithm>,
        /// The public half: SPKI in PEM; `null` for a symmetric key.
        public_key: Option<String> => Option<PublicKeyPem>,
        /// Who may use it, and how often.
        access_policy: AccessPolicyAnswer,
        /// Which backend holds it.
        hsm_backend: HsmBackendName,
        /// When it was made.
        created_at: Timestamp,
        /// The module that had it made.
        created_by: ModuleId,
        /// Until when it signs and encrypts.
        valid_until: Timestamp,
        /// How many rotations lie before it in its line.
        rotation_count: u32,
        /// The key that it replaced.
        predecessor_key_id: Option<KeyId>,
        /// The key that replaced it.
        successor_key_id: Option<KeyId>,
        /// When it was replaced.
        rotated_at: Option<Timestamp>,
        /// Until when its grace period lasts.
        grace_until: Option<Timestamp>,
        /// When it was archived.
        archived_at: Option<Timestamp>,
        /// When it was revoked.
        revoked_at: Option<Timestamp>,
        /// Why it was revoked.
        revocation_reason: Option<RevocationReason>,
        /// When the secret of a revoked key goes; `null` once it is gone.
        erase_at: Option<Timestamp>,
        /// Its own schedule; `null` where its type's holds.
        rotation_period: Option<Period>,
        /// When it is replaced without anybody asking.
        rotate_at: Option<Timestamp>,
        /// How much it is used.
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<UsageAnswer>,
    }
}

answer_object! {
    /// How much a key is used.
    UsageAnswer {
        /// Uses this UTC day.
        used: u64,
        /// Uses a UTC day that are allowed.
        limit: u64,
        /// When the count starts over.
        resets_at: Timestamp,
        /// When it was last used.
        last_used_at: Option<Timestamp>,
    }
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

answer_object! {
    /// 200 of `PATCH /kms/v1/keys/{key_id}`: the metadata, and the receipt.
    UpdatedAnswer {
        #[serde(flatten)]
        pub(crate) key: KeyAnswer,
        /// The receipt of this.
        pub(crate) receipt_id: ReceiptId,
    }
}

answer_object! {
    /// 200 of archive and restore.
    ArchivedAnswer {
        /// The key.
        pub(crate) key_id: KeyId,
        /// Where it stands in its life.
        pub(crate) key_state: KeyState,
        /// When it was archived.
        pub(crate) archived_at: Option<Timestamp>,
        /// The receipt of this.
        pub(crate) receipt_id: ReceiptId,
    }
}

answer_object! {
    /// 200 of versions: a line of rotations.
    VersionsAnswer {
        /// The page, the oldest first.
        pub(crate) versions: Vec<VersionAnswer>,
        /// Where the next page begins; `null` where this is the last.
        pub(crate) next_cursor: Option<String> => Option<LineCursor>,
    }
}

answer_object! {
    /// One key of a line.
    VersionAnswer {
        /// The key.
        key_id: KeyId,
        /// Where it stands in its life.
        key_state: KeyState,
        /// How many rotations lie before it in its line.
        rotation_count: u32,
        /// When it was made.
        created_at: Timestamp,
        /// Until when it signs and encrypts.
        valid_until: Timestamp,
        /// When it was replaced.
        rotated_at: Option<Timestamp>,
        /// Until when its grace period lasts.
        grace_until: Option<Timestamp>,
        /// When it was archived.
        archived_at: Option<Timestamp>,
        /// When it was revoked.
        revoked_at: Option<Timestamp>,
    }
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

answer_object! {
    /// Who may use a key, and how often.
    AccessPolicyAnswer {
        /// The modules that may use the key.
        allowed_modules: Vec<ModuleId>,
        /// Whether every use needs an approval.
        requires_approval: bool,
        /// Uses a UTC day.
        max_usage_per_day: u64,
    }
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

answer_object! {
    /// 200 of rotate.
    RotatedAnswer {
        /// The key that was replaced.
        pub(crate) old_key_id: KeyId,
        /// The key that takes its place.
        pub(crate) new_key_id: KeyId,
        /// Its public half: SPKI in PEM; `null` for a symmetric key.
        pub(crate) new_public_key: Option<String> => Option<PublicKeyPem>,
        /// Until when its grace period lasts.
        pub(crate) grace_until: Option<Timestamp>,
        /// The receipt of this.
        pub(crate) receipt_id: ReceiptId,
    }
}

answer_object! {
    /// 200 of revoke.
    RevokedAnswer {
        /// The key.
        pub(crate) key_id: KeyId,
        /// When it was revoked.
        pub(crate) revoked_at: Timestamp,
        /// Where it stands in its life.
        pub(crate) key_state: KeyState,
        /// When the secret of a revoked key goes; `null` once it is gone.
        pub(crate) erase_at: Option<Timestamp>,
        /// The receipt of this.
        pub(crate) receipt_id: ReceiptId,
    }
}
