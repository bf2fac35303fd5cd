//! What is done for keys without anybody asking: replacing those that are due, archiving
//! those past their grace period, erasing those past their respite, and giving up those
//! whose making was cut short.
//!
//! One replica does it at a time: the one that holds the lease. Whatever the lease
//! says, every step names the version of the key it was decided on, so two of them
//! take none twice. A round is short, whatever is due: after days of downtime the rest
//! waits for the next ones, and requests in between.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pipeline::store_away;
use super::{KmsService, RequestContext};
use crate::domain::caller::{Caller, Reach};
use crate::domain::error::{Dependency, KmsError};
use crate::domain::ids::{KeyId, KeyRef, RequestId};
use crate::domain::time::{Period, Timestamp};
use crate::ports::upkeep_store::{DueKey, DueKind, Lease, LeaseHolder};

/// The lease's name in the store.
const LEASE: &str = "scheduler";

/// How long a lease lasts. Another replica takes over so long after this one died.
const LEASE_LASTS: Duration = Duration::from_secs(30);

/// How much of a lease is left when it is renewed.
const RENEWED_WITH: Duration = Duration::from_secs(20);

/// Steps of one kind in a round, at most.
const MOST_STEPS: usize = 64;

/// How long one kind may take in a round before the rest waits for the next.
const ROUND_LASTS: Duration = Duration::from_millis(500);

/// Rounds that a key rests after it failed; twice as many after each further time.
const REST: u64 = 30;

/// The longest rest.
const LONGEST_REST: u64 = 3_600;

/// Keys that rest at once, at most: then all of them are tried again.
const MOST_RESTING: usize = 10_000;

/// Due keys are counted to here, for the metrics.
const COUNTED: usize = 100_000;

/// What is due so long is told by the health report.
const OVERDUE_AFTER: Duration = Duration::from_secs(3_600);

/// A scheduler that has not finished a round for so long is told as well.
const LATE_AFTER: Duration = Duration::from_secs(300);

/// How far the daily look ahead goes.
const LOOK_AHEAD: Period = Period::days(7);

/// The state of one replica's scheduler, which its one task owns.
pub struct Scheduler {
    holder: LeaseHolder,
    leased_until: Option<Timestamp>,
    rounds: u64,
    resting: HashMap<KeyId, Rest>,
    /// From which round on keys that were left half made are given up.
    cleared_up_from: u64,
    looked_ahead_on: Option<i64>,
}

struct Rest {
    until_round: u64,
    failures: u32,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Keys that were replaced.
    pub rotated: usize,
    /// Keys that were archived.
    pub archived: usize,
    /// Keys whose secret was erased.
    pub erased: usize,
    /// Steps that came to nothing, and are tried again.
    pub failed: usize,
    /// Whether another replica does it.
    pub is_standby: bool,
}

/// Where the last round hangs, for the health report.
#[derive(Default)]
pub(super) struct SchedulerBoard(Mutex<Posted>);

#[derive(Default)]
struct Posted {
    finished: Option<Instant>,
    overdue: Option<(DueKind, DueKey)>,
}

impl SchedulerBoard {
    fn post(&self, overdue: Option<(DueKind, DueKey)>) {
        *self.lock() = Posted {
            finished: Some(Instant::now()),
            overdue,
        };
    }

    /// What needs looking at, in words; `None` where nothing does. A scheduler that
    /// never ran is not asked for: nobody started one.
    pub(super) fn complaint(&self, now: Instant) -> Option<String> {
        let posted = self.lock();
        let finished = posted.finished?;
        if now.duration_since(finished) > LATE_AFTER {
            return Some("no round of the scheduler has finished for five minutes".to_owned());
        }
        posted.overdue.as_ref().map(|(kind, due)| {
            format!(
                "key {} was to {} at {}",
                due.key_id,
                kind.as_str(),
                due.due_at
            )
        })
    }

    /// Whether a round has finished.
    pub(super) fn has_run(&self) -> bool {
        self.lock().finished.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Posted> {
        // Replaced as a whole, whoever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            holder: *KeyId::generate().as_bytes(),
            leased_until: None,
            rounds: 0,
            resting: HashMap::new(),
            cleared_up_from: 0,
            looked_ahead_on: None,
        }
    }
}

