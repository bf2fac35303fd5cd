//! What the labels of the metrics can be.

/// What a request asks for, as the `operation` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOperation {
    /// `POST /kms/v1/keys`
    GenerateKey,
    /// `GET /kms/v1/keys`
    ListKeys,
    /// `GET /kms/v1/keys/{key_id}`
    GetKey,
    /// `PATCH /kms/v1/keys/{key_id}`
    UpdateKey,
    /// `GET /kms/v1/keys/{key_id}/versions`
    ListVersions,
    /// `POST /kms/v1/keys/{key_id}/archive`
    ArchiveKey,
    /// `POST /kms/v1/keys/{key_id}/restore`
    RestoreKey,
    /// `POST /kms/v1/keys/{key_id}/rotate`
    RotateKey,
    /// `POST /kms/v1/keys/{key_id}/revoke`
    RevokeKey,
    /// `POST /kms/v1/sign`
    Sign,
    /// `POST /kms/v1/verify`
    Verify,
    /// `POST /kms/v1/encrypt`
    Encrypt,
    /// `POST /kms/v1/decrypt`
    Decrypt,
    /// `POST /kms/v1/sign/batch`
    SignBatch,
    /// `POST /kms/v1/verify/batch`
    VerifyBatch,
    /// `POST /kms/v1/encrypt/batch`
    EncryptBatch,
    /// `POST /kms/v1/decrypt/batch`
    DecryptBatch,
    /// `POST /kms/v1/trust-anchors`
    AddTrustAnchor,
    /// `GET /kms/v1/trust-anchors`
    ListTrustAnchors,
    /// `DELETE /kms/v1/trust-anchors/{trust_anchor_id}`
    RemoveTrustAnchor,
    /// `GET /kms/v1/receipts/{receipt_id}`
    GetReceipt,
    /// `GET /kms/v1/receipts`
    ListReceipts,
    /// `GET /kms/v1/ledger/checkpoint`, `consistency` and `keys`
    ReadLedger,
    /// `GET /kms/v1/ledger/tile/…`
    ReadLedgerTile,
    /// `GET /kms/v1/config`
    Config,
    /// `GET /kms/v1/openapi.json`
    OpenApi,
    /// `GET /health` and `GET /kms/v1/health`
    Health,
    /// `GET /kms/v1/metrics`
    Metrics,
    /// Everything that is not there.
    Unknown,
}

impl RequestOperation {
    /// Every operation.
    pub const ALL: [Self; 29] = [
        Self::GenerateKey,
        Self::ListKeys,
        Self::GetKey,
        Self::UpdateKey,
        Self::ListVersions,
        Self::ArchiveKey,
        Self::RestoreKey,
        Self::RotateKey,
        Self::RevokeKey,
        Self::Sign,
        Self::Verify,
        Self::Encrypt,
        Self::Decrypt,
        Self::SignBatch,
        Self::VerifyBatch,
        Self::EncryptBatch,
        Self::DecryptBatch,
        Self::AddTrustAnchor,
        Self::ListTrustAnchors,
        Self::RemoveTrustAnchor,
        Self::GetReceipt,
        Self::ListReceipts,
        Self::ReadLedger,
        Self::ReadLedgerTile,
        Self::Config,
        Self::OpenApi,
        Self::Health,
        Self::Metrics,
        Self::Unknown,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GenerateKey => "generate_key",
            Self::ListKeys => "list_keys",
            Self::GetKey => "get_key",
            Self::UpdateKey => "update_key",
            Self::ListVersions => "list_versions",
            Self::ArchiveKey => "archive_key",
            Self::RestoreKey => "restore_key",
            Self::RotateKey => "rotate_key",
            Self::RevokeKey => "revoke_key",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::SignBatch => "sign_batch",
            Self::VerifyBatch => "verify_batch",
            Self::EncryptBatch => "encrypt_batch",
            Self::DecryptBatch => "decrypt_batch",
            Self::AddTrustAnchor => "add_trust_anchor",
            Self::ListTrustAnchors => "list_trust_anchors",
            Self::RemoveTrustAnchor => "remove_trust_anchor",
            Self::GetReceipt => "get_receipt",
            Self::ListReceipts => "list_receipts",
            Self::ReadLedger => "read_ledger",
            Self::ReadLedgerTile => "read_ledger_tile",
            Self::Config => "config",
            Self::OpenApi => "openapi",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Unknown => "unknown",
        }
    }
}

/// A key set, as the `set` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwksSet {
    /// The identity service's.
    M21,
    /// The approvers'.
    Approvers,
}

impl JwksSet {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::M21 => "m21",
            Self::Approvers => "approvers",
        }
    }
}
