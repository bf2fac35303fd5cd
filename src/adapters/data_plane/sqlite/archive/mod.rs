//! Moving old receipts out of the store, to files of their own, by another process
//! than the one that serves the store.
//!
//! In this order, so that a receipt is in neither place at no moment, whenever the
//! process or the machine ends: the file is written whole, made durable, read back
//! and held to the tree; then the store takes it into its list, which is what
//! allows the receipts in it to be removed; then they are removed, a few at a time.
//! The next run finishes what one began.

mod copying;
mod fault;
pub(super) mod file;
mod removal;

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Row, TransactionBehavior, params};

use self::copying::{copy_bundle, copy_scopes};
use self::file::{BUNDLE, Contents};
use super::open::{self, OpenError};
use super::rows::{counted, read_ledger_size, stored};
use super::scratch::Scratch;
use crate::domain::time::Timestamp;

pub use self::fault::ArchiveFault;
pub use self::file::ArchiveFileFault;

/// How long the serving process's lock is waited for: it writes in short
/// transactions, and under load one follows upon the other.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// What the file is named while it is written.
const UNFINISHED: &str = "unfinished";

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Receipts before this place are in the new file.
    Written(u64),
    /// Those before this place were read back and are the ledger's.
    Checked(u64),
    /// Those before this place are in the store no longer.
    Removed(u64),
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// The archives that this run filled, or finished, with their receipts: the
    /// first one, and the first that is not in it.
    pub archives: Vec<(PathBuf, u64, u64)>,
    /// Receipts that this run removed from the store.
    pub removed: u64,
    /// Bytes of the store's file that are free to be used again.
    pub free_bytes: u64,
    /// The place of the first receipt that is still in the store.
    pub kept_from: u64,
}

/// Moves the receipts of before this instant to a file, as far as they are whole
/// bundles that nothing newer stands among, and never the newest bundle. Finishes
/// what an earlier run began.
///
/// # Errors
/// [`ArchiveFault`]; what was begun is finished by the next run.
pub fn run(
    database: &Path,
    before: Timestamp,
    progress: &mut dyn FnMut(Progress),
) -> Result<ArchiveSummary, ArchiveFault> {
    let store = open_store(database)?;
    let folder = make_folder(database)?;
    let _alone = open::lock(&folder.join(UNFINISHED)).map_err(|fault| match fault {
        OpenError::Locked(_) => ArchiveFault::Busy,
        source => ArchiveFault::Open {
            path: folder.clone(),
            source,
        },
    })?;
    let mut run = Run {
        database,
        store,
        folder,
        before: before.microseconds(),
        progress,
        summary: ArchiveSummary {
            archives: Vec::new(),
            removed: 0,
            free_bytes: 0,
            kept_from: 0,
        },
    };
    run.finish_removal()?;
    run.take_in_what_was_left()?;
    run.fill_one()?;
    run.finish()
}

fn open_store(database: &Path) -> Result<Connection, ArchiveFault> {
    let fault = |source| ArchiveFault::Open {
        path: database.to_owned(),
        source,
    };
    if database.exists() {
        open::judge_log_unless_served(database).map_err(fault)?;
    }
    let (_, version) = open::existing_database(database, BUSY_TIMEOUT).map_err(fault)?;
    if usize::try_from(version) != Ok(open::MIGRATIONS.len()) {
        return Err(ArchiveFault::Earlier(database.to_owned()));
    }
    let store = open::writing_connection(database, BUSY_TIMEOUT)?;
    open::require_write_ahead_log(&store, database).map_err(fault)?;
    Ok(store)
}

fn make_folder(database: &Path) -> Result<PathBuf, ArchiveFault> {
    let folder = file::folder(database);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .and_then(|()| File::open(open::folder_of(database)))
        .and_then(|above| above.sync_all())
        .map_err(|source| ArchiveFault::Write {
            path: folder.clone(),
            source,
        })?;
    Ok(folder)
}

/// An archive in the store's list.
struct Registered {
    first: u64,
    end: u64,
    file: String,
}

struct Run<'a> {
    database: &'a Path,
    store: Connection,
    folder: PathBuf,
    before: i64,
    progress: &'a mut dyn FnMut(Progress),
    summary: ArchiveSummary,
}

