//! `SoftwareHsm`: keys in this process, their secrets sealed under a
//! key-encryption key. A key's handle is its sealed secret itself, so the store
//! that keeps the handle keeps the secret, and erasing the handle there erases it.
//!
//! This file decides where each piece of work runs. How it is done is in `engine`
//! and `aead`, how a secret is stored in `seal`, which keys are open in `vault`, where RSA
//! pairs come from in `pairs`.

mod aead;
mod cpu_pool;
mod derivation;
mod engine;
mod generation;
pub mod kek;
mod pairs;
pub mod ring;
pub mod seal;
mod stock;
mod vault;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use self::cpu_pool::CpuPool;
use self::engine::ParsedKey;
use self::kek::KeyEncryptionKey;
use self::pairs::RsaPairs;
use self::ring::KekRing;
use self::seal::SecretBinding;
use self::vault::Vault;
use super::nonce::fresh_nonce;
use super::public_key::PublicKeys;
use crate::domain::algorithm::{AeadAlgorithm, Algorithm, KeyType, SigningAlgorithm};
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle};
use crate::domain::lifecycle_permit::{ErasePermit, GeneratePermit};
use crate::domain::permit::{Decrypt, Encrypt, KeyOperation, Permit, Sign, Verify};
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{Encrypted, GeneratedKey, HsmBackend, HsmError, HsmFault, Nonce};
use crate::telemetry::metrics::Metrics;

const KIB: usize = 1024;

/// The software HSM.
pub struct SoftwareHsm {
    vault: Arc<Vault>,
    public_keys: PublicKeys,
    pool: CpuPool,
    pairs: RsaPairs,
}

/// How much a [`SoftwareHsm`] may take.
#[derive(Clone, Copy, Debug)]
pub struct SoftwareHsmSettings {
    /// How many private and secret keys are kept parsed, and how many public
    /// ones: together at most about 13 KiB each.
    pub parsed_keys: usize,
    /// How many cores long computations may keep busy.
    pub cores: usize,
    /// How many RSA pairs are made before somebody asks for them.
    pub rsa_stock: usize,
}

impl Default for SoftwareHsmSettings {
    /// 10,000 parsed keys, every core, and no pair in stock.
    fn default() -> Self {
        Self {
            parsed_keys: 10_000,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rsa_stock: 0,
        }
    }
}

/// Where a piece of work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the async worker that asked: at most about 100 µs.
    Here,
    /// In the CPU pool.
    Pool,
}

impl Place {
    /// Here for at most so many bytes.
    fn here_up_to(longest: usize, length: usize) -> Self {
        match length <= longest {
            true => Self::Here,
            false => Self::Pool,
        }
    }

    /// Ed25519 hashes what it signs twice with SHA-512. An RSA signature alone
    /// takes 230 µs, and opening the key for it half as long.
    fn of_signing(algorithm: SigningAlgorithm, length: usize) -> Self {
        match algorithm {
            SigningAlgorithm::RsaPssSha256 | SigningAlgorithm::RsaPkcs1v15Sha256 => Self::Pool,
            SigningAlgorithm::Ed25519 => Self::here_up_to(16 * KIB, length),
        }
    }

    /// Checking an RSA signature takes 14 µs, and SHA-256 hashes 64 KiB in 40.
    fn of_verifying(algorithm: SigningAlgorithm, length: usize) -> Self {
        match algorithm {
            SigningAlgorithm::RsaPssSha256 | SigningAlgorithm::RsaPkcs1v15Sha256 => {
                Self::here_up_to(64 * KIB, length)
            }
            SigningAlgorithm::Ed25519 => Self::here_up_to(16 * KIB, length),
        }
    }

    /// AES-256-GCM takes about 30 µs one way for 512 KiB, ChaCha20-Poly1305 as
    /// long for 64 KiB.
    fn of_encrypting(algorithm: AeadAlgorithm, length: usize) -> Self {
        match algorithm {
            AeadAlgorithm::Aes256Gcm => Self::here_up_to(512 * KIB, length),
            AeadAlgorithm::ChaCha20Poly1305 => Self::here_up_to(64 * KIB, length),
        }
    }
}

impl SoftwareHsm {
    /// A software HSM whose secrets are sealed under this key-encryption key.
    pub fn new(kek: KeyEncryptionKey, settings: SoftwareHsmSettings) -> Self {
        Self::with_ring(KekRing::of(kek), settings)
    }

