//! `Pkcs11Hsm`: keys in a token behind a PKCS#11 module. The token makes them, keeps
//! them and works with them; what leaves it is public keys, signatures and ciphertexts.
//! A key's handle says which token has it, and how it proves itself there.
//!
//! This file is the port. Threads and deadlines are in `workers`, the connection in
//! `connection`, the work in `operations`, what modules do oddly in `quirks`. Slot,
//! Token, Session and Mechanism are words of this room only.

pub mod check;
mod connection;
mod fault;
mod handle;
mod lanes;
mod library;
mod mechanisms;
mod operations;
mod queue;
mod quirks;
mod session;
mod templates;
mod token;
mod turns;
mod workers;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use self::connection::Connector;
use self::fault::{CallFault, TokenError};
use self::handle::TokenHandle;
use self::lanes::in_lanes;
use self::session::{TokenSession, WantedKey};
use self::workers::{Effect, Workers};
use super::pace;
use super::public_key::{PublicKey, PublicKeys};
use crate::adapters::backlog::Backlog;
use crate::domain::algorithm::{Algorithm, KeyType, SigningAlgorithm};
use crate::domain::ids::KeyId;
use crate::domain::key::{HsmBackendName, KeyHandle};
use crate::domain::lifecycle_permit::{ErasePermit, GeneratePermit};
use crate::domain::permit::{Decrypt, Encrypt, KeyOperation, Permit, PermittedBatch, Sign, Verify};
use crate::domain::secret::SecretBytes;
use crate::ports::clock::Clock;
use crate::ports::hsm::{
    Ciphertext, Encrypted, GeneratedKey, HsmBackend, HsmError, HsmFault, Nonce, Plaintext,
    SignedMessage, opened_or_not,
};

pub use self::token::TokenName;

/// Bytes of public keys that are kept parsed.
const PARSED_PUBLIC_BYTES: usize = 64 << 20;

/// Checking a signature of more than this many bytes takes longer than an async
/// worker may be kept busy: SHA-256 hashes 64 KiB in 40 µs, SHA-512 16 in as much.
const CHECKED_HERE: usize = 16 * 1024;

/// How to reach a token.
pub struct Pkcs11Settings {
    /// The module's library.
    pub module: PathBuf,
    /// Which token.
    pub token: TokenName,
    /// The user's PIN.
    pub pin: Arc<SecretBytes>,
    /// How many sessions to work with, where the token has as many.
    pub sessions: usize,
    /// How long a call may take; making a key three times as long.
    pub deadline: Duration,
    /// Where it is said that calls wait for a session.
    pub backlog: Backlog,
}

/// The HSM behind a PKCS#11 module.
pub struct Pkcs11Hsm {
    workers: Workers,
    public_keys: PublicKeys,
    /// Keys are made one after the other: whoever waits for that takes no session.
    making: Semaphore,
    /// Items of batches take turns here, so that no more of them wait for a session than
    /// there are: whoever comes with a single call waits for about one of them.
    batch_turns: Semaphore,
    deadline: Duration,
}

impl Pkcs11Hsm {
    /// An HSM that looks for its token at once and for as long as it is away.
    pub fn new(settings: Pkcs11Settings, clock: Arc<dyn Clock>) -> Self {
        let connector = Connector::new(settings.module, settings.token, settings.pin);
        Self {
            workers: Workers::start(connector, settings.sessions, settings.backlog, clock),
            public_keys: PublicKeys::new(PARSED_PUBLIC_BYTES),
            making: Semaphore::new(1),
            batch_turns: Semaphore::new(settings.sessions.max(1)),
            deadline: settings.deadline,
        }
    }

    /// Tries the token again with this PIN, though it refused one before, and says
    /// what comes of it.
    ///
    /// # Errors
    /// [`HsmError::Unavailable`] when it does not come to a login.
    pub async fn renew_pin(&self, pin: Arc<SecretBytes>) -> Result<(), HsmError> {
        self.workers.connector().renew_pin(pin);
        self.call(|_| Ok(())).await
    }

