//! One batch: many transactions of the port in one transaction of SQLite. Checks
//! their conditions, writes their changes and receipts, and says what a commit
//! would change in memory. Commits nothing itself.

mod keys;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::deferred::log_use;
use super::deferred::memtable::Entry;
use super::deferred::recent_uses::RecentUses;
use super::fault::StoreFault;
use super::known::Known;
use super::ledger::appender::{ReceiptAppender, in_statements};
use super::ledger::rows;
use super::rows::{counted, read_usage};
use super::{anchors, grants};
use crate::adapters::data_plane::spent_grants::forgettable_before;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::{KeyAlias, KeyId};
use crate::domain::key::KeyState;
use crate::domain::ledger::{CompleteTile, Tree, TreeHash};
use crate::domain::receipt::SignedReceipt;
use crate::domain::scope::Scope;
use crate::domain::usage::UsageCount;
use crate::ports::data_plane::{Change, Conflict, Transaction};
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_store::LedgerHead;

/// Why a transaction was not applied; nothing of it is in the batch then.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A condition does not hold.
    Conflict(Conflict),
    /// Its own content breaks a constraint; the others are as they were.
    Malformed(rusqlite::Error),
    /// The store failed: the whole batch is lost.
    Failed(StoreFault),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Self::Malformed(error),
            _ => Self::Failed(error.into()),
        }
    }
}

/// What changes in memory once the batch is committed.
#[derive(Debug)]
pub(super) struct Effects {
    /// The keys that were inserted or changed.
    pub(super) keys: Vec<KeyChange>,
    /// The receipts that were appended.
    pub(super) receipts: Vec<Entry>,
    /// The ledger with them; `None` where there were none.
    pub(super) head: Option<LedgerHead>,
    /// The tiles that they completed.
    pub(super) tiles: Vec<CompleteTile>,
    /// The counts of the keys that were used.
    pub(super) uses: HashMap<KeyId, UsageCount>,
    /// The numbers of scopes that were looked up.
    pub(super) scopes: HashMap<Scope, i64>,
    /// The versions of keys that were looked up or changed.
    pub(super) versions: HashMap<KeyId, u64>,
}

/// One key that was inserted or changed.
#[derive(Debug)]
pub(super) struct KeyChange {
    pub(super) scope: Scope,
    pub(super) key_id: KeyId,
    /// The aliases it bore before and bears now.
    pub(super) aliases: [Option<KeyAlias>; 2],
    pub(super) key_type: KeyType,
    pub(super) version: u64,
    /// `None` for a new key.
    pub(super) before: Option<KeyState>,
    pub(super) after: KeyState,
    /// Whether its secret is erased with this.
    pub(super) erases: bool,
}

/// A batch inside an open write transaction.
pub(super) struct Batch<'a> {
    connection: &'a Connection,
    signer: &'a dyn EvidenceLedger,
    known: &'a Known,
    recent_uses: &'a RecentUses,
    /// The tree with this batch's receipts.
    tree: Tree,
    receipts: ReceiptAppender<'a>,
    complete_tiles: Vec<CompleteTile>,
    /// The versions of keys that were asked for, changes of this batch included.
    versions: HashMap<KeyId, u64>,
    /// The counts of the keys that this batch uses, with its uses.
    uses: HashMap<KeyId, UsageCount>,
    keys: Vec<KeyChange>,
}

impl<'a> Batch<'a> {
    /// An empty batch whose receipts will stand behind those of this tree.
    pub(super) fn new(
        connection: &'a Connection,
        signer: &'a dyn EvidenceLedger,
        known: &'a Known,
        recent_uses: &'a RecentUses,
        tree: Tree,
    ) -> Self {
        Self {
            connection,
            signer,
            known,
            recent_uses,
            tree,
            receipts: ReceiptAppender::new(connection, known),
            complete_tiles: Vec::new(),
            versions: HashMap::new(),
            uses: HashMap::new(),
            keys: Vec::new(),
        }
    }

    /// Whether a transaction is one receipt, perhaps with the use of a key, so that it
    /// can be applied together with others.
    pub(super) fn is_plain(transaction: &Transaction) -> bool {
        transaction.changes.is_empty() && transaction.receipts.len() == 1
    }

