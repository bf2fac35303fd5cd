//! What the pipeline does when something happens in the middle of it: a store
//! that fails, a ledger that cannot sign, a key that changes meanwhile.

mod anchors;
mod approvals;
mod batch;
mod claims;
mod clock;
mod erasure;
mod faults;
mod hsm;
mod life;
mod schedule;
mod store;
mod two_years;
mod whole;

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use self::clock::MovableClock;
use self::hsm::BookkeepingHsm;
use self::store::{EventfulStore, Next};
use super::*;
use crate::adapters::clock::SystemClock;
use crate::adapters::data_plane::memory::MemoryDataPlane;
use crate::adapters::hsm::software::kek::KeyEncryptionKey;
use crate::adapters::hsm::software::{SoftwareHsm, SoftwareHsmSettings};
use crate::adapters::iam::PlatformIam;
use crate::adapters::ledger::LedgerSigner;
use crate::adapters::trust_plane::X509TrustPlane;
use crate::domain::algorithm::KeyType;
use crate::domain::caller::Reach;
use crate::domain::error::Dependency;
use crate::domain::ids::{KeyId, KeyRef, ReceiptId, TrustAnchorId};
use crate::domain::key::{HsmBackendName, KeyState, RevocationReason};
use crate::domain::key_usage::{KeyUsage, KeyUsageSet};
use crate::domain::ledger::{Checkpoint, SignedNote};
use crate::domain::policy::{AccessPolicyChoice, ApprovalGroup, RotationSchedule};
use crate::domain::receipt::{Receipt, SignedReceipt};
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::time::Period;
use crate::ports::data_plane::{Change, Transaction};
use crate::ports::hsm::{HsmBackend, HsmBackends};
use crate::ports::ledger::{Handover, LedgerError};
use crate::ports::ledger_store::LedgerStore;

/// A ledger whose key can be taken away.
struct FragileLedger {
    signer: LedgerSigner,
    broken: Mutex<bool>,
}

impl EvidenceLedger for FragileLedger {
    fn sign(&self, receipt: Receipt) -> Result<SignedReceipt, LedgerError> {
        if *self.broken.lock().unwrap() {
            return Err(LedgerError("the key is gone".into()));
        }
        self.signer.sign(receipt)
    }

    fn is_current(&self, receipt: &SignedReceipt) -> bool {
        self.signer.is_current(receipt)
    }

    fn sign_again(&self, receipt: &SignedReceipt) -> Result<SignedReceipt, LedgerError> {
        self.signer.sign_again(receipt)
    }

    fn is_genuine(&self, leaf: &[u8]) -> bool {
        self.signer.is_genuine(leaf)
    }

    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> SignedNote {
        self.signer.sign_checkpoint(checkpoint)
    }

    fn read_checkpoint(&self, note: &str) -> Option<Checkpoint> {
        self.signer.read_checkpoint(note)
    }

    fn public_key(&self) -> [u8; 32] {
        self.signer.public_key()
    }

    fn begin_handover(&self, checkpoint: &Checkpoint) -> Option<Handover> {
        self.signer.begin_handover(checkpoint)
    }

    fn complete_handover(&self) {
        self.signer.complete_handover();
    }
}

struct Bench {
    service: KmsService,
    store: Arc<EventfulStore>,
    ledger: Arc<FragileLedger>,
    hsm: Arc<BookkeepingHsm>,
    clock: Arc<MovableClock>,
}

fn bench() -> Bench {
    bench_with(
        Arc::new(PlatformIam::development(Arc::new(SystemClock))),
        false,
    )
}

/// A bench on which this client says who agreed, and whether keys need somebody.
fn bench_with(iam: Arc<dyn IamClient>, needs_approval: bool) -> Bench {
    bench_on(HsmBackendName::Software, iam, needs_approval)
}

