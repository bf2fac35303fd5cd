//! Counting the uses of a key, exactly.
//!
//! A use is reserved before the key is touched and counts from that moment, so
//! that of N + k requests at once with N left, N get through. A reservation that
//! comes to nothing gives its use back when it is dropped; one that is kept stays
//! counted, and the store writes it down together with the receipt of the use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::{KmsError, PolicyFault};
use super::time::Timestamp;

/// How many messages one key may encrypt under random 96-bit nonces
/// (NIST SP 800-38D §8.3).
pub const MAX_ENCRYPTIONS: u64 = 1 << 32;

/// What is known of a key's use: today's, and all encryptions ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageCount {
    /// The UTC day that `used` counts, in days since 1970-01-01.
    pub day: i64,
    /// Uses on that day.
    pub used: u64,
    /// Encryptions since the key was made.
    pub encryptions: u64,
    /// The latest use that was written down, ever.
    pub last_used_at: Option<Timestamp>,
}

impl UsageCount {
    /// The count after more uses that are written down. Uses of an earlier day,
    /// written down late, leave today's count alone.
    pub fn plus(self, mark: UsageMark) -> Self {
        Self {
            last_used_at: self.last_used_at.max(Some(mark.at)),
            ..self.counting(mark)
        }
    }

    fn counting(self, mark: UsageMark) -> Self {
        let counted = Self {
            encryptions: self.encryptions + mark.encryptions(),
            ..self
        };
        match mark.day.cmp(&self.day) {
            std::cmp::Ordering::Greater => Self {
                day: mark.day,
                used: mark.uses,
                ..counted
            },
            std::cmp::Ordering::Equal => Self {
                used: self.used + mark.uses,
                ..counted
            },
            std::cmp::Ordering::Less => counted,
        }
    }

    /// The uses on the UTC day of this instant.
    pub fn used_on_day_of(self, now: Timestamp) -> u64 {
        // A clock that steps back opens no day that was counted already.
        match now.utc_day().cmp(&self.day) {
            std::cmp::Ordering::Greater => 0,
            std::cmp::Ordering::Equal | std::cmp::Ordering::Less => self.used,
        }
    }
}

/// Uses of one kind at one instant, as they will be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageMark {
    /// The UTC day of the uses.
    pub day: i64,
    /// How many they are, at least one.
    pub uses: u64,
    /// Whether they were encryptions.
    pub encrypts: bool,
    /// When they were.
    pub at: Timestamp,
}

impl UsageMark {
    fn encryptions(self) -> u64 {
        match self.encrypts {
            true => self.uses,
            false => 0,
        }
    }
}

/// The live count of one key: what the store has, plus what is reserved.
#[derive(Debug, Default)]
pub struct UsageCounter(Mutex<UsageCount>);

impl UsageCounter {
    /// A counter that starts from what the store has.
    pub fn starting_from(count: UsageCount) -> Arc<Self> {
        Arc::new(Self(Mutex::new(count)))
    }

    /// Reserves one use at `now`, if the limit of uses a UTC day allows it.
    ///
    /// # Errors
    /// [`KmsError::DailyLimitReached`]; [`PolicyFault::EncryptionsExhausted`].
    pub fn reserve(
        self: &Arc<Self>,
        now: Timestamp,
        limit: u64,
        encrypts: bool,
    ) -> Result<UsageReservation, KmsError> {
        let reserved = self.reserve_up_to(1, now, limit, encrypts);
        reserved
            .reservation
            .ok_or_else(|| reserved.exhausted.into())
    }

    /// Reserves as many of the wanted uses at `now` as are left, in one step, so that
    /// it takes as long for a thousand as for one and nobody comes in between.
    pub fn reserve_up_to(
        self: &Arc<Self>,
        wanted: u64,
        now: Timestamp,
        limit: u64,
        encrypts: bool,
    ) -> Reserved {
        let mut count = self.lock();
        // A clock that steps back must not open a day that was closed already.
        let day = now.utc_day().max(count.day);
        let used = if day == count.day { count.used } else { 0 };
        let left_today = limit.saturating_sub(used);
        let left_ever = match encrypts {
            true => MAX_ENCRYPTIONS.saturating_sub(count.encryptions),
            false => u64::MAX,
        };
        let exhausted = match left_today <= left_ever {
            true => Exhausted::Today {
                limit,
                retry_after: now.until_next_utc_day(),
            },
            false => Exhausted::Encryptions,
        };
        let uses = wanted.min(left_today).min(left_ever);
        let near = near(limit);
        let reservation = (uses > 0).then(|| {
            let mark = UsageMark {
                day,
                uses,
                encrypts,
                at: now,
            };
            // Used only once it is kept: a use that is given back was none.
            *count = count.counting(mark);
            UsageReservation {
                counter: Some(Arc::clone(self)),
                mark,
            }
        });
        Reserved {
            reservation,
            exhausted,
            neared_limit: used < near && used + uses >= near,
        }
    }

