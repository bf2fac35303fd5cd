//! A store's file as somebody sees it who changes nothing: no byte of it or beside it is
//! written, and no lock is taken that a service needs to start or to serve.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::handles::{read_beginnings, read_pin};
use super::ledger::begin;
use super::ledger::copy::LedgerCopy;
use super::open::{self, MIGRATIONS, OpenError};
use super::rows::read_ledger_size;
use super::wal::{self, LogEnd, LogFault};
use crate::domain::key::HsmBackendName;
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_source::{LedgerSource as _, SourceFault};
use crate::ports::ledger_store::{LedgerFault, LedgerHead};

/// The file that whoever serves this store holds the lock of.
pub fn lock_file(database: &Path) -> PathBuf {
    open::lock_file(database)
}

/// What is at the end of a store's write-ahead log, where no service runs on it, in
/// words; `None` where nothing is to be said of it.
///
/// # Errors
/// [`OpenError`], as a start would be refused with.
pub fn judge_log(database: &Path) -> Result<Option<String>, OpenError> {
    let path = wal::log_of(database);
    match wal::judge(database) {
        Ok(LogEnd::Whole) => Ok(None),
        Ok(LogEnd::Torn { frames, bytes }) => Ok(Some(format!(
            "{} ends in a write that was cut off ({frames} frames, {bytes} bytes); nothing of it \
             was acknowledged, and the next start drops it",
            path.display()
        ))),
        Err(LogFault::Damaged(damage)) => Err(OpenError::DamagedLog { path, damage }),
        Err(LogFault::Unreadable(source)) => Err(OpenError::File { path, source }),
    }
}

/// One state of a store, for as long as this is kept. Beside a running service that
/// should not be long: its log grows meanwhile.
pub struct StoreLook {
    copy: LedgerCopy,
}

impl StoreLook {
    /// Opens the file of a store, on which a service runs or does not. Where it does and
    /// that is not known, [`StoreLook::settle`] finds out.
    ///
    /// # Errors
    /// [`SourceFault`] where it cannot be read, or is none that this release reads.
    pub fn open(database: &Path, is_served: bool) -> Result<Self, SourceFault> {
        let copy = LedgerCopy::open_knowing(database, is_served)?;
        Ok(Self { copy })
    }

    /// The version of the schema, and the newest that this release knows.
    ///
    /// # Errors
    /// [`SourceFault`].
    pub fn schema(&self) -> Result<(i64, i64), SourceFault> {
        let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        let read = self
            .copy
            .read(|store| store.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)));
        Ok((read?, newest))
    }

    /// What is pinned to a name.
    ///
    /// # Errors
    /// [`SourceFault`].
    pub fn pin(&self, name: &str) -> Result<Option<Vec<u8>>, SourceFault> {
        self.copy.read(|store| read_pin(store, name))
    }

    /// How many handles of this backend, erased ones aside, begin with the same so many
    /// bytes, by those bytes.
    ///
    /// # Errors
    /// [`SourceFault`].
    pub fn count_by_beginning(
        &self,
        backend: HsmBackendName,
        length: usize,
    ) -> Result<BTreeMap<Vec<u8>, u64>, SourceFault> {
        self.copy
            .read(|store| read_beginnings(store, backend, length))
    }

    /// Holds the ledger to its newest checkpoint, as a start does.
    ///
    /// # Errors
    /// [`LedgerFault`], or [`SourceFault`] where it cannot be read.
    pub fn check_ledger(
        &self,
        signer: &dyn EvidenceLedger,
    ) -> Result<Result<LedgerHead, LedgerFault>, SourceFault> {
        self.copy.read(|store| {
            let size = read_ledger_size(store)?;
            Ok(begin::check(store, signer, size))
        })
    }

    /// The ledger in it.
    pub fn ledger(&mut self) -> &mut LedgerCopy {
        &mut self.copy
    }

    /// Whether all that was read was of one state.
    ///
    /// # Errors
    /// [`SourceFault`] where somebody wrote in between.
    pub fn settle(&mut self) -> Result<(), SourceFault> {
        self.copy.settle()
    }
}
