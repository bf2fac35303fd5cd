//! The scheduler: what it does, how much at a time, and that neither a key nor another
//! replica nor the clock brings it to a stop.

use super::life::{assert_inactive, before};
use super::*;
use crate::domain::error::InactiveReason;
use crate::domain::key::KeyRecord;
use crate::domain::time::Timestamp;

impl Bench {
    async fn round(&self, scheduler: &mut Scheduler) -> Round {
        let round = self.service.run_scheduler(scheduler).await;
        round.expect("the store is there")
    }

    async fn pairs(&self, number: usize) -> Vec<KeyRecord> {
        let mut pairs = Vec::with_capacity(number);
        for _ in 0..number {
            pairs.push(self.pair(None).await);
        }
        pairs
    }

    /// Revokes them, and waits until their secrets are due to go.
    async fn retired_until_due(&self, number: usize) -> Vec<KeyId> {
        let mut due = Vec::with_capacity(number);
        for key in self.pairs(number).await {
            self.clock.advance(Period::seconds(1));
            let revoked = self.revoke(key.key_id, RevocationReason::Retired).await;
            revoked.expect("active");
            due.push(key.key_id);
        }
        self.clock.advance(Period::days(8));
        due
    }

    async fn is_erased(&self, key_id: KeyId) -> bool {
        self.record(key_id).await.is_erased()
    }
}

fn latest_end(keys: &[KeyRecord]) -> Timestamp {
    let ends = keys.iter().map(|key| key.valid_until);
    ends.max().expect("some keys")
}

fn bench_with_token() -> Bench {
    let iam = Arc::new(PlatformIam::development(Arc::new(SystemClock)));
    bench_on(HsmBackendName::Pkcs11, iam, false)
}

#[tokio::test]
async fn a_round_does_what_is_due_and_nothing_else() {
    let bench = bench();
    let mut scheduler = Scheduler::default();
    let keys = bench.pairs(3).await;
    assert_eq!(bench.round(&mut scheduler).await, Round::default());
    let retired = bench.pair(None).await.key_id;
    let revoked = bench.revoke(retired, RevocationReason::Retired).await;
    revoked.expect("active");
    let replaced = bench.rotate(keys[0].key_id, Rotation::Planned).await;
    let replaced = replaced.expect("active");
    bench.clock.set(replaced.old.grace_until.expect("pending"));
    let round = bench.round(&mut scheduler).await;
    let done = (round.rotated, round.archived, round.erased, round.failed);
    assert_eq!(done, (0, 1, 1, 0));
    let due = keys[1].rotate_at.max(keys[2].rotate_at);
    bench.clock.set(due.expect("active"));
    let round = bench.round(&mut scheduler).await;
    assert!(round.rotated >= 2, "{round:?}");
    for key in &keys[1..] {
        let record = bench.record(key.key_id).await;
        assert_eq!(record.key_state, KeyState::PendingRotation);
    }
    assert!(bench.is_erased(retired).await);
}

#[tokio::test]
async fn after_a_long_pause_it_catches_up_a_few_dozen_at_a_time() {
    let bench = bench();
    let mut scheduler = Scheduler::default();
    let keys = bench.pairs(150).await;
    bench.clock.set(latest_end(&keys).plus(Period::days(3)));
    let mut rounds = Vec::new();
    while rounds.iter().sum::<usize>() < keys.len() {
        let round = bench.round(&mut scheduler).await;
        assert!(round.rotated > 0 && round.rotated <= 64, "{round:?}");
        rounds.push(round.rotated);
    }
    assert!(rounds.len() >= 3);
    assert_eq!(bench.round(&mut scheduler).await, Round::default());
    // Each has one successor, and none was made in vain.
    assert_eq!(bench.hsm.holds().len(), 2 * keys.len());
}

#[tokio::test]
async fn a_restored_key_is_not_erased() {
    let bench = bench();
    let mut scheduler = Scheduler::default();
    let key_id = bench.pair(None).await.key_id;
    let revoked = bench.revoke(key_id, RevocationReason::Retired).await;
    revoked.expect("active");
    let key = KeyRef::Id(key_id);
    let restored = bench.service.restore_key(&context(), &scope(), &key).await;
    restored.expect("in time");
    bench.clock.advance(Period::days(30));
    assert_eq!(bench.round(&mut scheduler).await, Round::default());
    assert_eq!(bench.hsm.holds().len(), 1);
}

