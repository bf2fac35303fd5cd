//! What makes an X.509 certificate an anchor (RFC 5280).
//!
//! Reads one certificate at a time; chains and revocation are not its matter.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
};
use x509_parser::parse_x509_certificate;
use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::domain::error::CertificateFault;
use crate::domain::ids::TrustAnchorId;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts, TrustAnchor};
use crate::ports::trust_plane::{TrustPlane, Voucher};

/// Every certificate that is PEM begins like this.
const PEM_START: &[u8] = b"-----BEGIN";

/// NIST SP 800-131A: nothing below 112 bits of security.
const SMALLEST_RSA_BITS: usize = 2_048;

/// Holds certificates to RFC 5280.
pub struct X509TrustPlane;

impl TrustPlane for X509TrustPlane {
    fn inspect(
        &self,
        certificate: &[u8],
        anchor_type: AnchorType,
        now: Timestamp,
    ) -> Result<CertificateFacts, CertificateFault> {
        let der = der_of(certificate)?;
        let (rest, parsed) =
            parse_x509_certificate(&der).map_err(|_| CertificateFault::Malformed)?;
        if !rest.is_empty() {
            return Err(CertificateFault::Malformed);
        }
        check_authority(&parsed)?;
        check_strength(&parsed)?;
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

    fn admit(&self, _anchor: &TrustAnchor) {
        todo!()
    }

    fn dismiss(&self, _trust_anchor_id: TrustAnchorId) {
        todo!()
    }

    fn replace(&self, _anchors: &[TrustAnchor]) {
        todo!()
    }

    fn vouchers(&self, _subject: &[u8], _scope: &Scope, _now: Timestamp) -> Vec<Voucher> {
        todo!()
    }
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

fn check_strength(certificate: &X509Certificate<'_>) -> Result<(), CertificateFault> {
    let strong_signatures = [
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_PKCS1_RSASSAPSS,
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
        OID_SIG_ED25519,
    ];
    if !strong_signatures.contains(certificate.signature_algorithm.oid()) {
        return Err(CertificateFault::WeakSignature);
    }
    let key = certificate.public_key();
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
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        PKCS_ED25519, date_time_ymd,
    };

    use super::*;

    fn ca_params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params
    }

    fn self_signed(params: CertificateParams) -> rcgen::Certificate {
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate")
    }

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().expect("valid")
    }

    fn inspect(
        certificate: &[u8],
        anchor_type: AnchorType,
    ) -> Result<CertificateFacts, CertificateFault> {
        X509TrustPlane.inspect(certificate, anchor_type, now())
    }

    #[test]
    fn a_good_root_is_taken_in_der_and_in_pem_with_the_same_facts() {
        let root = self_signed(ca_params("root"));
        let from_der = inspect(root.der(), AnchorType::Root).expect("good");
        let from_pem = inspect(root.pem().as_bytes(), AnchorType::Root).expect("good");
        assert_eq!(from_der, from_pem);
        assert_eq!(from_der.fingerprint.len(), 64);
        assert!(from_der.subject.contains("CN=root"), "{}", from_der.subject);
        assert_eq!(
            from_der.not_after.to_string(),
            "2027-01-01T00:00:00.000000Z"
        );
    }

    #[test]
    fn ed25519_authorities_are_strong_enough() {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let root = ca_params("root").self_signed(&key).expect("a certificate");
        assert!(inspect(root.der(), AnchorType::Root).is_ok());
    }

    #[test]
    fn what_is_not_one_certificate_is_malformed() {
        let root = self_signed(ca_params("root"));
        let mut trailing = root.der().to_vec();
        trailing.push(0);
        let two = format!("{}{}", root.pem(), root.pem());
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for bad in [
            &b""[..],
            b"hello",
            &trailing,
            two.as_bytes(),
            key.as_bytes(),
        ] {
            let fault = inspect(bad, AnchorType::Root).err();
            assert_eq!(
                fault,
                Some(CertificateFault::Malformed),
                "{} bytes",
                bad.len()
            );
        }
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let mut params = ca_params("leaf");
        params.is_ca = IsCa::ExplicitNoCa;
        let fault = inspect(self_signed(params).der(), AnchorType::InternalCa).err();
        assert_eq!(fault, Some(CertificateFault::NotACertificateAuthority));
        let mut params = ca_params("leaf");
        params.is_ca = IsCa::NoCa;
        let fault = inspect(self_signed(params).der(), AnchorType::InternalCa).err();
        assert_eq!(fault, Some(CertificateFault::NotACertificateAuthority));
    }

    #[test]
    fn an_authority_must_be_allowed_to_sign_certificates() {
        let mut params = ca_params("ca");
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let fault = inspect(self_signed(params).der(), AnchorType::InternalCa).err();
        assert_eq!(fault, Some(CertificateFault::CannotSignCertificates));
    }

    #[test]
    fn an_anchor_must_be_in_its_validity() {
        let root = self_signed(ca_params("root"));
        let at = |time: &str| {
            let now = time.parse().expect("valid");
            X509TrustPlane
                .inspect(root.der(), AnchorType::Root, now)
                .err()
        };
        assert_eq!(
            at("2025-12-31T23:59:59Z"),
            Some(CertificateFault::NotYetValid)
        );
        assert_eq!(at("2026-01-01T00:00:00Z"), None);
        assert_eq!(at("2027-01-01T00:00:00Z"), None);
        assert_eq!(at("2027-01-01T00:00:01Z"), Some(CertificateFault::Expired));
    }

    #[test]
    fn a_root_signs_itself_and_an_intermediate_is_no_root() {
        let root_key = KeyPair::generate().expect("a key");
        let root = ca_params("root");
        let issuer = Issuer::from_params(&root, &root_key);
        let key = KeyPair::generate().expect("a key");
        let intermediate = ca_params("intermediate")
            .signed_by(&key, &issuer)
            .expect("a certificate");
        let fault = inspect(intermediate.der(), AnchorType::Root).err();
        assert_eq!(fault, Some(CertificateFault::RootNotSelfSigned));
        assert!(inspect(intermediate.der(), AnchorType::InternalCa).is_ok());
    }

    #[test]
    fn a_self_signature_is_checked() {
        let root = self_signed(ca_params("root"));
        let mut changed = root.der().to_vec();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        let fault = inspect(&changed, AnchorType::ExternalCa).err();
        assert_eq!(fault, Some(CertificateFault::BadSelfSignature));
    }
}
