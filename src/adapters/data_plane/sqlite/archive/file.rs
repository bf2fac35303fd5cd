//! The file of an archive: receipts that were moved out of the store, in tables as
//! the store has them, so that the same queries answer from it. Written once, and
//! never changed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::adapters::data_plane::sqlite::ledger::rows::{for_leaves, read_tile};
use crate::adapters::data_plane::sqlite::open;
use crate::adapters::data_plane::sqlite::rows::{counted, stored};
use crate::domain::ledger::{LedgerFlaw, TILE_WIDTH, TileId, TreeHash};

/// "ZKAR" in ASCII: the `application_id` of an archive.
const APPLICATION_ID: i64 = 0x5A4B_4152;

/// The version of the schema, in `user_version`.
const VERSION: i64 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// Receipts in a bundle, which is moved whole.
pub(super) const BUNDLE: u64 = TILE_WIDTH as u64;

/// What is in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Contents {
    /// The first receipt.
    pub(in super::super) first: u64,
    /// The first that is not in it.
    pub(in super::super) end: u64,
    /// The earliest time of a receipt, and the latest, in microseconds.
    pub(in super::super) times: (i64, i64),
    /// The smallest id of a receipt, and the largest.
    pub(in super::super) ids: ([u8; 16], [u8; 16]),
}

/// Why a file does not serve as an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFileFault {
    /// It is not there.
    #[error("there is no such file")]
    Missing,
    /// It is something else, or was not written to its end.
    #[error("it is not an archive of receipts, or not a whole one")]
    NotOurs,
    /// It is of a newer release.
    #[error("it was written by a newer release")]
    Newer,
    /// Its pages do not fit together.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It is not of this ledger.
    #[error("it does not fit the ledger: {0}")]
    Flawed(LedgerFlaw),
    /// The file cannot be read.
    #[error("it cannot be read")]
    File(#[source] io::Error),
    /// SQLite failed.
    #[error("SQLite failed to read it")]
    Sqlite(#[from] rusqlite::Error),
}

/// The name of an archive's file.
pub(in super::super) fn name(first: u64, end: u64) -> String {
    format!("receipts-{first}-{end}.db")
}

/// The places in such a name.
pub(super) fn places(name: &str) -> Option<(u64, u64)> {
    let middle = name.strip_prefix("receipts-")?.strip_suffix(".db")?;
    let (first, end) = middle.split_once('-')?;
    let (first, end) = (first.parse().ok()?, end.parse().ok()?);
    (self::name(first, end) == name).then_some((first, end))
}

/// A new archive in an empty file, which nothing else reads yet.
pub(in super::super) fn create(path: &Path) -> rusqlite::Result<Connection> {
    let archive = open::writing_connection(path, Duration::ZERO)?;
    // A failure throws the file away, and it is synced once at the end.
    archive.execute_batch(
        "PRAGMA journal_mode = OFF;
         PRAGMA synchronous = OFF;
         PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA cache_size = -65536;",
    )?;
    archive.execute_batch(SCHEMA)?;
    Ok(archive)
}

/// Says what is in the archive, which makes it one.
pub(in super::super) fn seal(archive: &Connection, first: u64, end: u64) -> rusqlite::Result<()> {
    archive.execute(
        "INSERT INTO archive (id, first_seq, end_seq, first_ts, last_ts, first_id, last_id) \
         SELECT 1, ?1, ?2, min(ts), max(ts), min(receipt_id), max(receipt_id) FROM receipts",
        params![stored(first)?, stored(end)?],
    )?;
    Ok(())
}

/// Opens an archive for reading.
///
/// # Errors
/// [`ArchiveFileFault`].
pub(in super::super) fn open(path: &Path) -> Result<(Connection, Contents), ArchiveFileFault> {
    match path.metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ArchiveFileFault::Missing);
        }
        Err(error) => return Err(ArchiveFileFault::File(error)),
    }
    let archive = open::reading_connection(path, Duration::ZERO).map_err(unreadable)?;
    let pragma = |name| archive.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("application_id").map_err(unreadable)? != APPLICATION_ID {
        return Err(ArchiveFileFault::NotOurs);
    }
    if pragma("user_version")? != VERSION {
        return Err(ArchiveFileFault::Newer);
    }
    let contents = archive
        .query_row(
            "SELECT first_seq, end_seq, first_ts, last_ts, first_id, last_id FROM archive",
            [],
            |row| {
                Ok(Contents {
                    first: counted(row, 0)?,
                    end: counted(row, 1)?,
                    times: (row.get(2)?, row.get(3)?),
                    ids: (row.get(4)?, row.get(5)?),
                })
            },
        )
        .optional()?
        .ok_or(ArchiveFileFault::NotOurs)?;
    Ok((archive, contents))
}

/// Reads a whole archive, and holds every receipt in it to the tree of this ledger.
///
/// # Errors
/// [`ArchiveFileFault`].
pub(super) fn verify(
    path: &Path,
    ledger: &Connection,
    mut checked: impl FnMut(u64),
) -> Result<Contents, ArchiveFileFault> {
    let (archive, contents) = open(path)?;
    let is_whole = contents.first.is_multiple_of(BUNDLE) && contents.end.is_multiple_of(BUNDLE);
    let rows: u64 = archive
        .query_row("SELECT count(*) FROM receipts", [], |row| counted(row, 0))
        .map_err(unreadable)?;
    if !is_whole || rows != contents.end - contents.first {
        return Err(ArchiveFileFault::NotOurs);
    }
    let sound: String = archive
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(unreadable)?;
    if sound != "ok" {
        return Err(ArchiveFileFault::Damaged(sound));
    }
    for bundle in contents.first / BUNDLE..contents.end / BUNDLE {
        let tile = TileId {
            level: 0,
            index: bundle,
        };
        let hashes = read_tile(ledger, tile)?
            .ok_or(ArchiveFileFault::Flawed(LedgerFlaw::TileMissing { tile }))?;
        let first = bundle * BUNDLE;
        let mut next = first;
        let mut changed = None;
        for_leaves(&archive, first, BUNDLE, |leaf_index, leaf| {
            let expected = hashes.get((leaf_index - first) as usize);
            if changed.is_none()
                && (leaf_index != next || expected != Some(&TreeHash::of_leaf(leaf)))
            {
                changed = Some(leaf_index);
            }
            next = leaf_index + 1;
        })?;
        if let Some(leaf_index) = changed {
            return Err(ArchiveFileFault::Flawed(LedgerFlaw::ReceiptChanged {
                leaf_index,
            }));
        }
        if next != first + BUNDLE {
            return Err(ArchiveFileFault::Flawed(LedgerFlaw::ReceiptMissing {
                leaf_index: next,
            }));
        }
        checked(next);
    }
    Ok(contents)
}

fn unreadable(error: rusqlite::Error) -> ArchiveFileFault {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(NotADatabase) => ArchiveFileFault::NotOurs,
        Some(DatabaseCorrupt) => ArchiveFileFault::Damaged(error.to_string()),
        _ => ArchiveFileFault::Sqlite(error),
    }
}

/// The archives' folder, beside the store.
pub(in super::super) fn folder(database: &Path) -> PathBuf {
    open::folder_of(database).join("archive")
}

/// Where the archive of this name lies. A name leads nowhere else, whoever wrote it.
pub(in super::super) fn path(database: &Path, name: &str) -> Option<PathBuf> {
    let is_name = Path::new(name).file_name() == Some(name.as_ref()) && !name.contains('\0');
    is_name.then(|| folder(database).join(name))
}
