//! `TrustPlane` (M32): what makes a certificate an anchor.

use crate::domain::error::CertificateFault;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts};

/// The client of the trust plane.
pub trait TrustPlane: Send + Sync + 'static {
    /// Reads a certificate (DER or PEM) that is to become an anchor of this
    /// type, and holds it to RFC 5280: a CA in its validity with a strong key,
    /// whose self-signature, if it has one, verifies.
    ///
    /// # Errors
    /// [`CertificateFault`], the first rule it breaks.
    fn inspect(
        &self,
        certificate: &[u8],
        anchor_type: AnchorType,
        now: Timestamp,
    ) -> Result<CertificateFacts, CertificateFault>;
}
