//! `SoftwareHsm`: keys in this process, their secrets sealed under a
//! key-encryption key. A key's handle is its sealed secret itself, so the store
//! that keeps the handle keeps the secret, and erasing the handle there erases it.
//!
//! Where each piece of work runs is in `place`, how it is done in `engine` and `aead`,
//! how a secret is stored in `seal`, which keys are open in `vault`, where RSA pairs come
//! from in `pairs`.

mod aead;
mod cpu_pool;
mod derivation;
mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod kek;
mod pairs;
mod place;
pub mod ring;
pub mod seal;
mod stock;
mod vault;
mod workers;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use self::cpu_pool::CpuPool;
use self::engine::ParsedKey;
use self::kek::KeyEncryptionKey;
use self::pairs::RsaPairs;
use self::place::{Place, placed};
use self::ring::KekRing;
use self::seal::SecretBinding;
use self::vault::Vault;
use super::nonce::fresh_nonce;
use super::pace;
use super::public_key::PublicKeys;
use crate::adapters::backlog::Backlog;
use crate::domain::algorithm::{AeadAlgorithm, Algorithm, KeyType};
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle};
use crate::domain::lifecycle_permit::{ErasePermit, GeneratePermit};
use crate::domain::permit::{Decrypt, Encrypt, KeyOperation, Permit, PermittedBatch, Sign, Verify};
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::secret::SecretBytes;
use crate::ports::hsm::{
    Ciphertext, Encrypted, GeneratedKey, HsmBackend, HsmError, HsmFault, Nonce, Plaintext,
    SignedMessage,
};
use crate::telemetry::metrics::Metrics;

/// The software HSM.
pub struct SoftwareHsm {
    vault: Arc<Vault>,
    public_keys: PublicKeys,
    pool: CpuPool,
    pairs: RsaPairs,
}

/// How much a [`SoftwareHsm`] may take.
#[derive(Clone, Debug)]
pub struct SoftwareHsmSettings {
    /// How many bytes of private and secret keys are kept parsed, and how many of
    /// public ones.
    pub parsed_bytes: usize,
    /// How many cores long computations may keep busy.
    pub cores: usize,
    /// How many RSA pairs are made before somebody asks for them.
    pub rsa_stock: usize,
    /// Where it says how many long computations wait for a core.
    pub backlog: Backlog,
}

impl Default for SoftwareHsmSettings {
    /// 96 MiB of parsed keys of either kind, every core, and no pair in stock.
    fn default() -> Self {
        Self {
            parsed_bytes: 96 << 20,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rsa_stock: 0,
            backlog: Backlog::default(),
        }
    }
}

fn encrypted(
    key: &ParsedKey,
    algorithm: AeadAlgorithm,
    plaintext: &[u8],
    aad: &[u8],
) -> Result<Encrypted, HsmFault> {
    let nonce = fresh_nonce()?;
    let ciphertext = key.aead(algorithm)?.seal(nonce, aad, plaintext)?;
    Ok(Encrypted { nonce, ciphertext })
}

impl SoftwareHsm {
    /// A software HSM whose secrets are sealed under this key-encryption key.
    pub fn new(kek: KeyEncryptionKey, settings: SoftwareHsmSettings) -> Self {
        Self::with_ring(KekRing::of(kek), settings)
    }

