//! What a backend signs, other implementations accept, and the other way round.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use kms::adapters::hsm::public_key::spki_pem;
use kms::domain::algorithm::{KeyType, SigningAlgorithm};
use kms::ports::hsm::HsmBackend;
use ring::signature::{
    ED25519, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rsa::pkcs8::DecodePrivateKey as _;
use sha2::Sha256;

use super::harness::{Harness, foreign};

const DATA: &[u8] = b"a message for somebody else";

/// How many bytes of an SPKI come before the key itself (RFC 3279 §2.3.1).
const RSA_SPKI_HEAD: usize = 24;
/// The same for Ed25519 (RFC 8410 §4).
const ED25519_SPKI_HEAD: usize = 12;

fn der_of(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let decoded = kms::domain::binary::Base64Bytes::decode(&base64);
    decoded.expect("base64").into_bytes().to_vec()
}

pub(crate) async fn rsa_signatures_are_valid_elsewhere(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Rsa2048).await;
    let pem = key.record.public_key.as_deref().expect("a pair has one");
    let der = der_of(pem);
    let rust_crypto = rsa::PublicKey::from_public_key_pem(pem).expect("reads the PEM");
    for algorithm in harness.offered(KeyType::Rsa2048) {
        let signature = harness.sign(&key, algorithm, DATA).await.expect("signs");
        let (accepted, ring): (_, &dyn VerificationAlgorithm) = match algorithm {
            SigningAlgorithm::RsaPssSha256 => (
                rust_crypto.pss_verify::<Sha256>(DATA, &signature),
                &RSA_PSS_2048_8192_SHA256,
            ),
            SigningAlgorithm::RsaPkcs1v15Sha256 => (
                rust_crypto.pkcs1v15_verify::<Sha256>(DATA, &signature),
                &RSA_PKCS1_2048_8192_SHA256,
            ),
            SigningAlgorithm::Ed25519 => panic!("no RSA algorithm"),
        };
        assert!(accepted.is_ok(), "{algorithm}");
        let ring = UnparsedPublicKey::new(ring, &der[RSA_SPKI_HEAD..]);
        assert!(ring.verify(DATA, &signature).is_ok(), "{algorithm}");
    }
}

pub(crate) async fn rsa_signatures_made_elsewhere_are_valid_here(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    // Made here only because the others take a minute for it without optimization.
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048);
    let document: Pkcs8V1Der<'static> = pair.expect("generates").as_der().expect("encodes");
    let rust_crypto = rsa::PrivateKey::from_pkcs8_der(document.as_ref()).expect("reads it");
    let ring = RsaKeyPair::from_pkcs8(document.as_ref()).expect("reads it");
    let public = rsa::pkcs8::EncodePublicKey::to_public_key_der(&rust_crypto.to_public_key());
    let key = foreign(
        KeyType::Rsa2048,
        spki_pem(public.expect("encodes").as_bytes()),
    );
    for algorithm in harness.offered(KeyType::Rsa2048) {
        let (signature, encoding): (_, &dyn RsaEncoding) = match algorithm {
            SigningAlgorithm::RsaPssSha256 => {
                (rust_crypto.pss_sign::<Sha256>(DATA), &RSA_PSS_SHA256)
            }
            SigningAlgorithm::RsaPkcs1v15Sha256 => {
                (rust_crypto.pkcs1v15_sign::<Sha256>(DATA), &RSA_PKCS1_SHA256)
            }
            SigningAlgorithm::Ed25519 => panic!("no RSA algorithm"),
        };
        let signature = signature.expect("signs");
        let valid = harness.verify(&key, algorithm, DATA, &signature).await;
        assert!(valid.expect("verifies"), "{algorithm}");

        let mut signature = vec![0; ring.public().modulus_len()];
        ring.sign(
            encoding,
            &ring::rand::SystemRandom::new(),
            DATA,
            &mut signature,
        )
        .expect("signs");
        let valid = harness.verify(&key, algorithm, DATA, &signature).await;
        assert!(valid.expect("verifies"), "{algorithm}");
    }
    // A salt of any other length is another algorithm.
    for salt_len in [0, 20, 31, 33, 222] {
        let other_salt =
            rsa::pss::SigningKey::<Sha256>::new_with_salt_len(rust_crypto.clone(), salt_len);
        let signature = rsa::signature::Signer::sign(&other_salt, DATA);
        let signature = rsa::signature::SignatureEncoding::to_vec(&signature);
        let algorithm = SigningAlgorithm::RsaPssSha256;
        let valid = harness.verify(&key, algorithm, DATA, &signature).await;
        assert!(!valid.expect("an answer"), "salt of {salt_len}");
    }
}

pub(crate) async fn ed25519_signatures_are_valid_elsewhere(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Ed25519).await;
    let pem = key.record.public_key.as_deref().expect("a pair has one");
    let signature = harness.sign(&key, SigningAlgorithm::Ed25519, DATA).await;
    let signature = signature.expect("signs");

    let dalek = VerifyingKey::from_public_key_pem(pem).expect("reads the PEM");
    let parsed = ed25519_dalek::Signature::from_slice(&signature).expect("64 bytes");
    assert!(dalek.verify_strict(DATA, &parsed).is_ok());
    let der = der_of(pem);
    let ring = UnparsedPublicKey::new(&ED25519, &der[ED25519_SPKI_HEAD..]);
    assert!(ring.verify(DATA, &signature).is_ok());
}

pub(crate) async fn ed25519_signatures_made_elsewhere_are_valid_here(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let seed = [42; 32];
    let dalek = SigningKey::from_bytes(&seed);
    let pem = dalek.verifying_key().to_public_key_pem(LineEnding::LF);
    let key = foreign(KeyType::Ed25519, pem.expect("encodes"));
    let ring = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes");
    assert_eq!(ring.public_key().as_ref(), dalek.verifying_key().as_bytes());
    let signatures = [
        dalek.sign(DATA).to_bytes().to_vec(),
        ring.sign(DATA).as_ref().to_vec(),
    ];
    for signature in signatures {
        let algorithm = SigningAlgorithm::Ed25519;
        let valid = harness.verify(&key, algorithm, DATA, &signature).await;
        assert!(valid.expect("verifies"));
    }
}
