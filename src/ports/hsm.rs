//! `HsmBackend`: whatever holds secrets and works with them.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::algorithm::{Algorithm, KeyType};
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle};
use crate::domain::lifecycle_permit::{ErasePermit, GeneratePermit};
use crate::domain::permit::{Decrypt, Encrypt, Permit, PermittedBatch, Sign, Verify};
use crate::domain::secret::SecretBytes;

/// A backend that makes keys and uses them.
///
/// Key material never leaves it. Every call takes a permit, which names the key,
/// the algorithm and, for a new key, the scope that the secret is bound to.
///
/// **Where the work runs** is the backend's decision: no call keeps an async
/// worker busy for longer than about 100 µs; what takes longer goes to a bounded
/// pool of its own. Dropping the future of a call abandons its answer and leaves
/// the key as it was.
///
/// **A batch** comes to one result an item, in their order, or to nothing: the first
/// failure is the failure of all. It takes its turn among the calls of others item
/// by item, or about a millisecond at a time. Where a backend says nothing else, its
/// items are done one after the other.
///
/// **What is atomic:** `generate` leaves a whole, proven key or nothing. A key
/// that was generated and then not stored must be given to [`discard`], before
/// the refusal is answered; where nobody knows whether it was stored, as soon as
/// the store has told that it was not. Until then the whole [`GeneratedKey`] is
/// kept. [`erase`] runs after the store has forgotten
/// the handle, and doing it twice is no error.
///
/// **What must not be logged:** key material, data, plaintext, signatures made
/// for callers, PINs; handles only by length.
///
/// [`discard`]: HsmBackend::discard
/// [`erase`]: HsmBackend::erase
#[async_trait]
pub trait HsmBackend: Send + Sync + 'static {
    /// Which backend this is, as a key's metadata names it.
    fn name(&self) -> HsmBackendName;

    /// What a key of this type can do here, the default first; empty when the
    /// backend cannot make such keys at all.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] while the backend cannot be asked.
    fn algorithms(&self, key_type: KeyType) -> Result<Vec<Algorithm>, HsmError>;

    /// Makes a key with this id and proves it: a new pair has signed and
    /// verified, a new secret has sealed and opened, before it is handed out
    /// (FIPS 140-3 IG 10.3.A, pairwise consistency).
    ///
    /// # Errors
    /// [`HsmError::Unavailable`]; [`HsmError::Fault`] when the proof fails.
    async fn generate(
        &self,
        permit: &GeneratePermit,
        key_id: KeyId,
    ) -> Result<GeneratedKey, HsmError>;

    /// Undoes `generate`, whatever it came to, for a key that no store has taken.
    /// A key that is not there is no error.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`]; the key is then an orphan in the backend.
    async fn discard(&self, key_id: KeyId) -> Result<(), HsmError>;

    /// Signs `data`, which is the message and not its hash.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`]; [`HsmError::Fault`] when the stored secret
    /// does not open, which is a damaged or foreign store.
    async fn sign(&self, permit: &Permit<Sign>, data: Bytes) -> Result<Vec<u8>, HsmError>;

    /// Whether `signature` is the key's signature of `data`. A malformed
    /// signature is a wrong one.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`]; [`HsmError::Fault`] when the stored public key
    /// does not parse.
    async fn verify(
        &self,
        permit: &Permit<Verify>,
        data: Bytes,
        signature: Bytes,
    ) -> Result<bool, HsmError>;

    /// Encrypts under a fresh random nonce.
    ///
    /// # Errors
    /// As for [`HsmBackend::sign`].
    async fn encrypt(
        &self,
        permit: &Permit<Encrypt>,
        plaintext: Bytes,
        aad: Bytes,
    ) -> Result<Encrypted, HsmError>;

    /// Decrypts, or says that the ciphertext does not open.
    ///
    /// # Errors
    /// [`HsmError::Undecryptable`] whatever of key, nonce, associated data or
    /// ciphertext was wrong; else as for [`HsmBackend::sign`].
    async fn decrypt(
        &self,
        permit: &Permit<Decrypt>,
        nonce: Nonce,
        ciphertext: Bytes,
        aad: Bytes,
    ) -> Result<SecretBytes, HsmError>;

    /// Signs each of these messages.
    ///
    /// # Errors
    /// As for [`HsmBackend::sign`].
    async fn sign_batch(
        &self,
        batch: PermittedBatch<'_, Sign, Bytes>,
    ) -> Result<Vec<Vec<u8>>, HsmError> {
        let (permit, messages) = batch.into_parts();
        let mut signatures = Vec::with_capacity(messages.len());
        for data in messages {
            signatures.push(self.sign(permit, data).await?);
        }
        Ok(signatures)
    }

    /// Checks each of these signatures.
    ///
    /// # Errors
    /// As for [`HsmBackend::verify`].
    async fn verify_batch(
        &self,
        batch: PermittedBatch<'_, Verify, SignedMessage>,
    ) -> Result<Vec<bool>, HsmError> {
        let (permit, messages) = batch.into_parts();
        let mut verdicts = Vec::with_capacity(messages.len());
        for SignedMessage { data, signature } in messages {
            verdicts.push(self.verify(permit, data, signature).await?);
        }
        Ok(verdicts)
    }

    /// Encrypts each of these, each under a fresh random nonce.
    ///
    /// # Errors
    /// As for [`HsmBackend::encrypt`].
    async fn encrypt_batch(
        &self,
        batch: PermittedBatch<'_, Encrypt, Plaintext>,
    ) -> Result<Vec<Encrypted>, HsmError> {
        let (permit, messages) = batch.into_parts();
        let mut encrypted = Vec::with_capacity(messages.len());
        for Plaintext { plaintext, aad } in messages {
            encrypted.push(self.encrypt(permit, plaintext, aad).await?);
        }
        Ok(encrypted)
    }

    /// Decrypts each of these; `None` for one that does not open.
    ///
    /// # Errors
    /// As for [`HsmBackend::sign`].
    async fn decrypt_batch(
        &self,
        batch: PermittedBatch<'_, Decrypt, Ciphertext>,
    ) -> Result<Vec<Option<SecretBytes>>, HsmError> {
        let (permit, messages) = batch.into_parts();
        let mut plaintexts = Vec::with_capacity(messages.len());
        for sealed in messages {
            let opened = self.decrypt(permit, sealed.nonce, sealed.ciphertext, sealed.aad);
            plaintexts.push(opened_or_not(opened.await)?);
        }
        Ok(plaintexts)
    }

    /// Erases a key's secret: after this no copy of it is left in the backend,
    /// its caches included.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`]; the secret may then still be there.
    async fn erase(&self, permit: &ErasePermit) -> Result<(), HsmError>;

    /// Leaves nothing of a key ready that was only made so to be faster: it is not going
    /// to be used, and may still be restored. Unlike after [`erase`] it can be used
    /// again.
    ///
    /// [`erase`]: HsmBackend::erase
    fn put_away(&self, _key_id: KeyId) {}

    /// Does a whole round of work with a throw-away key, for the health check.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] or [`HsmError::Fault`].
    async fn self_test(&self) -> Result<(), HsmError>;

    /// The keys that the backend keeps itself, somebody else's among them; `None`
    /// where a key's handle is all there is of it.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`].
    async fn inventory(&self) -> Result<Option<HashSet<KeyId>>, HsmError> {
        Ok(None)
    }

    /// Why the backend cannot have the key of this handle, in words for an operator,
    /// where the handle alone says so; asks nobody.
    fn is_elsewhere(&self, _key_id: KeyId, _handle: &KeyHandle) -> Option<String> {
        None
    }

    /// How the backend stands, in words for an operator and without secrets; asks
    /// nobody.
    fn condition(&self) -> Option<String> {
        None
    }
}