impl Run<'_> {
    /// Removes what is in archives already, each of which is held to the tree again.
    fn finish_removal(&mut self) -> Result<(), ArchiveFault> {
        let Some(lowest) = removal::lowest(&self.store)? else {
            return Ok(());
        };
        let unfinished: Vec<Registered> = self
            .store
            .prepare("SELECT first_seq, end_seq, file FROM archives WHERE end_seq > ?1 ORDER BY 1")?
            .query_map([stored(lowest)?], read_registered)?
            .collect::<rusqlite::Result<_>>()?;
        for archive in unfinished {
            let path =
                file::path(self.database, &archive.file).unwrap_or_else(|| self.folder.clone());
            let contents = self.verify(&path)?;
            if (contents.first, contents.end) != (archive.first, archive.end) {
                return Err(ArchiveFault::File {
                    path,
                    source: ArchiveFileFault::NotOurs,
                });
            }
            self.remove(path, &contents)?;
        }
        Ok(())
    }

    /// A file that is whole and in its place, and that the store does not list, is
    /// of a run that ended just before. It is taken in; or it goes, where this run
    /// is not to move so much: nothing in it has left the store.
    fn take_in_what_was_left(&mut self) -> Result<(), ArchiveFault> {
        let unreadable = |folder: &Path, source| ArchiveFault::Write {
            path: folder.to_owned(),
            source,
        };
        let entries =
            fs::read_dir(&self.folder).map_err(|error| unreadable(&self.folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&self.folder, error))?;
            let name = entry.file_name();
            let Some(places) = name.to_str().and_then(file::places) else {
                continue;
            };
            if places.0 != self.start()? {
                continue;
            }
            let path = entry.path();
            let contents = self.verify(&path)?;
            if (contents.first, contents.end) != places {
                return Err(ArchiveFault::File {
                    path,
                    source: ArchiveFileFault::NotOurs,
                });
            }
            if contents.times.1 < self.before && contents.end <= self.limit()? {
                self.take_in(path, &contents)?;
            } else {
                fs::remove_file(&path).map_err(|source| ArchiveFault::Write { path, source })?;
            }
        }
        Ok(())
    }

    /// Fills a new archive, if there is anything to put into it.
    fn fill_one(&mut self) -> Result<(), ArchiveFault> {
        let first = self.start()?;
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| ArchiveFault::Write { path, source }
        };
        let scratch =
            Scratch::beside(&self.folder.join(UNFINISHED)).map_err(unwritable(&self.folder))?;
        let end = self.write(scratch.path(), first)?;
        if end == first {
            return Ok(());
        }
        scratch.sync().map_err(unwritable(scratch.path()))?;
        let contents = self.verify(scratch.path())?;
        let path = self.folder.join(file::name(first, end));
        scratch.put_in_place(&path).map_err(unwritable(&path))?;
        self.take_in(path, &contents)
    }

    /// Writes whole bundles from `first` on, while all of their receipts are older
    /// than they have to be; answers where that ends.
    fn write(&mut self, path: &Path, first: u64) -> Result<u64, ArchiveFault> {
        let limit = self.limit()?;
        let mut archive = file::create(path)?;
        let writing = archive.transaction_with_behavior(TransactionBehavior::Immediate)?;
        copy_scopes(&self.store, &writing)?;
        let mut end = first;
        while end < limit {
            // A read of its own for each bundle, so that the log of the serving
            // process never waits for this one.
            if !copy_bundle(&self.store, &writing, end, self.before)? {
                break;
            }
            end += BUNDLE;
            (self.progress)(Progress::Written(end));
        }
        if end > first {
            file::seal(&writing, first, end)?;
        }
        writing.commit()?;
        Ok(end)
    }

    /// The store takes the archive into its list, and lets go of what is in it.
    fn take_in(&mut self, path: PathBuf, contents: &Contents) -> Result<(), ArchiveFault> {
        let file = file::name(contents.first, contents.end);
        let registering = self
            .store
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        registering.execute(
            "INSERT INTO archives (first_seq, end_seq, file) VALUES (?1, ?2, ?3)",
            params![stored(contents.first)?, stored(contents.end)?, file],
        )?;
        registering.commit()?;
        self.remove(path, contents)
    }

    fn remove(&mut self, path: PathBuf, contents: &Contents) -> Result<(), ArchiveFault> {
        self.summary.removed += removal::remove(&mut self.store, contents.end, self.progress)?;
        self.summary
            .archives
            .push((path, contents.first, contents.end));
        Ok(())
    }

    fn verify(&mut self, path: &Path) -> Result<Contents, ArchiveFault> {
        file::verify(path, &self.store, |place| {
            (self.progress)(Progress::Checked(place));
        })
        .map_err(|source| ArchiveFault::File {
            path: path.to_owned(),
            source,
        })
    }

    fn finish(mut self) -> Result<ArchiveSummary, ArchiveFault> {
        let pragma = |name| {
            self.store
                .pragma_query_value(None, name, |row| counted(row, 0))
        };
        self.summary.free_bytes = pragma("freelist_count")? * pragma("page_size")?;
        self.summary.kept_from = self.start()?;
        Ok(self.summary)
    }

    /// Where the last archive ends.
    fn start(&self) -> rusqlite::Result<u64> {
        self.store.query_row(
            "SELECT coalesce(max(end_seq), 0) FROM archives",
            [],
            |row| counted(row, 0),
        )
    }

    /// The beginning of the newest bundle, which stays: the tree grows on from it.
    fn limit(&self) -> rusqlite::Result<u64> {
        let size = read_ledger_size(&self.store)?;
        Ok(size.saturating_sub(1) / BUNDLE * BUNDLE)
    }
}

fn read_registered(row: &Row<'_>) -> rusqlite::Result<Registered> {
    Ok(Registered {
        first: counted(row, 0)?,
        end: counted(row, 1)?,
        file: row.get(2)?,
    })
}