#[tokio::test]
async fn a_key_that_fails_rests_and_holds_up_no_other() {
    let bench = bench_with_token();
    let mut scheduler = Scheduler::default();
    let due = bench.retired_until_due(3).await;
    bench.hsm.hold_on_to(due[0]);
    let round = bench.round(&mut scheduler).await;
    assert_eq!((round.erased, round.failed), (2, 1));
    assert!(!bench.is_erased(due[0]).await);
    // It rests for a while, and is tried again.
    let mut failed = 0;
    for _ in 0..40 {
        failed += bench.round(&mut scheduler).await.failed;
    }
    assert_eq!(failed, 1);
}

#[tokio::test]
async fn a_token_that_is_away_holds_up_what_needs_it_and_nothing_else() {
    let bench = bench_with_token();
    let mut scheduler = Scheduler::default();
    let replaced = bench.pair(None).await.key_id;
    bench
        .rotate(replaced, Rotation::Planned)
        .await
        .expect("active");
    let due = bench.retired_until_due(2).await;
    let keys = bench.pairs(2).await;
    bench.clock.set(latest_end(&keys));
    bench.hsm.set_away(true);
    for _ in 0..4 {
        let round = bench.round(&mut scheduler).await;
        assert_eq!((round.rotated, round.erased), (0, 0));
    }
    let record = bench.record(replaced).await;
    assert_eq!(record.key_state, KeyState::Archived);
    bench.hsm.set_away(false);
    let (mut rotated, mut erased) = (0, 0);
    for _ in 0..40 {
        let round = bench.round(&mut scheduler).await;
        rotated += round.rotated;
        erased += round.erased;
    }
    // The successor of the replaced key is due by now too.
    assert_eq!((rotated, erased), (3, 2));
    for key_id in due {
        assert!(bench.is_erased(key_id).await);
    }
}

#[tokio::test]
async fn a_store_that_fails_ends_the_round_and_the_next_goes_on() {
    let bench = bench();
    let mut scheduler = Scheduler::default();
    let keys = bench.pairs(3).await;
    bench.clock.set(latest_end(&keys));
    bench.store.next(Next::Fail);
    let failure = bench.service.run_scheduler(&mut scheduler).await;
    assert!(is_away(&failure.expect_err("failed"), Dependency::Store));
    let mut rotated = 0;
    for _ in 0..40 {
        rotated += bench.round(&mut scheduler).await.rotated;
    }
    assert_eq!(rotated, 3);
    bench.service.probe_health().await;
    assert_eq!(bench.hsm.holds().len(), 6, "none was left over");
}

#[tokio::test]
async fn one_replica_does_it_until_it_stops_or_its_lease_ends() {
    let bench = bench();
    let (mut one, mut other) = (Scheduler::default(), Scheduler::default());
    let keys = bench.pairs(1).await;
    assert!(!bench.round(&mut one).await.is_standby);
    assert!(bench.round(&mut other).await.is_standby);
    bench.clock.set(latest_end(&keys));
    // The lease has ended long ago, and the other comes first.
    assert_eq!(bench.round(&mut other).await.rotated, 1);
    assert!(bench.round(&mut one).await.is_standby);
    for _ in 0..100 {
        bench.clock.advance(Period::seconds(5));
        assert!(!bench.round(&mut other).await.is_standby);
        assert!(bench.round(&mut one).await.is_standby);
    }
    bench.service.stop_scheduler(other).await;
    assert!(!bench.round(&mut one).await.is_standby);
}

#[tokio::test]
async fn a_clock_that_steps_back_keeps_no_replica_out_for_ever() {
    let bench = bench();
    let (mut dead, mut other) = (Scheduler::default(), Scheduler::default());
    assert!(!bench.round(&mut dead).await.is_standby);
    drop(dead);
    bench.clock.step_back(Period::seconds(20));
    assert!(bench.round(&mut other).await.is_standby);
    bench.clock.step_back(Period::days(2));
    assert!(!bench.round(&mut other).await.is_standby);
    bench.clock.step_back(Period::days(2));
    assert!(!bench.round(&mut other).await.is_standby);
}

