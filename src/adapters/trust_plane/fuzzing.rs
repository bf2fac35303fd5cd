//! Certificates that are to become anchors.

use super::x509;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::AnchorType;

/// A certificate in DER or PEM: what is taken has a fingerprint of SHA-256's length,
/// and is not over.
pub(crate) fn anchor(bytes: &[u8]) {
    let now = Timestamp::from_microseconds(1_780_000_000_000_000).expect("a time");
    for anchor_type in [
        AnchorType::Root,
        AnchorType::InternalCa,
        AnchorType::ExternalCa,
    ] {
        if let Ok(facts) = x509::inspect(bytes, anchor_type, now) {
            assert_eq!(facts.fingerprint.len(), 64);
            assert!(facts.not_before <= now && now < facts.not_after);
        }
    }
}
