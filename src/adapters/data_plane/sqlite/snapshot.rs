//! A snapshot of the store in a file of its own, taken by another process than the
//! one that serves it; and what can be said of a store by looking at its file.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

use super::archive::file;
use super::deferred::first_unlisted;
use super::ledger::rows;
use super::open::{self, OpenError};
use super::rows::{counted, read_ledger_size};
use super::scratch::Scratch;
use crate::domain::ledger::{Checkpoint, LedgerFlaw, SignedNote};

/// The first version of the schema with a tree over its receipts.
const FIRST_WITH_TREE: i64 = 3;

/// How long a lock of the serving process is waited for. A reader waits for none
/// but while the log is set up or recovered.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What can be said of a store by its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSummary {
    /// How many receipts its ledger has, those in archives included.
    pub receipts: u64,
    /// The newest checkpoint, a signed note; `None` before the ledger has begun.
    pub newest_checkpoint: Option<String>,
    /// The names of the files that older receipts were moved to.
    pub archives: Vec<String>,
    /// The id of the key-encryption key that its secrets are sealed under.
    pub kek_id: Option<String>,
    /// The public keys that signed the ledger, the newest last.
    pub ledger_keys: Vec<[u8; 32]>,
}

impl StoreSummary {
    /// Where the archives lie of the store in this file.
    pub fn archives_of(&self, database: &Path) -> Vec<PathBuf> {
        let names = self.archives.iter();
        names
            .filter_map(|name| file::path(database, name))
            .collect()
    }
}

/// Why there is no snapshot, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFault {
    /// The store cannot be opened.
    #[error("{} cannot be opened as a store", path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The store is of a release that knew no tree.
    #[error(
        "{} is of an earlier release, without a tree over its receipts: start this release's \
         service on it once, or stop the service and copy the file as it is",
        .0.display()
    )]
    WithoutTree(PathBuf),
    /// There is a file already.
    #[error("{} is there already, and stays as it is: choose another name", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("{} cannot be read, or not copied", path.display())]
    Sqlite {
        /// The store.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The pages of the file do not fit together.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// The ledger in it does not fit its newest checkpoint.
    #[error("the ledger in {} is not whole: {flaw}", path.display())]
    Flawed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        flaw: LedgerFlaw,
    },
}

/// How much of a file is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// What a copy could have lost: every page is there and in order.
    Pages,
    /// That the indexes and lists fit the tables, too.
    Indexes,
}

/// Writes a snapshot of the store to `out`, where there must be nothing, for its
/// owner only, durably, and answers what is in it. The store may be served
/// meanwhile: this reads as of one moment and blocks nobody.
///
/// The copy is made row by row, so that nothing of what was deleted or overwritten
/// is in it, as it would be in the free pages of a copied file.
///
/// # Errors
/// [`SnapshotFault`]; nothing is left behind then.
pub fn take(database: &Path, out: &Path) -> Result<StoreSummary, SnapshotFault> {
    if database.exists() {
        open::judge_log_unless_served(database).map_err(|source| SnapshotFault::Open {
            path: database.to_owned(),
            source,
        })?;
    }
    let store = open_existing(database)?;
    let exists = out.try_exists().map_err(|source| unwritable(out, source))?;
    if exists {
        return Err(SnapshotFault::Exists(out.to_owned()));
    }
    let scratch = Scratch::beside(out).map_err(|source| unwritable(out, source))?;
    copy(&store, scratch.path()).map_err(|source| SnapshotFault::Sqlite {
        path: database.to_owned(),
        source,
    })?;
    drop(store);
    let summary = look_at(scratch.path(), Thoroughness::Pages)?;
    scratch
        .put_in_place(out)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SnapshotFault::Exists(out.to_owned()),
            _ => unwritable(out, source),
        })?;
    Ok(summary)
}

/// What is in the file of a store that nobody serves. Its pages, the number of its
/// receipts and its newest checkpoint have to fit together.
///
/// # Errors
/// [`SnapshotFault`].
pub fn look_at(database: &Path, how: Thoroughness) -> Result<StoreSummary, SnapshotFault> {
    let store = open_existing(database)?;
    require_sound(&store, database, how)?;
    let failed = |source| SnapshotFault::Sqlite {
        path: database.to_owned(),
        source,
    };
    let flawed = |flaw| SnapshotFault::Flawed {
        path: database.to_owned(),
        flaw,
    };
    let summary = read_summary(&store).map_err(failed)?;
    match require_whole_ledger(&store, &summary).map_err(failed)? {
        Some(flaw) => Err(flawed(flaw)),
        None => Ok(summary),
    }
}

pub(super) fn open_existing(database: &Path) -> Result<Connection, SnapshotFault> {
    let fault = |fault: OpenError| match fault {
        OpenError::Sqlite { path, source }
            if source.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) =>
        {
            SnapshotFault::Damaged {
                path,
                what: source.to_string(),
            }
        }
        source => SnapshotFault::Open {
            path: database.to_owned(),
            source,
        },
    };
    let (store, version) = open::existing_database(database, BUSY_TIMEOUT).map_err(fault)?;
    if version < FIRST_WITH_TREE {
        return Err(SnapshotFault::WithoutTree(database.to_owned()));
    }
    Ok(store)
}

