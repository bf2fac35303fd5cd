//! Appending receipts: many with one statement.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter;

use rusqlite::{CachedStatement, Connection};

use super::rows::scope_number;
use crate::adapters::data_plane::sqlite::deferred::memtable::{Entry, KeyName};
use crate::adapters::data_plane::sqlite::known::Known;
use crate::adapters::data_plane::sqlite::rows::stored;
use crate::domain::receipt::SignedReceipt;
use crate::domain::scope::Scope;
use crate::ports::ledger_store::ReceiptPlace;

/// The receipts that one statement takes, at most. What a statement costs by itself is
/// a small part of sixteen of them.
const MOST_AT_ONCE: usize = 16;

const COLUMNS: usize = 7;

/// Appends receipts, of one batch and inside its transaction: what is looked up
/// once is not looked up again.
pub(in super::super) struct ReceiptAppender<'a> {
    connection: &'a Connection,
    known: &'a Known,
    /// For one receipt, for two, for four, and so on.
    inserts: Vec<CachedStatement<'a>>,
    scopes: HashMap<Scope, i64>,
    appended: Vec<Entry>,
}

impl<'a> ReceiptAppender<'a> {
    /// An appender that has looked nothing up.
    pub(in super::super) fn new(connection: &'a Connection, known: &'a Known) -> Self {
        Self {
            connection,
            known,
            inserts: Vec::new(),
            scopes: HashMap::new(),
            appended: Vec::new(),
        }
    }

    /// Appends receipts from this place on with one statement: all of them, or none
    /// where one breaks a constraint. There are as many as [`in_statements`] puts into one.
    pub(in super::super) fn append(
        &mut self,
        first: u64,
        receipts: &[Cow<'_, SignedReceipt>],
    ) -> rusqlite::Result<()> {
        debug_assert!(receipts.len().is_power_of_two() && receipts.len() <= MOST_AT_ONCE);
        let scopes = receipts
            .iter()
            .map(|receipt| self.scope_number(&receipt.scope))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let insert = self.insert_of(receipts.len())?;
        let mut parameters = 1..;
        let mut next = || parameters.next().unwrap_or_default();
        for ((place, receipt), scope) in (first..).zip(receipts).zip(&scopes) {
            insert.raw_bind_parameter(next(), stored(place)?)?;
            insert.raw_bind_parameter(next(), receipt.receipt_id.as_bytes())?;
            insert.raw_bind_parameter(next(), scope)?;
            insert.raw_bind_parameter(next(), receipt.ts.microseconds())?;
            insert.raw_bind_parameter(next(), receipt.operation.as_str())?;
            insert.raw_bind_parameter(next(), &receipt.key_id)?;
            insert.raw_bind_parameter(next(), &receipt.leaf)?;
        }
        insert.raw_execute()?;
        for ((leaf_index, receipt), scope) in (first..).zip(receipts).zip(scopes) {
            self.appended.push(Entry {
                scope,
                key: receipt.key_id.as_deref().map(KeyName::of),
                place: ReceiptPlace {
                    microseconds: receipt.ts.microseconds(),
                    leaf_index,
                },
                operation: receipt.operation,
            });
        }
        Ok(())
    }

    /// Forgets what was looked up, and the receipts from this place on: something of the
    /// transaction was rolled back, and the number of a scope with it where the scope was
    /// new.
    pub(in super::super) fn forget(&mut self, from: u64) {
        self.scopes.clear();
        self.appended.retain(|entry| entry.place.leaf_index < from);
    }

    /// Whether nothing was appended.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.appended.is_empty()
    }

    /// What was appended, and the numbers of scopes that were looked up for it.
    pub(in super::super) fn finish(self) -> (Vec<Entry>, HashMap<Scope, i64>) {
        (self.appended, self.scopes)
    }

    fn insert_of(&mut self, receipts: usize) -> rusqlite::Result<&mut CachedStatement<'a>> {
        let place = receipts.ilog2() as usize;
        while self.inserts.len() <= place {
            let sql = insert_sql(1 << self.inserts.len());
            self.inserts.push(self.connection.prepare_cached(&sql)?);
        }
        Ok(&mut self.inserts[place])
    }

    fn scope_number(&mut self, scope: &Scope) -> rusqlite::Result<i64> {
        if let Some(number) = self.scopes.get(scope).copied().or(self.known.scope(scope)) {
            return Ok(number);
        }
        let number = scope_number(self.connection, scope)?;
        self.scopes.insert(scope.clone(), number);
        Ok(number)
    }
}

/// The statement for so many receipts.
fn insert_sql(receipts: usize) -> String {
    let row = ["?"; COLUMNS].join(", ");
    let rows = vec![format!("({row})"); receipts].join(", ");
    format!(
        "INSERT INTO receipts (seq, receipt_id, scope, ts, operation, key_id, leaf) VALUES {rows}"
    )
}

/// These in as few pieces as there are statements for: the largest first, each a power
/// of two long.
pub(in super::super) fn in_statements<T>(mut rest: &[T]) -> impl Iterator<Item = &[T]> {
    iter::from_fn(move || {
        let most = rest.len().min(MOST_AT_ONCE).checked_ilog2()?;
        let (piece, behind) = rest.split_at(1 << most);
        rest = behind;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_one_statement_or_another_in_order() {
        for number in 0..100 {
            let all: Vec<usize> = (0..number).collect();
            let pieces: Vec<&[usize]> = in_statements(&all).collect();
            assert_eq!(pieces.concat(), all);
            let fits = |piece: &&[usize]| piece.len().is_power_of_two() && piece.len() <= 16;
            assert!(pieces.iter().all(fits), "{pieces:?}");
        }
        let sizes = in_statements(&[(); 43]).map(<[()]>::len);
        assert_eq!(sizes.collect::<Vec<_>>(), [16, 16, 8, 2, 1]);
    }
}
