//! Certificates and revocation lists of clients and authorities.

use super::{certificate, revocation};

/// A certificate in DER: its identity, and what it says as an authority and a link.
pub(crate) fn certificate(der: &[u8]) {
    if let Ok(identity) = certificate::identity(der) {
        assert!(identity.spiffe_id.as_str().starts_with("spiffe://"));
    }
    let _ = certificate::authority(der);
    let _ = certificate::server(der);
    let _ = certificate::link(der);
}

/// A revocation list in DER.
pub(crate) fn revocation_list(der: &[u8]) {
    revocation::RevocationList::parse_alone(der);
}
