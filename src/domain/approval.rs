//! Dual authorization: what a second person agreed to.

use super::algorithm::KeyType;
use super::error::{ApprovalFault, KmsError};
use super::ids::KeyId;
use super::key_usage::KeyUsageSet;
use super::scope::Scope;
use super::secret::SecretBytes;
use super::time::Timestamp;
use super::wire::text_form;

/// The token or tokens that came with a request, not yet looked at.
pub type ApprovalToken = SecretBytes;

/// What can be approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApprovalOperation {
    /// A new key.
    KeyGenerate,
    /// A key's replacement.
    KeyRotate,
    /// A key's replacement without a grace period.
    KeyRotateEmergency,
    /// A key's retirement.
    KeyArchive,
    /// Another alias or policy for a key.
    KeyUpdate,
    /// A key's end.
    KeyRevoke,
    /// Taking back a key's end.
    KeyRestore,
    /// One use of a key whose policy asks for approvals.
    KeyUse,
    /// A new trust anchor.
    TrustAnchorAdd,
    /// The end of a trust anchor.
    TrustAnchorRemove,
}

impl ApprovalOperation {
    /// Every operation.
    pub const ALL: [Self; 10] = [
        Self::KeyGenerate,
        Self::KeyRotate,
        Self::KeyRotateEmergency,
        Self::KeyArchive,
        Self::KeyUpdate,
        Self::KeyRevoke,
        Self::KeyRestore,
        Self::KeyUse,
        Self::TrustAnchorAdd,
        Self::TrustAnchorRemove,
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.as_str() == text)
    }

    /// The name inside an approval.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyGenerate => "key_generate",
            Self::KeyRotate => "key_rotate",
            Self::KeyRotateEmergency => "key_rotate_emergency",
            Self::KeyArchive => "key_archive",
            Self::KeyUpdate => "key_update",
            Self::KeyRevoke => "key_revoke",
            Self::KeyRestore => "key_restore",
            Self::KeyUse => "key_use",
            Self::TrustAnchorAdd => "trust_anchor_add",
            Self::TrustAnchorRemove => "trust_anchor_remove",
        }
    }
}

text_form!(
    ApprovalOperation,
    "one of key_generate, key_rotate, key_rotate_emergency, key_archive, key_update, key_revoke, \
     key_restore, key_use, trust_anchor_add, trust_anchor_remove"
);

/// Exactly what an approval must be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalSubject {
    /// What is to be done.
    pub operation: ApprovalOperation,
    /// Where.
    pub scope: Scope,
    /// To what.
    pub target: ApprovalTarget,
}

/// The thing an approval is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApprovalTarget {
    /// A key that exists.
    Key(KeyId),
    /// A key that does not exist yet.
    NewKey {
        /// Its type.
        key_type: KeyType,
        /// Its usage.
        key_usage: KeyUsageSet,
    },
    /// A certificate, by the SHA-256 of its DER in lower-case hex.
    Certificate {
        /// The fingerprint.
        fingerprint: String,
    },
}

/// One approver's word, verified. It counts once: whoever acts on it spends it in
/// the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who agreed (`sub`).
    pub approver: String,
    /// The token's own name (`jti`).
    pub token_id: String,
    /// Until when the token could be presented again, leeway included: as long
    /// it must be remembered as spent.
    pub usable_until: Timestamp,
}

/// An approval that has been verified, for one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    subject: ApprovalSubject,
    grants: Vec<Grant>,
}

impl Approval {
    /// An approval of this subject by these approvers. For the IAM adapters, which
    /// verify tokens; in development there are no names to give.
    pub fn new(subject: ApprovalSubject, grants: Vec<Grant>) -> Self {
        Self { subject, grants }
    }

    /// What it consists of.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Checks that this approval is for that subject and no other.
    ///
    /// # Errors
    /// [`ApprovalFault::WrongSubject`] when it is for something else.
    pub fn covers(&self, subject: &ApprovalSubject) -> Result<(), KmsError> {
        if self.subject == *subject {
            Ok(())
        } else {
            Err(approval_refused(ApprovalFault::WrongSubject))
        }
    }
}

/// The error for an approval that failed a rule.
pub fn approval_refused(fault: ApprovalFault) -> KmsError {
    KmsError::Unauthorized(fault.into())
}
