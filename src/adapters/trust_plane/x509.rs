//! What makes an X.509 certificate an anchor (RFC 5280).
//!
//! Reads one certificate at a time; chains and revocation are not its matter.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::Any;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384,
    OID_NIST_HASH_SHA512, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
};
use x509_parser::parse_x509_certificate;
use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::domain::error::CertificateFault;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts};

/// Every certificate that is PEM begins like this.
const PEM_START: &[u8] = b"-----BEGIN";

/// NIST SP 800-131A: nothing below 112 bits of security.
const SMALLEST_RSA_BITS: usize = 2_048;

/// Reads a certificate that is to become an anchor of this type, and holds it to
/// the rules.
///
/// # Errors
/// [`CertificateFault`], the first rule it breaks.
pub(super) fn inspect(
    certificate: &[u8],
    anchor_type: AnchorType,
    now: Timestamp,
) -> Result<CertificateFacts, CertificateFault> {
    let der = der_of(certificate)?;
    let (rest, parsed) = parse_x509_certificate(&der).map_err(|_| CertificateFault::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateFault::Malformed);
    }
    check_form(&parsed)?;
    check_extensions(&parsed)?;
    check_authority(&parsed)?;
    check_signature_algorithm(&parsed.signature_algorithm)?;
    check_key(parsed.public_key())?;
    let (not_before, not_after) = check_validity(&parsed, now)?;
    check_self_signature(&parsed, anchor_type)?;
    let subject = parsed.subject().to_string();
    let fingerprint = digest(&SHA256, &der)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(CertificateFacts {
        fingerprint,
        subject,
        not_before,
        not_after,
        der,
    })
}

/// The DER inside a PEM of exactly one certificate, or the DER itself.
fn der_of(certificate: &[u8]) -> Result<Vec<u8>, CertificateFault> {
    let text = certificate.trim_ascii_start();
    if !text.starts_with(PEM_START) {
        return Ok(certificate.to_vec());
    }
    let mut blocks = Pem::iter_from_buffer(text);
    match (blocks.next(), blocks.next()) {
        (Some(Ok(pem)), None) if pem.label == "CERTIFICATE" => Ok(pem.contents),
        _ => Err(CertificateFault::Malformed),
    }
}

/// RFC 5280 §4.2: no extension comes twice; §4.1.2.6: a CA has a name, which is
/// also how it is found; §4.1.1.2: both names of the signature's algorithm are
/// the same.
fn check_form(certificate: &X509Certificate<'_>) -> Result<(), CertificateFault> {
    certificate
        .extensions_map()
        .map_err(|_| CertificateFault::Malformed)?;
    if certificate.subject().iter().next().is_none() {
        return Err(CertificateFault::NoSubject);
    }
    // Compares the two names; and what chains are built with must read it anyway.
    webpki::anchor_from_trusted_cert(&CertificateDer::from(certificate.as_raw()))
        .map_err(|_| CertificateFault::Malformed)?;
    Ok(())
}

/// RFC 5280 §4.2: a critical extension that is not processed refuses the whole
/// certificate. Those that are: the two of [`check_authority`], the purposes
/// here, the name constraints where chains are built; the other names bind nobody.
fn check_extensions(certificate: &X509Certificate<'_>) -> Result<(), CertificateFault> {
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            // §4.2.1.12: where there are purposes, there are no others. An anchor is
            // there to vouch for clients.
            ParsedExtension::ExtendedKeyUsage(purposes)
                if !purposes.any && !purposes.client_auth =>
            {
                return Err(CertificateFault::NotForClients);
            }
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::NameConstraints(_)
            | ParsedExtension::SubjectAlternativeName(_) => {}
            _ if extension.critical => return Err(CertificateFault::UnsupportedExtension),
            _ => {}
        }
    }
    Ok(())
}

/// RFC 5280 §4.2.1.9 and §4.2.1.3.
fn check_authority(certificate: &X509Certificate<'_>) -> Result<(), CertificateFault> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| CertificateFault::Malformed)?;
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(CertificateFault::NotACertificateAuthority);
    }
    let usage = certificate
        .key_usage()
        .map_err(|_| CertificateFault::Malformed)?;
    if !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(CertificateFault::CannotSignCertificates);
    }
    Ok(())
}

/// No MD5, no SHA-1.
fn check_signature_algorithm(algorithm: &AlgorithmIdentifier<'_>) -> Result<(), CertificateFault> {
    let strong = [
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
        OID_SIG_ED25519,
    ];
    let is_strong = if *algorithm.oid() == OID_PKCS1_RSASSAPSS {
        is_strong_pss(algorithm.parameters.as_ref())
    } else {
        strong.contains(algorithm.oid())
    };
    if is_strong {
        Ok(())
    } else {
        Err(CertificateFault::WeakSignature)
    }
}

/// RFC 4055 §3.1: the parameters name the hash, and SHA-1 where they are silent.
/// The mask's hash has to be the same, as everywhere that verifies these.
fn is_strong_pss(parameters: Option<&Any<'_>>) -> bool {
    let Some(parameters) = parameters.and_then(|any| RsaSsaPssParams::try_from(any).ok()) else {
        return false;
    };
    let hash = parameters.hash_algorithm_oid();
    [
        OID_NIST_HASH_SHA256,
        OID_NIST_HASH_SHA384,
        OID_NIST_HASH_SHA512,
    ]
    .contains(hash)
        && parameters
            .mask_gen_algorithm()
            .is_ok_and(|mask| mask.hash == *hash)
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateFault> {
    let strong = match key.parsed().map_err(|_| CertificateFault::Malformed)? {
        PublicKey::RSA(rsa) => rsa.key_size() >= SMALLEST_RSA_BITS,
        PublicKey::EC(_) => key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok())
            .is_some_and(|curve| {
                [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521].contains(&curve)
            }),
        _ => *key.algorithm.oid() == OID_SIG_ED25519,
    };
    if strong {
        Ok(())
    } else {
        Err(CertificateFault::WeakKey)
    }
}

/// RFC 5280 §4.1.2.5; both ends belong to the validity.
fn check_validity(
    certificate: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), CertificateFault> {
    let not_before = instant(certificate.validity().not_before)?;
    let not_after = instant(certificate.validity().not_after)?;
    if now < not_before {
        return Err(CertificateFault::NotYetValid);
    }
    if now > not_after {
        return Err(CertificateFault::Expired);
    }
    Ok((not_before, not_after))
}

fn instant(time: ASN1Time) -> Result<Timestamp, CertificateFault> {
    time.timestamp()
        .checked_mul(1_000_000)
        .and_then(Timestamp::from_microseconds)
        .ok_or(CertificateFault::Malformed)
}

/// A root is the one that vouches for itself. Whatever bears its own name as its
/// issuer's must have signed itself: nothing else says whose word it is.
fn check_self_signature(
    certificate: &X509Certificate<'_>,
    anchor_type: AnchorType,
) -> Result<(), CertificateFault> {
    let self_issued = certificate.subject() == certificate.issuer();
    if !self_issued {
        return match anchor_type {
            AnchorType::Root => Err(CertificateFault::RootNotSelfSigned),
            AnchorType::InternalCa | AnchorType::ExternalCa => Ok(()),
        };
    }
    certificate
        .verify_signature(None)
        .map_err(|_| CertificateFault::BadSelfSignature)
}

#[cfg(test)]
mod tests;
