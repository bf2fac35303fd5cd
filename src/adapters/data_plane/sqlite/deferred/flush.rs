//! Moving what came lately to its place, a share with every batch.

use std::ops::Bound;
use std::sync::Arc;

use rusqlite::Connection;

use super::memtable::{Entry, Generation, Memtable, Merged, Order};
use super::recent_uses::{Counts, RecentUses};
use super::statements;
use crate::domain::ids::KeyId;

/// Receipts that make a generation, at most: enough that those of one scope or key share
/// pages of large trees, few enough that a start reads them in a moment.
const LARGEST_GENERATION: u64 = 65_536;

/// Which part of the ledger they are while it is smaller: in small trees fewer share pages.
const PART_OF_THE_LEDGER: u64 = 16;

/// What is moved with each receipt that comes. More than one, so that a generation is
/// moved before the next one is complete.
const SHARE: usize = 2;

/// What the writer moves at the moment.
pub(in super::super) struct Deferred {
    smallest_generation: u64,
    flush: Option<Flush>,
}

struct Flush {
    generation: Generation,
    uses: Arc<Counts>,
    /// The last row in the log of uses that these came from.
    uses_end: i64,
    step: Step,
    /// Something was done that is not durable yet.
    is_under_way: bool,
}

enum Step {
    /// To their places.
    Move(Rest),
    /// All are in their places, once this batch is durable.
    Moved,
    /// The log of uses is trimmed.
    Trim,
    /// Nothing is left to do, once this batch is durable.
    Trimmed,
}

/// What is still to be moved.
struct Rest {
    by_time: Merged,
    by_key: Merged,
    /// The last key whose count is in its place.
    last_used: Option<KeyId>,
}

impl Deferred {
    /// Nothing is moved before so many receipts have come.
    pub(in super::super) fn new(smallest_generation: u64) -> Self {
        Self {
            smallest_generation,
            flush: None,
        }
    }

    /// Moves what a batch of so many receipts has to, inside its transaction.
    pub(in super::super) fn step(
        &mut self,
        connection: &Connection,
        receipts: u64,
    ) -> rusqlite::Result<()> {
        let Some(flush) = self.flush.as_mut().filter(|_| receipts > 0) else {
            return Ok(());
        };
        flush.is_under_way = true;
        let share = usize::try_from(receipts)
            .unwrap_or(usize::MAX)
            .saturating_mul(SHARE);
        match &mut flush.step {
            Step::Move(rest) => {
                if rest.take(connection, &flush.uses, share)? {
                    statements::set_listed_to(connection, flush.generation.end)?;
                    flush.step = Step::Moved;
                }
            }
            Step::Trim => {
                if statements::trim_use_log(connection, flush.uses_end, share)? == 0 {
                    flush.step = Step::Trimmed;
                }
            }
            Step::Moved | Step::Trimmed => {}
        }
        Ok(())
    }

    /// The batch is durable, and in memory.
    pub(in super::super) fn committed(
        &mut self,
        connection: &Connection,
        memtable: &Memtable,
        uses: &RecentUses,
    ) {
        let Some(flush) = &mut self.flush else {
            if self.is_generation(memtable) {
                self.flush = Flush::begin(connection, memtable, uses);
            }
            return;
        };
        flush.is_under_way = false;
        match flush.step {
            Step::Moved => {
                memtable.end_generation();
                flush.step = Step::Trim;
            }
            Step::Trimmed => self.flush = None,
            Step::Move(_) | Step::Trim => {}
        }
    }

    fn is_generation(&self, memtable: &Memtable) -> bool {
        let (unmoved, of) = memtable.unmoved();
        let wanted = (of / PART_OF_THE_LEDGER).min(LARGEST_GENERATION);
        unmoved >= wanted.max(self.smallest_generation)
    }

    /// The batch was rolled back: what was not durable before it is moved anew.
    pub(in super::super) fn rolled_back(&mut self) {
        if let Some(flush) = &mut self.flush
            && flush.is_under_way
        {
            flush.is_under_way = false;
            flush.step = match flush.step {
                Step::Move(_) | Step::Moved => Step::Move(Rest::of(&flush.generation)),
                Step::Trim | Step::Trimmed => Step::Trim,
            };
        }
    }

    /// Whether there is something to do with the next batch.
    pub(in super::super) fn is_moving(&self) -> bool {
        self.flush.is_some()
    }

    /// Everything is read anew.
    pub(in super::super) fn forget(&mut self) {
        self.flush = None;
    }
}

impl Flush {
    /// Everything that is in memory, with nothing moved; `None` where the log cannot be
    /// read, as the next batch will find or not.
    fn begin(connection: &Connection, memtable: &Memtable, uses: &RecentUses) -> Option<Self> {
        let uses_end = statements::end_of_use_log(connection).ok()?;
        let generation = memtable.begin_generation();
        Some(Self {
            step: Step::Move(Rest::of(&generation)),
            generation,
            uses: uses.begin_generation(),
            uses_end,
            is_under_way: false,
        })
    }
}

impl Rest {
    fn of(generation: &Generation) -> Self {
        Self {
            by_time: Merged::new(Order::Time, &generation.chunks),
            by_key: Merged::new(Order::Key, &generation.chunks),
            last_used: None,
        }
    }

    /// Moves so many of each; whether that was all.
    fn take(
        &mut self,
        connection: &Connection,
        uses: &Counts,
        share: usize,
    ) -> rusqlite::Result<bool> {
        // One that was moved to an archive meanwhile is listed there.
        let first = statements::first_receipt(connection)?;
        let is_here = |entry: &Entry| entry.place.leaf_index >= first;
        let mut moved = [0; 3];
        for entry in self.by_time.by_ref().take(share) {
            moved[0] += 1;
            if is_here(&entry) {
                statements::list_by_time(connection, &entry)?;
            }
        }
        for entry in self.by_key.by_ref().take(share) {
            moved[1] += 1;
            if let Some(key) = &entry.key
                && is_here(&entry)
            {
                statements::list_by_key(connection, &entry, key)?;
            }
        }
        let begin = self.last_used.map_or(Bound::Unbounded, Bound::Excluded);
        for (key_id, count) in uses.range((begin, Bound::Unbounded)).take(share) {
            moved[2] += 1;
            statements::put_use(connection, *key_id, count)?;
            self.last_used = Some(*key_id);
        }
        Ok(moved.iter().all(|moved| *moved < share))
    }
}
