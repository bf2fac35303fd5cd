//! Pages of receipts by time, from the store, from archives and from the memory, whose
//! times interleave: each is looked at by itself, one after the other, and what no later
//! one can come before is put together.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, ToSql, params_from_iter};

use super::archives::Archives;
use super::reads::receipt_at;
use super::rows::find_scope;
use crate::adapters::data_plane::sqlite::deferred::memtable::{KeyName, Memtable, Recent};
use crate::adapters::data_plane::sqlite::rows::{counted, stored};
use crate::ports::ledger_store::{MOST_LOOKED_AT, ReceiptPage, ReceiptPlace, ReceiptQuery};

/// Where a file lists receipts by time, and where by key.
struct Lists {
    by_time: &'static str,
    by_key: &'static str,
}

const OF_THE_STORE: Lists = Lists {
    by_time: "receipts_by_time",
    by_key: "receipts_by_key",
};

const OF_AN_ARCHIVE: Lists = Lists {
    by_time: "receipts INDEXED BY receipts_in_scope",
    by_key: "receipts INDEXED BY receipts_of_key",
};

/// One page of a scope's receipts. Looks at a bounded number of entries in memory and in
/// each file, and fetches the leaves of those that match.
pub(in super::super) fn list_receipts(
    store: &Connection,
    memtable: &Memtable,
    archives: &Archives,
    query: &ReceiptQuery,
) -> rusqlite::Result<ReceiptPage> {
    // No receipt has this number.
    let scope = find_scope(store, &query.scope)?.unwrap_or(0);
    let recent = memtable.recent(scope, query.key_id.as_deref().map(KeyName::of));
    // Only then one state of receipts and archives: what is moved meanwhile is in either.
    let store = store.unchecked_transaction()?;
    let listed = archives.list(&store)?;
    let mut page = Gathered::new(query.limit);
    let mut store_begins = earliest(&store, scope)?;
    let scan_store = || scan(&store, &OF_THE_STORE, query, recent.end).map(Some);
    let mut sources = Vec::new();
    for archive in &listed {
        if let Some(contents) = archives.contents(archive)
            && is_within(contents.times, query)
        {
            sources.push((contents.times.0, archive));
        }
    }
    sources.sort_by_key(|(begins, archive)| (*begins, archive.first));
    for (begins, archive) in sources {
        if store_begins.is_some_and(|store_begins| store_begins < begins) {
            page.take_from(store_begins.take(), scan_store)?;
        }
        page.take_from(Some(begins), || {
            let scan = |archive: &_| scan(archive, &OF_AN_ARCHIVE, query, recent.end);
            Ok(archives.ask(archive, scan))
        })?;
    }
    page.take_from(store_begins, scan_store)?;
    take_recent(&mut page, &recent, query)?;

    let (places, next) = page.finish();
    let mut receipts = Vec::with_capacity(places.len());
    for place in places {
        receipts.extend(receipt_at(&store, archives, &listed, place.leaf_index)?);
    }
    Ok(ReceiptPage { receipts, next })
}

/// What one file has for a page, or the memory.
#[derive(Default)]
struct Scan {
    found: Vec<ReceiptPlace>,
    looked_at: usize,
    last: Option<ReceiptPlace>,
    /// The last place that was looked at, where there are more behind it.
    stopped_at: Option<ReceiptPlace>,
}

impl Scan {
    /// Whether the next one is to be looked at, which is there.
    fn goes_on(&mut self, query: &ReceiptQuery) -> bool {
        let is_full = self.found.len() == query.limit || self.looked_at == MOST_LOOKED_AT;
        if is_full {
            self.stopped_at = self.last;
        }
        !is_full
    }

    fn take(&mut self, place: ReceiptPlace, is_wanted: bool) {
        self.looked_at += 1;
        self.last = Some(place);
        if is_wanted {
            self.found.push(place);
        }
    }
}

/// A page while it is put together.
struct Gathered {
    limit: usize,
    places: BTreeSet<ReceiptPlace>,
    /// What is behind it was not looked at everywhere.
    horizon: Option<ReceiptPlace>,
    has_left_out: bool,
}