    /// A software HSM whose secrets are sealed under any of these key-encryption
    /// keys, and new ones under the first.
    pub fn with_ring(ring: KekRing, settings: SoftwareHsmSettings) -> Self {
        let vault = Arc::new(Vault::new(ring, settings.parsed_keys));
        Self {
            pairs: RsaPairs::new(Arc::clone(&vault), settings),
            vault,
            public_keys: PublicKeys::new(settings.parsed_keys),
            pool: CpuPool::new(settings.cores),
        }
    }

    /// From now on RSA pairs are made beforehand while nobody waits for one, as many
    /// as the settings say, and these metrics say how many are ready.
    pub fn begin_stock(&self, metrics: Arc<Metrics>) {
        self.pairs.begin_stock(metrics);
    }

    /// No more pairs are made beforehand. Those that are ready may still be taken.
    pub fn end_stock(&self) {
        self.pairs.end_stock();
    }

    /// Drops what is in stock, makes no more RSA pairs, and waits for the end of those
    /// that were begun, at most a few hundred milliseconds.
    pub async fn stop(&self) {
        self.pairs.stop().await;
    }

    /// From now on this key-encryption key seals; those that were in use go on
    /// opening what they sealed. Nobody who uses a key waits.
    pub fn seal_with(&self, kek: KeyEncryptionKey) {
        self.vault.seal_with(kek);
        // In this order: what comes into stock from now on is sealed under this one.
        self.pairs.renew_stock();
    }

    /// The id of the key-encryption key that seals.
    pub fn sealing_id(&self) -> String {
        self.vault.sealing_id()
    }

    /// Whether a secret is sealed under the key that seals.
    pub fn is_sealed_anew(&self, handle: &KeyHandle) -> bool {
        self.vault.is_sealed_anew(handle)
    }

    /// Seals secrets anew under the key that seals, in the CPU pool. For each, in
    /// their order: the handle to put in the old one's place, as long as that;
    /// `None` for one that is sealed so already; or why it cannot be.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when the runtime shuts down.
    pub async fn reseal(
        &self,
        sealed: Vec<(SecretBinding, KeyHandle)>,
    ) -> Result<Vec<Result<Option<KeyHandle>, HsmFault>>, HsmError> {
        let vault = Arc::clone(&self.vault);
        self.pool
            .run(move || {
                sealed
                    .iter()
                    .map(|(binding, handle)| vault.reseal(binding, handle))
                    .collect()
            })
            .await
    }

    /// Whether a store may still come to take a key that was sealed, before it
    /// was replaced, under a key which no longer seals.
    pub fn has_unsettled(&self) -> bool {
        self.vault.has_unsettled()
    }

    /// Forgets every key-encryption key but the one that seals: what is sealed
    /// under another does not open from now on.
    pub fn forget_other_keks(&self) {
        self.vault.forget_others();
    }

