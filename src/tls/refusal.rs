//! Why a connection was refused, as a closed list of words for log and metrics.

use std::io;

use rustls::{CertificateError, Error, PeerMisbehaved};

/// Why a handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client sent no certificate.
    NoCertificate,
    /// A certificate that does not read.
    Malformed,
    /// No URI name in the certificate.
    NoName,
    /// More than one URI name in it.
    SeveralNames,
    /// A URI name that is not of the form.
    BadName,
    /// Past the certificate's end, or that of one above it.
    Expired,
    /// Before its beginning.
    NotYetValid,
    /// No authority in force vouches for that name.
    UnknownAuthority,
    /// A certificate for something else: an authority's, a server's, or an
    /// intermediate's that may not sign.
    WrongUsage,
    /// An authority's own limits, path length or names, forbid the chain.
    Constrained,
    /// More certificates than anybody needs.
    ChainTooLong,
    /// On a revocation list.
    Revoked,
    /// The authority's revocation list is out of date.
    CrlExpired,
    /// The authority's revocation list is not signed by it.
    CrlUntrusted,
    /// A key or signature below 112 bits of security.
    Weak,
    /// A signature that does not verify.
    BadSignature,
    /// Not TLS at all.
    NotTls,
    /// No version of TLS that is spoken here.
    ProtocolVersion,
    /// No application protocol that is spoken here (RFC 7301).
    ApplicationProtocol,
    /// The client did not like what it saw.
    ByClient,
    /// The client went away.
    Gone,
    /// Not finished in time.
    Timeout,
    /// Too many were waiting already.
    Busy,
    /// Everything else that TLS forbids.
    Other,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::NoCertificate,
        Self::Malformed,
        Self::NoName,
        Self::SeveralNames,
        Self::BadName,
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownAuthority,
        Self::WrongUsage,
        Self::Constrained,
        Self::ChainTooLong,
        Self::Revoked,
        Self::CrlExpired,
        Self::CrlUntrusted,
        Self::Weak,
        Self::BadSignature,
        Self::NotTls,
        Self::ProtocolVersion,
        Self::ApplicationProtocol,
        Self::ByClient,
        Self::Gone,
        Self::Timeout,
        Self::Busy,
        Self::Other,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Malformed => "malformed",
            Self::NoName => "no_name",
            Self::SeveralNames => "several_names",
            Self::BadName => "bad_name",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongUsage => "wrong_usage",
            Self::Constrained => "constrained",
            Self::ChainTooLong => "chain_too_long",
            Self::Revoked => "revoked",
            Self::CrlExpired => "crl_expired",
            Self::CrlUntrusted => "crl_untrusted",
            Self::Weak => "weak",
            Self::BadSignature => "bad_signature",
            Self::NotTls => "not_tls",
            Self::ProtocolVersion => "protocol_version",
            Self::ApplicationProtocol => "application_protocol",
            Self::ByClient => "by_client",
            Self::Gone => "gone",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Other => "other",
        }
    }

    /// Whether the service's own files are to blame, so that somebody here has
    /// to act.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::CrlExpired | Self::CrlUntrusted | Self::Busy)
    }

    /// The error that makes rustls send the fitting alert (RFC 8446 §6.2).
    pub(super) fn as_alert(self) -> Error {
        let error = match self {
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::UnknownAuthority => CertificateError::UnknownIssuer,
            Self::WrongUsage => CertificateError::InvalidPurpose,
            Self::Revoked => CertificateError::Revoked,
            Self::CrlExpired | Self::CrlUntrusted => CertificateError::UnknownRevocationStatus,
            Self::BadSignature => CertificateError::BadSignature,
            // A name that nobody here may have is an identity that is denied.
            Self::NoName | Self::SeveralNames | Self::BadName | Self::Constrained => {
                CertificateError::ApplicationVerificationFailure
            }
            _ => CertificateError::BadEncoding,
        };
        Error::InvalidCertificate(error)
    }

    /// What a chain failed by.
    pub(super) fn of_chain(error: &webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { .. } => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::UnknownIssuer => Self::UnknownAuthority,
            E::CertRevoked => Self::Revoked,
            E::CrlExpired { .. } => Self::CrlExpired,
            E::InvalidCrlSignatureForPublicKey
            | E::IssuerNotCrlSigner
            | E::UnsupportedCrlSignatureAlgorithmContext(_)
            | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => Self::CrlUntrusted,
            E::CaUsedAsEndEntity
            | E::EndEntityUsedAsCa
            | E::EmptyEkuExtension
            | E::RequiredEkuNotFoundContext(_) => Self::WrongUsage,
            E::PathLenConstraintViolated | E::NameConstraintViolation => Self::Constrained,
            E::MaximumPathDepthExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumSignatureChecksExceeded
            | E::MaximumNameConstraintComparisonsExceeded => Self::ChainTooLong,
            E::InvalidSignatureForPublicKey => Self::BadSignature,
            E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::Weak,
            E::BadDer
            | E::BadDerTime
            | E::ExtensionValueInvalid
            | E::InvalidCertValidity
            | E::MalformedExtensions
            | E::SignatureAlgorithmMismatch
            | E::TrailingData(_)
            | E::UnsupportedCertVersion
            | E::UnsupportedCriticalExtension => Self::Malformed,
            _ => Self::Other,
        }
    }

    /// What a handshake failed by, where it was not the certificate.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref()) else {
            // The socket's own.
            return Self::Gone;
        };
        match tls {
            Error::NoCertificatesPresented => Self::NoCertificate,
            // The client's signature over the handshake (RFC 8446 §4.4.3); the
            // chain's faults come by another way.
            Error::InvalidCertificate(_) => Self::BadSignature,
            Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme) => {
                Self::BadSignature
            }
            Error::PeerIncompatible(_) => Self::ProtocolVersion,
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => Self::NotTls,
            Error::NoApplicationProtocol => Self::ApplicationProtocol,
            Error::AlertReceived(_) => Self::ByClient,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: HashSet<&str> = Refusal::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Refusal::ALL.len());
    }

    #[test]
    fn a_socket_that_breaks_is_gone_and_no_fault_of_tls() {
        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(Refusal::of_handshake(&error), Refusal::Gone);
    }
}