impl Gathered {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            places: BTreeSet::new(),
            horizon: None,
            has_left_out: false,
        }
    }

    /// Takes in what a file has whose receipts begin at this time, unless all of
    /// them are behind this page.
    fn take_from(
        &mut self,
        begins: Option<i64>,
        scan: impl FnOnce() -> rusqlite::Result<Option<Scan>>,
    ) -> rusqlite::Result<()> {
        let Some(begins) = begins else {
            return Ok(());
        };
        if self.end().is_some_and(|end| end.microseconds < begins) {
            self.has_left_out = true;
            return Ok(());
        }
        if let Some(scan) = scan()? {
            // A receipt that is being moved is in two files, and once in the page.
            self.places.extend(scan.found);
            self.horizon = match (self.horizon, scan.stopped_at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        Ok(())
    }

    /// The last place that may be on this page, once that can be told.
    fn end(&self) -> Option<ReceiptPlace> {
        let last = self.limit.checked_sub(1)?;
        let full = self.places.iter().nth(last).copied();
        match (full, self.horizon) {
            (Some(full), Some(horizon)) => Some(full.min(horizon)),
            (full, horizon) => full.or(horizon),
        }
    }

    /// The places on the page, and where the next one goes on.
    fn finish(self) -> (Vec<ReceiptPlace>, Option<ReceiptPlace>) {
        let end = self.end();
        let has_more =
            self.horizon.is_some() || self.has_left_out || self.places.len() > self.limit;
        let on_page = |place: &ReceiptPlace| end.is_none_or(|end| *place <= end);
        let places = self.places.into_iter().filter(on_page).collect();
        (places, end.filter(|_| has_more))
    }
}

/// Takes in what is in memory.
fn take_recent(page: &mut Gathered, recent: &Recent, query: &ReceiptQuery) -> rusqlite::Result<()> {
    let (from, until) = bounds(query);
    let mut entries = recent
        .between((from.microseconds, from.seq), until)
        .peekable();
    let begins = entries.peek().map(|entry| entry.place.microseconds);
    page.take_from(begins, || {
        let mut scan = Scan::default();
        for entry in entries {
            let is_wanted = query
                .operation
                .is_none_or(|wanted| entry.operation == wanted);
            if !scan.goes_on(query) {
                break;
            }
            scan.take(entry.place, is_wanted);
        }
        Ok(Some(scan))
    })
}

/// The earliest time of a scope's receipts that the store lists.
fn earliest(store: &Connection, scope: i64) -> rusqlite::Result<Option<i64>> {
    store
        .prepare_cached(
            "SELECT ts FROM receipts_by_time WHERE scope = ?1 ORDER BY ts, seq LIMIT 1",
        )?
        .query_row([scope], |row| row.get(0))
        .optional()
}

/// Whether receipts of these times, the ends included, can be on the page.
fn is_within((first, last): (i64, i64), query: &ReceiptQuery) -> bool {
    let (from, until) = bounds(query);
    first < until && last >= from.microseconds
}

/// The place behind which the page begins, and the time at which it ends.
fn bounds(query: &ReceiptQuery) -> (Bound, i64) {
    let from = query.from.map_or(i64::MIN, |from| from.microseconds());
    let begin = Bound {
        microseconds: from,
        seq: -1,
    };
    let after = query.after.map_or(begin, |place| Bound {
        microseconds: place.microseconds,
        seq: i64::try_from(place.leaf_index).unwrap_or(i64::MAX),
    });
    let until = query.until.map_or(i64::MAX, |until| until.microseconds());
    // The later of the two beginnings.
    (after.max(begin), until)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    microseconds: i64,
    seq: i64,
}

/// What a file has of the receipts before this place in the ledger.
fn scan(
    file: &Connection,
    lists: &Lists,
    query: &ReceiptQuery,
    end: u64,
) -> rusqlite::Result<Scan> {
    let mut scan = Scan::default();
    let Some(scope) = find_scope(file, &query.scope)? else {
        return Ok(scan);
    };
    let (from, until) = bounds(query);
    let end = stored(end)?;
    let mut values: Vec<&dyn ToSql> = vec![&scope, &from.microseconds, &from.seq, &until, &end];
    let (list, of_key) = match &query.key_id {
        None => (lists.by_time, ""),
        Some(key_id) => {
            values.push(key_id);
            (lists.by_key, "AND key_id = ?6")
        }
    };
    let mut statement = file.prepare_cached(&format!(
        "SELECT ts, seq, operation FROM {list} WHERE scope = ?1 {of_key} \
         AND (ts, seq) > (?2, ?3) AND ts < ?4 AND seq < ?5 ORDER BY ts, seq"
    ))?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let place = ReceiptPlace {
            microseconds: row.get(0)?,
            leaf_index: counted(row, 1)?,
        };
        if !scan.goes_on(query) {
            break;
        }
        let is_wanted = match query.operation {
            Some(operation) => row.get_ref(2)?.as_str()? == operation.as_str(),
            None => true,
        };
        scan.take(place, is_wanted);
    }
    Ok(scan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> ReceiptPlace {
        ReceiptPlace {
            microseconds: number.cast_signed(),
            leaf_index: number,
        }
    }

    fn gather(gathered: &mut Gathered, begins: i64, found: &[u64], stopped_at: Option<u64>) {
        let scan = Scan {
            found: found.iter().copied().map(place).collect(),
            stopped_at: stopped_at.map(place),
            ..Scan::default()
        };
        let taken = gathered.take_from(Some(begins), || Ok(Some(scan)));
        taken.expect("nothing is read");
    }

    #[test]
    fn a_page_ends_where_the_first_file_was_no_longer_looked_at() {
        for stops in [[5, 9], [9, 5]] {
            let mut page = Gathered::new(100);
            gather(&mut page, 1, &[1, 4, 7], Some(stops[0]));
            gather(&mut page, 1, &[2, 8], Some(stops[1]));
            let (places, next) = page.finish();
            // 7 and 8 may have others between them that nobody has seen.
            assert_eq!(places, [1, 2, 4].map(place), "{stops:?}");
            assert_eq!(next, Some(place(5)));
        }
    }

    #[test]
    fn a_full_page_goes_on_where_a_file_behind_it_was_left_out() {
        let mut page = Gathered::new(2);
        gather(&mut page, 1, &[1, 2], None);
        let left_out = page.take_from(Some(3), || panic!("all of it is behind the page"));
        left_out.expect("nothing is read");
        assert_eq!(page.finish(), ([1, 2].map(place).to_vec(), Some(place(2))));
    }
}
