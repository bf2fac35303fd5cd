//! Keys and permits made the way the service makes them, so that a test says in
//! one line what it does with which key.

use std::sync::Arc;

use bytes::Bytes;
use kms::domain::algorithm::{AeadAlgorithm, AlgorithmFamily, KeyType, SigningAlgorithm};
use kms::domain::caller::{Caller, Reach};
use kms::domain::ids::KeyId;
use kms::domain::key::{KeyHandle, KeyRecord, KeyState, RevocationReason, StoredKey};
use kms::domain::key_usage::{KeyUsage, KeyUsageSet};
use kms::domain::lifecycle_permit::{Consent, ErasePermit, permit_generation, permit_revocation};
use kms::domain::permit::{Decrypt, Encrypt, KeyOperation, Permit, Sign, Verify, check_use};
use kms::domain::policy::AccessPolicy;
use kms::domain::scope::{Environment, Plane, Scope};
use kms::domain::secret::SecretBytes;
use kms::domain::time::{Period, Timestamp};
use kms::domain::usage::{UsageCount, UsageCounter};
use kms::ports::hsm::{Encrypted, HsmBackend, HsmError, Nonce};

const MODULE: &str = "M21";

pub(crate) fn scope() -> Scope {
    Scope {
        tenant_id: "tenant-1".parse().expect("valid"),
        environment: Environment::Dev,
        plane: Plane::Tenant,
    }
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("valid")
}

fn usages(key_type: KeyType) -> KeyUsageSet {
    KeyUsageSet::of(
        KeyUsage::ALL
            .into_iter()
            .filter(|usage| usage.fits(key_type)),
    )
    .expect("every type has a use")
}

/// A stored key of this type in the harness's scope.
pub(crate) fn stored(
    key_id: KeyId,
    key_type: KeyType,
    handle: KeyHandle,
    public_key: Option<String>,
) -> Arc<StoredKey> {
    let created_at = now();
    let record = KeyRecord {
        key_id,
        scope: scope(),
        key_type,
        key_usage: usages(key_type),
        key_alias: None,
        key_state: KeyState::Active,
        version: 1,
        algorithms: key_type.algorithms().to_vec(),
        backend: kms::domain::key::HsmBackendName::Software,
        public_key,
        access_policy: AccessPolicy {
            allowed_modules: vec![MODULE.parse().expect("valid")],
            requires_approval: false,
            max_usage_per_day: u64::MAX,
        },
        created_at,
        created_by: MODULE.parse().expect("valid"),
        valid_until: created_at.plus(Period::days(90)),
        rotation_period: None,
        rotate_at: None,
        line_id: key_id,
        rotation_count: 0,
        predecessor_key_id: None,
        successor_key_id: None,
        rotated_at: None,
        grace_until: None,
        archived_at: None,
        revoked_at: None,
        revocation_reason: None,
        erase_at: None,
    };
    Arc::new(StoredKey {
        record,
        handle: Some(handle),
    })
}

/// A key that only verifies: somebody else's public key.
pub(crate) fn foreign(key_type: KeyType, public_key: String) -> Arc<StoredKey> {
    let no_secret = KeyHandle::from_bytes(vec![]);
    stored(KeyId::generate(), key_type, no_secret, Some(public_key))
}

/// The right to use a key once.
pub(crate) fn permit<O: KeyOperation>(key: &Arc<StoredKey>, algorithm: O::Algorithm) -> Permit<O> {
    permit_for(key, algorithm, 1)
}

/// The right to use a key so often.
pub(crate) fn permit_for<O: KeyOperation>(
    key: &Arc<StoredKey>,
    algorithm: O::Algorithm,
    uses: usize,
) -> Permit<O> {
    let caller = Caller::new(MODULE.parse().expect("valid"), Reach::AnyScope);
    let reservation = UsageCounter::starting_from(UsageCount::default())
        .reserve_up_to(uses as u64, now(), u64::MAX, false)
        .reservation
        .expect("none is used");
    check_use::<O>(Arc::clone(key), &caller, Some(algorithm), now())
        .and_then(|checked| checked.permit(None, reservation))
        .expect("the harness's keys allow it")
}

/// The right to erase a key.
pub(crate) fn erase_permit(key: &Arc<StoredKey>) -> ErasePermit {
    permit_revocation(
        Arc::clone(key),
        RevocationReason::Compromised,
        &Consent::NotRequired,
    )
    .expect("it is active")
}

/// One backend, with the calls of the port in the words of the tests.
pub(crate) struct Harness<'hsm> {
    pub(crate) hsm: &'hsm dyn HsmBackend,
}

impl Harness<'_> {
    pub(crate) async fn generate(&self, key_type: KeyType) -> Arc<StoredKey> {
        let usage = usages(key_type);
        let permit = permit_generation(&scope(), key_type, usage, &Consent::NotRequired)
            .expect("the usage fits");
        let key_id = KeyId::generate();
        let made = self.hsm.generate(&permit, key_id).await.expect("generates");
        stored(key_id, key_type, made.handle, made.public_key)
    }

    pub(crate) async fn sign(
        &self,
        key: &Arc<StoredKey>,
        algorithm: SigningAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        let permit = permit::<Sign>(key, algorithm);
        self.hsm.sign(&permit, Bytes::copy_from_slice(data)).await
    }

    pub(crate) async fn verify(
        &self,
        key: &Arc<StoredKey>,
        algorithm: SigningAlgorithm,
        data: &[u8],
        signature: &[u8],
    ) -> Result<bool, HsmError> {
        let permit = permit::<Verify>(key, algorithm);
        let (data, signature) = (
            Bytes::copy_from_slice(data),
            Bytes::copy_from_slice(signature),
        );
        self.hsm.verify(&permit, data, signature).await
    }

    pub(crate) async fn encrypt(
        &self,
        key: &Arc<StoredKey>,
        algorithm: AeadAlgorithm,
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<Encrypted, HsmError> {
        let permit = permit::<Encrypt>(key, algorithm);
        let (plaintext, aad) = (
            Bytes::copy_from_slice(plaintext),
            Bytes::copy_from_slice(aad),
        );
        self.hsm.encrypt(&permit, plaintext, aad).await
    }

    pub(crate) async fn decrypt(
        &self,
        key: &Arc<StoredKey>,
        algorithm: AeadAlgorithm,
        nonce: Nonce,
        ciphertext: &[u8],
        aad: &[u8],
    ) -> Result<SecretBytes, HsmError> {
        let permit = permit::<Decrypt>(key, algorithm);
        let (ciphertext, aad) = (
            Bytes::copy_from_slice(ciphertext),
            Bytes::copy_from_slice(aad),
        );
        self.hsm.decrypt(&permit, nonce, ciphertext, aad).await
    }

    /// What this backend can do with a key type, of one family.
    pub(crate) fn offered<A: AlgorithmFamily>(&self, key_type: KeyType) -> Vec<A> {
        let offered = self.hsm.algorithms(key_type).expect("it can be asked");
        offered.into_iter().filter_map(A::narrow).collect()
    }
}