#[tokio::test]
async fn what_is_overdue_shows_in_the_health_report_and_what_is_due_in_the_metrics() {
    let bench = bench();
    let mut scheduler = Scheduler::default();
    let warns = async || {
        let report = bench.service.probe_health().await;
        let check = report.checks.iter().find(|one| one.name == "scheduler");
        check.map(|check| check.status == CheckStatus::Warn)
    };
    assert_eq!(warns().await, Some(false), "no round has finished");
    let key = bench.pair(None).await;
    bench.round(&mut scheduler).await;
    assert_eq!(warns().await, Some(false));
    bench.hsm.set_away(true);
    let due = key.rotate_at.expect("active");
    bench.clock.set(due.plus(Period::seconds(3_599)));
    bench.round(&mut scheduler).await;
    assert_eq!(warns().await, Some(false), "not for an hour yet");
    let metrics = bench.service.metrics.render().expect("text");
    let metrics = String::from_utf8(metrics).expect("UTF-8");
    for (kind, number) in [("rotate", 1), ("archive", 0), ("erase", 0)] {
        let line = format!("kms_keys_due{{kind=\"{kind}\"}} {number}");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let now = bench.clock.now().microseconds() / 1_000_000;
    let last_run = format!("kms_scheduler_last_run_seconds {now}");
    assert!(metrics.contains(&last_run), "{metrics}");
    bench.clock.advance(Period::seconds(1));
    bench.round(&mut scheduler).await;
    assert_eq!(warns().await, Some(true));
    bench.hsm.set_away(false);
    for _ in 0..40 {
        bench.round(&mut scheduler).await;
    }
    assert_eq!(warns().await, Some(false));
}

#[tokio::test]
async fn a_key_is_replaced_without_anybody_asking_when_it_is_due_and_not_before() {
    let bench = bench();
    let key = bench.pair(Some("line")).await;
    let due = key.rotate_at.expect("active");
    let service = RequestContext {
        caller: Caller::new("M33".parse().expect("valid"), Reach::AnyScope),
        ..context()
    };
    let stored = bench.stored(key.key_id).await;
    bench.clock.set(before(due));
    let early = bench.service.rotate_due_key(&service, &stored).await;
    assert_inactive(early, InactiveReason::NotDue);
    bench.clock.set(due);
    let rotated = bench.service.rotate_due_key(&service, &stored).await;
    rotated.expect("due");
    let new = bench.by_alias("line").await.expect("handed over");
    let new = bench.record(new).await;
    assert_eq!(new.created_by, key.created_by);
    assert_eq!(new.predecessor_key_id, Some(key.key_id));
    let receipt = &bench.newest_receipts(1).await[0];
    assert_eq!(receipt["operation"], "key_rotated");
    assert_eq!(receipt["requesting_module"], "M33");
    assert_eq!(receipt["kms_context"]["approvals"], serde_json::Value::Null);
    // The record that was found before is no longer the key's: no second successor.
    let holds = bench.hsm.holds();
    let again = bench.service.rotate_due_key(&service, &stored).await;
    assert!(again.is_err());
    assert_eq!(bench.hsm.holds(), holds);

    let pending = bench.stored(key.key_id).await;
    let over = pending.record.grace_until.expect("pending");
    bench.clock.set(before(over));
    let early = bench.service.archive_due_key(&service, &pending).await;
    assert_inactive(early, InactiveReason::NotDue);
    bench.clock.set(over);
    let archived = bench.service.archive_due_key(&service, &pending).await;
    archived.expect("its grace is over");
    let archived = bench.record(key.key_id).await;
    assert_eq!(archived.key_state, KeyState::Archived);
    assert_eq!(archived.archived_at, Some(over));
    let receipt = &bench.newest_receipts(1).await[0];
    assert_eq!(receipt["operation"], "key_archived");
    assert_eq!(receipt["requesting_module"], "M33");
    assert!(over >= due.plus(Period::days(7)));
}