impl Scheduler {
    fn rests(&self, key_id: KeyId) -> bool {
        self.resting
            .get(&key_id)
            .is_some_and(|rest| rest.until_round > self.rounds)
    }

    fn failed(&mut self, key_id: KeyId) {
        if self.resting.len() >= MOST_RESTING {
            self.resting.clear();
        }
        let rounds = self.rounds;
        let rest = self.resting.entry(key_id).or_insert(Rest {
            until_round: 0,
            failures: 0,
        });
        let length = REST.saturating_mul(1 << rest.failures.min(20));
        rest.until_round = rounds + length.min(LONGEST_REST);
        rest.failures += 1;
    }
}

impl KmsService {
    /// Does what is due, for a short while.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`] while the store is away.
    pub async fn run_scheduler(&self, scheduler: &mut Scheduler) -> Result<Round, KmsError> {
        scheduler.rounds += 1;
        let mut round = Round::default();
        // Whoever does this does it well, and however many at once.
        self.clear_up(scheduler).await?;
        if self.hold_lease(scheduler).await? {
            for kind in DueKind::ALL {
                self.do_due(scheduler, kind, &mut round).await?;
            }
            self.look_ahead(scheduler).await?;
        } else {
            round.is_standby = true;
        }
        self.post_round().await?;
        Ok(round)
    }

    /// Leaves the work to another replica at once: the last step of an orderly shutdown.
    pub async fn stop_scheduler(&self, scheduler: Scheduler) {
        if scheduler.leased_until.is_some() {
            // Else it ends by itself.
            let released = self.ports.data_plane.release_lease(LEASE, scheduler.holder);
            let _ = released.await;
        }
    }

    async fn hold_lease(&self, scheduler: &mut Scheduler) -> Result<bool, KmsError> {
        let now = self.ports.clock.now();
        let until = now.plus_duration(LEASE_LASTS);
        // A clock that was set back makes the lease look longer than it can be.
        let is_fresh = |end: Timestamp| end > now.plus_duration(RENEWED_WITH) && end <= until;
        if scheduler.leased_until.is_some_and(is_fresh) {
            return Ok(true);
        }
        let lease = Lease {
            holder: scheduler.holder,
            until,
        };
        let taken = self.ports.data_plane.take_lease(LEASE, now, lease).await;
        let taken = taken.map_err(store_away)?;
        scheduler.leased_until = taken.then_some(until);
        Ok(taken)
    }