/// The same on a backend that goes by this name.
fn bench_on(backend: HsmBackendName, iam: Arc<dyn IamClient>, needs_approval: bool) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let kek = KeyEncryptionKey::create(folder.path().join("kek")).expect("created");
    let ledger = Arc::new(FragileLedger {
        signer: LedgerSigner::from_seed(&[7; 32]).expect("a key"),
        broken: Mutex::new(false),
    });
    let store = Arc::new(EventfulStore::new(MemoryDataPlane::with_ledger(
        Arc::clone(&ledger) as Arc<dyn EvidenceLedger>,
    )));
    let software = SoftwareHsm::new(kek, SoftwareHsmSettings::default());
    let hsm = Arc::new(BookkeepingHsm::new(backend, software));
    let clock = Arc::new(MovableClock::new(SystemClock.now()));
    let ports = Ports {
        hsm: HsmBackends::new(Arc::clone(&hsm) as Arc<dyn HsmBackend>, Vec::new()),
        data_plane: Arc::clone(&store) as Arc<dyn DataPlane>,
        ledger: Arc::clone(&ledger) as Arc<dyn EvidenceLedger>,
        iam,
        trust_plane: Arc::new(X509TrustPlane::new()),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        material: Vec::new(),
    };
    let policy = ServicePolicy {
        key_defaults: KeyDefaults {
            allowed_modules: Vec::new(),
            max_usage_per_day: 1,
            rotation_schedule: RotationSchedule {
                rsa_2048: Period::days(90),
                ed25519: Period::days(365),
                aes_256: Period::days(90),
            },
            rotation_grace_period: Period::days(7),
            erase_after: Period::days(7),
        },
        approvals: ApprovalPolicy {
            operations: match needs_approval {
                true => vec![ApprovalGroup::KeyLifecycle],
                false => Vec::new(),
            },
        },
        auditors: Vec::new(),
    };
    let metrics = Arc::new(Metrics::new("test").expect("names are unique"));
    Bench {
        service: KmsService::new(ports, policy, metrics),
        store,
        ledger,
        hsm,
        clock,
    }
}

fn scope() -> Scope {
    Scope {
        tenant_id: "t".parse().expect("valid"),
        environment: Environment::Dev,
        plane: Plane::Tenant,
    }
}

fn choice(key_id: KeyId) -> KeyChoice<crate::domain::algorithm::SigningAlgorithm> {
    KeyChoice {
        scope: scope(),
        key: KeyRef::Id(key_id),
        algorithm: None,
    }
}

fn context() -> RequestContext {
    RequestContext {
        request_id: RequestId::generate(),
        caller: Caller::new("M21".parse().expect("valid"), Reach::AnyScope),
        approval: None,
    }
}

impl Bench {
    /// A key that may be used once a day.
    async fn key(&self) -> KeyId {
        let made = self.generate().await.expect("made");
        made.record.key_id
    }

    async fn generate(&self) -> Result<Generated, KmsError> {
        let request = GenerateKeyRequest {
            scope: scope(),
            key_type: KeyType::Ed25519,
            key_usage: KeyUsageSet::of([KeyUsage::Sign]).expect("not empty"),
            key_alias: None,
            access_policy: AccessPolicyChoice::default(),
            rotation_period: None,
        };
        self.service.generate_key(&context(), request).await
    }

    async fn sign(&self, key_id: KeyId) -> Result<Used<Vec<u8>>, KmsError> {
        let data = Bytes::from_static(b"data");
        self.service.sign(&context(), &choice(key_id), data).await
    }

    /// Somebody's revocation of the key, ready to be kept, and its receipt's id.
    async fn revocation(&self, key_id: KeyId) -> (Transaction, ReceiptId) {
        let key = self.store.find_key(&scope(), &KeyRef::Id(key_id)).await;
        let key = key.expect("memory").expect("there");
        let now = self.service.ports.clock.now();
        let record = key.record.revoked(RevocationReason::Compromised, now, None);
        let receipt = self
            .ledger
            .sign(crate::domain::receipt::tests::receipt())
            .expect("signed");
        let receipt_id = receipt.receipt_id;
        let transaction = Transaction {
            key_use: None,
            changes: vec![Change::UpdateKey(record.expect("live"))],
            receipts: vec![receipt],
        };
        (transaction, receipt_id)
    }
}

fn is_away(error: &KmsError, wanted: Dependency) -> bool {
    matches!(error, KmsError::DependencyUnavailable { dependency, .. } if *dependency == wanted)
}

