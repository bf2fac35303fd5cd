//! The form in which a secret is stored: sealed under the key-encryption key and
//! bound to one key id, scope and type. Knows nothing of what the secret is for.
//!
//! ```text
//! version (1) | id of the key-encryption key (8) | nonce (12) | AES-256-GCM ciphertext and tag
//! ```
//!
//! The associated data are the format's name, the key id, the tenant, the
//! environment, the plane and the key type, each behind its length. So a sealed
//! secret that is moved to another row of the store does not open there.
//!
//! An RSA pair that waits for a key is sealed in the same form. Its associated data are
//! a name of its own, behind its length, so that it opens for no key, and no key's
//! secret opens as stock.
//!
//! What is inside: of an RSA key the PKCS#8 document (RFC 5958, DER), of an
//! Ed25519 key the seed of 32 bytes (RFC 8032 §5.1.5), of a symmetric key its 32
//! bytes.

use super::aead::TAG_LEN;
use super::kek::{self, KEK_ID_LEN, KeyEncryptionKey};
use super::ring::KekRing;
use crate::adapters::hsm::nonce::fresh_nonce;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyId;
use crate::domain::key::{KeyHandle, KeyRecord};
use crate::domain::scope::Scope;
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{HsmFault, Nonce};

const VERSION: u8 = 1;
const FORMAT_NAME: &str = "kms sealed secret v1";
const STOCK_NAME: &str = "kms sealed stock v1";
const NONCE_LEN: usize = size_of::<Nonce>();
const HEADER_LEN: usize = BEGINNING_LEN + NONCE_LEN;

/// So many bytes of a sealed secret tell what it is sealed under.
pub const BEGINNING_LEN: usize = 1 + KEK_ID_LEN;

/// What a sealed secret belongs to, and opens for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretBinding {
    /// The key.
    pub key_id: KeyId,
    /// Where it lives.
    pub scope: Scope,
    /// What kind of key it is.
    pub key_type: KeyType,
}

impl SecretBinding {
    /// What the secret of this record is bound to.
    pub fn of(record: &KeyRecord) -> Self {
        Self {
            key_id: record.key_id,
            scope: record.scope.clone(),
            key_type: record.key_type,
        }
    }

    /// Whether this is what the secret of that record is bound to.
    pub(super) fn is_of(&self, record: &KeyRecord) -> bool {
        self.key_id == record.key_id
            && self.scope == record.scope
            && self.key_type == record.key_type
    }

    fn associated_data(&self) -> Vec<u8> {
        let parts: [&[u8]; 6] = [
            FORMAT_NAME.as_bytes(),
            self.key_id.as_bytes(),
            self.scope.tenant_id.as_str().as_bytes(),
            self.scope.environment.as_str().as_bytes(),
            self.scope.plane.as_str().as_bytes(),
            self.key_type.as_str().as_bytes(),
        ];
        behind_their_lengths(&parts)
    }
}

fn behind_their_lengths(parts: &[&[u8]]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(128);
    for part in parts {
        // Eight bytes of length hold whatever a `usize` holds.
        encoded.extend_from_slice(&(part.len() as u64).to_be_bytes());
        encoded.extend_from_slice(part);
    }
    encoded
}

/// Seals a secret. Whoever calls this has both the secret and the key-encryption
/// key already, so it opens no way to either.
///
/// # Errors
/// [`HsmFault::Refused`] when the system gives no randomness.
pub fn seal(
    kek: &KeyEncryptionKey,
    binding: &SecretBinding,
    secret: &SecretBytes,
) -> Result<KeyHandle, HsmFault> {
    seal_bytes(kek, &binding.associated_data(), secret).map(KeyHandle::from_bytes)
}

/// Seals the secret of an RSA pair that belongs to no key yet.
///
/// # Errors
/// [`HsmFault::Refused`] when the system gives no randomness.
pub(super) fn seal_as_stock(
    kek: &KeyEncryptionKey,
    secret: &SecretBytes,
) -> Result<Vec<u8>, HsmFault> {
    seal_bytes(kek, &stock_data(), secret)
}

fn stock_data() -> Vec<u8> {
    behind_their_lengths(&[STOCK_NAME.as_bytes(), KeyType::Rsa2048.as_str().as_bytes()])
}

