//! The service, and the model beside it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::checks::{assert_is, due_of};
use super::hsm::HollowHsm;
use super::model::{ModelKey, Request, State};
use super::*;
use crate::adapters::data_plane::sqlite::{SqliteDataPlane, SqliteOptions};
use crate::domain::key::{KeyRecord, KeyUpdate};
use crate::domain::time::Timestamp;

/// Where the store is kept while the service does not run.
pub(super) enum Shelf {
    Memory(Arc<MemoryDataPlane>),
    Disk(tempfile::TempDir),
}

impl Shelf {
    pub(super) fn memory() -> Self {
        Self::Memory(Arc::new(MemoryDataPlane::new()))
    }

    pub(super) fn disk() -> Self {
        Self::Disk(tempfile::tempdir().expect("a folder"))
    }

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("kms.db")
    }

    fn open(&self) -> Arc<dyn DataPlane> {
        match self {
            Self::Memory(store) => Arc::clone(store) as Arc<dyn DataPlane>,
            Self::Disk(folder) => {
                let opened = SqliteDataPlane::open(&Self::path(folder), SqliteOptions::default());
                Arc::new(opened.expect("a database of ours"))
            }
        }
    }
}

pub(super) struct World {
    shelf: Shelf,
    running: Option<Running>,
    pub(super) hsm: Arc<HollowHsm>,
    signer: Arc<LedgerSigner>,
    pub(super) clock: Arc<MovableClock>,
    pub(super) keys: HashMap<KeyId, ModelKey>,
    ids: Vec<KeyId>,
    /// The keys that change by themselves, by the instant.
    waking: BTreeSet<(Timestamp, KeyId)>,
    /// Receipts by operation and outcome.
    pub(super) receipts: HashMap<String, u64>,
    aliases: u64,
}

struct Running {
    service: KmsService,
    scheduler: Scheduler,
    store: Arc<dyn DataPlane>,
}

impl World {
    pub(super) async fn new(shelf: Shelf, backend: HsmBackendName) -> Self {
        let mut world = Self {
            running: None,
            hsm: Arc::new(HollowHsm::new(backend)),
            signer: Arc::new(LedgerSigner::from_seed(&[7; 32]).expect("a key")),
            clock: Arc::new(MovableClock::new(
                "2026-01-01T00:00:00Z".parse().expect("valid"),
            )),
            keys: HashMap::new(),
            ids: Vec::new(),
            waking: BTreeSet::new(),
            receipts: HashMap::new(),
            aliases: 0,
            shelf,
        };
        let store = world.shelf.open();
        let signer = Arc::clone(&world.signer) as Arc<dyn EvidenceLedger>;
        store.begin_ledger(signer).await.expect("a new ledger");
        world.running = Some(world.running_on(store));
        world
    }

    /// Ends the process, in an orderly way or not.
    pub(super) async fn stop(&mut self, is_orderly: bool) {
        let running = self.running.take().expect("it runs");
        if is_orderly {
            running.service.stop_scheduler(running.scheduler).await;
        }
        drop(running.service);
        if let Shelf::Disk(_) = self.shelf {
            running.store.close().await;
        }
    }

    pub(super) async fn start(&mut self) {
        let store = self.shelf.open();
        if let Shelf::Disk(_) = self.shelf {
            let signer = Arc::clone(&self.signer) as Arc<dyn EvidenceLedger>;
            store.begin_ledger(signer).await.expect("it verifies");
        }
        self.running = Some(self.running_on(store));
    }

    fn running_on(&self, store: Arc<dyn DataPlane>) -> Running {
        let ports = Ports {
            hsm: HsmBackends::new(Arc::clone(&self.hsm) as Arc<dyn HsmBackend>, Vec::new()),
            data_plane: Arc::clone(&store),
            ledger: Arc::clone(&self.signer) as Arc<dyn EvidenceLedger>,
            iam: Arc::new(PlatformIam::development(Arc::new(SystemClock))),
            trust_plane: Arc::new(X509TrustPlane::new()),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            material: Vec::new(),
        };
        let policy = ServicePolicy {
            key_defaults: KeyDefaults {
                allowed_modules: Vec::new(),
                max_usage_per_day: 1_000_000,
                rotation_schedule: RotationSchedule {
                    rsa_2048: Period::days(90),
                    ed25519: Period::days(365),
                    aes_256: Period::days(90),
                },
                rotation_grace_period: super::model::GRACE,
                erase_after: super::model::RESPITE,
            },
            approvals: ApprovalPolicy {
                operations: Vec::new(),
            },
            auditors: Vec::new(),
        };
        let metrics = Arc::new(Metrics::new("test").expect("names are unique"));
        Running {
            service: KmsService::new(ports, policy, metrics),
            scheduler: Scheduler::default(),
            store,
        }
    }