#[tokio::test]
async fn a_key_revoked_while_it_signs_gives_no_signature_out() {
    let bench = bench();
    let key_id = bench.key().await;
    let (revocation, revoked) = bench.revocation(key_id).await;
    bench.store.next(Next::After(revocation));

    let refusal = bench.sign(key_id).await.err().expect("refused");
    assert!(matches!(refusal, KmsError::KeyRevoked), "{refusal:?}");

    // The key's making, its revocation, and the refusal: the signature that came
    // too late has left no trace.
    assert_eq!(bench.service.ledger_size(), 3);
    let scope_of_receipt = crate::domain::receipt::tests::receipt().scope;
    let leaves = bench.store.leaves(&scope_of_receipt, &[revoked]).await;
    assert_eq!(leaves[0].leaf_index, 1);
    let newest = bench.store.newest_receipt().await.expect("memory");
    let newest = String::from_utf8(newest.expect("there").leaf).expect("UTF-8");
    assert!(newest.contains(r#""error_code":"KEY_REVOKED""#), "{newest}");
    assert!(newest.contains(r#""success":false"#), "{newest}");
    let counter = bench.store.usage_counter(key_id).await.expect("memory");
    assert_eq!(counter.count().used, 0, "the use was given back");
}

#[tokio::test]
async fn a_use_whose_receipt_cannot_be_kept_gives_nothing_out_and_is_given_back() {
    let bench = bench();
    let key_id = bench.key().await;
    bench.store.next(Next::Fail);
    let failure = bench.sign(key_id).await.err().expect("failed");
    assert!(is_away(&failure, Dependency::Ledger), "{failure:?}");
    assert_eq!(bench.service.ledger_size(), 1);
    // The one use of the day is still there, and then it is not.
    bench.sign(key_id).await.expect("the store is back");
    let refusal = bench.sign(key_id).await.err().expect("refused");
    assert!(matches!(
        refusal,
        KmsError::DailyLimitReached { limit: 1, .. }
    ));
}

#[tokio::test]
async fn a_refusal_whose_receipt_cannot_be_kept_is_no_refusal_but_a_failure() {
    let bench = bench();
    bench.store.next(Next::Fail);
    let failure = bench.sign(KeyId::generate()).await.err().expect("failed");
    assert!(is_away(&failure, Dependency::Ledger), "{failure:?}");
}

#[tokio::test]
async fn a_ledger_that_cannot_sign_gives_nothing_out() {
    let bench = bench();
    let key_id = bench.key().await;
    *bench.ledger.broken.lock().unwrap() = true;
    let failure = bench.sign(key_id).await.err().expect("failed");
    assert!(is_away(&failure, Dependency::Ledger), "{failure:?}");
    let failure = bench.generate().await.err().expect("failed");
    assert!(is_away(&failure, Dependency::Ledger), "{failure:?}");
    *bench.ledger.broken.lock().unwrap() = false;
    bench.sign(key_id).await.expect("the ledger is back");
    // The key that was made in vain leaves the HSM with the next probe.
    assert_eq!(bench.hsm.holds().len(), 2);
    bench.service.probe_health().await;
    assert_eq!(bench.hsm.holds().len(), 1);
}

#[tokio::test]
async fn a_key_that_cannot_be_stored_was_never_made() {
    let bench = bench();
    bench.store.next(Next::Fail);
    let failure = bench.generate().await.err().expect("failed");
    assert!(is_away(&failure, Dependency::Store), "{failure:?}");
    let counts = bench.service.key_counts();
    assert_eq!(counts.get(KeyType::Ed25519, KeyState::Active), 0);
    assert_eq!(bench.service.ledger_size(), 0);
}

#[tokio::test]
async fn a_key_revoked_while_it_is_rotated_has_no_successor() {
    let bench = bench();
    let key_id = bench.key().await;
    let (revocation, _) = bench.revocation(key_id).await;
    bench.store.next(Next::After(revocation));
    let rotated = bench
        .service
        .rotate_key(&context(), &scope(), &KeyRef::Id(key_id), Rotation::Planned)
        .await;
    assert!(matches!(rotated.err(), Some(KmsError::KeyRevoked)));
    let counts = bench.service.key_counts();
    assert_eq!(counts.get(KeyType::Ed25519, KeyState::Active), 0);
    assert_eq!(counts.get(KeyType::Ed25519, KeyState::Destroyed), 1);
}

#[tokio::test]
async fn a_caller_with_a_scope_of_its_own_reaches_no_other() {
    let bench = bench();
    let key_id = bench.key().await;
    let elsewhere = Scope {
        plane: Plane::Laptop,
        ..scope()
    };
    let stranger = RequestContext {
        caller: Caller::new("M21".parse().expect("valid"), Reach::Scope(elsewhere)),
        ..context()
    };
    let key = KeyRef::Id(key_id);
    let service = &bench.service;
    let refusals = [
        service.get_key(&stranger, &scope(), &key).await.err(),
        service
            .rotate_key(&stranger, &scope(), &key, Rotation::Planned)
            .await
            .err(),
        service
            .get_receipt(&stranger, &scope(), ReceiptId::generate())
            .await
            .err(),
    ];
    for refusal in refusals {
        assert!(
            matches!(refusal, Some(KmsError::Unauthorized(_))),
            "{refusal:?}"
        );
    }
    let choice = choice(key_id);
    let refusal = service.sign(&stranger, &choice, Bytes::new()).await.err();
    assert!(matches!(refusal, Some(KmsError::Unauthorized(_))));
}