/// The backends in use: the one that makes new keys, and those that hold others.
/// A key stays with the backend that made it.
pub struct HsmBackends {
    for_new_keys: Arc<dyn HsmBackend>,
    others: Vec<Arc<dyn HsmBackend>>,
}

impl HsmBackends {
    /// These backends; no two of the same name.
    pub fn new(for_new_keys: Arc<dyn HsmBackend>, others: Vec<Arc<dyn HsmBackend>>) -> Self {
        Self {
            for_new_keys,
            others,
        }
    }

    /// The one that makes new keys.
    pub fn for_new_keys(&self) -> &dyn HsmBackend {
        &*self.for_new_keys
    }

    /// The one that holds the keys of this backend's name.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when the configuration has none of that name.
    pub fn holding(&self, name: HsmBackendName) -> Result<&dyn HsmBackend, HsmError> {
        self.all()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| HsmError::Unavailable(Box::new(NotConfigured(name))))
    }

    /// Every one, that for new keys first.
    pub fn all(&self) -> impl Iterator<Item = &dyn HsmBackend> {
        std::iter::once(&self.for_new_keys)
            .chain(&self.others)
            .map(|backend| &**backend)
    }
}

/// A key whose backend the configuration no longer names.
#[derive(Debug, thiserror::Error)]
#[error("the key is in the HSM backend {0}, which the configuration does not set up")]
struct NotConfigured(HsmBackendName);

