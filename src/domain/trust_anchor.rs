//! Trust anchors: certificates that vouch for callers.

use super::ids::{ModuleId, TrustAnchorId};
use super::scope::Scope;
use super::time::Timestamp;
use super::wire::text_form;

/// What an anchor is to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnchorType {
    /// A CA of the platform.
    InternalCa,
    /// A CA of somebody else.
    ExternalCa,
    /// A self-signed root.
    Root,
}

impl AnchorType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::InternalCa, Self::ExternalCa, Self::Root];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InternalCa => "internal_ca",
            Self::ExternalCa => "external_ca",
            Self::Root => "root",
        }
    }
}

text_form!(AnchorType, "one of internal_ca, external_ca, root");

/// What an inspected CA certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// SHA-256 of the DER, in lower-case hex.
    pub fingerprint: String,
    /// The subject's distinguished name (RFC 4514).
    pub subject: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// A certificate that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor {
    /// Its id.
    pub trust_anchor_id: TrustAnchorId,
    /// Whose it is.
    pub scope: Scope,
    /// What it is to the platform.
    pub anchor_type: AnchorType,
    /// What it says of itself.
    pub certificate: CertificateFacts,
    /// When it was taken in.
    pub added_at: Timestamp,
    /// By which module.
    pub added_by: ModuleId,
}
