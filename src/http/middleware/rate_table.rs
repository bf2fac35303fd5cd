//! The callers' allowances, in bounded memory.
//!
//! An allowance is a bucket of `burst` requests that refills at
//! `requests_per_second` (GCRA, ITU-T I.371). It knows nothing of HTTP.
//!
//! A bucket that the table forgot is replaced with a full one, which it would be
//! soon anyway: whoever keeps asking stays in, and whoever pauses is let in.

use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::callers::{Caller, CallerTable, MOST_CALLERS, Slot};
use crate::domain::rate::{Rate, RateGroup, RatePolicy};

/// Where a caller stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The size of the bucket.
    pub(crate) limit: u32,
    /// What is left of it.
    pub(crate) remaining: u32,
    /// Until it is full again, if nothing more is asked for.
    pub(crate) reset: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may go on.
    Admitted,
    /// It came too early.
    Refused {
        /// The rate that it went beyond.
        rate: Rate,
        /// Until the next one is let in.
        retry_after: Duration,
    },
}

/// A bucket. Its state is one atomic number, so that requests of one caller
/// don't wait for each other.
type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>;

/// The buckets of the callers.
pub(crate) struct RateTable<C: Clock = DefaultClock> {
    buckets: CallerTable<Bucket<C>>,
    policy: RatePolicy,
    clock: C,
}

