//! The receipts that came lately, as lists look for them. Knows no SQL.
//!
//! Chunks of a thousand or so, each sorted by scope and time and by scope, key and
//! time. Once there are many, those that are there are one generation, which the writer
//! moves to the trees while the next one grows.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::KeyId;
use crate::domain::receipt::OperationName;
use crate::ports::ledger_store::ReceiptPlace;

/// Receipts that are sorted together.
const CHUNK: usize = 1_024;

/// One receipt, as it is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Entry {
    pub(in super::super) scope: i64,
    pub(in super::super) key: Option<KeyName>,
    pub(in super::super) place: ReceiptPlace,
    pub(in super::super) operation: OperationName,
}

/// What a receipt names as its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum KeyName {
    /// The id of a key, or of an anchor.
    Id([u8; 16]),
    /// Whatever else led to none.
    Other(Box<str>),
}

impl KeyName {
    /// The name in this text.
    pub(in super::super) fn of(text: &str) -> Self {
        match text.parse::<KeyId>() {
            // Of the texts that name an id one is the one it is written as.
            Ok(id) if id.as_text().as_ref() == text => Self::Id(*id.as_bytes()),
            _ => Self::Other(text.into()),
        }
    }

    /// Calls with the text.
    pub(in super::super) fn with_text<T>(&self, call: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Id(bytes) => call(KeyId::from_bytes(*bytes).as_text().as_ref()),
            Self::Other(text) => call(text),
        }
    }
}

/// The two orders that entries are sorted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By scope and time.
    Time,
    /// By scope, key and time; those without a key are not in it.
    Key,
}

/// Entries, sorted in both orders.
#[derive(Debug)]
pub(super) struct Chunk {
    by_time: Box<[Entry]>,
    /// Places in `by_time`.
    by_key: Box<[u16]>,
}

impl Chunk {
    fn of(mut entries: Vec<Entry>) -> Self {
        debug_assert!(entries.len() <= CHUNK);
        entries.sort_unstable_by(|one, other| one.compare(other, Order::Time));
        let mut by_key: Vec<u16> = (0u16..)
            .zip(&entries)
            .filter(|(_, entry)| entry.key.is_some())
            .map(|(position, _)| position)
            .collect();
        let entry = |position: &u16| &entries[usize::from(*position)];
        by_key.sort_unstable_by(|one, other| entry(one).compare(entry(other), Order::Key));
        Self {
            by_key: by_key.into(),
            by_time: entries.into(),
        }
    }

    fn get(&self, order: Order, position: usize) -> Option<&Entry> {
        match order {
            Order::Time => self.by_time.get(position),
            Order::Key => self.by_time.get(usize::from(*self.by_key.get(position)?)),
        }
    }

    /// The position of the first that this is not true of, while it is of all before.
    fn first_not(&self, order: Order, is_before: impl Fn(&Entry) -> bool) -> usize {
        match order {
            Order::Time => self.by_time.partition_point(is_before),
            Order::Key => {
                let entry = |position: &u16| &self.by_time[usize::from(*position)];
                self.by_key
                    .partition_point(|position| is_before(entry(position)))
            }
        }
    }
}

impl Entry {
    /// The time and the place, as the store keeps them.
    fn stored_place(&self) -> (i64, i64) {
        let leaf_index = i64::try_from(self.place.leaf_index).unwrap_or(i64::MAX);
        (self.place.microseconds, leaf_index)
    }

    fn compare(&self, other: &Self, order: Order) -> Ordering {
        let by_scope = self.scope.cmp(&other.scope);
        let by_key = || match order {
            Order::Time => Ordering::Equal,
            Order::Key => self.key.cmp(&other.key),
        };
        by_scope
            .then_with(by_key)
            .then_with(|| self.place.cmp(&other.place))
    }
}

/// Chunks as one sequence, in one order.
pub(super) struct Merged {
    order: Order,
    heads: BinaryHeap<Reverse<Head>>,
}

impl Merged {
    pub(super) fn new(order: Order, chunks: &[Arc<Chunk>]) -> Self {
        Self::from(order, chunks, |_| 0)
    }

