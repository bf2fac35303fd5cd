//! What one certificate says (RFC 5280 §4), a client's, an authority's or the
//! server's. Chains are not its matter.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519};
use x509_parser::parse_x509_certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use super::refusal::Refusal;
use crate::domain::peer::{PeerIdentity, PublicKeyNumbers, SpiffeId, VouchedBy};
use crate::domain::time::Timestamp;

/// NIST SP 800-131A: nothing below 112 bits of security.
const SMALLEST_RSA_BITS: usize = 2_048;

/// A certificate that does not read.
pub(super) struct Malformed;

/// Reads a client's certificate: exactly one URI name, of the form; not an
/// authority's; allowed to sign handshakes; with a key that is strong enough.
/// Other kinds of name beside the URI are nobody's concern.
///
/// # Errors
/// [`Refusal`], the first rule it breaks.
pub(super) fn identity(der: &[u8]) -> Result<PeerIdentity, Refusal> {
    let certificate = parse(der).map_err(|Malformed| Refusal::Malformed)?;
    let spiffe_id = name(&certificate)?;
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| Refusal::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(Refusal::WrongUsage);
    }
    // RFC 8446 §4.4.2.4: the signature over the handshake is a digital signature.
    let usage = certificate.key_usage().map_err(|_| Refusal::Malformed)?;
    if usage.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(Refusal::WrongUsage);
    }
    if !has_strong_key(&certificate).map_err(|Malformed| Refusal::Malformed)? {
        return Err(Refusal::Weak);
    }
    Ok(PeerIdentity {
        spiffe_id,
        public_key: key_numbers(&certificate),
        not_after: instant(certificate.validity().not_after)
            .map_err(|Malformed| Refusal::Malformed)?,
        // The least, until it is known who vouches.
        vouched_by: VouchedBy::Tenant,
    })
}

/// SPIFFE X509-SVID §2: one URI name and no other beside it.
fn name(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Refusal> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| Refusal::Malformed)?
        .ok_or(Refusal::NoName)?;
    let mut uri = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(_) if uri.is_some() => return Err(Refusal::SeveralNames),
            GeneralName::URI(text) => uri = Some(*text),
            GeneralName::Invalid(..) => return Err(Refusal::Malformed),
            _ => {}
        }
    }
    SpiffeId::parse(uri.ok_or(Refusal::NoName)?).ok_or(Refusal::BadName)
}

/// What an authority's certificate says of what it may vouch for.
pub(super) struct AuthorityFacts {
    /// The subject, as the DER of the Name.
    pub(super) subject: Vec<u8>,
    /// Its key's identifier (RFC 5280 §4.2.1.2).
    pub(super) key_id: Option<Vec<u8>>,
    /// How many authorities may stand below it (RFC 5280 §4.2.1.9).
    pub(super) path_length: Option<u32>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// Why a certificate is no authority over clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAuthority {
    Malformed,
    NotACertificateAuthority,
    MayNotSign,
    NotForClients,
    Weak,
}

impl NoAuthority {
    /// In words, after the name of a file.
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::Malformed => "has a certificate in it that does not read",
            Self::NotACertificateAuthority => {
                "has a certificate in it that is not an authority's (basicConstraints CA); put the \
                 certificate there that the clients' are signed with"
            }
            Self::MayNotSign => {
                "has an authority in it whose key usage does not allow signing certificates \
                 (keyCertSign)"
            }
            Self::NotForClients => {
                "has an authority in it whose extended key usage does not allow client certificates \
                 (clientAuth)"
            }
            Self::Weak => {
                "has an authority in it with a weak key; it takes RSA from 2048 bits, P-256, P-384, \
                 P-521 or Ed25519"
            }
        }
    }
}

