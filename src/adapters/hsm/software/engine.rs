//! Making, parsing and using secrets of every key type, and proving new ones.
//! Knows nothing of where a secret is stored, cached or run.
//!
//! **What is erased.** The library erases everything that it allocates when it
//! frees it (`OPENSSL_free` cleanses the whole block): key pairs, key schedules,
//! big numbers and the DER it writes. Its Rust side erases PKCS#8 documents
//! (`Pkcs8V1Der`) on drop. It does not erase the `Seed` that an Ed25519 pair gives
//! out, so seeds are drawn here instead and never asked back.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use zeroize::Zeroizing;

use super::aead::{AeadKey, AeadKeys, SECRET_LEN, fill_random};
use crate::adapters::hsm::nonce::fresh_nonce;
use crate::adapters::hsm::public_key::{PublicKey, spki_pem};
use crate::domain::algorithm::{AeadAlgorithm, AlgorithmFamily, KeyType, SigningAlgorithm};
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::HsmFault;

/// The length of an RSA-2048 modulus and signature, in bytes.
const RSA_2048_LEN: usize = 256;

/// What a new key proves itself with.
const PROOF_MESSAGE: &[u8] = b"kms pairwise consistency proof v1";

/// A secret that was just made, and its public half.
pub(super) struct NewSecret {
    /// What is to be sealed.
    pub(super) secret: SecretBytes,
    /// SPKI PEM; `None` for a symmetric key.
    pub(super) public_key: Option<String>,
}

impl NewSecret {
    /// Makes a secret of this type. For RSA this takes 50 to 200 ms.
    ///
    /// # Errors
    /// [`HsmFault::Refused`] when the system gives no randomness.
    pub(super) fn generate(key_type: KeyType) -> Result<Self, HsmFault> {
        match key_type {
            KeyType::Rsa2048 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| HsmFault::Refused)?;
                let document: Pkcs8V1Der<'static> = pair.as_der().map_err(|_| HsmFault::Refused)?;
                let public = pair.public_key().as_der().map_err(|_| HsmFault::Refused)?;
                Ok(Self {
                    secret: SecretBytes::new(document.as_ref().to_vec()),
                    public_key: Some(spki_pem(public.as_ref())),
                })
            }
            KeyType::Ed25519 => {
                let secret = random_secret()?;
                let pair = ed25519_pair(&secret)?;
                let public = pair.public_key().as_der().map_err(|_| HsmFault::Refused)?;
                Ok(Self {
                    secret,
                    public_key: Some(spki_pem(public.as_ref())),
                })
            }
            KeyType::Aes256 => Ok(Self {
                secret: random_secret()?,
                public_key: None,
            }),
        }
    }

    /// Proves that `stored`, which is what came back out of the seal, is the
    /// private half of the public key that will be handed out, or the very
    /// secret that was made (FIPS 140-3 IG 10.3.A).
    ///
    /// # Errors
    /// [`HsmFault::ProofFailed`].
    pub(super) fn prove(&self, stored: &ParsedKey) -> Result<(), HsmFault> {
        let proven = match (&self.public_key, stored) {
            (Some(pem), ParsedKey::Rsa(_) | ParsedKey::Ed25519(_)) => proven_pair(pem, stored),
            (None, ParsedKey::Symmetric(stored)) => proven_secret(&self.secret, stored),
            (Some(_), ParsedKey::Symmetric(_)) | (None, _) => Ok(false),
        };
        match proven {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(HsmFault::ProofFailed),
        }
    }
}

