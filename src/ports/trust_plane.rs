//! `TrustPlane` (M32): what makes a certificate an anchor, and which anchors
//! vouch for whom.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::error::CertificateFault;
use crate::domain::ids::TrustAnchorId;
use crate::domain::peer::VouchedBy;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts, TrustAnchor};

/// The most anchors that are looked at for one client. A tenant can take in any
/// number with the same name; handshakes must not cost more for it.
pub const MOST_VOUCHERS: usize = 32;

/// The client of the trust plane.
///
/// It holds the anchors that are in force in memory, so that a handshake, which
/// cannot wait, finds them. Nothing here touches the store.
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

    /// Puts an anchor in force, from the next handshake on. An anchor that is
    /// in force already stays.
    fn admit(&self, anchor: &TrustAnchor);

    /// Takes an anchor out of force, and ends what lives by it: see
    /// [`Voucher::in_force`].
    fn dismiss(&self, trust_anchor_id: TrustAnchorId);

    /// Makes exactly these the anchors in force: those that are there stay, the
    /// others are admitted, and dismissed.
    fn replace(&self, anchors: &[TrustAnchor]);

    /// The anchors with this subject that vouch for callers of this scope at this time: those of the platform
    /// (tenant `GLOBAL`) for all, and those that the same tenant took in for the
    /// same environment; never one outside its validity. At most
    /// [`MOST_VOUCHERS`], the platform's first, and found without looking at the
    /// others.
    ///
    /// The subject is the whole DER of the Name (RFC 5280 §4.1.2.6), the tag and
    /// length of its SEQUENCE included, and compared byte for byte: what stands
    /// as the `issuer` in a certificate that the anchor signed.
    fn vouchers(&self, subject: &[u8], scope: &Scope, now: Timestamp) -> Vec<Voucher>;
}

/// An anchor in force.
#[derive(Clone, Debug)]
pub struct Voucher {
    /// Which.
    pub trust_anchor_id: TrustAnchorId,
    /// Whose it is.
    pub by: VouchedBy,
    /// Its certificate in DER.
    pub der: Arc<[u8]>,
    /// Errs in `changed()` as soon as the anchor is no longer in force.
    pub in_force: watch::Receiver<()>,
}