    /// Does something with a permitted key, which is opened first, in the same
    /// place, if it is not ready.
    async fn with_key<O: KeyOperation, T: Send + 'static>(
        &self,
        permit: &Permit<O>,
        place: Place,
        work: impl FnOnce(&ParsedKey) -> Result<T, HsmFault> + Send + 'static,
    ) -> Result<T, HsmError> {
        let record = permit.record();
        if let Some(ready) = self.vault.ready(record).map_err(HsmError::Fault)? {
            return self.run(place, move || work(&ready.key)).await;
        }
        let binding = SecretBinding::of(record);
        let handle = permit
            .handle()
            .ok_or(HsmError::Fault(HsmFault::MalformedKey))?
            .clone();
        let vault = Arc::clone(&self.vault);
        self.run(place, move || {
            let ready = vault.open(&binding, &handle)?;
            work(&ready.key)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> Result<T, HsmFault> + Send + 'static,
    ) -> Result<T, HsmError> {
        match place {
            Place::Here => work(),
            Place::Pool => self.pool.run(work).await?,
        }
        .map_err(HsmError::Fault)
    }
}

#[async_trait]
impl HsmBackend for SoftwareHsm {
    fn name(&self) -> HsmBackendName {
        HsmBackendName::Software
    }

    fn algorithms(&self, key_type: KeyType) -> Result<Vec<Algorithm>, HsmError> {
        Ok(key_type.algorithms().to_vec())
    }

    async fn generate(
        &self,
        permit: &GeneratePermit,
        key_id: KeyId,
    ) -> Result<GeneratedKey, HsmError> {
        let binding = SecretBinding {
            key_id,
            scope: permit.scope().clone(),
            key_type: permit.key_type(),
        };
        match permit.key_type() {
            KeyType::Rsa2048 => self.pairs.make_key(&self.pool, binding).await,
            // About 70 µs, most of it the proof's verification.
            KeyType::Ed25519 | KeyType::Aes256 => self.vault.make(binding).map_err(HsmError::Fault),
        }
    }

    async fn discard(&self, _key_id: KeyId) -> Result<(), HsmError> {
        // The sealed secret is in the handle and nowhere else.
        Ok(())
    }

    async fn sign(&self, permit: &Permit<Sign>, data: Bytes) -> Result<Vec<u8>, HsmError> {
        let algorithm = permit.algorithm();
        let place = Place::of_signing(algorithm, data.len());
        self.with_key(permit, place, move |key| key.sign(algorithm, &data))
            .await
    }

    async fn verify(
        &self,
        permit: &Permit<Verify>,
        data: Bytes,
        signature: Bytes,
    ) -> Result<bool, HsmError> {
        let algorithm = permit.algorithm();
        let key = self
            .public_keys
            .of(permit.record())
            .map_err(HsmError::Fault)?;
        self.run(Place::of_verifying(algorithm, data.len()), move || {
            key.verify(algorithm, &data, &signature)
        })
        .await
    }

    async fn encrypt(
        &self,
        permit: &Permit<Encrypt>,
        plaintext: Bytes,
        aad: Bytes,
    ) -> Result<Encrypted, HsmError> {
        let algorithm = permit.algorithm();
        let place = Place::of_encrypting(algorithm, plaintext.len() + aad.len());
        self.with_key(permit, place, move |key| {
            let nonce = fresh_nonce()?;
            let ciphertext = key.aead(algorithm)?.seal(nonce, &aad, &plaintext)?;
            Ok(Encrypted { nonce, ciphertext })
        })
        .await
    }

    async fn decrypt(
        &self,
        permit: &Permit<Decrypt>,
        nonce: Nonce,
        ciphertext: Bytes,
        aad: Bytes,
    ) -> Result<SecretBytes, HsmError> {
        let algorithm = permit.algorithm();
        let place = Place::of_encrypting(algorithm, ciphertext.len() + aad.len());
        self.with_key(permit, place, move |key| {
            Ok(key.aead(algorithm)?.open(nonce, &aad, &ciphertext))
        })
        .await?
        .ok_or(HsmError::Undecryptable)
    }

    async fn erase(&self, permit: &ErasePermit) -> Result<(), HsmError> {
        self.vault.erase(permit.record().key_id);
        Ok(())
    }

    fn put_away(&self, key_id: KeyId) {
        self.vault.put_away(key_id);
    }

    async fn self_test(&self) -> Result<(), HsmError> {
        for key_type in [KeyType::Ed25519, KeyType::Aes256] {
            let throw_away = SecretBinding {
                key_id: KeyId::generate(),
                scope: Scope {
                    tenant_id: "self-test"
                        .parse()
                        .expect("it keeps to the grammar of tenants"),
                    environment: Environment::Dev,
                    plane: Plane::Shared,
                },
                key_type,
            };
            // Making a key seals, opens, and signs or encrypts with it.
            self.vault.make(throw_away).map_err(HsmError::Fault)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_runs_in_the_pool() {
        use AeadAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
        use SigningAlgorithm::{Ed25519, RsaPkcs1v15Sha256, RsaPssSha256};

        assert_eq!(Place::of_signing(RsaPssSha256, 0), Place::Pool);
        assert_eq!(Place::of_signing(RsaPkcs1v15Sha256, 0), Place::Pool);
        assert_eq!(Place::of_signing(Ed25519, 16 * KIB), Place::Here);
        assert_eq!(Place::of_signing(Ed25519, 16 * KIB + 1), Place::Pool);
        assert_eq!(Place::of_verifying(RsaPssSha256, 64 * KIB), Place::Here);
        assert_eq!(Place::of_verifying(RsaPssSha256, 64 * KIB + 1), Place::Pool);
        assert_eq!(Place::of_verifying(Ed25519, 16 * KIB + 1), Place::Pool);
        assert_eq!(Place::of_encrypting(Aes256Gcm, 512 * KIB), Place::Here);
        assert_eq!(Place::of_encrypting(Aes256Gcm, 512 * KIB + 1), Place::Pool);
        assert_eq!(
            Place::of_encrypting(ChaCha20Poly1305, 64 * KIB),
            Place::Here
        );
        assert_eq!(
            Place::of_encrypting(ChaCha20Poly1305, 64 * KIB + 1),
            Place::Pool
        );
    }
}
