//! The key-encryption key: where it comes from and what is derived from it.
//! Knows nothing of what it seals.

use std::path::Path;

use super::aead::{AeadKey, fill_random};
use super::derivation::derive;
use crate::adapters::secret_file::{self, LaidOutBy, SECRET_LEN, SecretFileFault};
use crate::domain::algorithm::AeadAlgorithm;
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::HsmFault;

/// The length of the id of a key-encryption key, in bytes.
pub(super) const KEK_ID_LEN: usize = 8;

/// What the id is derived under.
const ID_INFO: &[u8] = b"kms key-encryption key id v1";
/// What the sealing key is derived under.
const SEALING_INFO: &[u8] = b"kms key-encryption key sealing AES-256-GCM v1";

/// The key that seals every stored secret.
///
/// Its own bytes are gone once it is loaded: only what is derived from them
/// stays, an id that is no secret and the sealing key, which lives in memory of
/// the cryptographic library and is erased with it.
pub struct KeyEncryptionKey {
    id: [u8; KEK_ID_LEN],
    sealing_key: AeadKey,
}

impl KeyEncryptionKey {
    /// Loads the key from its file; `None` when there is no such file.
    ///
    /// # Errors
    /// [`KekFault::File`], which names the file and says how to mend it.
    pub fn load(path: impl AsRef<Path>, by: LaidOutBy) -> Result<Option<Self>, KekFault> {
        match secret_file::load(path.as_ref(), by)? {
            Some(secret) => Self::derive(secret.expose())
                .map(Some)
                .map_err(KekFault::Library),
            None => Ok(None),
        }
    }

    /// Makes a key and its file, which is durable before this returns, so that
    /// nothing is sealed under a key that a power failure takes away.
    ///
    /// # Errors
    /// [`KekFault`]; a file that is there stays as it was.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, KekFault> {
        let mut bytes = [0u8; SECRET_LEN];
        fill_random(&mut bytes).map_err(KekFault::Library)?;
        let secret = SecretBytes::take_from(&mut bytes);
        let kek = Self::derive(secret.expose()).map_err(KekFault::Library)?;
        secret_file::create(path.as_ref(), &secret)?;
        Ok(kek)
    }

    /// Copies a key from a file that the operator names to a file of the service's
    /// own, as [`KeyEncryptionKey::create`] makes one; `None` when there is none to
    /// copy.
    ///
    /// # Errors
    /// [`KekFault`]; a file that is there stays as it was.
    pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Option<Self>, KekFault> {
        let Some(secret) = secret_file::load(from.as_ref(), LaidOutBy::Operator)? else {
            return Ok(None);
        };
        let kek = Self::derive(secret.expose()).map_err(KekFault::Library)?;
        secret_file::create(to.as_ref(), &secret)?;
        Ok(Some(kek))
    }

    /// The id in hexadecimal: 16 digits that tell one key from another and
    /// reveal nothing of either.
    pub fn id(&self) -> String {
        hexadecimal(&self.id)
    }

    pub(super) fn id_bytes(&self) -> &[u8; KEK_ID_LEN] {
        &self.id
    }

    pub(super) fn sealing_key(&self) -> &AeadKey {
        &self.sealing_key
    }

    pub(super) fn derive(secret: &[u8]) -> Result<Self, HsmFault> {
        let sealing_key = derive::<32>(secret, SEALING_INFO)?;
        Ok(Self {
            id: *derive::<KEK_ID_LEN>(secret, ID_INFO)?,
            sealing_key: AeadKey::new(AeadAlgorithm::Aes256Gcm, &sealing_key[..])?,
        })
    }
}

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
pub enum KekFault {
    /// Its file; see [`SecretFileFault`].
    #[error("the key-encryption key cannot be used: without the right one no stored secret opens")]
    File(#[from] SecretFileFault),
    /// The cryptographic library failed, for instance for want of randomness.
    #[error("no key-encryption key can be made")]
    Library(#[source] HsmFault),
}

/// Bytes as [`KeyEncryptionKey::id`] writes them.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(KeyEncryptionKey: Clone, std::fmt::Debug);

    #[test]
    fn the_id_reveals_nothing_of_the_sealing_key_and_stays_the_same_for_ever() {
        let secret = [1; 32];
        let kek = KeyEncryptionKey::derive(&secret).expect("derives");
        let sealing_key = derive::<32>(&secret, SEALING_INFO).expect("derives");
        assert_ne!(sealing_key[..KEK_ID_LEN], kek.id);
        // Stores hold it, so no later version may derive another.
        assert_eq!(kek.id(), "6a3e0ec6472b5ab7");
    }

    #[test]
    fn a_created_key_loads_again_and_no_file_is_no_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kek");
        assert!(matches!(
            KeyEncryptionKey::load(&path, LaidOutBy::Service),
            Ok(None)
        ));
        let created = KeyEncryptionKey::create(&path).expect("created");
        let loaded = KeyEncryptionKey::load(&path, LaidOutBy::Service).expect("loads");
        assert_eq!(loaded.map(|kek| kek.id()), Some(created.id()));
    }

    #[test]
    fn two_created_keys_differ() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = KeyEncryptionKey::create(folder.path().join("one")).expect("created");
        let other = KeyEncryptionKey::create(folder.path().join("other")).expect("created");
        assert_ne!(one.id(), other.id());
    }
}