fn seal_bytes(
    kek: &KeyEncryptionKey,
    associated_data: &[u8],
    secret: &SecretBytes,
) -> Result<Vec<u8>, HsmFault> {
    // A random nonce is safe for 2^32 secrets under one key-encryption key.
    let nonce = fresh_nonce()?;
    let ciphertext = kek
        .sealing_key()
        .seal(nonce, associated_data, secret.expose())?;
    let mut sealed = Vec::with_capacity(HEADER_LEN + ciphertext.len());
    sealed.push(VERSION);
    sealed.extend_from_slice(kek.id_bytes());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

/// Opens a sealed secret for what it is bound to, with the key that it names.
///
/// # Errors
/// [`SealFault`].
pub(super) fn open(
    ring: &KekRing,
    binding: &SecretBinding,
    handle: &KeyHandle,
) -> Result<SecretBytes, SealFault> {
    open_bytes(ring, &binding.associated_data(), handle.as_bytes())
}

/// Opens what [`seal_as_stock`] has sealed, with the key that it names.
///
/// # Errors
/// [`SealFault`].
pub(super) fn open_stock(ring: &KekRing, sealed: &[u8]) -> Result<SecretBytes, SealFault> {
    open_bytes(ring, &stock_data(), sealed)
}

fn open_bytes(
    ring: &KekRing,
    associated_data: &[u8],
    sealed: &[u8],
) -> Result<SecretBytes, SealFault> {
    if sealed.len() < HEADER_LEN + TAG_LEN {
        return Err(SealFault::Malformed);
    }
    let (beginning, rest) = sealed.split_at(BEGINNING_LEN);
    let (nonce, ciphertext) = rest.split_at(NONCE_LEN);
    let kek_id = kek_id(beginning).ok_or(SealFault::Malformed)?;
    let kek = ring.opening(kek_id).ok_or(SealFault::ForeignKek)?;
    let nonce = Nonce::try_from(nonce).map_err(|_| SealFault::Malformed)?;
    kek.sealing_key()
        .open(nonce, associated_data, ciphertext)
        .ok_or(SealFault::Broken)
}

/// The id of the key-encryption key that a secret is sealed under, from the
/// secret or from its first [`BEGINNING_LEN`] bytes, as
/// [`KeyEncryptionKey::id`] has it; `None` for what is no sealed secret of a
/// known version.
pub fn sealed_under(sealed: &[u8]) -> Option<String> {
    kek_id(sealed).map(kek::hexadecimal)
}

/// The same in bytes.
pub(super) fn kek_id(sealed: &[u8]) -> Option<&[u8]> {
    let beginning = sealed.get(..BEGINNING_LEN)?;
    beginning.strip_prefix(&[VERSION])
}

/// Why a sealed secret does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealFault {
    /// It is no sealed secret of a version that is known.
    #[error("it is no sealed secret of a known version")]
    Malformed,
    /// It was sealed under another key-encryption key.
    #[error("it was sealed under another key-encryption key")]
    ForeignKek,
    /// It was altered, or it belongs to another key, scope or type.
    #[error("it was altered or belongs to another key")]
    Broken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::scope::{Environment, Plane};

    fn kek(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::derive(&[byte; 32]).expect("derives")
    }

    fn ring(byte: u8) -> KekRing {
        KekRing::of(kek(byte))
    }

    fn binding() -> SecretBinding {
        SecretBinding {
            key_id: KeyId::from_bytes([1; 16]),
            scope: Scope {
                tenant_id: "tenant".parse().expect("valid"),
                environment: Environment::Dev,
                plane: Plane::Tenant,
            },
            key_type: KeyType::Aes256,
        }
    }

    fn sealed() -> KeyHandle {
        let secret = SecretBytes::new(b"thirty-two bytes, as it happens.".to_vec());
        seal(&kek(1), &binding(), &secret).expect("seals")
    }

    fn fault(binding: &SecretBinding) -> Option<SealFault> {
        open(&ring(1), binding, &sealed()).err()
    }

    #[test]
    fn a_sealed_secret_opens_for_what_it_is_bound_to() {
        let opened = open(&ring(1), &binding(), &sealed()).expect("opens");
        assert_eq!(opened.expose(), b"thirty-two bytes, as it happens.");
        assert_eq!(sealed().as_bytes()[0], VERSION);
        assert_ne!(sealed(), sealed(), "each under its own nonce");
    }

    #[test]
    fn what_an_earlier_version_sealed_still_opens() {
        let blob = "AWo+DsZHK1q3szpPZsyH5v0/P9re33MGhBBmVkwNmtS0DjuHSr62SqIv\
                    8yAFd7be2UoeKtSRx3SzoUz9aV1pCxzmIVbM";
        let blob = crate::domain::binary::Base64Bytes::decode(blob).expect("base64");
        let handle = KeyHandle::from_bytes(blob.into_bytes().to_vec());
        let opened = open(&ring(1), &binding(), &handle).expect("opens");
        assert_eq!(opened.expose(), b"thirty-two bytes, as it happens.");
    }

    #[test]
    fn it_does_not_open_for_another_key_id() {
        let other = SecretBinding {
            key_id: KeyId::from_bytes([2; 16]),
            ..binding()
        };
        assert_eq!(fault(&other), Some(SealFault::Broken));
    }

    #[test]
    fn it_does_not_open_for_another_tenant() {
        let mut other = binding();
        other.scope.tenant_id = "tenant2".parse().expect("valid");
        assert_eq!(fault(&other), Some(SealFault::Broken));
    }

    #[test]
    fn it_does_not_open_for_another_environment() {
        let mut other = binding();
        other.scope.environment = Environment::Prod;
        assert_eq!(fault(&other), Some(SealFault::Broken));
    }

    #[test]
    fn it_does_not_open_for_another_plane() {
        let mut other = binding();
        other.scope.plane = Plane::Shared;
        assert_eq!(fault(&other), Some(SealFault::Broken));
    }

    #[test]
    fn it_does_not_open_for_another_key_type() {
        let other = SecretBinding {
            key_type: KeyType::Ed25519,
            ..binding()
        };
        assert_eq!(fault(&other), Some(SealFault::Broken));
    }

    #[test]
    fn the_associated_data_begin_with_the_name_of_the_format() {
        // No other format may share the sealing key and open here.
        let kek = kek(1);
        let mut unnamed = binding().associated_data();
        unnamed.drain(..8 + FORMAT_NAME.len());
        let ciphertext = kek
            .sealing_key()
            .seal([0; NONCE_LEN], &unnamed, b"secret")
            .expect("seals");
        let blob = [&[VERSION][..], kek.id_bytes(), &[0; NONCE_LEN], &ciphertext].concat();
        let opened = open(&KekRing::of(kek), &binding(), &KeyHandle::from_bytes(blob));
        assert_eq!(opened.err(), Some(SealFault::Broken));
    }

    #[test]
    fn each_part_of_the_associated_data_stands_behind_its_length() {
        let encoded = binding().associated_data();
        let mut expected = Vec::new();
        for part in [
            FORMAT_NAME.as_bytes(),
            &[1; 16],
            b"tenant",
            b"dev",
            b"tenant",
            b"AES-256",
        ] {
            expected.extend([0, 0, 0, 0, 0, 0, 0, part.len() as u8]);
            expected.extend(part);
        }
        assert_eq!(encoded, expected);
    }

    #[test]
    fn what_is_in_stock_is_sealed_under_a_name_of_its_own() {
        let mut expected = Vec::new();
        for part in [&b"kms sealed stock v1"[..], b"RSA-2048"] {
            expected.extend([0, 0, 0, 0, 0, 0, 0, part.len() as u8]);
            expected.extend(part);
        }
        assert_eq!(stock_data(), expected);
        assert_ne!(STOCK_NAME, FORMAT_NAME);

        let secret = SecretBytes::new(b"a pair".to_vec());
        let sealed = seal_as_stock(&kek(1), &secret).expect("seals");
        let opened = open_stock(&ring(1), &sealed).expect("opens");
        assert_eq!(opened.expose(), secret.expose());
        let as_handle = KeyHandle::from_bytes(sealed);
        let opened = open(&ring(1), &binding(), &as_handle);
        assert_eq!(opened.err(), Some(SealFault::Broken));
        let opened = open_stock(&ring(1), self::sealed().as_bytes());
        assert_eq!(opened.err(), Some(SealFault::Broken));
    }

    #[test]
    fn it_does_not_open_under_another_key_encryption_key() {
        let opened = open(&ring(2), &binding(), &sealed());
        assert_eq!(opened.err(), Some(SealFault::ForeignKek));

        // Nor when the blob claims that it was sealed under that one.
        let mut forged = sealed().as_bytes().to_vec();
        forged[1..=KEK_ID_LEN].copy_from_slice(kek(2).id_bytes());
        let opened = open(&ring(2), &binding(), &KeyHandle::from_bytes(forged));
        assert_eq!(opened.err(), Some(SealFault::Broken));
    }

    #[test]
    fn no_byte_may_be_altered_and_none_be_missing_or_added() {
        let sealed = sealed().as_bytes().to_vec();
        for position in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[position] ^= 1;
            assert!(open(&ring(1), &binding(), &KeyHandle::from_bytes(altered)).is_err());
            let cut = KeyHandle::from_bytes(sealed[..position].to_vec());
            assert!(open(&ring(1), &binding(), &cut).is_err());
        }
        let longer = KeyHandle::from_bytes([&sealed[..], &[0]].concat());
        assert!(open(&ring(1), &binding(), &longer).is_err());
    }
}