    /// The count now, reservations included.
    pub fn count(&self) -> UsageCount {
        *self.lock()
    }

    fn give_back(&self, mark: UsageMark) {
        let mut count = self.lock();
        if count.day == mark.day {
            count.used = count.used.saturating_sub(mark.uses);
        }
        count.encryptions = count.encryptions.saturating_sub(mark.encryptions());
    }

    fn lock(&self) -> MutexGuard<'_, UsageCount> {
        // Three numbers are always consistent, whoever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of wanting several uses.
#[derive(Debug)]
pub struct Reserved {
    /// Those that were left; `None` where there were none.
    pub reservation: Option<UsageReservation>,
    /// Why there are no more than those that were left.
    pub exhausted: Exhausted,
    /// Whether these uses brought the key to 80 % of its limit for the day.
    pub neared_limit: bool,
}

/// From how many uses on a key is near its limit: 80 % of it, rounded up, and at
/// least one.
fn near(limit: u64) -> u64 {
    (limit - limit / 5).max(1)
}

/// Which limit is in the way of one more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The limit of uses a UTC day.
    Today {
        /// Uses a day that the policy allows.
        limit: u64,
        /// Until the next UTC midnight.
        retry_after: Duration,
    },
    /// [`MAX_ENCRYPTIONS`].
    Encryptions,
}

impl From<Exhausted> for KmsError {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Today { limit, retry_after } => {
                Self::DailyLimitReached { limit, retry_after }
            }
            Exhausted::Encryptions => PolicyFault::EncryptionsExhausted.into(),
        }
    }
}

/// Uses that have been counted and may still come to nothing, all of them together.
#[must_use = "a reservation that is dropped gives its uses back"]
#[derive(Debug)]
pub struct UsageReservation {
    counter: Option<Arc<UsageCounter>>,
    mark: UsageMark,
}

impl UsageReservation {
    /// What the store has to write down.
    pub fn mark(&self) -> UsageMark {
        self.mark
    }

    /// How many uses they are.
    pub fn uses(&self) -> u64 {
        self.mark.uses
    }

    /// The uses are written down: they stay counted.
    pub fn keep(mut self) {
        if let Some(counter) = self.counter.take() {
            let mut count = counter.lock();
            count.last_used_at = count.last_used_at.max(Some(self.mark.at));
        }
    }
}

impl Drop for UsageReservation {
    fn drop(&mut self) {
        if let Some(counter) = self.counter.take() {
            counter.give_back(self.mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error::ErrorCode;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("valid")
    }

    #[test]
    fn of_many_at_once_exactly_as_many_succeed_as_are_left() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        let now = at("2026-01-01T12:00:00Z");
        let succeeded: usize = std::thread::scope(|threads| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    threads.spawn(|| {
                        (0..500)
                            .filter_map(|_| counter.reserve(now, 1_000, false).ok())
                            .map(UsageReservation::keep)
                            .count()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .sum()
        });
        assert_eq!(succeeded, 1_000);
    }

    #[test]
    fn a_key_nears_its_limit_once_a_day_whatever_the_steps() {
        let noon = at("2026-01-01T12:00:00Z");
        let neared = |limit: u64, steps: &[u64]| -> Vec<bool> {
            let counter = UsageCounter::starting_from(UsageCount::default());
            let neared = steps.iter().map(|wanted| {
                let reserved = counter.reserve_up_to(*wanted, noon, limit, false);
                if let Some(reservation) = reserved.reservation {
                    reservation.keep();
                }
                reserved.neared_limit
            });
            neared.collect()
        };
        assert_eq!(neared(10, &[7, 1, 1, 5]), [false, true, false, false]);
        assert_eq!(neared(10, &[12]), [true]);
        assert_eq!(neared(9, &[7, 1]), [false, true]);
        assert_eq!(neared(1, &[1, 1]), [true, false]);
        // Nothing is used of a key that allows nothing.
        assert_eq!(neared(0, &[1]), [false]);

        let counter = UsageCounter::starting_from(UsageCount::default());
        for day in ["2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z"] {
            let reserved = counter.reserve_up_to(8, at(day), 10, false);
            assert!(reserved.neared_limit, "{day}");
            reserved.reservation.expect("room").keep();
        }
    }

    #[test]
    fn of_several_uses_as_many_are_reserved_as_are_left() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        let now = at("2026-01-01T12:00:00Z");
        let uses = |wanted| {
            let reserved = counter.reserve_up_to(wanted, now, 10, true);
            let uses = reserved.reservation.map_or(0, |reservation| {
                let uses = reservation.mark().uses;
                reservation.keep();
                uses
            });
            (uses, KmsError::from(reserved.exhausted).code())
        };
        assert_eq!(uses(4), (4, ErrorCode::RateLimited));
        assert_eq!(uses(7), (6, ErrorCode::RateLimited));
        assert_eq!(uses(1), (0, ErrorCode::RateLimited));
        let count = counter.count();
        assert_eq!((count.used, count.encryptions), (10, 10));
    }

    #[test]
    fn several_uses_that_are_dropped_are_given_back_together() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        let now = at("2026-01-01T12:00:00Z");
        counter.reserve(now, 10, true).expect("ten are left").keep();
        drop(counter.reserve_up_to(100, now, 10, true));
        let count = counter.count();
        assert_eq!((count.used, count.encryptions), (1, 1));
    }

