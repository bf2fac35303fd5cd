//! The data plane on SQLite: one file, one thread that writes, a few connections
//! that read, and what is asked for most kept in memory.
//!
//! The only room that knows SQL. It keeps what it is given and decides nothing
//! about keys beyond the conditions of the port.

mod anchors;
pub mod archive;
mod batch;
mod deferred;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grants;
pub mod handles;
mod known;
mod ledger;
pub mod look;
mod open;
mod queue;
mod reads;
pub mod restoration;
mod rows;
mod scratch;
pub mod snapshot;
mod upkeep;
mod usage_counters;
mod wal;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rusqlite::Connection;

use self::batch::KeyChange;
use self::deferred::memtable::Memtable;
use self::deferred::recent_uses::RecentUses;
use self::ledger::archives::Archives;
use self::ledger::tiles::TileCache;
use self::ledger::{pages, reads as reads_of_ledger};
use self::queue::{CommitJob, Job, JobQueue};
use self::reads::ReadPool;
use self::usage_counters::UsageCounters;
use self::writer::Writer;
use crate::adapters::backlog::Backlog;
use crate::adapters::cache::CoherentCache;
use crate::domain::ids::{KeyId, KeyRef, ReceiptId, TrustAnchorId};
use crate::domain::key::StoredKey;
use crate::domain::ledger::{Tile, TileId};
use crate::domain::scope::Scope;
use crate::domain::trust_anchor::TrustAnchor;
use crate::domain::usage::{UsageCount, UsageCounter};
use crate::ports::data_plane::{
    AnchorPage, AnchorQuery, CommitError, DataPlane, KeyCounts, KeyPage, KeyQuery, LineQuery,
    Transaction, Unavailable,
};
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_store::{
    KeptReceipt, LedgerFault, LedgerHead, LedgerKey, LedgerStore, ReceiptPage, ReceiptQuery,
};

pub use self::ledger::copy::LedgerCopy;
pub use self::open::OpenError;
pub use self::wal::Damage;

/// How the store behaves.
#[derive(Clone)]
pub struct SqliteOptions {
    /// Jobs that may wait for the writer; one more is refused at once.
    pub queue: usize,
    /// How long another process's lock on the database is waited for.
    pub busy_timeout: Duration,
    /// How long a caller waits for its commit.
    pub commit_deadline: Duration,
    /// How long a caller waits for what is read from the disk.
    pub read_deadline: Duration,
    /// Keys that are kept in memory, of about a kibibyte each.
    pub cached_keys: usize,
    /// Usage counters that are kept in memory while nobody uses their key.
    pub idle_usage_counters: usize,
    /// Told of each commit, on the writer's thread before its callers are
    /// answered: it has to be quick and must not panic.
    pub on_commit: Option<OnCommit>,
    /// The fewest receipts that are moved together to where they are listed. In a large
    /// ledger they are more.
    pub generation: u64,
    /// What waits for a core meanwhile. While something does, commits that can be one
    /// write become one.
    pub backlog: Backlog,
}

/// What is told of each commit.
pub type OnCommit = Arc<dyn Fn(CommitStats) + Send + Sync>;

/// One commit, which many transactions shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitStats {
    /// From its begin until it was durable.
    pub duration: Duration,
    /// Transactions in it.
    pub transactions: usize,
    /// Receipts in it.
    pub receipts: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            queue: 4_096,
            busy_timeout: Duration::from_secs(2),
            commit_deadline: Duration::from_secs(5),
            read_deadline: Duration::from_secs(5),
            cached_keys: 100_000,
            idle_usage_counters: 100_000,
            on_commit: None,
            generation: 1_024,
            backlog: Backlog::default(),
        }
    }
}

/// The data plane in a file.
///
/// Dropping it without [`close`](DataPlane::close) does the same, and blocks
/// until what is queued is done.
pub struct SqliteDataPlane {
    in_memory: Arc<InMemory>,
    reads: ReadPool,
    archives: Arc<Archives>,
    jobs: JobQueue,
}

/// What the writer's thread changes after its commits and everyone reads.
struct InMemory {
    keys: CoherentCache<(Scope, KeyRef), Arc<StoredKey>>,
    usage_counters: UsageCounters,
    key_counts: Mutex<KeyCounts>,
    ledger_head: ArcSwap<LedgerHead>,
    tiles: TileCache,
    memtable: Memtable,
    recent_uses: RecentUses,
    probes: AtomicU64,
}

