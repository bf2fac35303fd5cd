//! The promises of the port, each a function over any backend.

use std::sync::Arc;

use kms::domain::algorithm::{AeadAlgorithm, KeyType, SigningAlgorithm};
use kms::domain::ids::KeyId;
use kms::domain::key::{KeyHandle, StoredKey};
use kms::domain::lifecycle_permit::{Consent, permit_generation};
use kms::domain::permit::{Decrypt, Encrypt, Sign};
use kms::domain::scope::{Environment, Plane, Scope};
use kms::ports::hsm::{HsmBackend, HsmError};

use super::harness::{Harness, erase_permit, permit, scope};

const PAIRS: [KeyType; 2] = [KeyType::Rsa2048, KeyType::Ed25519];
const DATA: &[u8] = b"a message of no particular length";
const AAD: &[u8] = b"what it belongs to";

fn altered(bytes: &[u8], position: usize) -> Vec<u8> {
    let mut altered = bytes.to_vec();
    altered[position] ^= 1;
    altered
}

async fn signs_and_verifies(hsm: &dyn HsmBackend, data: &[u8]) {
    let harness = Harness { hsm };
    for key_type in PAIRS {
        let key = harness.generate(key_type).await;
        for algorithm in harness.offered(key_type) {
            let signature = harness.sign(&key, algorithm, data).await.expect("signs");
            let valid = harness.verify(&key, algorithm, data, &signature).await;
            assert!(valid.expect("verifies"), "{algorithm}");
        }
    }
}

async fn encrypts_and_decrypts(hsm: &dyn HsmBackend, plaintext: &[u8], aad: &[u8]) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Aes256).await;
    for algorithm in harness.offered(KeyType::Aes256) {
        let sealed = harness.encrypt(&key, algorithm, plaintext, aad).await;
        let sealed = sealed.expect("encrypts");
        assert_eq!(sealed.ciphertext.len(), plaintext.len() + 16, "{algorithm}");
        let opened = harness
            .decrypt(&key, algorithm, sealed.nonce, &sealed.ciphertext, aad)
            .await;
        assert_eq!(opened.expect("decrypts").expose(), plaintext, "{algorithm}");
    }
}

pub(crate) async fn every_type_and_algorithm_makes_a_round_trip(hsm: &dyn HsmBackend) {
    for data in [DATA, b""] {
        signs_and_verifies(hsm, data).await;
        encrypts_and_decrypts(hsm, data, AAD).await;
        encrypts_and_decrypts(hsm, data, b"").await;
    }
}

pub(crate) async fn long_messages_make_the_same_round_trip(hsm: &dyn HsmBackend) {
    let data = vec![7; 1024 * 1024];
    signs_and_verifies(hsm, &data).await;
    encrypts_and_decrypts(hsm, &data, AAD).await;
}

pub(crate) async fn only_pairs_have_a_public_key(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    for key_type in PAIRS {
        let key = harness.generate(key_type).await;
        let pem = key.record.public_key.as_deref().expect("a pair has one");
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
        assert!(pem.ends_with("\n-----END PUBLIC KEY-----\n"), "{pem}");
        assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
    }
    let key = harness.generate(KeyType::Aes256).await;
    assert_eq!(key.record.public_key, None);
}

pub(crate) async fn a_signature_of_anything_else_is_not_valid(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    for key_type in PAIRS {
        let key = harness.generate(key_type).await;
        let other = harness.generate(key_type).await;
        let algorithms: Vec<SigningAlgorithm> = harness.offered(key_type);
        for &algorithm in &algorithms {
            let signature = harness.sign(&key, algorithm, DATA).await.expect("signs");
            let valid = async |key, algorithm, data: &[u8], signature: &[u8]| {
                let valid = harness.verify(key, algorithm, data, signature).await;
                valid.expect("an answer and no failure")
            };
            assert!(valid(&key, algorithm, DATA, &signature).await);
            for position in [0, DATA.len() - 1] {
                let data = altered(DATA, position);
                assert!(!valid(&key, algorithm, &data, &signature).await);
            }
            assert!(!valid(&key, algorithm, b"", &signature).await);
            for position in 0..signature.len() {
                let signature = altered(&signature, position);
                assert!(!valid(&key, algorithm, DATA, &signature).await);
            }
            assert!(!valid(&other, algorithm, DATA, &signature).await);
            for &another in algorithms.iter().filter(|another| **another != algorithm) {
                assert!(!valid(&key, another, DATA, &signature).await);
            }
        }
    }
}