    /// A software HSM whose secrets are sealed under any of these key-encryption
    /// keys, and new ones under the first.
    pub fn with_ring(ring: KekRing, settings: SoftwareHsmSettings) -> Self {
        let vault = Arc::new(Vault::new(ring, settings.parsed_bytes));
        Self {
            pairs: RsaPairs::new(Arc::clone(&vault), &settings),
            vault,
            public_keys: PublicKeys::new(settings.parsed_bytes),
            pool: CpuPool::new(settings.cores, settings.backlog),
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

    /// Drops what is in stock, begins no more long computations, and waits for the end of
    /// those that were begun, at most a few hundred milliseconds.
    pub async fn stop(&self) {
        self.pairs.stop().await;
        self.pool.stop().await;
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

    /// Seals secrets anew under the key that seals, one page at a time. For each, in
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
            .run_unhurried(move || {
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

    /// Does the same with each of these items: a few where it stands, else by pieces
    /// in the pool. The key is looked up for each piece, so that what is left of a
    /// batch ends with the erasure of its key.
    async fn with_key_for_each<O: KeyOperation, I: Send + 'static, T: Send + 'static>(
        &self,
        batch: PermittedBatch<'_, O, I>,
        cost_ns: impl Fn(&I) -> u64 + Send,
        work: impl Fn(&ParsedKey, I) -> Result<T, HsmFault> + Clone + Send + 'static,
    ) -> Result<Vec<T>, HsmError> {
        let (permit, items) = batch.into_parts();
        let mut done = Vec::with_capacity(items.len());
        for (place, piece) in placed(items, cost_ns) {
            let work = work.clone();
            let results = self.with_key(permit, place, move |key| {
                let results = piece.into_iter().map(|item| work(key, item));
                results.collect::<Result<Vec<T>, HsmFault>>()
            });
            done.extend(results.await?);
        }
        Ok(done)
    }

    async fn run<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> Result<T, HsmFault> + Send + 'static,
    ) -> Result<T, HsmError> {
        match place {
            Place::Here => work(),
            Place::Pool => self.pool.run(work).await?,
            Place::PoolByPieces => self.pool.run_piece(work).await?,
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
            encrypted(key, algorithm, &plaintext, &aad)
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

    async fn sign_batch(
        &self,
        batch: PermittedBatch<'_, Sign, Bytes>,
    ) -> Result<Vec<Vec<u8>>, HsmError> {
        let algorithm = batch.permit().algorithm();
        self.with_key_for_each(
            batch,
            move |data| pace::signing_ns(algorithm, data.len()),
            move |key, data| key.sign(algorithm, &data),
        )
        .await
    }

    async fn verify_batch(
        &self,
        batch: PermittedBatch<'_, Verify, SignedMessage>,
    ) -> Result<Vec<bool>, HsmError> {
        let (permit, messages) = batch.into_parts();
        let algorithm = permit.algorithm();
        let key = self
            .public_keys
            .of(permit.record())
            .map_err(HsmError::Fault)?;
        let mut verdicts = Vec::with_capacity(messages.len());
        let cost_ns = |message: &SignedMessage| pace::verifying_ns(algorithm, message.data.len());
        for (place, piece) in placed(messages, cost_ns) {
            let key = Arc::clone(&key);
            let checked = self.run(place, move || {
                let verdicts = piece
                    .iter()
                    .map(|message| key.verify(algorithm, &message.data, &message.signature));
                verdicts.collect::<Result<Vec<bool>, HsmFault>>()
            });
            verdicts.extend(checked.await?);
        }
        Ok(verdicts)
    }

    async fn encrypt_batch(
        &self,
        batch: PermittedBatch<'_, Encrypt, Plaintext>,
    ) -> Result<Vec<Encrypted>, HsmError> {
        let algorithm = batch.permit().algorithm();
        self.with_key_for_each(
            batch,
            move |message| pace::sealing_ns(algorithm, message.plaintext.len() + message.aad.len()),
            move |key, message| encrypted(key, algorithm, &message.plaintext, &message.aad),
        )
        .await
    }

    async fn decrypt_batch(
        &self,
        batch: PermittedBatch<'_, Decrypt, Ciphertext>,
    ) -> Result<Vec<Option<SecretBytes>>, HsmError> {
        let algorithm = batch.permit().algorithm();
        self.with_key_for_each(
            batch,
            move |sealed| pace::sealing_ns(algorithm, sealed.ciphertext.len() + sealed.aad.len()),
            move |key, sealed| {
                let aead = key.aead(algorithm)?;
                Ok(aead.open(sealed.nonce, &sealed.aad, &sealed.ciphertext))
            },
        )
        .await
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
