//! The live usage counters: one for each key that is in use, a bounded number of
//! idle ones. Knows no SQL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::KeyId;
use crate::domain::usage::{UsageCount, UsageCounter};

/// Every counter that somebody holds, and idle ones up to a capacity.
///
/// A reservation holds its counter until it is kept or given back. So while a use
/// is under way its counter stays, and one that nobody holds says no more than
/// the store does.
pub(super) struct UsageCounters {
    capacity: usize,
    counters: Mutex<Counters>,
}

struct Counters {
    by_key: HashMap<KeyId, Arc<UsageCounter>>,
    /// The number of counters at which the idle ones go.
    sweep_at: usize,
}

impl UsageCounters {
    /// No counters yet; idle ones are dropped beyond `capacity`.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            counters: Mutex::new(Counters {
                by_key: HashMap::new(),
                sweep_at: capacity,
            }),
        }
    }

    /// The counter of this key, if it is live.
    pub(super) fn get(&self, key_id: KeyId) -> Option<Arc<UsageCounter>> {
        self.lock().by_key.get(&key_id).cloned()
    }

    /// The counter of this key, starting from `kept` if it was not live. To be
    /// called by the writer alone, between its commits: `kept` is current then.
    pub(super) fn start(&self, key_id: KeyId, kept: UsageCount) -> Arc<UsageCounter> {
        let mut counters = self.lock();
        if counters.by_key.len() >= counters.sweep_at {
            // Under the lock nobody can take up a counter that has one holder.
            counters
                .by_key
                .retain(|_, counter| Arc::strong_count(counter) > 1);
            // Twice what is in use, so that sweeping stays cheap for each insertion.
            counters.sweep_at = self.capacity.max(2 * counters.by_key.len());
        }
        let counter = counters
            .by_key
            .entry(key_id)
            .or_insert_with(|| UsageCounter::starting_from(kept));
        Arc::clone(counter)
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        // A map of counters is whole after every step, whoever panicked elsewhere.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_counters_are_bounded_and_held_ones_stay() {
        let counters = UsageCounters::new(10);
        let held_key = KeyId::generate();
        let now = "2026-01-01T00:00:00Z".parse().expect("valid");
        let held = counters
            .start(held_key, UsageCount::default())
            .reserve(now, 1, false)
            .expect("one is left");
        for _ in 0..1_000 {
            counters.start(KeyId::generate(), UsageCount::default());
        }
        assert!(counters.lock().by_key.len() <= 10);
        let same = counters.get(held_key).expect("a reservation holds it");
        assert_eq!(same.count().used, 1);
        drop(held);
        assert_eq!(same.count().used, 0);
    }
}