impl From<Malformed> for NoAuthority {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads an authority's certificate. Whether it is in its validity is the
/// caller's question.
///
/// # Errors
/// [`NoAuthority`], the first rule it breaks.
pub(super) fn authority(der: &[u8]) -> Result<AuthorityFacts, NoAuthority> {
    let certificate = parse(der)?;
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| NoAuthority::Malformed)?
        .filter(|constraints| constraints.value.ca)
        .ok_or(NoAuthority::NotACertificateAuthority)?;
    if !may_sign(&certificate)? {
        return Err(NoAuthority::MayNotSign);
    }
    let purposes = certificate
        .extended_key_usage()
        .map_err(|_| NoAuthority::Malformed)?;
    if purposes.is_some_and(|purposes| !purposes.value.client_auth && !purposes.value.any) {
        return Err(NoAuthority::NotForClients);
    }
    if !has_strong_key(&certificate)? {
        return Err(NoAuthority::Weak);
    }
    Ok(AuthorityFacts {
        subject: certificate.subject().as_raw().to_vec(),
        key_id: certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            }
        }),
        path_length: constraints.value.path_len_constraint,
        not_before: instant(certificate.validity().not_before)?,
        not_after: instant(certificate.validity().not_after)?,
    })
}

/// What the server's own certificate says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerFacts {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) is_strong: bool,
}

/// Reads the server's own certificate.
///
/// # Errors
/// [`Malformed`].
pub(super) fn server(der: &[u8]) -> Result<ServerFacts, Malformed> {
    let certificate = parse(der)?;
    Ok(ServerFacts {
        not_before: instant(certificate.validity().not_before)?,
        not_after: instant(certificate.validity().not_after)?,
        is_strong: has_strong_key(&certificate)?,
    })
}

/// A certificate in a chain, as far as the search for the one above it goes.
pub(super) struct Link {
    /// The issuer, as the DER of the Name.
    pub(super) issuer: Vec<u8>,
    /// The subject, likewise.
    pub(super) subject: Vec<u8>,
    pub(super) key_id: Option<Vec<u8>>,
    /// Whether its key usage lets it sign certificates.
    pub(super) may_sign: bool,
}

/// Reads a certificate in a chain.
///
/// # Errors
/// [`Malformed`].
pub(super) fn link(der: &[u8]) -> Result<Link, Malformed> {
    let certificate = parse(der)?;
    Ok(Link {
        issuer: certificate.issuer().as_raw().to_vec(),
        subject: certificate.subject().as_raw().to_vec(),
        key_id: certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            }
        }),
        may_sign: may_sign(&certificate)?,
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Malformed> {
    match parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Malformed),
    }
}

/// RFC 5280 §4.2.1.3: where there is a key usage, it holds.
fn may_sign(certificate: &X509Certificate<'_>) -> Result<bool, Malformed> {
    let usage = certificate.key_usage().map_err(|_| Malformed)?;
    Ok(usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

fn has_strong_key(certificate: &X509Certificate<'_>) -> Result<bool, Malformed> {
    let key = certificate.public_key();
    Ok(match key.parsed().map_err(|_| Malformed)? {
        PublicKey::RSA(rsa) => rsa.key_size() >= SMALLEST_RSA_BITS,
        PublicKey::EC(_) => is_on_nist_curve(certificate),
        _ => *key.algorithm.oid() == OID_SIG_ED25519,
    })
}

fn is_on_nist_curve(certificate: &X509Certificate<'_>) -> bool {
    certificate
        .public_key()
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok())
        .is_some_and(|curve| [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521].contains(&curve))
}

fn key_numbers(certificate: &X509Certificate<'_>) -> Option<PublicKeyNumbers> {
    let key = certificate.public_key();
    let bytes = key.subject_public_key.data.as_ref();
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => Some(PublicKeyNumbers::rsa(rsa.modulus, rsa.exponent)),
        // A compressed point is another form of a key that an approver may have;
        // taken as it stands it would pass for a different one.
        PublicKey::EC(_) if bytes.first() == Some(&4) => Some(PublicKeyNumbers::Ec {
            point: bytes.to_vec(),
        }),
        _ if *key.algorithm.oid() == OID_SIG_ED25519 => Some(PublicKeyNumbers::Ed25519 {
            key: bytes.to_vec(),
        }),
        _ => None,
    }
}