    /// A call that comes to the same when it is made twice.
    async fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&TokenSession) -> Result<T, CallFault> + Send + 'static,
    ) -> Result<T, HsmError> {
        self.workers.call(Effect::None, self.deadline, work).await
    }

    /// A call of a batch, when it is its turn.
    async fn in_turn<T>(
        &self,
        call: impl Future<Output = Result<T, HsmError>>,
    ) -> Result<T, HsmError> {
        let _turn = self
            .batch_turns
            .acquire()
            .await
            .map_err(|closed| HsmError::Unavailable(closed.into()))?;
        call.await
    }

    fn wanted<O: KeyOperation>(&self, permit: &Permit<O>) -> Result<WantedKey, HsmError> {
        let record = permit.record();
        let handle = permit
            .handle()
            .ok_or(HsmError::Fault(HsmFault::MalformedKey))?;
        let handle = TokenHandle::decode(handle, record.key_id).map_err(CallFault::into_answer)?;
        let public_key = match record.key_type {
            KeyType::Rsa2048 | KeyType::Ed25519 => {
                Some(self.public_keys.of(record).map_err(HsmError::Fault)?)
            }
            KeyType::Aes256 => None,
        };
        Ok(WantedKey {
            handle,
            key_type: record.key_type,
            label: templates::label(&record.scope),
            public_key,
        })
    }
}

#[async_trait]
impl HsmBackend for Pkcs11Hsm {
    fn name(&self) -> HsmBackendName {
        HsmBackendName::Pkcs11
    }

    fn algorithms(&self, key_type: KeyType) -> Result<Vec<Algorithm>, HsmError> {
        match self.workers.connector().abilities() {
            Some(abilities) => Ok(abilities.algorithms(key_type)),
            None => Err(HsmError::Unavailable(Box::new(TokenError::Away(
                "no token was connected yet".to_owned(),
            )))),
        }
    }

    async fn generate(
        &self,
        permit: &GeneratePermit,
        key_id: KeyId,
    ) -> Result<GeneratedKey, HsmError> {
        let _turn = self
            .making
            .acquire()
            .await
            .map_err(|closed| HsmError::Unavailable(closed.into()))?;
        let (key_type, scope) = (permit.key_type(), permit.scope().clone());
        let limit = self.deadline * 3;
        self.workers
            .call(Effect::Makes, limit, move |session| {
                session.generate(key_type, key_id, &scope)
            })
            .await
    }

    async fn discard(&self, key_id: KeyId) -> Result<(), HsmError> {
        self.call(move |session| session.destroy(key_id)).await
    }

    async fn sign(&self, permit: &Permit<Sign>, data: Bytes) -> Result<Vec<u8>, HsmError> {
        let algorithm = permit.algorithm();
        let key = self.wanted(permit)?;
        self.call(move |session| session.sign(&key, algorithm, &data))
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
        if data.len() <= CHECKED_HERE {
            return key
                .verify(algorithm, &data, &signature)
                .map_err(HsmError::Fault);
        }
        let verdicts = check(key, algorithm, vec![SignedMessage { data, signature }]).await?;
        Ok(verdicts == [true])
    }

    async fn encrypt(
        &self,
        permit: &Permit<Encrypt>,
        plaintext: Bytes,
        aad: Bytes,
    ) -> Result<Encrypted, HsmError> {
        let algorithm = permit.algorithm();
        let key = self.wanted(permit)?;
        self.call(move |session| session.encrypt(&key, algorithm, &plaintext, &aad))
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
        let key = self.wanted(permit)?;
        self.call(move |session| session.decrypt(&key, algorithm, nonce, &ciphertext, &aad))
            .await
    }