impl SqliteDataPlane {
    /// Opens the database at `path`, makes it if there is none (mode 0600, in a
    /// folder that exists), takes the migrations it lacks, and starts the writer.
    /// Blocks meanwhile.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, OpenError> {
        let lock = open::lock(path)?;
        let connection = open::writable_database(path, options.busy_timeout)?;
        let in_memory = Arc::new(InMemory {
            keys: CoherentCache::new(options.cached_keys),
            usage_counters: UsageCounters::new(options.idle_usage_counters),
            key_counts: Mutex::new(KeyCounts::default()),
            ledger_head: ArcSwap::from_pointee(LedgerHead::unknown()),
            tiles: TileCache::default(),
            memtable: Memtable::default(),
            recent_uses: RecentUses::default(),
            probes: AtomicU64::new(0),
        });
        let writer = Writer::new(
            connection,
            path.to_owned(),
            Arc::clone(&in_memory),
            options.clone(),
            lock,
        )
        .map_err(open::sqlite_failed(path))?;
        let reads = ReadPool::open(path, options.busy_timeout, options.read_deadline)
            .map_err(open::sqlite_failed(path))?;
        let jobs = JobQueue::start(options.queue, options.commit_deadline, |jobs| {
            writer.serve(jobs);
        })
        .map_err(OpenError::Thread)?;
        Ok(Self {
            in_memory,
            reads,
            archives: Arc::new(Archives::of(path)),
            jobs,
        })
    }
}

