//! The verifier of one handshake: rustls asks it, and it remembers the answer.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use super::certificate::identity;
use super::chain::{InForce, InForceUntil, check_size, verify};
use super::material::TlsMaterial;
use super::refusal::Refusal;
use crate::domain::peer::{PeerIdentity, SpiffeId};
use crate::ports::clock::Clock;
use crate::ports::trust_plane::TrustPlane;

/// Verifies one client. A verifier a connection, because rustls takes a yes from
/// it and carries nothing else to whoever accepted the connection: who the client
/// is, and by which anchor, is left in here.
pub(super) struct OneClient {
    pub(super) material: TlsMaterial,
    pub(super) trust_plane: Arc<dyn TrustPlane>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) found: OnceLock<Found>,
}

/// What there was to find out.
pub(super) struct Found {
    /// The name in the certificate, where there is one that reads. Not to be
    /// believed unless the client was verified.
    pub(super) name: Option<SpiffeId>,
    pub(super) verified: Result<Verified, Refusal>,
}

/// A client that an authority vouches for. Until the handshake is done it has not
/// shown that it has the key.
#[derive(Clone)]
pub(super) struct Verified {
    pub(super) peer: PeerIdentity,
    pub(super) in_force: InForceUntil,
}

impl OneClient {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.material.provider.signature_verification_algorithms
    }

    fn find(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Found {
        let peer = check_size(end_entity, intermediates).and_then(|()| identity(end_entity));
        let peer = match peer {
            Ok(peer) => peer,
            Err(refusal) => {
                return Found {
                    name: None,
                    verified: Err(refusal),
                };
            }
        };
        let authorities = self.material.authorities.in_force();
        let revocation = self.material.revocation.as_ref();
        let revocation = revocation.map(|lists| lists.in_force());
        let in_force = InForce {
            algorithms: self.algorithms().all,
            authorities: &authorities,
            revocation: revocation.as_deref().map_or(&[], Vec::as_slice),
            trust_plane: &*self.trust_plane,
            now: self.clock.now(),
        };
        let vouched = verify(&in_force, peer.spiffe_id.scope(), end_entity, intermediates);
        Found {
            name: Some(peer.spiffe_id.clone()),
            verified: vouched.map(|(vouched_by, in_force)| Verified {
                peer: PeerIdentity { vouched_by, ..peer },
                in_force,
            }),
        }
    }
}

impl fmt::Debug for OneClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneClient").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for OneClient {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// No hints, so that a client sends the certificate it has: which authorities
    /// vouch depends on the name in it, and the anchors of all tenants are nobody's
    /// business and too many.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// The time is the clock's and not rustls' own.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let found = self
            .found
            .get_or_init(|| self.find(end_entity, intermediates));
        match &found.verified {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refusal) => Err(refusal.as_alert()),
        }
    }

    /// TLS 1.2 is not spoken here.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}