/// An instant of ASN.1 as one of ours.
///
/// # Errors
/// [`Malformed`] where our calendar ends.
pub(super) fn instant(time: ASN1Time) -> Result<Timestamp, Malformed> {
    time.timestamp()
        .checked_mul(1_000_000)
        .and_then(Timestamp::from_microseconds)
        .ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::super::testing::{Authority, Leaf, WEAK_CLIENT, client_name};
    use super::*;

    #[test]
    fn a_client_is_its_name_its_key_and_its_end() {
        let leaf = Authority::new("ca").issue(&Leaf::client("acme", "M27"));
        let peer = identity(leaf.der()).expect("good");
        assert_eq!(peer.spiffe_id.as_str(), client_name("acme", "M27"));
        let point = leaf.key().public_key_raw().to_vec();
        assert_eq!(peer.public_key, Some(PublicKeyNumbers::Ec { point }));
        assert_eq!(peer.not_after.to_string(), "2027-01-01T00:00:00.000000Z");
    }

    #[test]
    fn every_kind_of_strong_key_is_read_with_its_numbers() {
        let ca = Authority::new("ca");
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let bytes = key.public_key_raw().to_vec();
        let leaf = ca.issue_for(&Leaf::client("acme", "M27"), key);
        let numbers = identity(leaf.der()).expect("good").public_key;
        assert_eq!(numbers, Some(PublicKeyNumbers::Ed25519 { key: bytes }));

        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let leaf = ca.issue_for(&Leaf::client("acme", "M27"), key);
        assert!(identity(leaf.der()).is_ok());

        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
        let leaf = ca.issue_for(&Leaf::client("acme", "M27"), key);
        let numbers = identity(leaf.der()).expect("good").public_key;
        assert!(
            matches!(numbers, Some(PublicKeyNumbers::Rsa { modulus, .. }) if modulus.len() == 256)
        );
    }

    #[test]
    fn exactly_one_uri_of_the_form_is_a_name() {
        let ca = Authority::new("ca");
        let named = |uris: &[&str]| {
            let leaf = ca.issue(&Leaf::client("acme", "M27").uris(uris));
            identity(leaf.der()).map(|_| ()).err()
        };
        let good = client_name("acme", "M27");
        assert_eq!(named(&[&good]), None);
        assert_eq!(named(&[]), Some(Refusal::NoName));
        assert_eq!(named(&[&good, &good]), Some(Refusal::SeveralNames));
        assert_eq!(
            named(&[&good, "https://example.com"]),
            Some(Refusal::SeveralNames)
        );
        assert_eq!(named(&["https://example.com"]), Some(Refusal::BadName));
        assert_eq!(named(&["spiffe://d/ns/x/sa/y"]), Some(Refusal::BadName));
    }

    #[test]
    fn a_certificate_without_any_alternative_name_has_none() {
        let ca = Authority::new("ca");
        let leaf = ca.issue(&Leaf::client("acme", "M27").uris(&[]).dns(&[]));
        assert_eq!(identity(leaf.der()).err(), Some(Refusal::NoName));
    }

    #[test]
    fn other_kinds_of_name_may_stand_beside_it() {
        let ca = Authority::new("ca");
        let leaf = ca.issue(&Leaf::client("acme", "M27").dns(&["m27.acme.example"]));
        assert!(identity(leaf.der()).is_ok());
    }

    #[test]
    fn a_weak_key_names_nobody() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        let weak = CertificateDer::from_pem_slice(WEAK_CLIENT.as_bytes()).expect("PEM");
        assert_eq!(identity(&weak).err(), Some(Refusal::Weak));
    }

    #[test]
    fn bytes_behind_a_certificate_make_it_malformed() {
        let leaf = Authority::new("ca").issue(&Leaf::client("acme", "M27"));
        let mut longer = leaf.der().to_vec();
        longer.push(0);
        assert_eq!(identity(&longer).err(), Some(Refusal::Malformed));
        assert_eq!(identity(b"hello").err(), Some(Refusal::Malformed));
    }
}
