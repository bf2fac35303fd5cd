//! A bounded cache that never brings back what was invalidated.
//!
//! Whoever fills a cache reads first and inserts later. If the thing changed in
//! between, the insertion would bring back the old one for good: a revoked key
//! would live on. So a fill starts with a ticket, and an invalidation voids every
//! ticket that is out.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// A cache of at most so many values, or of so much of them, which are cheap to clone.
pub struct CoherentCache<K, V> {
    entries: Cache<K, V, Weight<V>>,
    /// Counts the invalidations. Locked while an entry goes in or out, never
    /// while one is only read.
    epoch: Mutex<u64>,
}

/// What an entry counts towards the capacity.
type WeightOf<V> = fn(&V) -> u64;

#[derive(Clone)]
struct Weight<V>(WeightOf<V>);

impl<K, V> Weighter<K, V> for Weight<V> {
    fn weight(&self, _key: &K, value: &V) -> u64 {
        (self.0)(value)
    }
}

/// The right to insert what is read from now on.
#[derive(Clone, Copy, Debug)]
pub struct FillTicket(u64);

impl<K: Hash + Eq, V: Clone> CoherentCache<K, V> {
    /// An empty cache for at most `capacity` values.
    pub fn new(capacity: usize) -> Self {
        Self::weighing(capacity, capacity as u64, |_| 1)
    }

    /// An empty cache for values that together weigh at most `capacity`, which is about
    /// so many.
    pub fn weighing(about: usize, capacity: u64, weight: WeightOf<V>) -> Self {
        Self {
            entries: Cache::with_weighter(about, capacity, Weight(weight)),
            epoch: Mutex::new(0),
        }
    }

    /// The value of this key, if it is here.
    pub fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key)
    }

    /// Takes a ticket; to be called before the value is read at its source.
    pub fn begin_fill(&self) -> FillTicket {
        FillTicket(*self.lock())
    }

    /// Inserts a value, unless anything was invalidated since the ticket.
    pub fn fill(&self, ticket: FillTicket, key: K, value: V) {
        let epoch = self.lock();
        if *epoch == ticket.0 {
            self.entries.insert(key, value);
        }
    }

    /// Removes a value and voids every ticket that is out.
    pub fn invalidate(&self, key: &K) {
        let mut epoch = self.lock();
        *epoch += 1;
        self.entries.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_that_began_before_an_invalidation_inserts_nothing() {
        let cache = CoherentCache::new(10);
        let ticket = cache.begin_fill();
        cache.invalidate(&"key");
        cache.fill(ticket, "key", "old");
        assert_eq!(cache.get(&"key"), None);
        cache.fill(cache.begin_fill(), "key", "new");
        assert_eq!(cache.get(&"key"), Some("new"));
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = CoherentCache::new(10);
        for key in 0..1_000 {
            cache.fill(cache.begin_fill(), key, key);
        }
        let kept = (0..1_000).filter(|key| cache.get(key).is_some()).count();
        assert!(kept <= 10, "{kept}");
    }

    #[test]
    fn heavy_values_leave_room_for_fewer() {
        let kept = |weight: u64| {
            let cache = CoherentCache::weighing(1_000, 1_000, |weight: &u64| *weight);
            for key in 0..1_000 {
                cache.fill(cache.begin_fill(), key, weight);
            }
            (0..1_000).filter(|key| cache.get(key).is_some()).count()
        };
        assert!(kept(1) > 900, "{}", kept(1));
        assert!((1..=100).contains(&kept(10)), "{}", kept(10));
    }
}
