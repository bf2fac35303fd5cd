//! Why receipts are not moved, with how to mend it.

use std::io;
use std::path::PathBuf;

use super::file::ArchiveFileFault;
use crate::adapters::data_plane::sqlite::OpenError;

/// Why receipts were not moved, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// The store cannot be opened.
    #[error("{} cannot be opened as a store", path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The store is of an earlier release.
    #[error(
        "{} is of an earlier release: start this release's service on it once, which brings it up \
         to date", .0.display()
    )]
    Earlier(PathBuf),
    /// Another archiver is at work.
    #[error("another process is moving receipts of this store: wait for its end")]
    Busy,
    /// A file is not what it should be.
    #[error(
        "{} cannot serve as an archive, and nothing was removed on its account; put the right \
         one in its place, or move one that the store does not know away", path.display()
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ArchiveFileFault,
    },
    /// The store has a gap.
    #[error(
        "receipt {0} is missing in the store, and nothing was moved; `kms ledger verify` says more"
    )]
    Gap(u64),
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("SQLite failed; the same command again goes on from here")]
    Sqlite(#[from] rusqlite::Error),
}