    /// Holds the use of a transaction to the version of its key.
    pub(super) fn check(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        if let Some(key_use) = &transaction.key_use
            && self.version(key_use.key_id)? != Some(key_use.version)
        {
            return Err(Refusal::Conflict(Conflict::KeyChanged));
        }
        Ok(())
    }

    /// Applies as many checked plain transactions as one statement takes: all of them
    /// or none. Most of what a write costs the processor is in the insertion of receipts,
    /// and half of that is the same for one and for many.
    pub(super) fn apply_together(&mut self, transactions: &[&Transaction]) -> Result<(), Refusal> {
        debug_assert!(transactions.iter().all(|one| Self::is_plain(one)));
        let receipts = transactions.iter().flat_map(|one| &one.receipts);
        let receipts = receipts
            .map(|receipt| self.signed_now(receipt))
            .collect::<Result<Vec<_>, _>>()?;
        let appended = self.receipts.append(self.tree.size(), &receipts);
        appended.map_err(|error| self.refusal(error))?;
        for (transaction, receipt) in transactions.iter().zip(&receipts) {
            let leaf = TreeHash::of_leaf(&receipt.leaf);
            self.take_over(transaction, Vec::new(), vec![leaf])?;
        }
        Ok(())
    }

    /// Applies a transaction, wholly or not at all.
    pub(super) fn apply(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        self.check(transaction)?;
        // One statement undoes itself; a savepoint is for more than one.
        let guarded = !Self::is_plain(transaction);
        if guarded {
            self.run("SAVEPOINT one_transaction")?;
        }
        match self.write(transaction) {
            Ok((changes, leaves)) => {
                if guarded {
                    self.run("RELEASE one_transaction")?;
                }
                self.take_over(transaction, changes, leaves)
            }
            Err(Refusal::Malformed(error)) if self.connection.is_autocommit() => {
                Err(self.refusal(error))
            }
            Err(refusal) => {
                self.receipts.forget(self.tree.size());
                if guarded && !matches!(refusal, Refusal::Failed(_)) {
                    self.run("ROLLBACK TO one_transaction")
                        .and_then(|()| self.run("RELEASE one_transaction"))
                        .map_err(|error| Refusal::Failed(error.into()))?;
                }
                Err(refusal)
            }
        }
    }

    /// Writes down the uses, and the tree with a checkpoint over it, which is kept
    /// for good where that is wanted; after this the batch can be committed.
    pub(super) fn finish(self, keep_checkpoint: bool) -> rusqlite::Result<Effects> {
        for (key_id, count) in &self.uses {
            log_use(self.connection, *key_id, count)?;
        }
        let head = match self.receipts.is_empty() {
            true => None,
            false => Some(self.write_tree(keep_checkpoint)?),
        };
        let (receipts, scopes) = self.receipts.finish();
        Ok(Effects {
            keys: self.keys,
            receipts,
            head,
            tiles: self.complete_tiles,
            uses: self.uses,
            scopes,
            versions: self.versions,
        })
    }

    fn write_tree(&self, keep_checkpoint: bool) -> rusqlite::Result<LedgerHead> {
        for tile in &self.complete_tiles {
            rows::insert_tile(self.connection, tile)?;
        }
        let checkpoint = self.tree.checkpoint();
        let note = self.signer.sign_checkpoint(&checkpoint).to_string();
        rows::write_head(self.connection, &note)?;
        if keep_checkpoint {
            rows::keep_checkpoint(self.connection, checkpoint.size, &note)?;
        }
        Ok(LedgerHead::new(self.tree.clone(), checkpoint, note))
    }