#[async_trait]
impl DataPlane for SqliteDataPlane {
    async fn find_key(
        &self,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<Option<Arc<StoredKey>>, Unavailable> {
        let name = (scope.clone(), key.clone());
        let keys = &self.in_memory.keys;
        if let Some(found) = keys.get(&name) {
            return Ok(Some(found));
        }
        // Before the read: what changes from here on is not filled in.
        let ticket = keys.begin_fill();
        let (name, found) = self
            .reads
            .read(move |connection| {
                let found = reads::find_key(connection, &name.0, &name.1)?;
                Ok((name, found.map(Arc::new)))
            })
            .await?;
        if let Some(found) = &found {
            keys.fill(ticket, name, Arc::clone(found));
        }
        Ok(found)
    }

    async fn list_keys(&self, query: KeyQuery) -> Result<KeyPage, Unavailable> {
        let page = self
            .reads
            .read(move |connection| reads::list_keys(connection, &query))
            .await?;
        Ok(page)
    }

    async fn list_line(&self, query: LineQuery) -> Result<KeyPage, Unavailable> {
        let page = self
            .reads
            .read(move |connection| reads::list_line(connection, &query))
            .await?;
        Ok(page)
    }

    async fn usage_counter(&self, key_id: KeyId) -> Result<Arc<UsageCounter>, Unavailable> {
        match self.in_memory.usage_counters.get(key_id) {
            Some(counter) => Ok(counter),
            None => {
                self.jobs
                    .ask(|answer| Job::StartCounter(key_id, answer))
                    .await
            }
        }
    }

    async fn usage_count(&self, key_id: KeyId) -> Result<UsageCount, Unavailable> {
        // Without the writer, who may be busy with a disk that hangs.
        let live = self.in_memory.usage_counters.get(key_id);
        let live = live.map(|counter| counter.count());
        match live.or_else(|| self.in_memory.recent_uses.get(key_id)) {
            Some(count) => Ok(count),
            None => Ok(self
                .reads
                .read(move |connection| rows::read_usage(connection, key_id))
                .await?),
        }
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError> {
        self.jobs
            .ask(|answer| {
                Job::Commit(CommitJob {
                    transaction,
                    answer,
                })
            })
            .await
    }

    async fn pin(&self, name: &'static str, value: &[u8]) -> Result<Vec<u8>, Unavailable> {
        self.jobs
            .ask(|answer| Job::Pin(name, value.to_vec(), answer))
            .await
    }

    async fn probe_write(&self) -> Result<(), Unavailable> {
        self.jobs.ask(Job::Probe).await
    }

    async fn find_trust_anchor(
        &self,
        scope: &Scope,
        trust_anchor_id: TrustAnchorId,
    ) -> Result<Option<TrustAnchor>, Unavailable> {
        let scope = scope.clone();
        let anchor = self
            .reads
            .read(move |connection| anchors::find(connection, &scope, trust_anchor_id))
            .await?;
        Ok(anchor)
    }

    async fn list_trust_anchors(&self, query: AnchorQuery) -> Result<AnchorPage, Unavailable> {
        let page = self
            .reads
            .read(move |connection| anchors::list(connection, &query))
            .await?;
        Ok(page)
    }

    async fn all_trust_anchors(&self) -> Result<Vec<TrustAnchor>, Unavailable> {
        Ok(self.reads.read(anchors::all).await?)
    }

    async fn is_grant_spent(&self, token_id: &str) -> Result<bool, Unavailable> {
        let token_id = token_id.to_owned();
        let is_spent = self
            .reads
            .read(move |connection| grants::is_spent(connection, &token_id))
            .await?;
        Ok(is_spent)
    }

    async fn count_trust_anchors(&self) -> Result<u64, Unavailable> {
        Ok(self.reads.read(reads::count_trust_anchors).await?)
    }

    fn key_counts(&self) -> KeyCounts {
        self.in_memory.lock_key_counts().clone()
    }

    async fn close(&self) {
        self.reads.close();
        self.archives.close();
        self.jobs.close().await;
    }
}

#[async_trait]
impl LedgerStore for SqliteDataPlane {
    async fn begin_ledger(&self, signer: Arc<dyn EvidenceLedger>) -> Result<(), LedgerFault> {
        // The receipts of an old release may take their time, once.
        self.jobs
            .ask_and_wait(|answer| Job::BeginLedger(signer, answer))
            .await
    }

    async fn hand_over_ledger(&self) -> Result<(), Unavailable> {
        self.jobs.ask(Job::HandOver).await
    }

    fn ledger_head(&self) -> Arc<LedgerHead> {
        self.in_memory.ledger_head.load_full()
    }

    async fn read_tiles(
        &self,
        tiles: Vec<TileId>,
    ) -> Result<BTreeMap<TileId, Arc<Tile>>, Unavailable> {
        let (mut found, missing) = self.in_memory.tiles.look(tiles);
        if missing.is_empty() {
            return Ok(found);
        }
        let read = move |connection: &Connection| reads_of_ledger::tiles(connection, &missing);
        for (id, tile) in self.reads.read(read).await? {
            self.in_memory.tiles.keep(id, Arc::clone(&tile));
            found.insert(id, tile);
        }
        Ok(found)
    }

    async fn read_leaves(&self, first: u64, number: usize) -> Result<Vec<Vec<u8>>, Unavailable> {
        let archives = Arc::clone(&self.archives);
        let leaves = self
            .reads
            .read(move |store| reads_of_ledger::leaves(store, &archives, first, number))
            .await?;
        Ok(leaves)
    }

    async fn find_receipt(
        &self,
        scope: &Scope,
        receipt_id: ReceiptId,
    ) -> Result<Option<KeptReceipt>, Unavailable> {
        let (archives, scope) = (Arc::clone(&self.archives), scope.clone());
        let receipt = self
            .reads
            .read(move |store| reads_of_ledger::find_receipt(store, &archives, &scope, receipt_id))
            .await?;
        Ok(receipt)
    }

    async fn list_receipts(&self, query: ReceiptQuery) -> Result<ReceiptPage, Unavailable> {
        let (archives, in_memory) = (Arc::clone(&self.archives), Arc::clone(&self.in_memory));
        let page = self
            .reads
            .read(move |store| pages::list_receipts(store, &in_memory.memtable, &archives, &query))
            .await?;
        Ok(page)
    }

    async fn newest_receipt(&self) -> Result<Option<KeptReceipt>, Unavailable> {
        Ok(self.reads.read(reads_of_ledger::newest_receipt).await?)
    }

    async fn ledger_keys(&self) -> Result<Vec<LedgerKey>, Unavailable> {
        Ok(self.reads.read(ledger::rows::read_keys).await?)
    }
}

impl Drop for SqliteDataPlane {
    fn drop(&mut self) {
        self.reads.close();
        self.jobs.close_blocking();
    }
}

impl InMemory {
    fn count_keys(&self, changes: &[KeyChange]) {
        if changes.is_empty() {
            return;
        }
        let mut counts = self.lock_key_counts();
        for change in changes {
            match change.before {
                Some(before) => counts.step(change.key_type, before, change.after),
                None => counts.add(change.key_type, change.after, 1),
            }
        }
    }

    fn next_probe(&self) -> u64 {
        self.probes.fetch_add(1, Ordering::Relaxed)
    }

    fn lock_key_counts(&self) -> MutexGuard<'_, KeyCounts> {
        // Numbers are whole after every step, whoever panicked elsewhere.
        self.key_counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