fn proven_pair(pem: &str, stored: &ParsedKey) -> Result<bool, HsmFault> {
    let key_type = stored.key_type();
    let public = PublicKey::parse(key_type, pem)?;
    for algorithm in key_type.algorithms() {
        let algorithm = SigningAlgorithm::narrow(*algorithm).ok_or(HsmFault::ProofFailed)?;
        let signature = stored.sign(algorithm, PROOF_MESSAGE)?;
        if !public.verify(algorithm, PROOF_MESSAGE, &signature)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn proven_secret(made: &SecretBytes, stored: &AeadKeys) -> Result<bool, HsmFault> {
    let made = AeadKeys::parse(made)?;
    for algorithm in KeyType::Aes256.algorithms() {
        let algorithm = AeadAlgorithm::narrow(*algorithm).ok_or(HsmFault::ProofFailed)?;
        let nonce = fresh_nonce()?;
        let sealed = stored.of(algorithm).seal(nonce, b"", PROOF_MESSAGE)?;
        let opened = made.of(algorithm).open(nonce, b"", &sealed);
        if opened.is_none_or(|opened| opened.expose() != PROOF_MESSAGE) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn random_secret() -> Result<SecretBytes, HsmFault> {
    let mut bytes = Zeroizing::new([0u8; SECRET_LEN]);
    fill_random(&mut bytes[..])?;
    Ok(SecretBytes::take_from(&mut bytes[..]))
}

fn ed25519_pair(seed: &SecretBytes) -> Result<Ed25519KeyPair, HsmFault> {
    // Unchecked against the public key, which the seal binds to the same key id
    // and which every new pair was proven with. It is 32 bytes or no key.
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| HsmFault::MalformedKey)
}

/// A secret that is parsed and ready to be used.
pub(super) enum ParsedKey {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    Symmetric(Box<AeadKeys>),
}

impl ParsedKey {
    /// What it takes of the memory, about, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Rsa(_) => 8 << 10,
            Self::Ed25519(_) => 336,
            Self::Symmetric(_) => 800,
        }
    }

    /// Parses what came out of the seal. For RSA this takes about 130 µs, since the
    /// library checks that the parts of the key fit each other.
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`].
    pub(super) fn parse(key_type: KeyType, secret: &SecretBytes) -> Result<Self, HsmFault> {
        match key_type {
            KeyType::Rsa2048 => {
                let pair =
                    RsaKeyPair::from_pkcs8(secret.expose()).map_err(|_| HsmFault::MalformedKey)?;
                if pair.public_modulus_len() != RSA_2048_LEN {
                    return Err(HsmFault::MalformedKey);
                }
                Ok(Self::Rsa(Box::new(pair)))
            }
            KeyType::Ed25519 => Ok(Self::Ed25519(Box::new(ed25519_pair(secret)?))),
            KeyType::Aes256 => Ok(Self::Symmetric(Box::new(AeadKeys::parse(secret)?))),
        }
    }

    /// Signs a message: PSS with SHA-256, MGF1 with SHA-256 and a random salt of 32
    /// bytes, PKCS#1 v1.5 with SHA-256 (RFC 8017 §8), or Ed25519 (RFC 8032 §5.1.6).
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] when keys of this type have no such algorithm;
    /// [`HsmFault::Refused`] when the library does not sign.
    pub(super) fn sign(
        &self,
        algorithm: SigningAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, HsmFault> {
        match (self, algorithm) {
            (Self::Rsa(pair), SigningAlgorithm::RsaPssSha256) => {
                rsa_sign(pair, &RSA_PSS_SHA256, data)
            }
            (Self::Rsa(pair), SigningAlgorithm::RsaPkcs1v15Sha256) => {
                rsa_sign(pair, &RSA_PKCS1_SHA256, data)
            }
            (Self::Ed25519(pair), SigningAlgorithm::Ed25519) => pair
                .try_sign(data)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| HsmFault::Refused),
            (Self::Rsa(_) | Self::Ed25519(_) | Self::Symmetric(_), _) => {
                Err(HsmFault::MalformedKey)
            }
        }
    }

    /// The key of one AEAD.
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] when this is half of a pair.
    pub(super) fn aead(&self, algorithm: AeadAlgorithm) -> Result<&AeadKey, HsmFault> {
        match self {
            Self::Symmetric(keys) => Ok(keys.of(algorithm)),
            Self::Rsa(_) | Self::Ed25519(_) => Err(HsmFault::MalformedKey),
        }
    }

    fn key_type(&self) -> KeyType {
        match self {
            Self::Rsa(_) => KeyType::Rsa2048,
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Symmetric(_) => KeyType::Aes256,
        }
    }
}

fn rsa_sign(
    pair: &RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    data: &[u8],
) -> Result<Vec<u8>, HsmFault> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), data, &mut signature)
        .map_err(|_| HsmFault::Refused)?;
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(ParsedKey: Clone, std::fmt::Debug);
    static_assertions::assert_not_impl_any!(NewSecret: Clone, std::fmt::Debug);

    fn made(key_type: KeyType) -> (NewSecret, ParsedKey) {
        let new = NewSecret::generate(key_type).expect("generates");
        let parsed = ParsedKey::parse(key_type, &new.secret).expect("parses");
        (new, parsed)
    }

    #[test]
    fn a_new_key_passes_its_proof_and_fails_that_of_another() {
        for key_type in KeyType::ALL {
            let (new, parsed) = made(key_type);
            assert_eq!(new.prove(&parsed), Ok(()), "{key_type}");
            let (_, other) = made(key_type);
            assert_eq!(new.prove(&other), Err(HsmFault::ProofFailed), "{key_type}");
        }
    }

    #[test]
    fn a_key_of_another_type_proves_nothing() {
        let (pair, _) = made(KeyType::Ed25519);
        let (_, symmetric) = made(KeyType::Aes256);
        assert_eq!(pair.prove(&symmetric), Err(HsmFault::ProofFailed));
        let (symmetric, _) = made(KeyType::Aes256);
        let (_, pair) = made(KeyType::Ed25519);
        assert_eq!(symmetric.prove(&pair), Err(HsmFault::ProofFailed));
    }

    #[test]
    fn a_secret_of_another_form_does_not_parse() {
        for length in [0, 31, 33, 48] {
            let secret = SecretBytes::new(vec![1; length]);
            for key_type in KeyType::ALL {
                let parsed = ParsedKey::parse(key_type, &secret);
                assert_eq!(parsed.err(), Some(HsmFault::MalformedKey), "{key_type}");
            }
        }
    }

    #[test]
    fn an_rsa_key_of_another_length_does_not_parse() {
        let pair = RsaKeyPair::generate(KeySize::Rsa3072).expect("generates");
        let document: Pkcs8V1Der<'static> = pair.as_der().expect("encodes");
        let secret = SecretBytes::new(document.as_ref().to_vec());
        let parsed = ParsedKey::parse(KeyType::Rsa2048, &secret);
        assert_eq!(parsed.err(), Some(HsmFault::MalformedKey));
    }

    #[test]
    fn a_key_does_only_what_its_type_can() {
        let (_, ed25519) = made(KeyType::Ed25519);
        let (_, symmetric) = made(KeyType::Aes256);
        let malformed = Some(HsmFault::MalformedKey);
        assert_eq!(
            ed25519.sign(SigningAlgorithm::RsaPssSha256, b"").err(),
            malformed
        );
        assert_eq!(
            symmetric.sign(SigningAlgorithm::Ed25519, b"").err(),
            malformed
        );
        assert_eq!(ed25519.aead(AeadAlgorithm::Aes256Gcm).err(), malformed);
    }
}
