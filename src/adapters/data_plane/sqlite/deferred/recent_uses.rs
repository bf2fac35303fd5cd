//! How often the keys were used that were used lately, as it was kept. Knows no SQL.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::KeyId;
use crate::domain::usage::UsageCount;

/// Counts by key, in the order of their table.
pub(in super::super) type Counts = BTreeMap<KeyId, UsageCount>;

/// What the writer changes after its commits and everyone reads. A key that is not here
/// has the count that is in the table.
#[derive(Debug, Default)]
pub(in super::super) struct RecentUses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: Counts,
    /// Those that are being written to the table, or were. They stay until the next
    /// ones are, so that what is used often is not read.
    before: Arc<Counts>,
}

impl RecentUses {
    /// Begins anew with these counts.
    pub(in super::super) fn reset(&self, counts: Counts) {
        *self.lock() = State {
            current: counts,
            before: Arc::default(),
        };
    }

    /// The count of a key, if it was used lately. To be asked before the table: what
    /// leaves in between is in it.
    pub(in super::super) fn get(&self, key_id: KeyId) -> Option<UsageCount> {
        let state = self.lock();
        let found = state.current.get(&key_id);
        found.or_else(|| state.before.get(&key_id)).copied()
    }

    /// Takes in counts that are durable.
    pub(in super::super) fn append(&self, counts: impl IntoIterator<Item = (KeyId, UsageCount)>) {
        self.lock().current.extend(counts);
    }

    /// Those that are to be written to the table next. The ones before them are in it.
    pub(super) fn begin_generation(&self) -> Arc<Counts> {
        let mut state = self.lock();
        state.before = Arc::new(mem::take(&mut state.current));
        Arc::clone(&state.before)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole after every step, whoever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(used: u64) -> UsageCount {
        UsageCount {
            used,
            ..UsageCount::default()
        }
    }

    #[test]
    fn the_newest_count_is_answered_and_one_of_two_generations_ago_is_not() {
        let uses = RecentUses::default();
        let [often, once] = [(); 2].map(|()| KeyId::generate());
        uses.append([(often, used(1)), (once, used(1))]);
        assert_eq!(
            *uses.begin_generation(),
            [(often, used(1)), (once, used(1))].into()
        );
        uses.append([(often, used(2))]);
        assert_eq!(uses.get(often), Some(used(2)));
        assert_eq!(uses.get(once), Some(used(1)));
        assert_eq!(*uses.begin_generation(), [(often, used(2))].into());
        assert_eq!(uses.get(often), Some(used(2)));
        assert_eq!(uses.get(once), None);
        uses.reset([(once, used(7))].into());
        assert_eq!((uses.get(often), uses.get(once)), (None, Some(used(7))));
    }
}
