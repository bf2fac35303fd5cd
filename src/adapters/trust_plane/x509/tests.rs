//! What is taken for an anchor, and what is not.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd,
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
    super::inspect(certificate, anchor_type, now())
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
        super::inspect(root.der(), AnchorType::Root, now).err()
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

#[test]
fn an_impostor_that_bears_a_roots_name_is_no_root() {
    let root = ca_params("root");
    let issuer = Issuer::new(root, KeyPair::generate().expect("a key"));
    let key = KeyPair::generate().expect("a key");
    let impostor = ca_params("root").signed_by(&key, &issuer);
    let impostor = impostor.expect("a certificate");
    for anchor_type in [AnchorType::Root, AnchorType::InternalCa] {
        let fault = inspect(impostor.der(), anchor_type).err();
        assert_eq!(fault, Some(CertificateFault::BadSelfSignature));
    }
}

/// Made with openssl 3.0 as `req -x509 -config … -newkey rsa:2048 -days 36500`,
/// with `-sha1`, `-md5`, `-sigopt rsa_padding_mode:pss` and so on; rcgen makes
/// none of these, and nobody has the keys.
fn openssl(pem: &str) -> Option<CertificateFault> {
    let now = "2030-01-01T00:00:00Z".parse().expect("valid");
    super::inspect(pem.as_bytes(), AnchorType::Root, now).err()
}

#[test]
fn a_broken_hash_is_refused() {
    let weak = Some(CertificateFault::WeakSignature);
    assert_eq!(openssl(include_str!("../testdata/rsa_sha1.pem")), weak);
    assert_eq!(openssl(include_str!("../testdata/rsa_md5.pem")), weak);
}

#[test]
fn the_parameters_of_pss_name_the_hash_and_silence_is_sha_1() {
    let weak = Some(CertificateFault::WeakSignature);
    assert_eq!(openssl(include_str!("../testdata/pss_sha1.pem")), weak);
    assert_eq!(openssl(include_str!("../testdata/pss_mgf1_sha1.pem")), weak);
    assert_eq!(openssl(include_str!("../testdata/pss_sha256.pem")), None);
    assert!(!is_strong_pss(None));
}

#[test]
fn an_rsa_key_below_2048_bits_is_refused() {
    let weak = Some(CertificateFault::WeakKey);
    assert_eq!(openssl(include_str!("../testdata/rsa_1024.pem")), weak);
}

#[test]
fn the_two_names_of_the_signature_algorithm_must_agree() {
    let key = KeyPair::generate().expect("a key");
    let root = ca_params("root").self_signed(&key).expect("a certificate");
    // ecdsa-with-SHA256, whose last number makes the hash (RFC 5758 §3.2).
    const ALGORITHM: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let mut changed = root.der().to_vec();
    let inner = changed
        .windows(ALGORITHM.len())
        .position(|window| window == ALGORITHM)
        .expect("the inner name");
    changed[inner + ALGORITHM.len() - 1] = 0x03;
    let fault = inspect(&changed, AnchorType::Root).err();
    assert_eq!(fault, Some(CertificateFault::Malformed));
}

#[test]
fn p_384_is_strong_enough() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
    let root = ca_params("root").self_signed(&key).expect("a certificate");
    assert!(inspect(root.der(), AnchorType::Root).is_ok());
}

#[test]
fn a_critical_extension_that_nobody_processes_is_refused() {
    // One of our own, the certificate policies and the policy constraints.
    let oids: [&[u64]; 3] = [
        &[1, 3, 6, 1, 4, 1, 99999, 1],
        &[2, 5, 29, 32],
        &[2, 5, 29, 36],
    ];
    for oid in oids {
        for (critical, wanted) in [
            (true, Some(CertificateFault::UnsupportedExtension)),
            (false, None),
        ] {
            let mut extension = CustomExtension::from_oid_content(oid, vec![0x30, 0]);
            extension.set_criticality(critical);
            let mut params = ca_params("root");
            params.custom_extensions = vec![extension];
            let fault = inspect(self_signed(params).der(), AnchorType::Root).err();
            assert_eq!(fault, wanted, "{oid:?}");
        }
    }
}

#[test]
fn name_constraints_are_processed() {
    let mut params = ca_params("root");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    assert_eq!(
        inspect(self_signed(params).der(), AnchorType::Root).err(),
        None
    );
}

#[test]
fn an_extension_comes_once() {
    let twice = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    let mut params = ca_params("root");
    params.custom_extensions = vec![twice.clone(), twice];
    let fault = inspect(self_signed(params).der(), AnchorType::Root).err();
    assert_eq!(fault, Some(CertificateFault::Malformed));
}

#[test]
fn an_authority_for_servers_only_vouches_for_no_client() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    for (purposes, wanted) in [
        (vec![ServerAuth], Some(CertificateFault::NotForClients)),
        (vec![ServerAuth, ClientAuth], None),
        (vec![Any], None),
    ] {
        let mut params = ca_params("root");
        params.extended_key_usages = purposes;
        let fault = inspect(self_signed(params).der(), AnchorType::Root).err();
        assert_eq!(fault, wanted);
    }
}

#[test]
fn critical_purposes_are_processed() {
    // 1.3.6.1.5.5.7.3.2, clientAuth, as the one purpose.
    let client_auth = vec![0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
    let mut purposes = CustomExtension::from_oid_content(&[2, 5, 29, 37], client_auth);
    purposes.set_criticality(true);
    let mut params = ca_params("root");
    params.custom_extensions = vec![purposes];
    assert!(inspect(self_signed(params).der(), AnchorType::Root).is_ok());
}

#[test]
fn an_authority_has_a_name() {
    let mut params = ca_params("root");
    params.distinguished_name = DistinguishedName::new();
    let fault = inspect(self_signed(params).der(), AnchorType::Root).err();
    assert_eq!(fault, Some(CertificateFault::NoSubject));
}
