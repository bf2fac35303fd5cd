//! A ledger in the file of a store, for whoever checks it: the folder of a running
//! service, or a copy of one. Reads everything, believes nothing, writes nothing.

mod opening;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use self::opening::Opened;
use super::rows;
use crate::adapters::data_plane::sqlite::open::schema_version;
use crate::adapters::data_plane::sqlite::rows::{counted, read_ledger_size, stored};
use crate::domain::ledger::{TileId, TreeHash};
use crate::ports::ledger_source::{KeptCheckpoint, LedgerSource, SourceFault, Stretch};
use crate::ports::ledger_store::LedgerKey;

/// The folder beside the database that receipts are moved to.
const ARCHIVE_FOLDER: &str = "archive";

/// The schema since which receipts have a tree.
const FIRST_WITH_TREE: i64 = 3;

/// One state of the ledger in a store's file.
pub struct LedgerCopy {
    database: Opened,
    path: PathBuf,
    /// The archive that was read last; within, `None` where it is not there.
    archive: Option<(String, Option<Opened>)>,
}

/// Receipts that were moved to a file of their own.
struct Archive {
    end: u64,
    file: String,
}

impl LedgerCopy {
    /// The ledger in this file.
    ///
    /// # Errors
    /// [`SourceFault`] where the file cannot be read, or is none that this release
    /// reads.
    pub fn open(path: &Path) -> Result<Self, SourceFault> {
        Self::of(Opened::open(path)?, path)
    }

    /// The same by somebody who knows whether a service runs on the file, so that its
    /// lock is not asked for.
    pub(in super::super) fn open_knowing(
        path: &Path,
        is_served: bool,
    ) -> Result<Self, SourceFault> {
        Self::of(Opened::open_knowing(path, is_served)?, path)
    }

    fn of(database: Opened, path: &Path) -> Result<Self, SourceFault> {
        let version = schema_version(&database.connection, path).map_err(|error| {
            SourceFault::because(format!("cannot read {}", path.display()), error)
        })?;
        if version < FIRST_WITH_TREE {
            return Err(SourceFault::new(format!(
                "{} holds no ledger with a tree yet: start the service on it once",
                path.display()
            )));
        }

        Ok(Self {
            database,
            path: path.to_owned(),
            archive: None,
        })
    }

    /// Asks the database, which writes nothing.
    pub(in super::super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, SourceFault> {
        read(&self.database.connection).map_err(|error| {
            SourceFault::because(format!("cannot read {}", self.path.display()), error)
        })
    }

    /// The archive that the receipt at this place was moved to.
    fn archive_of(&self, leaf_index: u64) -> Result<Option<Archive>, SourceFault> {
        let before = self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT end_seq, file FROM archives WHERE first_seq <= ?1 \
                     ORDER BY first_seq DESC LIMIT 1",
                )?
                .query_row([stored(leaf_index)?], |row| {
                    Ok(Archive {
                        end: counted(row, 0)?,
                        file: row.get(1)?,
                    })
                })
                .optional()
        })?;
        Ok(before.filter(|archive| leaf_index < archive.end))
    }

    /// The database of an archive; `None` where the file is not there.
    fn open_archive(&mut self, file: &str) -> Result<Option<&Opened>, SourceFault> {
        if self.archive.as_ref().is_none_or(|(open, _)| open != file) {
            self.settle_archive()?;
            let path = self.archive_path(file)?;
            let is_there = path.try_exists().map_err(|error| {
                SourceFault::because(format!("cannot read {}", path.display()), error)
            })?;
            let opened = is_there.then(|| Opened::open(&path)).transpose()?;
            self.archive = Some((file.to_owned(), opened));
        }
        Ok(self
            .archive
            .as_ref()
            .and_then(|(_, opened)| opened.as_ref()))
    }

    fn archive_path(&self, file: &str) -> Result<PathBuf, SourceFault> {
        // The name is from the database that is checked: it leads nowhere else.
        if Path::new(file).file_name() != Some(file.as_ref()) || file.contains('\0') {
            return Err(SourceFault::new(format!(
                "{} names an archive {file:?}, which is no file's name",
                self.path.display()
            )));
        }
        Ok(self.path.with_file_name(ARCHIVE_FOLDER).join(file))
    }

    fn settle_archive(&self) -> Result<(), SourceFault> {
        match &self.archive {
            Some((_, Some(opened))) => opened.settle(),
            _ => Ok(()),
        }
    }
}

