//! The callers' allowances, in bounded memory.
//!
//! An allowance is a bucket of `burst` requests that refills at
//! `requests_per_second` (GCRA, ITU-T I.371). It knows nothing of HTTP.
//!
//! The table holds a fixed number of buckets. When it is full a new caller takes
//! the place of one that was not heard of lately: whoever keeps asking stays in,
//! and whoever pauses has a full bucket soon anyway, which is what a forgotten
//! one is replaced with. To be forgotten between two requests a caller would have
//! to come under thousands of other addresses or identities in the meantime, and
//! each of those has an allowance of its own already: it gains nothing.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::Equivalent;
use quick_cache::sync::Cache;

use crate::domain::ids::{ModuleId, TenantId};
use crate::domain::peer::SpiffeId;
use crate::domain::rate::{Rate, RateGroup, RatePolicy};

/// How many buckets there are at most: about 14 MiB of them.
const MOST_BUCKETS: usize = 65_536;

/// Who is counted. Nothing of it is read from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RateKey<'a> {
    /// The tenant and the module of a validated certificate, however many
    /// certificates, environments and planes they have.
    Peer(&'a TenantId, &'a ModuleId),
    /// An address.
    Address(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: one network has all of the rest to
    /// choose from (RFC 4291 §2.5.1).
    Network([u8; 8]),
    /// Whoever has neither; they share.
    Unknown,
}

impl<'a> RateKey<'a> {
    /// The caller of this name.
    pub(crate) fn of_peer(name: &'a SpiffeId) -> Self {
        Self::Peer(&name.scope().tenant_id, name.module())
    }

    /// The caller at this address, however the address is written.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Address(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::Network([a, b, c, d, e, f, g, h])
            }
        }
    }
}

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
    buckets: Cache<OwnedSlot, Arc<Bucket<C>>>,
    policy: RatePolicy,
    clock: C,
}

impl RateTable {
    /// An empty table under this policy.
    pub(crate) fn new(policy: RatePolicy) -> Self {
        Self::with_clock(policy, MOST_BUCKETS, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateTable<C> {
    fn with_clock(policy: RatePolicy, capacity: usize, clock: C) -> Self {
        Self {
            buckets: Cache::new(capacity),
            policy,
            clock,
        }
    }

    /// Takes one request of this group out of the caller's bucket, if it is in.
    pub(crate) fn admit(&self, caller: RateKey<'_>, group: RateGroup) -> (Standing, Verdict) {
        let (rate, group) = match self.policy.groups[group.index()] {
            Some(own) => (own, Some(group)),
            None => (self.policy.default, None),
        };
        let bucket = self.bucket(&Slot { caller, group }, rate);
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

    /// The bucket that stands in this place. Only a new caller allocates.
    fn bucket(&self, slot: &Slot<'_>, rate: Rate) -> Arc<Bucket<C>> {
        if let Some(bucket) = self.buckets.get(slot) {
            return bucket;
        }
        let fresh = || {
            let bucket = RateLimiter::direct_with_clock(quota(rate), self.clock.clone());
            Arc::new(bucket.with_middleware())
        };
        // Of two first requests at once only one makes the bucket.
        self.buckets
            .get_or_insert_with(&OwnedSlot::from(slot), || {
                Ok::<_, std::convert::Infallible>(fresh())
            })
            .unwrap_or_else(|never| match never {})
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.requests_per_second).allow_burst(rate.burst)
}

/// A place in the table: a caller, and the group that is counted apart, if it is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Slot<'a> {
    caller: RateKey<'a>,
    group: Option<RateGroup>,
}

/// The same, kept.
#[derive(Clone, Debug)]
struct OwnedSlot {
    caller: OwnedKey,
    group: Option<RateGroup>,
}

#[derive(Clone, Debug)]
enum OwnedKey {
    Peer(TenantId, ModuleId),
    Address(Ipv4Addr),
    Network([u8; 8]),
    Unknown,
}

impl OwnedSlot {
    fn borrowed(&self) -> Slot<'_> {
        Slot {
            caller: match &self.caller {
                OwnedKey::Peer(tenant, module) => RateKey::Peer(tenant, module),
                OwnedKey::Address(address) => RateKey::Address(*address),
                OwnedKey::Network(network) => RateKey::Network(*network),
                OwnedKey::Unknown => RateKey::Unknown,
            },
            group: self.group,
        }
    }
}

impl From<&Slot<'_>> for OwnedSlot {
    fn from(slot: &Slot<'_>) -> Self {
        Self {
            caller: match slot.caller {
                RateKey::Peer(tenant, module) => OwnedKey::Peer(tenant.clone(), module.clone()),
                RateKey::Address(address) => OwnedKey::Address(address),
                RateKey::Network(network) => OwnedKey::Network(network),
                RateKey::Unknown => OwnedKey::Unknown,
            },
            group: slot.group,
        }
    }
}

impl Hash for OwnedSlot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrowed().hash(state);
    }
}

impl PartialEq for OwnedSlot {
    fn eq(&self, other: &Self) -> bool {
        self.borrowed() == other.borrowed()
    }
}

impl Eq for OwnedSlot {}

impl Equivalent<OwnedSlot> for Slot<'_> {
    fn equivalent(&self, kept: &OwnedSlot) -> bool {
        *self == kept.borrowed()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;

    use super::*;

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

    fn at(address: &str) -> RateKey<'static> {
        RateKey::of_address(address.parse().expect("an address"))
    }

    fn is_admitted(table: &RateTable<FakeRelativeClock>, caller: RateKey<'_>) -> bool {
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
    fn an_address_is_the_same_however_it_is_written_and_a_network_is_one_caller() {
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(
            at("2001:db8:0:7::1"),
            at("2001:db8:0:7:ffff:ffff:ffff:ffff")
        );
        assert_ne!(at("2001:db8:0:7::1"), at("2001:db8:0:8::1"));
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
        let admitted = |name: SpiffeId| is_admitted(&table, RateKey::of_peer(&name));
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
            table.admit(RateKey::Network(number.to_be_bytes()), RateGroup::Read);
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
