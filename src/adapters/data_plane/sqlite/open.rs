//! Opening the database: its file, its lock, its connections and its migrations.
//! Knows nothing of keys or receipts.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// "ZKMS" in ASCII: the `application_id` of our databases.
const APPLICATION_ID: i64 = 0x5A4B_4D53;

/// The schema, step by step; `user_version` counts the steps a database has taken.
/// A step that was released is never edited.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_keys_receipts_anchors.sql"),
    include_str!("migrations/0002_spent_grants.sql"),
    include_str!("migrations/0003_ledger_tree.sql"),
];

/// Statements that a connection keeps prepared: more than there are in this room.
const PREPARED_STATEMENTS: usize = 64;

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
    #[error("SQLite failed to open the store")]
    Sqlite(#[from] rusqlite::Error),
}

/// Takes the store's lock, which is held for as long as the file is open.
pub(super) fn lock(database: &Path) -> Result<File, OpenError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file = private_file(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path)),
        Err(TryLockError::Error(source)) => Err(OpenError::File { path, source }),
    }
}

/// Makes the database if there is none, takes the migrations it lacks, and
/// answers the connection that writes.
pub(super) fn writable_database(
    path: &Path,
    busy_timeout: Duration,
) -> Result<Connection, OpenError> {
    // Before SQLite makes it with the process's umask; its log and shared memory
    // take over the mode.
    private_file(path)?;
    sync_folder_of(path)?;
    let not_ours = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotOurs(path.to_owned()),
        _ => OpenError::Sqlite(error),
    };
    let mut connection = writing_connection(path, busy_timeout).map_err(not_ours)?;
    let version = schema_version(&connection, path)?;
    // Only now, since it writes: a foreign file stays as it was.
    require_write_ahead_log(&connection, path)?;
    migrate(&mut connection, version)?;
    Ok(connection)
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
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| OpenError::File {
            path: folder.to_owned(),
            source,
        })
}

pub(super) fn schema_version(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
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

fn require_write_ahead_log(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
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