    async fn do_due(
        &self,
        scheduler: &mut Scheduler,
        kind: DueKind,
        round: &mut Round,
    ) -> Result<(), KmsError> {
        let started = Instant::now();
        let now = self.ports.clock.now();
        // Those that rest stand at the head of the list.
        let limit = MOST_STEPS + scheduler.resting.len();
        let due = self.ports.data_plane.keys_due(kind, now, limit).await;
        let mut steps = 0;
        for due in due.map_err(store_away)? {
            if scheduler.rests(due.key_id) {
                continue;
            }
            if steps == MOST_STEPS || started.elapsed() > ROUND_LASTS {
                break;
            }
            steps += 1;
            match self.do_one(kind, &due).await {
                Ok(()) => {
                    scheduler.resting.remove(&due.key_id);
                    match kind {
                        DueKind::Rotate => round.rotated += 1,
                        DueKind::Archive => round.archived += 1,
                        DueKind::Erase => round.erased += 1,
                    }
                }
                // Somebody else has done something with it meanwhile.
                Err(
                    KmsError::KeyInactive { .. } | KmsError::KeyRevoked | KmsError::KeyNotFound,
                ) => {}
                Err(error) => {
                    round.failed += 1;
                    scheduler.failed(due.key_id);
                    tracing::error!(
                        key_id = %due.key_id,
                        step = kind.as_str(),
                        error = &error as &dyn std::error::Error,
                        "what is due for a key came to nothing, and is tried again"
                    );
                    match error {
                        KmsError::DependencyUnavailable {
                            dependency: Dependency::Hsm,
                            ..
                        } => break,
                        KmsError::DependencyUnavailable { .. } => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn do_one(&self, kind: DueKind, due: &DueKey) -> Result<(), KmsError> {
        let context = own_context();
        let key = KeyRef::Id(due.key_id);
        let found = self.ports.data_plane.find_key(&due.scope, &key).await;
        let key = found.map_err(store_away)?.ok_or(KmsError::KeyNotFound)?;
        match kind {
            DueKind::Rotate => self.rotate_due_key(&context, &key).await,
            DueKind::Archive => self.archive_due_key(&context, &key).await,
            DueKind::Erase => self.erase_due_key(&context, key).await,
        }
    }

    /// Gives up keys that were left half made, where a backend keeps keys itself.
    async fn clear_up(&self, scheduler: &mut Scheduler) -> Result<(), KmsError> {
        let keeps_keys = self.ports.hsm.all().any(|hsm| hsm.name().keeps_keys());
        if keeps_keys
            && scheduler.rounds >= scheduler.cleared_up_from
            && !self.give_up_forgotten_keys().await?
        {
            // The backend is away, and is not asked every second.
            scheduler.cleared_up_from = scheduler.rounds + REST;
        }
        Ok(())
    }

    /// Tells once a day what comes within a week.
    async fn look_ahead(&self, scheduler: &mut Scheduler) -> Result<(), KmsError> {
        let now = self.ports.clock.now();
        if scheduler.looked_ahead_on == Some(now.utc_day()) {
            return Ok(());
        }
        let data_plane = &self.ports.data_plane;
        let soon = now.plus(LOOK_AHEAD);
        let [mut rotate, mut archive, mut erase] = [0; 3];
        for (kind, number) in [
            (DueKind::Rotate, &mut rotate),
            (DueKind::Archive, &mut archive),
            (DueKind::Erase, &mut erase),
        ] {
            let counted = data_plane.count_due(kind, soon, COUNTED).await;
            *number = counted.map_err(store_away)?;
        }
        scheduler.looked_ahead_on = Some(now.utc_day());
        if rotate + archive + erase > 0 {
            tracing::info!(rotate, archive, erase, "keys due within a week");
        }
        Ok(())
    }

    async fn post_round(&self) -> Result<(), KmsError> {
        let now = self.ports.clock.now();
        let data_plane = &self.ports.data_plane;
        let mut overdue = None;
        for kind in DueKind::ALL {
            let number = data_plane.count_due(kind, now, COUNTED).await;
            let number = number.map_err(store_away)?;
            self.metrics.set_keys_due(kind.as_str(), number);
            let limit = now.minus(OVERDUE_AFTER);
            if number > 0 && overdue.is_none() {
                let oldest = data_plane.keys_due(kind, limit, 1).await;
                overdue = oldest.map_err(store_away)?.pop().map(|due| (kind, due));
            }
        }
        self.metrics.set_scheduler_last_run(now);
        self.scheduler.post(overdue);
        Ok(())
    }
}

/// Who does it: the service itself, which speaks for every scope.
fn own_context() -> RequestContext {
    RequestContext {
        request_id: RequestId::generate(),
        caller: Caller::new(
            "M33"
                .parse()
                .expect("the service's own module keeps to the grammar"),
            Reach::AnyScope,
        ),
        approval: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_fails_rests_twice_as_long_each_time_and_an_hour_at_most() {
        let mut scheduler = Scheduler::default();
        let key_id = KeyId::generate();
        let mut rests = Vec::new();
        for _ in 0..10 {
            scheduler.failed(key_id);
            let begun = scheduler.rounds;
            while scheduler.rests(key_id) {
                scheduler.rounds += 1;
            }
            rests.push(scheduler.rounds - begun);
        }
        assert_eq!(rests[..4], [30, 60, 120, 240]);
        assert_eq!(rests[9], 3_600);
    }

    #[test]
    fn what_is_overdue_and_what_does_not_run_is_told() {
        let board = SchedulerBoard::default();
        let now = Instant::now();
        assert_eq!(board.complaint(now), None);
        board.post(None);
        assert_eq!(board.complaint(now), None);
        let late = board.complaint(now + LATE_AFTER + Duration::from_secs(60));
        assert!(late.is_some_and(|what| what.contains("five minutes")));
        let key = crate::domain::key::tests::active_key();
        let due = DueKey {
            key_id: key.key_id,
            scope: key.scope,
            due_at: key.created_at,
        };
        board.post(Some((DueKind::Archive, due)));
        let overdue = board.complaint(now);
        assert!(overdue.is_some_and(|what| what.contains("was to archive at")));
    }
}