fn copy(store: &Connection, to: &Path) -> rusqlite::Result<()> {
    // The copy is synced once, at its end; and it is made several times as fast, so
    // that the serving process's log waits the less for this reader.
    store.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;")?;
    // Absolute, since SQLite would take some names for an address.
    let path = std::path::absolute(to).unwrap_or_else(|_| to.to_owned());
    let path = path
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(to.to_owned()))?;
    store.execute("VACUUM INTO ?1", params![path])?;
    forget_what_was_under_way(to)
}

/// A key that was announced when the snapshot was taken may have been stored a moment
/// later: whoever restores the snapshot must not give it up, and destroy it in the
/// token of a store that they may come back to.
fn forget_what_was_under_way(copy: &Path) -> rusqlite::Result<()> {
    let copy = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // An earlier schema has neither.
    for table in ["key_intents", "leases"] {
        if copy.table_exists(None, table)? {
            copy.execute(&format!("DELETE FROM {table}"), [])?;
        }
    }
    Ok(())
}

fn require_sound(
    store: &Connection,
    database: &Path,
    how: Thoroughness,
) -> Result<(), SnapshotFault> {
    let check = match how {
        Thoroughness::Pages => "PRAGMA quick_check(1)",
        Thoroughness::Indexes => "PRAGMA integrity_check(1)",
    };
    let what = match store.query_row(check, [], |row| row.get::<_, String>(0)) {
        Ok(what) if what == "ok" => match unlisted(store, how) {
            Ok(None) => return Ok(()),
            Ok(Some(leaf_index)) => format!("receipt {leaf_index} is not listed as it is"),
            Err(error) => error.to_string(),
        },
        Ok(what) => what,
        Err(error) => error.to_string(),
    };
    Err(SnapshotFault::Damaged {
        path: database.to_owned(),
        what,
    })
}

/// The first receipt that the lists do not fit.
fn unlisted(store: &Connection, how: Thoroughness) -> rusqlite::Result<Option<u64>> {
    // An earlier schema has indexes for that.
    match how == Thoroughness::Indexes && store.table_exists(None, "receipts_by_time")? {
        true => first_unlisted(store),
        false => Ok(None),
    }
}

fn read_summary(store: &Connection) -> rusqlite::Result<StoreSummary> {
    let kek_id: Option<Vec<u8>> = store
        .query_row("SELECT value FROM meta WHERE name = 'kek_id'", [], |row| {
            row.get(0)
        })
        .optional()?;
    let archives = store
        .prepare("SELECT file FROM archives ORDER BY first_seq")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let ledger_keys = rows::read_keys(store)?;
    Ok(StoreSummary {
        receipts: read_ledger_size(store)?,
        newest_checkpoint: rows::read_head(store)?,
        archives,
        kek_id: kek_id.map(|id| String::from_utf8_lossy(&id).into_owned()),
        ledger_keys: ledger_keys.iter().map(|key| key.public_key).collect(),
    })
}

/// Holds the number of receipts, and the tree's edge over them, to the newest
/// checkpoint. Says nothing of signatures, nor of what is below complete tiles.
fn require_whole_ledger(
    store: &Connection,
    summary: &StoreSummary,
) -> rusqlite::Result<Option<LedgerFlaw>> {
    let size = summary.receipts;
    let Some(note) = &summary.newest_checkpoint else {
        return Ok((size > 0).then_some(LedgerFlaw::CheckpointMissing));
    };
    let signed = note
        .parse()
        .ok()
        .and_then(|note: SignedNote| Checkpoint::from_text(&note.text).ok());
    let Some(signed) = signed else {
        return Ok(Some(LedgerFlaw::CheckpointForged { size }));
    };
    if signed.size != size {
        return Ok(Some(LedgerFlaw::CheckpointSize {
            signed: signed.size,
            kept: size,
        }));
    }
    if let Some(leaf_index) = first_missing(store, size)? {
        return Ok(Some(LedgerFlaw::ReceiptMissing { leaf_index }));
    }
    Ok(match rows::read_tree(store, size)? {
        Err(flaw) => Some(flaw),
        Ok(tree) if tree.checkpoint() != signed => Some(LedgerFlaw::RootDiffers { size }),
        Ok(_) => None,
    })
}

/// The first place that has a receipt neither here nor in an archive.
fn first_missing(store: &Connection, size: u64) -> rusqlite::Result<Option<u64>> {
    let archived: u64 = store.query_row(
        "SELECT coalesce(max(end_seq), 0) FROM archives",
        [],
        |row| counted(row, 0),
    )?;
    let kept: u64 = store.query_row(
        "SELECT count(*) FROM receipts WHERE seq >= ?1",
        [super::rows::stored(archived)?],
        |row| counted(row, 0),
    )?;
    if kept + archived == size {
        return Ok(None);
    }
    store
        .query_row(
            "SELECT seq + 1 FROM receipts AS here WHERE seq >= ?1 - 1 AND NOT EXISTS \
             (SELECT 1 FROM receipts WHERE seq = here.seq + 1) ORDER BY seq LIMIT 1",
            [super::rows::stored(archived)?],
            |row| counted(row, 0),
        )
        .optional()
        .map(|place| place.filter(|place| *place < size).or(Some(archived)))
}

fn unwritable(path: &Path, source: io::Error) -> SnapshotFault {
    SnapshotFault::Write {
        path: path.to_owned(),
        source,
    }
}
