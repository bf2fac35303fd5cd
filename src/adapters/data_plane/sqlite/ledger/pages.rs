//! Pages of receipts by time, from the store and from archives whose times
//! interleave: each is looked at by itself, one after the other, and what no later
//! one can come before is put together.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, ToSql, params_from_iter};

use super::archives::Archives;
use super::reads::receipt_at;
use super::rows::find_scope;
use crate::adapters::data_plane::sqlite::rows::counted;
use crate::ports::ledger_store::{MOST_LOOKED_AT, ReceiptPage, ReceiptPlace, ReceiptQuery};

/// One page of a scope's receipts. Looks at a bounded number of index entries in
/// each file, and fetches the leaves of those that match.
pub(in super::super) fn list_receipts(
    store: &Connection,
    archives: &Archives,
    query: &ReceiptQuery,
) -> rusqlite::Result<ReceiptPage> {
    // One state of receipts and archives: what is moved meanwhile is in either.
    let store = store.unchecked_transaction()?;
    let listed = archives.list(&store)?;
    let mut page = Gathered::new(query.limit);
    let mut store_begins = earliest(&store, query)?;
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
            page.take_from(store_begins.take(), || scan(&store, query).map(Some))?;
        }
        page.take_from(Some(begins), || {
            Ok(archives.ask(archive, |archive| scan(archive, query)))
        })?;
    }
    page.take_from(store_begins, || scan(&store, query).map(Some))?;

    let (places, next) = page.finish();
    let mut receipts = Vec::with_capacity(places.len());
    for place in places {
        receipts.extend(receipt_at(&store, archives, &listed, place.leaf_index)?);
    }
    Ok(ReceiptPage { receipts, next })
}

/// What one file has for a page.
struct Scan {
    found: Vec<ReceiptPlace>,
    /// The last place that was looked at, where there are more behind it.
    stopped_at: Option<ReceiptPlace>,
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

/// The earliest time of the scope's receipts in the store.
fn earliest(store: &Connection, query: &ReceiptQuery) -> rusqlite::Result<Option<i64>> {
    let Some(scope) = find_scope(store, &query.scope)? else {
        return Ok(None);
    };
    store
        .prepare_cached(
            "SELECT ts FROM receipts INDEXED BY receipts_in_scope WHERE scope = ?1 \
             ORDER BY ts, seq LIMIT 1",
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

fn scan(file: &Connection, query: &ReceiptQuery) -> rusqlite::Result<Scan> {
    let mut scan = Scan {
        found: Vec::new(),
        stopped_at: None,
    };
    let Some(scope) = find_scope(file, &query.scope)? else {
        return Ok(scan);
    };
    let (from, until) = bounds(query);
    let mut values: Vec<&dyn ToSql> = vec![&scope, &from.microseconds, &from.seq, &until];
    let of_key = match &query.key_id {
        None => "INDEXED BY receipts_in_scope WHERE scope = ?1",
        Some(key_id) => {
            values.push(key_id);
            "INDEXED BY receipts_of_key WHERE scope = ?1 AND key_id = ?5"
        }
    };
    let mut statement = file.prepare_cached(&format!(
        "SELECT ts, seq, operation FROM receipts {of_key} AND (ts, seq) > (?2, ?3) AND ts < ?4 \
         ORDER BY ts, seq"
    ))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut last = None;
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        if scan.found.len() == query.limit || looked_at == MOST_LOOKED_AT {
            // There is at least this one behind the last that was looked at.
            scan.stopped_at = last;
            break;
        }
        let place = ReceiptPlace {
            microseconds: row.get(0)?,
            leaf_index: counted(row, 1)?,
        };
        looked_at += 1;
        last = Some(place);
        let is_wanted = match query.operation {
            Some(operation) => row.get_ref(2)?.as_str()? == operation.as_str(),
            None => true,
        };
        if is_wanted {
            scan.found.push(place);
        }
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