    fn from(order: Order, chunks: &[Arc<Chunk>], begin: impl Fn(&Chunk) -> usize) -> Self {
        let heads = chunks.iter().filter_map(|chunk| {
            Some(Reverse(Head {
                current: chunk.get(order, begin(chunk))?.clone(),
                position: begin(chunk),
                chunk: Arc::clone(chunk),
                order,
            }))
        });
        Self {
            order,
            heads: heads.collect(),
        }
    }
}

impl Iterator for Merged {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let mut first = self.heads.peek_mut()?;
        let Reverse(head) = &mut *first;
        head.position += 1;
        match head.chunk.get(self.order, head.position) {
            Some(next) => Some(mem::replace(&mut head.current, next.clone())),
            None => Some(PeekMut::pop(first).0.current),
        }
    }
}

/// How far one chunk is merged.
struct Head {
    current: Entry,
    position: usize,
    chunk: Arc<Chunk>,
    order: Order,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.current.compare(&other.current, self.order)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// What the writer appends to and everyone reads.
#[derive(Debug, Default)]
pub(in super::super) struct Memtable(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those that are being moved to the trees.
    flushing: Arc<[Arc<Chunk>]>,
    chunks: Vec<Arc<Chunk>>,
    tail: Vec<Entry>,
    /// Behind the last receipt that is here, or in the trees.
    end: u64,
}

/// Receipts that are moved to the trees together.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) chunks: Arc<[Arc<Chunk>]>,
    /// Behind its last receipt.
    pub(super) end: u64,
}

/// What was here at one moment of a scope, or of one key in it. The trees have all
/// receipts that came before these, and nothing behind `end` has been answered for.
pub(in super::super) struct Recent {
    chunks: Vec<Arc<Chunk>>,
    scope: i64,
    key: Option<KeyName>,
    /// Behind the last receipt.
    pub(in super::super) end: u64,
}

impl Memtable {
    /// Begins anew with these receipts, which end before this place.
    pub(in super::super) fn reset(&self, entries: Vec<Entry>, end: u64) {
        let mut fresh = State::default();
        fresh.append(entries, end);
        *self.lock() = fresh;
    }

    /// Takes in receipts that are durable.
    pub(in super::super) fn append(&self, entries: Vec<Entry>, end: u64) {
        self.lock().append(entries, end);
    }

    /// How many came since the last generation, and how many there are in all.
    pub(super) fn unmoved(&self) -> (u64, u64) {
        let state = self.lock();
        let unmoved = state.chunks.len() * CHUNK + state.tail.len();
        (unmoved as u64, state.end)
    }

    /// Makes a generation of those that are here. There is no other.
    pub(super) fn begin_generation(&self) -> Generation {
        let mut state = self.lock();
        state.close_chunk();
        state.flushing = mem::take(&mut state.chunks).into();
        Generation {
            chunks: Arc::clone(&state.flushing),
            end: state.end,
        }
    }

    /// Forgets the generation: all of it is durable in the trees.
    pub(super) fn end_generation(&self) {
        self.lock().flushing = Arc::default();
    }