    /// Answers the changed keys, and the hashes of the new leaves.
    fn write(
        &mut self,
        transaction: &Transaction,
    ) -> Result<(Vec<KeyChange>, Vec<TreeHash>), Refusal> {
        let mut changes = Vec::with_capacity(transaction.changes.len());
        for change in &transaction.changes {
            match change {
                Change::InsertKey(key) => changes.push(self.insert_key(key)?),
                Change::UpdateKey(record) => changes.push(self.update_key(record)?),
                Change::InsertTrustAnchor(anchor) => {
                    let inserted = anchors::insert(self.connection, anchor)?;
                    require(inserted, Conflict::DuplicateAnchor)?;
                }
                Change::RemoveTrustAnchor {
                    scope,
                    trust_anchor_id,
                } => {
                    let removed = anchors::remove(self.connection, scope, *trust_anchor_id)?;
                    require(removed, Conflict::AnchorGone)?;
                }
                Change::SpendGrant(grant) => {
                    let spent = grants::spend(self.connection, grant)?;
                    require(spent, Conflict::GrantSpent)?;
                }
            }
        }
        if let Some(end) = forgettable_before(transaction.spent_grants()) {
            grants::forget_before(self.connection, end)?;
        }
        let mut leaves = Vec::with_capacity(transaction.receipts.len());
        for receipts in in_statements(&transaction.receipts) {
            let receipts = receipts.iter().map(|receipt| self.signed_now(receipt));
            let receipts = receipts.collect::<Result<Vec<_>, _>>()?;
            let leaf_index = self.tree.size() + leaves.len() as u64;
            self.receipts.append(leaf_index, &receipts)?;
            leaves.extend(receipts.iter().map(|one| TreeHash::of_leaf(&one.leaf)));
        }
        Ok((changes, leaves))
    }

    fn take_over(
        &mut self,
        transaction: &Transaction,
        changes: Vec<KeyChange>,
        leaves: Vec<TreeHash>,
    ) -> Result<(), Refusal> {
        for change in &changes {
            self.versions.insert(change.key_id, change.version);
        }
        if let Some(key_use) = &transaction.key_use {
            let count = self.kept_count(key_use.key_id);
            let count = count.map_err(|error| Refusal::Failed(error.into()))?;
            let mark = key_use.reservation.mark();
            self.uses.insert(key_use.key_id, count.plus(mark));
        }
        for leaf in leaves {
            self.tree.push(leaf, &mut self.complete_tiles);
        }
        self.keys.extend(changes);
        Ok(())
    }

    /// The count of a key with the uses of this batch so far.
    fn kept_count(&self, key_id: KeyId) -> rusqlite::Result<UsageCount> {
        let found = self.uses.get(&key_id).copied();
        match found.or_else(|| self.recent_uses.get(key_id)) {
            Some(count) => Ok(count),
            None => read_usage(self.connection, key_id),
        }
    }

    fn version(&mut self, key_id: KeyId) -> rusqlite::Result<Option<u64>> {
        let found = self.versions.get(&key_id).copied();
        if let Some(version) = found.or_else(|| self.known.version(key_id)) {
            return Ok(Some(version));
        }
        let version = self
            .connection
            .prepare_cached("SELECT version FROM keys WHERE key_id = ?1")?
            .query_row([key_id.as_bytes()], |row| counted(row, 0))
            .optional()?;
        if let Some(version) = version {
            self.versions.insert(key_id, version);
        }
        Ok(version)
    }

    /// A receipt, signed by the key that signs now: one that was signed just before a
    /// new key took over is signed again.
    fn signed_now<'r>(
        &self,
        receipt: &'r SignedReceipt,
    ) -> Result<Cow<'r, SignedReceipt>, Refusal> {
        if self.signer.is_current(receipt) {
            return Ok(Cow::Borrowed(receipt));
        }
        let signed_again = self
            .signer
            .sign_again(receipt)
            .map_err(|error| Refusal::Failed(StoreFault::Unsigned(Arc::new(error))))?;
        Ok(Cow::Owned(signed_again))
    }

    /// What an error means for the batch: a constraint that rolls everything back costs
    /// all of it.
    fn refusal(&self, error: rusqlite::Error) -> Refusal {
        match self.connection.is_autocommit() {
            true => Refusal::Failed(error.into()),
            false => error.into(),
        }
    }

    fn run(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }
}

fn require(holds: bool, conflict: Conflict) -> Result<(), Refusal> {
    if holds {
        Ok(())
    } else {
        Err(Refusal::Conflict(conflict))
    }
}