pub(crate) async fn a_malformed_signature_is_a_wrong_one(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    for key_type in PAIRS {
        let key = harness.generate(key_type).await;
        for algorithm in harness.offered(key_type) {
            let signature = harness.sign(&key, algorithm, DATA).await.expect("signs");
            let cut = signature[..signature.len() - 1].to_vec();
            let longer = [&signature[..], &[0]].concat();
            for malformed in [vec![], vec![0], cut, longer, vec![0xff; signature.len()]] {
                let valid = harness.verify(&key, algorithm, DATA, &malformed).await;
                assert!(!valid.expect("an answer"), "{algorithm}");
            }
        }
    }
}

pub(crate) async fn what_was_altered_does_not_decrypt(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Aes256).await;
    for algorithm in harness.offered(KeyType::Aes256) {
        let sealed = harness.encrypt(&key, algorithm, DATA, AAD).await;
        let sealed = sealed.expect("encrypts");
        let refused = async |nonce, ciphertext: &[u8], aad: &[u8]| {
            let opened = harness
                .decrypt(&key, algorithm, nonce, ciphertext, aad)
                .await;
            matches!(opened, Err(HsmError::Undecryptable))
        };
        let (nonce, ciphertext) = (sealed.nonce, &sealed.ciphertext[..]);
        assert!(!refused(nonce, ciphertext, AAD).await);
        for position in 0..ciphertext.len() {
            assert!(refused(nonce, &altered(ciphertext, position), AAD).await);
            assert!(refused(nonce, &ciphertext[..position], AAD).await);
        }
        assert!(refused(nonce, &[ciphertext, &[0]].concat(), AAD).await);
        for position in 0..nonce.len() {
            let nonce = altered(&nonce, position).try_into().expect("12 bytes");
            assert!(refused(nonce, ciphertext, AAD).await);
        }
        for aad in [b"".to_vec(), altered(AAD, 0), [AAD, b"\0"].concat()] {
            assert!(refused(nonce, ciphertext, &aad).await);
        }
    }
}

pub(crate) async fn a_ciphertext_of_another_key_or_algorithm_does_not_decrypt(
    hsm: &dyn HsmBackend,
) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Aes256).await;
    let other = harness.generate(KeyType::Aes256).await;
    let algorithms: Vec<AeadAlgorithm> = harness.offered(KeyType::Aes256);
    for &algorithm in &algorithms {
        let sealed = harness.encrypt(&key, algorithm, DATA, AAD).await;
        let sealed = sealed.expect("encrypts");
        for (key, tried) in [(&other, algorithm)].into_iter().chain(
            algorithms
                .iter()
                .filter(|tried| **tried != algorithm)
                .map(|tried| (&key, *tried)),
        ) {
            let opened = harness
                .decrypt(key, tried, sealed.nonce, &sealed.ciphertext, AAD)
                .await;
            assert!(matches!(opened, Err(HsmError::Undecryptable)));
        }
    }
}

pub(crate) async fn every_encryption_has_its_own_nonce(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let key = harness.generate(KeyType::Aes256).await;
    for algorithm in harness.offered(KeyType::Aes256) {
        let mut nonces = std::collections::HashSet::new();
        for _ in 0..200 {
            let sealed = harness.encrypt(&key, algorithm, DATA, AAD).await;
            assert!(nonces.insert(sealed.expect("encrypts").nonce));
        }
    }
}

