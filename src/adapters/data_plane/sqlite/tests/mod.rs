//! What the store on SQLite promises beyond the port: its files, its schema, and
//! how it fails.

mod archives;
mod deferred;
mod durability;
mod faults;
mod growth;
mod handles;
mod ledger;
mod schema;
mod snapshots;
mod wal;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use rusqlite::Connection;

use super::{CommitStats, OpenError, SqliteDataPlane, SqliteOptions};
use crate::adapters::data_plane::conformance::{begin, receipt_in, scope};
use crate::ports::data_plane::{CommitError, DataPlane, Transaction};

/// A folder with a database in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("kms.db")
    }

    fn open(&self) -> SqliteDataPlane {
        self.open_with(few_in_memory())
    }

    fn open_with(&self, options: SqliteOptions) -> SqliteDataPlane {
        let store = SqliteDataPlane::open(&self.database(), options).expect("a database of ours");
        begin(&store);
        store
    }

    /// A store whose writer can be stopped. (The gate goes first, so that a
    /// failed test does not wait for a writer that waits for it.)
    fn open_gated(&self, options: SqliteOptions) -> (SqliteDataPlane, Gate) {
        let (is_stopped, stopped) = sync_channel(1);
        let (go, may_go) = sync_channel(1);
        let gate = Gate {
            is_armed: Arc::default(),
            stopped,
            go,
            commits: Arc::default(),
        };
        let (is_armed, commits) = (Arc::clone(&gate.is_armed), Arc::clone(&gate.commits));
        let may_go = Mutex::new(may_go);
        let on_commit = move |stats| {
            commits.lock().expect("no panic").push(stats);
            if is_armed.swap(false, Ordering::SeqCst) {
                is_stopped.send(()).expect("the test waits");
                // An error means that the test has ended.
                let _ = may_go.lock().expect("no panic").recv();
            }
        };
        let store = self.open_with(SqliteOptions {
            on_commit: Some(Arc::new(on_commit)),
            ..options
        });
        (store, gate)
    }

    fn refusal(&self) -> OpenError {
        match SqliteDataPlane::open(&self.database(), SqliteOptions::default()) {
            Err(error) => error,
            Ok(_) => panic!("this must not open"),
        }
    }

    /// A connection as another process would have it.
    fn foreign_connection(&self) -> Connection {
        Connection::open(self.database()).expect("a database")
    }

    /// Takes the write lock, as another process would.
    fn write_lock(&self) -> Connection {
        let connection = self.foreign_connection();
        connection
            .execute_batch("BEGIN IMMEDIATE")
            .expect("nobody writes");
        connection
    }
}

/// Holds a writer between two commits, so that what is queued meanwhile is one
/// batch.
struct Gate {
    is_armed: Arc<AtomicBool>,
    stopped: Receiver<()>,
    go: SyncSender<()>,
    commits: Arc<Mutex<Vec<CommitStats>>>,
}

impl Gate {
    /// Commits one receipt and stops the writer before it answers.
    fn occupy<'a>(&self, store: &'a dyn DataPlane) -> Commit<'a> {
        self.is_armed.store(true, Ordering::SeqCst);
        let commit = enqueue(store, one_receipt());
        self.stopped.recv().expect("the writer commits");
        commit
    }

    /// Lets the writer go on.
    fn release(&self) {
        self.go.send(()).expect("the writer waits");
    }

    fn commits(&self) -> Vec<CommitStats> {
        self.commits.lock().expect("no panic").clone()
    }

    fn largest_commit(&self) -> usize {
        let commits = self.commits();
        let sizes = commits.iter().map(|stats| stats.transactions);
        sizes.max().expect("something was committed")
    }
}

fn one_receipt() -> Transaction {
    Transaction {
        receipts: vec![receipt_in(&scope("t"))],
        ..Transaction::default()
    }
}

/// Receipts and uses go from the memory to their places soon.
fn few_in_memory() -> SqliteOptions {
    SqliteOptions {
        generation: 64,
        ..SqliteOptions::default()
    }
}

type Commit<'a> = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send + 'a>>;

/// A commit that is in the queue, or has its answer at once.
fn start<'a>(
    store: &'a dyn DataPlane,
    transaction: Transaction,
) -> (Commit<'a>, Poll<Result<(), CommitError>>) {
    let mut commit = store.commit(transaction);
    let first = commit
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    (commit, first)
}

/// A commit that is in the queue.
fn enqueue<'a>(store: &'a dyn DataPlane, transaction: Transaction) -> Commit<'a> {
    let (commit, first) = start(store, transaction);
    assert!(first.is_pending(), "{first:?}");
    commit
}

fn is_unavailable(result: &Result<(), CommitError>) -> bool {
    matches!(result, Err(CommitError::Unavailable(_)))
}