    #[test]
    fn of_several_at_once_exactly_as_many_uses_are_reserved_as_are_left() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        let now = at("2026-01-01T12:00:00Z");
        let reserved: u64 = std::thread::scope(|threads| {
            let workers: Vec<_> = (1..=8)
                .map(|wanted| {
                    let counter = &counter;
                    threads.spawn(move || {
                        (0..100)
                            .filter_map(|_| {
                                let reserved = counter.reserve_up_to(wanted, now, 1_000, false);
                                let reservation = reserved.reservation?;
                                let uses = reservation.mark().uses;
                                reservation.keep();
                                Some(uses)
                            })
                            .sum::<u64>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .sum()
        });
        assert_eq!((reserved, counter.count().used), (1_000, 1_000));
    }

    #[test]
    fn a_dropped_reservation_gives_its_use_back() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        let now = at("2026-01-01T12:00:00Z");
        let first = counter.reserve(now, 1, true).expect("one is left");
        assert!(counter.reserve(now, 1, true).is_err());
        drop(first);
        assert_eq!(counter.count().encryptions, 0);
        counter.reserve(now, 1, true).expect("given back").keep();
        assert!(counter.reserve(now, 1, true).is_err());
    }

    #[test]
    fn a_new_utc_day_starts_from_nothing_and_yesterday_gives_nothing_back_to_it() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        let yesterday = counter
            .reserve(at("2026-01-01T23:59:59Z"), 1, false)
            .expect("one is left");
        let today = at("2026-01-02T00:00:00Z");
        counter.reserve(today, 1, false).expect("a new day").keep();
        drop(yesterday);
        assert!(counter.reserve(today, 1, false).is_err());
    }

    #[test]
    fn a_clock_that_steps_back_opens_no_new_day() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        counter
            .reserve(at("2026-01-02T00:00:00Z"), 1, false)
            .expect("one is left")
            .keep();
        assert!(
            counter
                .reserve(at("2026-01-01T00:00:00Z"), 1, false)
                .is_err()
        );
    }

    #[test]
    fn a_key_stops_encrypting_at_two_to_the_thirty_two_and_still_decrypts() {
        let counter = UsageCounter::starting_from(UsageCount {
            encryptions: MAX_ENCRYPTIONS - 1,
            ..UsageCount::default()
        });
        let now = at("2026-01-01T12:00:00Z");
        let reserved = counter.reserve_up_to(3, now, 10, true);
        assert_eq!(reserved.exhausted, Exhausted::Encryptions);
        let last = reserved.reservation.expect("the last one");
        assert_eq!(last.mark().uses, 1);
        last.keep();
        assert!(matches!(
            counter.reserve(now, 10, true),
            Err(KmsError::PolicyViolation(PolicyFault::EncryptionsExhausted))
        ));
        assert!(counter.reserve(now, 10, false).is_ok());
    }

    #[test]
    fn a_use_written_down_late_leaves_todays_count_alone() {
        let now = at("1970-01-06T12:00:00Z");
        let today = UsageCount {
            day: 5,
            used: 3,
            encryptions: 7,
            last_used_at: Some(now),
        };
        let late = UsageMark {
            day: 4,
            uses: 1,
            encrypts: true,
            at: at("1970-01-05T23:59:59Z"),
        };
        assert_eq!(
            today.plus(late),
            UsageCount {
                encryptions: 8,
                ..today
            }
        );
        assert_eq!(today.used_on_day_of(now), 3);
        assert_eq!(today.used_on_day_of(at("1970-01-07T00:00:00Z")), 0);
    }

    #[test]
    fn a_key_is_last_used_when_a_use_of_it_is_kept() {
        let counter = UsageCounter::starting_from(UsageCount::default());
        let noon = at("2026-01-01T12:00:00Z");
        let reserve = |now| counter.reserve(now, 10, false).expect("some are left");
        drop(reserve(noon));
        assert_eq!(counter.count().last_used_at, None);
        reserve(noon).keep();
        // A clock that stepped back does not take the last use back.
        reserve(at("2026-01-01T11:00:00Z")).keep();
        assert_eq!(counter.count().last_used_at, Some(noon));
    }
}