impl RateTable {
    /// An empty table under this policy.
    pub(crate) fn new(policy: RatePolicy) -> Self {
        Self::with_clock(policy, MOST_CALLERS, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateTable<C> {
    fn with_clock(policy: RatePolicy, capacity: usize, clock: C) -> Self {
        Self {
            buckets: CallerTable::new(capacity),
            policy,
            clock,
        }
    }

    /// Takes one request of this group out of the caller's bucket, if it is in.
    pub(crate) fn admit(&self, caller: Caller<'_>, group: RateGroup) -> (Standing, Verdict) {
        let (rate, group) = match self.policy.groups[group.index()] {
            Some(own) => (own, Some(group)),
            None => (self.policy.default, None),
        };
        let bucket = self.buckets.at(&Slot { caller, group }, || {
            RateLimiter::direct_with_clock(quota(rate), self.clock.clone()).with_middleware()
        });
        let limit = rate.burst.get();
        let interval = quota(rate).replenish_interval();
        match bucket.check() {
            Ok(state) => {
                // Both are whole numbers of requests; the time is right to within one.
                let remaining = state.remaining_burst_capacity().min(limit);
                let standing = Standing {
                    limit,
                    remaining,
                    reset: interval * (limit - remaining),
                };
                (standing, Verdict::Admitted)
            }
            Err(refused) => {
                let retry_after = refused.wait_time_from(self.clock.now());
                let standing = Standing {
                    limit,
                    remaining: 0,
                    reset: retry_after + interval * (limit - 1),
                };
                (standing, Verdict::Refused { rate, retry_after })
            }
        }
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.requests_per_second).allow_burst(rate.burst)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::domain::peer::SpiffeId;

    fn rate(requests_per_second: u32, burst: u32) -> Rate {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        Rate {
            requests_per_second: number(requests_per_second),
            burst: number(burst),
        }
    }

    fn policy(default: Rate) -> RatePolicy {
        RatePolicy {
            default,
            groups: [None; RateGroup::COUNT],
        }
    }

    fn table(
        policy: RatePolicy,
        capacity: usize,
    ) -> (RateTable<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        // A clock that shows nothing yet is a corner of its own.
        clock.advance(Duration::from_secs(1_000));
        (
            RateTable::with_clock(policy, capacity, clock.clone()),
            clock,
        )
    }

    fn at(address: &str) -> Caller<'static> {
        Caller::of_address(address.parse().expect("an address"))
    }

    fn is_admitted(table: &RateTable<FakeRelativeClock>, caller: Caller<'_>) -> bool {
        table.admit(caller, RateGroup::Read).1 == Verdict::Admitted
    }

    #[test]
    fn a_burst_is_let_in_then_the_rate_and_the_standing_says_so() {
        let (table, clock) = table(policy(rate(4, 6)), 100);
        let caller = at("192.0.2.1");
        for remaining in (0..6).rev() {
            let (standing, verdict) = table.admit(caller, RateGroup::Read);
            assert_eq!(verdict, Verdict::Admitted);
            assert_eq!((standing.limit, standing.remaining), (6, remaining));
            assert_eq!(standing.reset, Duration::from_millis(250) * (6 - remaining));
        }
        clock.advance(Duration::from_millis(50));
        let (standing, verdict) = table.admit(caller, RateGroup::Read);
        let retry_after = Duration::from_millis(200);
        let refused = Verdict::Refused {
            rate: rate(4, 6),
            retry_after,
        };
        assert_eq!(verdict, refused);
        assert_eq!(standing.remaining, 0);
        assert_eq!(standing.reset, Duration::from_millis(1_450));
        // A refusal costs nothing: the wait has not grown.
        clock.advance(retry_after - Duration::from_nanos(1));
        assert!(!is_admitted(&table, caller));
        clock.advance(Duration::from_nanos(1));
        assert!(is_admitted(&table, caller));
        assert!(!is_admitted(&table, caller));
        clock.advance(Duration::from_secs(3_600));
        let (standing, _) = table.admit(caller, RateGroup::Read);
        assert_eq!(standing.remaining, 5);
    }

    #[test]
    fn a_group_with_a_rate_of_its_own_is_counted_apart_and_the_others_together() {
        let mut policy = policy(rate(1, 2));
        policy.groups[RateGroup::Sign.index()] = Some(rate(1, 1));
        let (table, _) = table(policy, 100);
        let caller = at("192.0.2.1");
        let admitted = |group| table.admit(caller, group).1 == Verdict::Admitted;
        assert!(admitted(RateGroup::Verify));
        assert!(admitted(RateGroup::Read));
        assert!(!admitted(RateGroup::Lifecycle));
        assert!(admitted(RateGroup::Sign));
        assert!(!admitted(RateGroup::Sign));
    }

    #[test]
    fn a_caller_is_its_tenant_and_module_whatever_else_its_name_says() {
        let name = |tenant: &str, environment: &str, module: &str| {
            let uri = format!(
                "spiffe://d/tenant/{tenant}/env/{environment}/plane/tenant/module/{module}"
            );
            SpiffeId::parse(&uri).expect("of the form")
        };
        let (table, _) = table(policy(rate(1, 1)), 100);
        let admitted = |name: SpiffeId| is_admitted(&table, Caller::of_peer(&name));
        assert!(admitted(name("acme", "prod", "M27")));
        assert!(!admitted(name("acme", "prod", "M27")));
        assert!(!admitted(name("acme", "dev", "PM-7")));
        assert!(admitted(name("other", "prod", "M27")));
        assert!(admitted(name("acme", "prod", "M21")));
    }

    #[test]
    fn a_million_callers_fit_into_the_table_and_the_one_who_keeps_asking_stays_in_it() {
        const CAPACITY: usize = 4_096;
        let (table, _) = table(policy(rate(1, 50)), CAPACITY);
        let abuser = at("192.0.2.1");
        let mut let_in = 0;
        for number in 0..1_000_000_u64 {
            table.admit(Caller::Network(number.to_be_bytes()), RateGroup::Read);
            if number % 100 == 0 {
                let_in += u32::from(is_admitted(&table, abuser));
            }
            if number % 10_000 == 0 {
                assert!(table.buckets.len() <= CAPACITY);
            }
        }
        assert!(table.buckets.len() <= CAPACITY);
        assert_eq!(let_in, 50, "the clock stands still: its burst and no more");
    }

    #[test]
    fn first_requests_at_once_share_one_bucket() {
        for _ in 0..50 {
            let table = RateTable::new(policy(rate(1, 3)));
            let let_in = std::sync::atomic::AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..4 {
                            let (_, verdict) = table.admit(at("192.0.2.1"), RateGroup::Sign);
                            if verdict == Verdict::Admitted {
                                let_in.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            assert_eq!(let_in.into_inner(), 3);
        }
    }
}