    /// What is here now. To be taken before a state of the store: what leaves in between
    /// is in the trees of that state.
    pub(in super::super) fn recent(&self, scope: i64, key: Option<KeyName>) -> Recent {
        let state = self.lock();
        let mut chunks: Vec<_> = state
            .flushing
            .iter()
            .chain(&state.chunks)
            .cloned()
            .collect();
        let of_scope = state.tail.iter().filter(|entry| entry.scope == scope);
        let (tail, end) = (of_scope.cloned().collect(), state.end);
        drop(state);
        chunks.push(Arc::new(Chunk::of(tail)));
        Recent {
            chunks,
            scope,
            key,
            end,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole after every step, whoever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, entries: Vec<Entry>, end: u64) {
        for entry in entries {
            self.tail.push(entry);
            if self.tail.len() == CHUNK {
                self.close_chunk();
            }
        }
        self.end = end;
    }

    fn close_chunk(&mut self) {
        let tail = mem::replace(&mut self.tail, Vec::with_capacity(CHUNK));
        self.chunks.push(Arc::new(Chunk::of(tail)));
    }
}

impl Recent {
    /// The receipts behind this place and before this time, the first one first.
    pub(in super::super) fn between(
        &self,
        after: (i64, i64),
        until: i64,
    ) -> impl Iterator<Item = Entry> {
        let order = match self.key {
            None => Order::Time,
            Some(_) => Order::Key,
        };
        let is_before = |entry: &Entry| {
            let by_scope = entry.scope.cmp(&self.scope);
            let by_key = by_scope.then_with(|| match order {
                Order::Time => Ordering::Equal,
                Order::Key => entry.key.cmp(&self.key),
            });
            by_key
                .then_with(|| entry.stored_place().cmp(&after))
                .is_le()
        };
        let merged = Merged::from(order, &self.chunks, |chunk| {
            chunk.first_not(order, is_before)
        });
        merged.take_while(move |entry| {
            entry.scope == self.scope
                && (order == Order::Time || entry.key == self.key)
                && entry.place.microseconds < until
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receipt::ReceiptOperation;

    const NUMBER: u64 = 5 * CHUNK as u64 + 7;

    /// Of three scopes and four keys, at times that are in no order.
    fn entry(leaf_index: u64) -> Entry {
        let scrambled = leaf_index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        Entry {
            scope: (scrambled % 3).cast_signed(),
            key: match scrambled % 5 {
                0 => None,
                key => Some(KeyName::of(&format!("key-{key}"))),
            },
            place: ReceiptPlace {
                microseconds: (scrambled % 1_000).cast_signed(),
                leaf_index,
            },
            operation: ReceiptOperation::Encrypt.name(),
        }
    }

    fn expected(scope: i64, key: Option<&KeyName>, after: i64, until: i64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..NUMBER).map(entry).collect();
        entries.retain(|entry| {
            entry.scope == scope
                && (key.is_none() || entry.key.as_ref() == key)
                && (after..until).contains(&entry.place.microseconds)
        });
        entries.sort_by_key(|entry| entry.place);
        entries
    }

    #[test]
    fn many_chunks_are_one_sequence_whether_they_are_being_moved_or_not() {
        let memtable = Memtable::default();
        for first in (0..NUMBER).step_by(10) {
            let end = NUMBER.min(first + 10);
            memtable.append((first..end).map(entry).collect(), end);
            if first == 2_500 {
                let generation = memtable.begin_generation();
                let merged = Merged::new(Order::Time, &generation.chunks);
                assert_eq!((merged.count() as u64, generation.end), (end, end));
                let with_key = Merged::new(Order::Key, &generation.chunks);
                let with_key: Vec<Entry> = with_key.collect();
                assert!(with_key.is_sorted_by(|one, other| one.compare(other, Order::Key).is_le()));
                let expected = (0..end).filter(|place| entry(*place).key.is_some());
                assert_eq!(with_key.len(), expected.count());
                assert_eq!(memtable.unmoved(), (0, end));
            }
        }
        for key in [None, Some(KeyName::of("key-2")), Some(KeyName::of("key-9"))] {
            for (after, until) in [(i64::MIN, i64::MAX), (300, 700), (999, 1_000), (700, 300)] {
                let recent = memtable.recent(1, key.clone());
                assert_eq!(recent.end, NUMBER);
                let found: Vec<Entry> = recent.between((after, -1), until).collect();
                assert_eq!(found, expected(1, key.as_ref(), after, until));
            }
        }
        memtable.end_generation();
        let left = memtable
            .recent(1, None)
            .between((i64::MIN, -1), i64::MAX)
            .count();
        let moved = 2_510;
        let newer = (moved..NUMBER).filter(|place| entry(*place).scope == 1);
        assert_eq!(left, newer.count());
    }

    #[test]
    fn a_text_is_the_name_of_an_id_only_as_ids_are_written() {
        let id = KeyId::generate();
        let text = id.as_text();
        let text = text.as_ref();
        assert_eq!(KeyName::of(text), KeyName::Id(*id.as_bytes()));
        for other in [&text.to_uppercase(), &text.replace('-', ""), "", "alias/x"] {
            let name = KeyName::of(other);
            assert!(matches!(name, KeyName::Other(_)), "{other}");
            name.with_text(|text| assert_eq!(text, other));
        }
        KeyName::of(text).with_text(|same| assert_eq!(same, text));
    }
}
