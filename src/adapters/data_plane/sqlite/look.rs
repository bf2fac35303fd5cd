//! A store's file as somebody sees it who changes nothing: no byte of it or beside it is
//! written, and no lock is taken that a service needs to start or to serve.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Flock, FlockType, fcntl_getlk};

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

/// How long a log must stay as it is before anything is said of its end: a writer that
/// no lock shows (on another machine) writes meanwhile, and the file's time, which may
/// move in steps of a hundredth of a second, shows it.
const AT_REST: Duration = Duration::from_millis(100);

/// What is to be said of a store's write-ahead log.
#[derive(Debug)]
pub enum LogLook {
    /// No process has it open and it did not change. What is at its end, in words, if
    /// that is anything.
    AtRest(Option<String>),
    /// A process has the store open or wrote the log: its end moves.
    InUse,
}

/// Looks at the end of a store's write-ahead log, which says something only while no
/// process has the store open. This process must not have it open either.
///
/// # Errors
/// [`OpenError`], as a start would be refused with.
pub fn judge_log(database: &Path) -> Result<LogLook, OpenError> {
    let path = wal::log_of(database);
    let state = || {
        LogState::of(database).map_err(|source| OpenError::File {
            path: path.clone(),
            source,
        })
    };
    let before = state()?;
    if user(database) != User::Nobody {
        return Ok(LogLook::InUse);
    }
    let judged = wal::judge(database);
    if !matches!(judged, Ok(LogEnd::Whole)) {
        std::thread::sleep(AT_REST);
    }
    if user(database) != User::Nobody || state()? != before {
        return Ok(LogLook::InUse);
    }
    match judged {
        Ok(LogEnd::Whole) => Ok(LogLook::AtRest(None)),
        Ok(LogEnd::Torn { frames, bytes }) => Ok(LogLook::AtRest(Some(format!(
            "{} ends in a write that was cut off ({frames} frames, {bytes} bytes); nothing of it \
             was acknowledged, and the next start drops it",
            path.display()
        )))),
        Err(LogFault::Damaged(damage)) => Err(OpenError::DamagedLog { path, damage }),
        Err(LogFault::Unreadable(source)) => Err(OpenError::File { path, source }),
    }
}

/// Who has a store open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// No other process.
    Nobody,
    /// The process of this id.
    Process(u32),
    /// A process that is not seen from here: it has another namespace of processes.
    Unseen,
}

/// Who has this store open, other than this process, which must not have it open.
///
/// SQLite keeps a lock of the file (`SHARED`, fcntl(2)) for as long as a database with a
/// write-ahead log is open. The kernel tells of it across namespaces, and takes nothing
/// to tell it. Nobody is told of where the file cannot be read.
pub fn user(database: &Path) -> User {
    let asked = File::open(database)
        .and_then(|file| Ok(fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))?));
    match asked {
        Ok(None) | Err(_) => User::Nobody,
        Ok(Some(lock)) => match lock.pid {
            Some(id) => User::Process(id.as_raw_nonzero().get().unsigned_abs()),
            None => User::Unseen,
        },
    }
}

/// What shows that a store or its log was written.
#[derive(PartialEq, Eq)]
struct LogState {
    files: [wal::FileState; 2],
    /// The header of the log, and both copies of that of its index, which is written
    /// through memory: no time shows that.
    headers: [Vec<u8>; 2],
}

impl LogState {
    fn of(database: &Path) -> io::Result<Self> {
        let (log, index) = (wal::log_of(database), wal::index_of(database));
        Ok(Self {
            files: wal::file_states(database)?,
            headers: [
                beginning(&log, wal::LOG_HEADER_LEN)?,
                beginning(&index, wal::INDEX_HEADERS_LEN)?,
            ],
        })
    }
}

/// The first bytes of a file, none where it is not there.
fn beginning(path: &Path, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(length as u64).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn nothing_is_said_of_a_log_that_changes_though_no_lock_shows_a_writer() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("kms.db");
        fs::write(&database, "a database").expect("written");
        let log = wal::log_of(&database);
        // No header, and what may be a write that was cut off.
        fs::write(&log, [0x55; 5_000]).expect("written");
        let said = judge_log(&database).expect("judged");
        assert!(matches!(said, LogLook::AtRest(Some(_))), "{said:?}");

        for path in [&log, &wal::index_of(&database)] {
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Of one length always.
                    for round in (0..=u8::MAX).cycle() {
                        fs::write(path, [round; 5_000]).expect("written");
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
                std::thread::sleep(Duration::from_millis(20));
                let said = judge_log(&database);
                is_over.store(true, Ordering::Relaxed);
                assert!(matches!(said, Ok(LogLook::InUse)), "{path:?}: {said:?}");
            });
        }
    }
}