pub(crate) async fn an_erased_key_stays_unusable(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    for key_type in PAIRS {
        // Once in use before it is erased, and once never used.
        for used in [true, false] {
            let key = harness.generate(key_type).await;
            let algorithm = harness.offered(key_type)[0];
            if used {
                harness.sign(&key, algorithm, DATA).await.expect("signs");
            }
            let late = permit::<Sign>(&key, algorithm);
            hsm.erase(&erase_permit(&key)).await.expect("erases");
            for _ in 0..2 {
                assert!(hsm.sign(&late, DATA.into()).await.is_err(), "{key_type}");
            }
            hsm.erase(&erase_permit(&key)).await.expect("twice is fine");
        }
    }
    let key = harness.generate(KeyType::Aes256).await;
    for algorithm in harness.offered(KeyType::Aes256) {
        let sealed = harness.encrypt(&key, algorithm, DATA, AAD).await;
        assert!(sealed.is_ok());
    }
    hsm.erase(&erase_permit(&key)).await.expect("erases");
    for algorithm in harness.offered(KeyType::Aes256) {
        let late = permit::<Encrypt>(&key, algorithm);
        assert!(hsm.encrypt(&late, DATA.into(), AAD.into()).await.is_err());
        let late = permit::<Decrypt>(&key, algorithm);
        let opened = hsm.decrypt(&late, [0; 12], DATA.into(), AAD.into()).await;
        assert!(matches!(opened, Err(HsmError::Fault(_))));
    }
}

pub(crate) async fn a_handle_of_another_scope_is_refused(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    let own = scope();
    let foreign_scopes = [
        Scope {
            tenant_id: "tenant-2".parse().expect("valid"),
            ..own.clone()
        },
        Scope {
            environment: Environment::Prod,
            ..own.clone()
        },
        Scope {
            plane: Plane::Shared,
            ..own
        },
    ];
    for key_type in PAIRS {
        let key = harness.generate(key_type).await;
        let algorithm = harness.offered(key_type)[0];
        // Both before the key was ever opened and while it is.
        for _ in 0..2 {
            for scope in &foreign_scopes {
                let mut moved = StoredKey::clone(&key);
                moved.record.scope = scope.clone();
                let signed = harness.sign(&Arc::new(moved), algorithm, DATA).await;
                assert!(matches!(signed, Err(HsmError::Fault(_))), "{scope:?}");
            }
            harness.sign(&key, algorithm, DATA).await.expect("signs");
        }
        let mut renamed = StoredKey::clone(&key);
        renamed.record.key_id = KeyId::generate();
        let signed = harness.sign(&Arc::new(renamed), algorithm, DATA).await;
        assert!(matches!(signed, Err(HsmError::Fault(_))));
    }
}

pub(crate) async fn a_discarded_key_is_no_error(hsm: &dyn HsmBackend) {
    for key_type in KeyType::ALL {
        let usage = Harness { hsm }.generate(key_type).await.record.key_usage;
        let permit = permit_generation(&scope(), key_type, usage, &Consent::NotRequired)
            .expect("the usage fits");
        let key_id = KeyId::generate();
        hsm.generate(&permit, key_id).await.expect("generates");
        hsm.discard(key_id).await.expect("discards");
        hsm.discard(key_id).await.expect("twice is fine");
    }
}

pub(crate) async fn a_key_that_was_never_made_is_a_fault(hsm: &dyn HsmBackend) {
    let harness = Harness { hsm };
    for key_type in PAIRS {
        let mut unmade = StoredKey::clone(&*harness.generate(key_type).await);
        unmade.record.key_id = KeyId::generate();
        unmade.handle = Some(KeyHandle::from_bytes(vec![1; 100]));
        unmade.record.public_key = None;
        let unmade = Arc::new(unmade);
        let algorithm = harness.offered(key_type)[0];
        let signed = harness.sign(&unmade, algorithm, DATA).await;
        assert!(matches!(signed, Err(HsmError::Fault(_))));
        let verified = harness.verify(&unmade, algorithm, DATA, b"signature").await;
        assert!(matches!(verified, Err(HsmError::Fault(_))));
    }
}

pub(crate) async fn the_self_test_passes(hsm: &dyn HsmBackend) {
    hsm.self_test().await.expect("passes");
}
