//! Opening a database to look at it and nothing more: not one byte of it or beside
//! it is written, so that evidence stays as it is.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::adapters::data_plane::sqlite::wal::{FileState, file_states};
use crate::ports::ledger_source::SourceFault;

/// How long a running service's lock may be waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite without locks of its own: needed to read a write-ahead log without
/// laying the index of it beside it.
const WITHOUT_LOCKS: &std::ffi::CStr = c"unix-none";

/// One state of a database, for as long as it is open.
pub(super) struct Opened {
    pub(super) connection: Connection,
    path: PathBuf,
    /// What its files looked like, where nothing keeps others from writing them.
    looks: Option<[FileState; 2]>,
}

impl Opened {
    /// The database in this file. A service may be running on it.
    pub(super) fn open(path: &Path) -> Result<Self, SourceFault> {
        let is_served = is_served(path).map_err(|error| {
            SourceFault::because(format!("cannot read {}", path.display()), error)
        })?;
        Self::open_knowing(path, is_served)
    }

    /// The same, knowing whether one does.
    pub(super) fn open_knowing(path: &Path, is_served: bool) -> Result<Self, SourceFault> {
        let fault = |error: Box<dyn std::error::Error + Send + Sync>| {
            SourceFault::because(format!("cannot read {}", path.display()), error)
        };
        let looks = match is_served {
            true => None,
            false => Some(file_states(path).map_err(|error| fault(error.into()))?),
        };
        // The system's words for a missing file are better than SQLite's.
        File::open(path).map_err(|error| fault(error.into()))?;
        let connection = match looks {
            None => Connection::open_with_flags(path, flags()),
            Some([_, Some((1.., ..))]) => with_log(path),
            Some(_) => without_log(path),
        };
        let connection = connection
            .and_then(begin_reading)
            .map_err(|error| fault(error.into()))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            looks,
        })
    }

    /// Whether everything that was read was of one state.
    pub(super) fn settle(&self) -> Result<(), SourceFault> {
        let is_same = match self.looks {
            None => true,
            Some(before) => file_states(&self.path).is_ok_and(|now| now == before),
        };
        if is_same {
            return Ok(());
        }
        Err(SourceFault::new(format!(
            "{} was written while it was read; try again",
            self.path.display()
        )))
    }
}

/// Whether a service runs on this database. Only where the log's index lies beside
/// it one may, and then it holds the lock.
fn is_served(path: &Path) -> io::Result<bool> {
    if !beside(path, "-shm").try_exists()? {
        return Ok(false);
    }
    match File::open(beside(path, ".lock")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        // Another user's: with locks nothing can go wrong.
        Err(_) => Ok(true),
        Ok(lock) => match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        },
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Keeps the log's index in memory, and the log where and as it is.
fn with_log(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(path, flags(), WITHOUT_LOCKS)?;
    // SQLite would remove a log that has nothing in it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    Ok(connection)
}

/// Reads the file and looks for no other.
fn without_log(path: &Path) -> rusqlite::Result<Connection> {
    // Only an address can say so, in which some characters mean something else.
    let absolute =
        std::path::absolute(path).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
    let mut address = String::from("file://");
    for byte in absolute.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => address.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => address.push(char::from(*byte)),
            byte => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address.push_str("?immutable=1");
    Connection::open_with_flags(address, flags() | OpenFlags::SQLITE_OPEN_URI)
}

/// Lets all that is read from the first statement on be of one state.
fn begin_reading(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The file may be made by somebody who means harm.
    connection.execute_batch(
        "PRAGMA query_only = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA temp_store = MEMORY;
         BEGIN;",
    )?;
    Ok(connection)
}