    pub(super) fn pass(&self, period: Period) {
        self.clock.advance(period);
    }

    pub(super) fn step_back(&self, period: Period) {
        self.clock.step_back(period);
    }

    pub(super) fn number_of_keys(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn count_states(&self) -> Counts {
        let mut counts = Counts::new();
        for key in self.keys.values() {
            *counts.entry(name_of(&key.state)).or_default() += 1;
        }
        counts
    }

    pub(super) fn store(&self) -> &dyn DataPlane {
        &*self.running.as_ref().expect("it runs").store
    }

    pub(super) fn service(&self) -> &KmsService {
        &self.running.as_ref().expect("it runs").service
    }

    fn tell(&mut self, operation: &str, is_done: bool) {
        let name = format!("{operation} {is_done}");
        *self.receipts.entry(name).or_default() += 1;
    }

    pub(super) async fn record(&self, key_id: KeyId) -> KeyRecord {
        let found = self.store().find_key(&scope(), &KeyRef::Id(key_id)).await;
        found.expect("available").expect("there").record.clone()
    }

    /// Makes a key of some kind, most of them with the longest schedule.
    pub(super) async fn make_key(&mut self, dice: &mut Dice) {
        let (key_type, schedule) = match dice.below(20) {
            0 => (KeyType::Rsa2048, Period::days(90)),
            _ => (KeyType::Ed25519, Period::days(365)),
        };
        let rotation_period = (dice.below(50) == 0).then(|| Period::days(20 + dice.below(30)));
        self.aliases += 1;
        let alias = format!("line-{}", self.aliases);
        let request = GenerateKeyRequest {
            scope: scope(),
            key_type,
            key_usage: KeyUsageSet::of([KeyUsage::Sign, KeyUsage::Verify]).expect("not empty"),
            key_alias: Some(alias.parse().expect("valid")),
            access_policy: AccessPolicyChoice::default(),
            rotation_period,
        };
        let made = self.service().generate_key(&context(), request).await;
        let record = made.expect("made").record;
        self.tell("key_generated", true);
        let key = ModelKey {
            key_id: record.key_id,
            line_id: record.key_id,
            rotations: 0,
            state: State::Active,
            alias: Some(alias),
            limit: 1_000_000,
            period: rotation_period.unwrap_or(schedule),
            made_at: self.clock.now(),
            due_at: due_of(&record),
        };
        assert_is(&record, &key);
        self.take_in(key);
    }

    fn take_in(&mut self, key: ModelKey) {
        self.ids.push(key.key_id);
        self.wake(&key);
        self.keys.insert(key.key_id, key);
    }

    fn wake(&mut self, key: &ModelKey) {
        let at = match key.state {
            State::Active => key.due_at,
            State::Pending { until } | State::Waiting { until } => until,
            State::Archived | State::Gone => return,
        };
        self.waking.insert((at, key.key_id));
    }

    /// Asks something of some key, and holds the answer and the key against the model.
    pub(super) async fn ask_something(&mut self, dice: &mut Dice) {
        if dice.below(100) == 0 {
            self.make_key(dice).await;
            return;
        }
        let key_id = dice.one_of(&self.ids);
        // Most requests are uses, and few of them are the end of a key.
        let request = match dice.below(3) {
            0 => dice.one_of(&Request::ALL),
            1 => Request::Sign,
            _ => Request::Verify,
        };
        let now = self.clock.now();
        let before = self.keys[&key_id].clone();
        let wanted = before.answer(request, now);
        let limit = 500_000 + dice.below(500_000);
        self.aliases += 1;
        let alias = format!("line-{}", self.aliases);
        let got = self.ask(key_id, request, &alias, limit).await;
        let code = got.as_ref().err().map(KmsError::code);
        assert_eq!(code, wanted.err(), "{request:?} at {now} of {before:?}");
        self.tell(receipt_of(request), wanted.is_ok());
        let Ok(state) = wanted else {
            return;
        };
        let mut after = ModelKey { state, ..before };
        match request {
            Request::RotateInEmergency => self.tell("key_archived", true),
            Request::Rename => after.alias = Some(alias),
            Request::Limit => after.limit = limit,
            // A token erases in a step of its own.
            Request::Compromise if self.hsm.name().keeps_keys() => self.tell("key_erased", true),
            _ => {}
        }
        self.settle(after).await;
    }

    async fn ask(
        &self,
        key_id: KeyId,
        request: Request,
        alias: &str,
        limit: u64,
    ) -> Result<(), KmsError> {
        let (service, context, scope) = (self.service(), context(), scope());
        let key = KeyRef::Id(key_id);
        let revocation = |reason| RevokeKeyRequest {
            scope: scope.clone(),
            key: key.clone(),
            reason,
        };
        let rotate = |rotation| service.rotate_key(&context, &scope, &key, rotation);
        let update = |update: KeyUpdate| {
            let (context, scope, key) = (&context, &scope, &key);
            async move { service.update_key(context, scope, key, &update).await }
        };
        match request {
            Request::Sign => service
                .sign(&context, &choice(key_id), Bytes::new())
                .await
                .map(drop),
            Request::Verify => {
                let signature = Bytes::copy_from_slice(key_id.as_bytes());
                let choice = choice(key_id);
                let verified = service.verify(&context, &choice, Bytes::new(), signature);
                verified.await.map(|used| assert!(used.output))
            }
            Request::Rotate => rotate(Rotation::Planned).await.map(drop),
            Request::RotateInEmergency => rotate(Rotation::Emergency).await.map(drop),
            Request::Archive => service.archive_key(&context, &scope, &key).await.map(drop),
            Request::Retire => service
                .revoke_key(&context, revocation(RevocationReason::Retired))
                .await
                .map(drop),
            Request::Compromise => service
                .revoke_key(&context, revocation(RevocationReason::Compromised))
                .await
                .map(drop),
            Request::Restore => service.restore_key(&context, &scope, &key).await.map(drop),
            Request::Rename => update(KeyUpdate {
                key_alias: Some(Some(alias.parse().expect("valid"))),
                ..KeyUpdate::default()
            })
            .await
            .map(drop),
            Request::Limit => update(KeyUpdate {
                access_policy: AccessPolicyChoice {
                    max_usage_per_day: Some(limit),
                    ..AccessPolicyChoice::default()
                },
                ..KeyUpdate::default()
            })
            .await
            .map(drop),
        }
    }

    /// Takes a key's new state over, and its successor where it has one now.
    async fn settle(&mut self, after: ModelKey) {
        let record = self.record(after.key_id).await;
        assert_is(&record, &after);
        let known = record.successor_key_id;
        if let Some(successor) = known.filter(|id| !self.keys.contains_key(id)) {
            let new = self.record(successor).await;
            assert_eq!(new.predecessor_key_id, Some(after.key_id));
            assert_eq!(new.created_by, record.created_by);
            let made_at = record.rotated_at.expect("it was replaced");
            let key = ModelKey {
                key_id: successor,
                rotations: after.rotations + 1,
                state: State::Active,
                made_at,
                due_at: due_of(&new),
                ..after.clone()
            };
            assert_is(&new, &key);
            self.take_in(key);
        }
        self.wake(&after);
        self.keys.insert(after.key_id, after);
    }

    /// Lets the scheduler do all that is due by now, and holds it against the model.
    pub(super) async fn do_what_is_due(&mut self) {
        let now = self.clock.now();
        loop {
            let Running {
                service, scheduler, ..
            } = self.running.as_mut().expect("it runs");
            let round = service.run_scheduler(scheduler).await.expect("available");
            assert_eq!(round.failed, 0);
            if round.is_standby {
                // The lease of a process that died goes on for a little.
                return;
            }
            if round.rotated + round.archived + round.erased == 0 {
                break;
            }
        }
        while let Some(&(at, key_id)) = self.waking.first()
            && at <= now
        {
            self.waking.pop_first();
            let before = self.keys[&key_id].clone();
            let state = before.by_itself(now);
            if state == before.state {
                // It has gone on since without waiting for this.
                continue;
            }
            match state {
                State::Pending { .. } => self.tell("key_rotated", true),
                State::Archived => self.tell("key_archived", true),
                _ => {
                    if self.hsm.name().keeps_keys() {
                        self.tell("key_erasure_begun", true);
                    }
                    self.tell("key_erased", true);
                }
            }
            self.settle(ModelKey { state, ..before }).await;
        }
    }
}

fn receipt_of(request: Request) -> &'static str {
    match request {
        Request::Sign => "signature_created",
        Request::Verify => "signature_verified",
        Request::Rotate | Request::RotateInEmergency => "key_rotated",
        Request::Archive => "key_archived",
        Request::Retire | Request::Compromise => "key_revoked",
        Request::Restore => "key_restored",
        Request::Rename | Request::Limit => "key_updated",
    }
}