    async fn sign_batch(
        &self,
        batch: PermittedBatch<'_, Sign, Bytes>,
    ) -> Result<Vec<Vec<u8>>, HsmError> {
        let (permit, messages) = batch.into_parts();
        in_lanes(messages, |data| self.in_turn(self.sign(permit, data))).await
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
        let cost_ns = |message: &SignedMessage| pace::verifying_ns(algorithm, message.data.len());
        let mut verdicts = Vec::with_capacity(messages.len());
        for piece in pace::pieces(messages, cost_ns) {
            let checked = self.in_turn(check(Arc::clone(&key), algorithm, piece));
            verdicts.extend(checked.await?);
        }
        Ok(verdicts)
    }

    async fn encrypt_batch(
        &self,
        batch: PermittedBatch<'_, Encrypt, Plaintext>,
    ) -> Result<Vec<Encrypted>, HsmError> {
        let (permit, messages) = batch.into_parts();
        in_lanes(messages, |Plaintext { plaintext, aad }| {
            self.in_turn(self.encrypt(permit, plaintext, aad))
        })
        .await
    }

    async fn decrypt_batch(
        &self,
        batch: PermittedBatch<'_, Decrypt, Ciphertext>,
    ) -> Result<Vec<Option<SecretBytes>>, HsmError> {
        let (permit, messages) = batch.into_parts();
        in_lanes(messages, async |sealed: Ciphertext| {
            let opened = self.decrypt(permit, sealed.nonce, sealed.ciphertext, sealed.aad);
            opened_or_not(self.in_turn(opened).await)
        })
        .await
    }

    async fn erase(&self, permit: &ErasePermit) -> Result<(), HsmError> {
        let key_id = permit.record().key_id;
        let handle = permit
            .handle()
            .map(|handle| TokenHandle::decode(handle, key_id))
            .transpose()
            .map_err(CallFault::into_answer)?;
        self.call(move |session| {
            // Another token has nothing to destroy, and the key's own still has.
            if let Some(handle) = &handle {
                session.require_own_token(handle)?;
            }
            session.destroy(key_id)
        })
        .await
    }

    async fn self_test(&self) -> Result<(), HsmError> {
        self.call(TokenSession::self_test).await
    }

    async fn inventory(&self) -> Result<Option<HashSet<KeyId>>, HsmError> {
        let ids = self.call(TokenSession::inventory).await?;
        Ok(Some(ids.into_iter().collect()))
    }

    fn is_elsewhere(&self, key_id: KeyId, handle: &KeyHandle) -> Option<String> {
        let handle = TokenHandle::decode(handle, key_id).ok()?;
        let generation = self.workers.connector().current()?;
        generation.is_elsewhere(&handle)
    }

    fn condition(&self) -> Option<String> {
        let standing = self.workers.standing();
        let token = match self.workers.connector().current() {
            Some(generation) => format!(
                "token {:?}, serial {:?}",
                generation.token.label, generation.token.serial
            ),
            None => "no token is connected".to_owned(),
        };
        let mut condition = format!(
            "{token}; {} of {} sessions in use, {} calls waiting",
            standing.busy, standing.sessions, standing.waiting
        );
        if standing.hanging > 0 {
            condition += &format!(", {} sessions hanging", standing.hanging);
        }
        if let Some((when, what)) = standing.last_error {
            condition += &format!("; last error at {when}: {what}");
        }
        Some(condition)
    }
}

/// Checks signatures on a blocking thread.
async fn check(
    key: Arc<PublicKey>,
    algorithm: SigningAlgorithm,
    messages: Vec<SignedMessage>,
) -> Result<Vec<bool>, HsmError> {
    let checking = tokio::task::spawn_blocking(move || {
        let verdicts = messages
            .iter()
            .map(|message| key.verify(algorithm, &message.data, &message.signature));
        verdicts.collect::<Result<Vec<bool>, HsmFault>>()
    });
    checking
        .await
        .map_err(|failure| HsmError::Unavailable(failure.into()))?
        .map_err(HsmError::Fault)
}
