//! Clients of the trust plane (M32).

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod in_force;
mod x509;

use self::in_force::InForce;
use crate::domain::error::CertificateFault;
use crate::domain::ids::TrustAnchorId;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts, TrustAnchor};
use crate::ports::trust_plane::{TrustPlane, Voucher};

/// Holds certificates to RFC 5280, and those in force in memory.
#[derive(Default)]
pub struct X509TrustPlane {
    in_force: InForce,
}

impl X509TrustPlane {
    /// A trust plane with no anchor in force.
    pub fn new() -> Self {
        Self::default()
    }
}

impl TrustPlane for X509TrustPlane {
    fn inspect(
        &self,
        certificate: &[u8],
        anchor_type: AnchorType,
        now: Timestamp,
    ) -> Result<CertificateFacts, CertificateFault> {
        x509::inspect(certificate, anchor_type, now)
    }

    fn admit(&self, anchor: &TrustAnchor) {
        self.in_force.admit(anchor);
    }

    fn dismiss(&self, trust_anchor_id: TrustAnchorId) {
        self.in_force.dismiss(trust_anchor_id);
    }

    fn replace(&self, anchors: &[TrustAnchor]) {
        self.in_force.replace(anchors);
    }

    fn vouchers(&self, subject: &[u8], scope: &Scope, now: Timestamp) -> Vec<Voucher> {
        self.in_force.vouchers(subject, scope, now)
    }
}
