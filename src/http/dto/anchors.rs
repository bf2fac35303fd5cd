//! What callers get of trust anchors.

use super::fields::Cursor;
use crate::domain::ids::{ModuleId, ReceiptId, TenantId, TrustAnchorId};
use crate::domain::scope::{Environment, Plane};
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, TrustAnchor};
use crate::http::openapi::answer_object;
use crate::http::openapi::texts::Fingerprint;

answer_object! {
    /// 201 of `POST /kms/v1/trust-anchors`.
    TrustAnchorAnswer {
        /// The anchor.
        pub(crate) trust_anchor_id: TrustAnchorId,
        /// What it is to the platform.
        pub(crate) anchor_type: AnchorType,
        /// SHA-256 of the certificate's DER, in lower-case hex.
        pub(crate) fingerprint: String => Fingerprint,
        /// The subject's distinguished name (RFC 4514).
        pub(crate) subject: String,
        /// When its validity ends.
        pub(crate) not_after: Timestamp,
        /// The receipt of this.
        pub(crate) receipt_id: ReceiptId,
    }
}

answer_object! {
    /// 200 of `GET /kms/v1/trust-anchors`.
    TrustAnchorListAnswer {
        /// The page.
        pub(crate) trust_anchors: Vec<TrustAnchorEntry>,
        /// Where the next page begins; `null` where this is the last.
        pub(crate) next_cursor: Option<String> => Option<Cursor>,
    }
}

answer_object! {
    /// An anchor among others.
    TrustAnchorEntry {
        /// The anchor.
        trust_anchor_id: TrustAnchorId,
        /// Whose.
        tenant_id: TenantId,
        /// Of which stage.
        environment: Environment,
        /// In which plane of the platform.
        plane: Plane,
        /// What it is to the platform.
        anchor_type: AnchorType,
        /// SHA-256 of the certificate's DER, in lower-case hex.
        fingerprint: String => Fingerprint,
        /// The subject's distinguished name (RFC 4514).
        subject: String,
        /// When its validity begins.
        not_before: Timestamp,
        /// When its validity ends.
        not_after: Timestamp,
        /// When it was added.
        added_at: Timestamp,
        /// By which module.
        added_by: ModuleId,
    }
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

answer_object! {
    /// 200 of `DELETE /kms/v1/trust-anchors/{trust_anchor_id}`.
    TrustAnchorRemovedAnswer {
        /// The anchor.
        pub(crate) trust_anchor_id: TrustAnchorId,
        /// When it was removed.
        pub(crate) removed_at: Timestamp,
        /// The receipt of this.
        pub(crate) receipt_id: ReceiptId,
    }
}