impl LedgerSource for LedgerCopy {
    fn size(&mut self) -> Result<u64, SourceFault> {
        self.read(|connection| {
            let moved = connection.query_row(
                "SELECT coalesce(max(end_seq), 0) FROM archives",
                [],
                |row| counted(row, 0),
            )?;
            Ok(read_ledger_size(connection)?.max(moved))
        })
    }

    fn head(&mut self) -> Result<Option<String>, SourceFault> {
        self.read(rows::read_head)
    }

    fn keys(&mut self) -> Result<Vec<LedgerKey>, SourceFault> {
        self.read(rows::read_keys)
    }

    fn checkpoints(&mut self, from: u64, most: usize) -> Result<Vec<KeptCheckpoint>, SourceFault> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT number, size, note FROM checkpoints WHERE number >= ?1 \
                     ORDER BY number LIMIT ?2",
                )?
                .query_map(params![stored(from)?, stored(most as u64)?], |row| {
                    Ok(KeptCheckpoint {
                        number: counted(row, 0)?,
                        size: counted(row, 1)?,
                        note: row.get(2)?,
                    })
                })?
                .collect()
        })
    }

    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<TreeHash>>, SourceFault> {
        self.read(|connection| rows::read_tile(connection, tile))
    }

    fn stretch(&mut self, first: u64, most: usize) -> Result<Stretch, SourceFault> {
        let (leaves, next) = self.read(|connection| leaves(connection, first, most as u64))?;
        if !leaves.is_empty() {
            return Ok(Stretch::Leaves(leaves));
        }
        let Some(archive) = self.archive_of(first)? else {
            return Ok(Stretch::Leaves(leaves));
        };
        let end = archive.end.min(next.unwrap_or(u64::MAX));
        let Some(opened) = self.open_archive(&archive.file)? else {
            return Ok(Stretch::Away {
                end,
                file: archive.file,
            });
        };
        let most = (end - first).min(most as u64);
        match self::leaves(&opened.connection, first, most) {
            Ok((leaves, _)) => Ok(Stretch::Leaves(leaves)),
            Err(error) => Err(SourceFault::because(
                format!("cannot read the archive {}", archive.file),
                error,
            )),
        }
    }

    fn settle(&mut self) -> Result<(), SourceFault> {
        self.settle_archive()?;
        self.database.settle()
    }
}

/// The leaves from `first` on as far as they follow each other, at most `most`;
/// where the first is missing, the place of the next that is there.
fn leaves(
    connection: &Connection,
    first: u64,
    most: u64,
) -> rusqlite::Result<(Vec<Vec<u8>>, Option<u64>)> {
    let mut statement = connection
        .prepare_cached("SELECT seq, leaf FROM receipts WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = statement.query(params![stored(first)?, stored(most)?])?;
    let mut leaves = Vec::new();
    while let Some(row) = rows.next()? {
        let leaf_index = counted(row, 0)?;
        if leaf_index != first + leaves.len() as u64 {
            let is_first = leaves.is_empty();
            return Ok((leaves, is_first.then_some(leaf_index)));
        }
        // What is no text and no bytes is no receipt either.
        leaves.push(row.get_ref(1)?.as_bytes().unwrap_or_default().to_vec());
    }
    Ok((leaves, None))
}

#[cfg(test)]
mod tests;
