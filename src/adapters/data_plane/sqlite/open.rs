//! Opening the database: its file, its lock, its connections and its migrations.
//! Knows nothing of keys or receipts.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::wal::{self, Damage, LogEnd, LogFault};

/// "ZKMS" in ASCII: the `application_id` of our databases.
const APPLICATION_ID: i64 = 0x5A4B_4D53;

/// The schema, step by step; `user_version` counts the steps a database has taken.
/// A step that was released is never edited.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_keys_receipts_anchors.sql"),
    include_str!("migrations/0002_spent_grants.sql"),
    include_str!("migrations/0003_ledger_tree.sql"),
    include_str!("migrations/0004_keys_over_time.sql"),
    include_str!("migrations/0005_deferred_lists.sql"),
];

/// Statements that a connection keeps prepared: more than there are in this room.
const PREPARED_STATEMENTS: usize = 128;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves this database.
    #[error("{} is held by another process: only one may serve this store", .0.display())]
    Locked(PathBuf),
    /// The file is no database, or one of somebody else.
    #[error("{} is not a database of this service", .0.display())]
    NotOurs(PathBuf),
    /// A newer release has migrated the database.
    #[error(
        "the database's schema is version {found}, this release knows {supported}: use the newer release"
    )]
    Newer {
        /// The version of the schema in the file.
        found: i64,
        /// The newest version that this binary knows.
        supported: i64,
    },
    /// The file system does not do write-ahead logs, which a durable commit needs.
    #[error("{} is on a file system without write-ahead logging", .0.display())]
    NoWriteAheadLog(PathBuf),
    /// The write-ahead log is damaged where acknowledged commits may be.
    #[error(
        "{}, the store's write-ahead log, is damaged: {damage}. Acknowledged commits would be lost, \
         so nothing was changed: restore the store from its backup", path.display()
    )]
    DamagedLog {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A file cannot be made or opened.
    #[error("cannot open {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start the store's writer")]
    Thread(#[source] std::io::Error),
    /// SQLite failed.
    #[error("SQLite cannot open {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

/// Takes the store's lock, which is held for as long as the file is open.
pub(super) fn lock(database: &Path) -> Result<File, OpenError> {
    let path = lock_file(database);
    let file = private_file(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path)),
        Err(TryLockError::Error(source)) => Err(OpenError::File { path, source }),
    }
}

/// The file that whoever serves this database holds the lock of.
pub(super) fn lock_file(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

/// Makes the database if there is none, takes the migrations it lacks, and
/// answers the connection that writes.
pub(super) fn writable_database(
    path: &Path,
    busy_timeout: Duration,
) -> Result<Connection, OpenError> {
    // First of all: whoever opens the database recovers its log, and the log of a
    // database that is not there is removed.
    judge_log(path)?;
    // Before SQLite makes it with the process's umask; its log and shared memory
    // take over the mode.
    private_file(path)?;
    sync_folder_of(path)?;
    let mut connection = writing_connection(path, busy_timeout).map_err(sqlite_failed(path))?;
    let version = schema_version(&connection, path)?;
    // Only now, since it writes: a foreign file stays as it was.
    require_write_ahead_log(&connection, path)?;
    migrate(&mut connection, version).map_err(sqlite_failed(path))?;
    Ok(connection)
}

/// What SQLite's failures mean for this database.
pub(super) fn sqlite_failed(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError {
    |source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotOurs(path.to_owned()),
        _ => OpenError::Sqlite {
            path: path.to_owned(),
            source,
        },
    }
}

/// Refuses a log that SQLite would pass over in silence where something may be
/// lost by it, and says what else it will pass over.
fn judge_log(database: &Path) -> Result<(), OpenError> {
    let path = wal::log_of(database);
    match wal::judge(database) {
        Ok(LogEnd::Whole) => Ok(()),
        Ok(LogEnd::Torn { frames, bytes }) => {
            // SQLite recovers the log up to its last good commit, and the writer
            // empties the file before it takes the first job.
            tracing::warn!(
                file = %path.display(),
                frames,
                bytes,
                "the store's log ends in a write that was cut off or failed; a commit is acknowledged \
                 only once it is whole on the disk, so nothing of this was, and it is dropped"
            );
            Ok(())
        }
        Err(LogFault::Damaged(damage)) => Err(OpenError::DamagedLog { path, damage }),
        Err(LogFault::Unreadable(source)) => Err(OpenError::File { path, source }),
    }
}

/// The same for a store that nobody serves. Whoever serves it has judged its log,
/// and is writing it.
pub(super) fn judge_log_unless_served(database: &Path) -> Result<(), OpenError> {
    match lock(database) {
        Ok(_alone) => judge_log(database),
        Err(_) => Ok(()),
    }
}

/// A connection that only reads, to a database of ours that is there, and the
/// version of its schema.
pub(super) fn existing_database(
    path: &Path,
    busy_timeout: Duration,
) -> Result<(Connection, i64), OpenError> {
    // Since SQLite says no more than that it cannot open it. (Not by opening it:
    // closing a file takes the locks away that this process has on it.)
    path.metadata().map_err(|source| OpenError::File {
        path: path.to_owned(),
        source,
    })?;
    let connection = reading_connection(path, busy_timeout).map_err(sqlite_failed(path))?;
    match schema_version(&connection, path)? {
        0 => Err(OpenError::NotOurs(path.to_owned())),
        version => Ok((connection, version)),
    }
}

/// Another connection that writes, to a database that is open already.
pub(super) fn writing_connection(
    path: &Path,
    busy_timeout: Duration,
) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, busy_timeout)
}

/// A connection that only reads.
pub(super) fn reading_connection(
    path: &Path,
    busy_timeout: Duration,
) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout)
}

fn connect(path: &Path, mode: OpenFlags, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    // A connection is never used by two threads at once.
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    // A plan holds for every value: else a statement whose plan a partial index could
    // change is prepared anew whenever values are bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // temp_store: what a savepoint remembers must not reach a temporary file,
    // since it may be a sealed secret.
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;",
    )?;
    Ok(connection)
}

fn private_file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::File {
            path: path.to_owned(),
            source,
        })
}

/// Makes the file's name durable too: SQLite does so for its log only.
fn sync_folder_of(path: &Path) -> Result<(), OpenError> {
    let folder = folder_of(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| OpenError::File {
            path: folder.to_owned(),
            source,
        })
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

pub(super) fn schema_version(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let ask = |sql| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(sqlite_failed(path))
    };
    let application = ask("PRAGMA application_id")?;
    let version = ask("PRAGMA user_version")?;
    let tables = ask("SELECT count(*) FROM sqlite_schema")?;
    let is_new = application == 0 && version == 0 && tables == 0;
    if application != APPLICATION_ID && !is_new {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    let supported = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > supported {
        return Err(OpenError::Newer {
            found: version,
            supported,
        });
    }
    Ok(version)
}

pub(super) fn require_write_ahead_log(
    connection: &Connection,
    path: &Path,
) -> Result<(), OpenError> {
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(sqlite_failed(path))?;
    if mode.eq_ignore_ascii_case("wal") {
        Ok(())
    } else {
        Err(OpenError::NoWriteAheadLog(path.to_owned()))
    }
}

fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(version).unwrap_or(0);
    for (step, sql) in (1i64..).zip(MIGRATIONS).skip(done) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
        tracing::info!(schema_version = step, "the store's schema was migrated");
    }
    Ok(())
}