/// A key that was made and that no store has taken yet.
pub struct GeneratedKey {
    /// Which backend made it.
    pub backend: HsmBackendName,
    /// How the backend will find it.
    pub handle: KeyHandle,
    /// SPKI PEM of the public half; `None` for a symmetric key.
    pub public_key: Option<String>,
    /// Goes with the rest of this, once it is known whether a store has the key.
    pub claim: Claim,
}

/// A hold on something of the backend's that a new key needs, for as long as nobody
/// knows whether a store has taken it. Nobody but the backend knows what it is.
#[derive(Default)]
pub struct Claim {
    _on: Option<Arc<dyn Any + Send + Sync>>,
}

impl Claim {
    /// A hold on this.
    pub fn on(held: Arc<impl Any + Send + Sync>) -> Self {
        Self { _on: Some(held) }
    }
}

/// A nonce of 96 bits.
pub type Nonce = [u8; 12];

/// A message and what is said to be its signature.
#[derive(Clone)]
pub struct SignedMessage {
    /// The message.
    pub data: Bytes,
    /// The signature.
    pub signature: Bytes,
}

/// What is to be encrypted.
#[derive(Clone)]
pub struct Plaintext {
    /// The message.
    pub plaintext: Bytes,
    /// What is authenticated beside it.
    pub aad: Bytes,
}

/// A ciphertext and what it takes to open it.
#[derive(Clone)]
pub struct Ciphertext {
    /// The ciphertext with its tag at the end.
    pub ciphertext: Bytes,
    /// The nonce that the encryption answered.
    pub nonce: Nonce,
    /// What was authenticated beside it.
    pub aad: Bytes,
}

/// What an encryption gives out.
pub struct Encrypted {
    /// The nonce that was drawn for it.
    pub nonce: Nonce,
    /// The ciphertext with the tag of 16 bytes at its end.
    pub ciphertext: Vec<u8>,
}

/// A ciphertext that does not open as what it is among others: one result, and no
/// failure of the backend.
///
/// # Errors
/// Every other failure.
pub fn opened_or_not(
    opened: Result<SecretBytes, HsmError>,
) -> Result<Option<SecretBytes>, HsmError> {
    match opened {
        Ok(plaintext) => Ok(Some(plaintext)),
        Err(HsmError::Undecryptable) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Why a backend did not do it.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    /// The ciphertext does not open.
    #[error("the ciphertext does not open")]
    Undecryptable,
    /// The backend cannot be reached, or did not answer in time.
    #[error("the HSM backend is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The backend answered something that must not happen.
    #[error("the HSM backend is at fault: {0}")]
    Fault(HsmFault),
}

/// What must not happen inside a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HsmFault {
    /// A stored secret does not open under the key-encryption key for this key,
    /// scope and type.
    #[error("the sealed secret does not open")]
    SealBroken,
    /// A stored key does not parse.
    #[error("the stored key does not parse")]
    MalformedKey,
    /// A new key did not pass its own proof.
    #[error("the new key failed its proof")]
    ProofFailed,
    /// The cryptographic library, or the token, refused what it must accept.
    #[error("the cryptographic library refused a valid operation")]
    Refused,
    /// The backend no longer has what the handle names.
    #[error("the key is not in the backend")]
    Missing,
    /// The backend has more than one of what the handle names.
    #[error("the backend has several keys of one id")]
    Ambiguous,
    /// What the handle names belongs to another scope.
    #[error("the key in the backend belongs to another scope")]
    ForeignObject,
}
