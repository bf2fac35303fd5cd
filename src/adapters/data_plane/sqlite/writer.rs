//! The writer's thread: the only one that writes. It takes whatever is waiting,
//! commits all of it at once, and answers only then. What is kept in memory
//! changes after a commit and before its answers.

mod applying;
mod deferring;
mod gathering;
mod handles;
mod ledger;
mod log;
mod upkeep;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};

use self::gathering::{Gathered, first_pause, next_pause};
use super::batch::{Batch, Effects};
use super::deferred::Deferred;
use super::fault::StoreFault;
use super::known::Known;
use super::open;
use super::queue::{CommitJob, Job};
use super::rows::{read_key_counts, read_usage};
use super::{CommitStats, InMemory, OnCommit, SqliteOptions};
use crate::adapters::backlog::Backlog;
use crate::domain::ids::KeyRef;
use crate::domain::ledger::CompleteTile;
use crate::ports::data_plane::{CommitError, Unavailable};
use crate::ports::ledger::EvidenceLedger;

/// Jobs that share one durable write, at most: enough to spread the cost of the
/// disk, few enough that nobody waits long for the others.
const LARGEST_BATCH: usize = 512;

/// How often a checkpoint is kept for good, while receipts come: for those who
/// later ask what the ledger was at some time.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// The name in `meta` that the health check writes to.
const PROBE: &str = "probe";

/// Everything that the thread owns.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    busy_timeout: Duration,
    in_memory: Arc<InMemory>,
    on_commit: Option<OnCommit>,
    backlog: Backlog,
    /// Signs; `None` until the ledger has begun.
    signer: Option<Arc<dyn EvidenceLedger>>,
    known: Known,
    deferred: Deferred,
    /// When a checkpoint is to be kept for good again.
    checkpoint_due: Instant,
    /// A failed commit may have reached the disk: what is in memory is read anew.
    in_doubt: bool,
    /// An erased secret may still be in the write-ahead log.
    log_holds_secret: bool,
    /// When the emptying of the log is tried again after it was held up.
    log_due: Instant,
    /// How many transactions shared the last write.
    last_batch: usize,
    /// Held for as long as anything is written.
    _lock: File,
}

impl Writer {
    /// A writer on an open database, whose totals it reads.
    pub(super) fn new(
        connection: Connection,
        path: PathBuf,
        in_memory: Arc<InMemory>,
        options: SqliteOptions,
        lock: File,
    ) -> rusqlite::Result<Self> {
        let busy_timeout = options.busy_timeout;
        let mut writer = Self {
            connection,
            path,
            busy_timeout,
            in_memory,
            on_commit: options.on_commit,
            backlog: options.backlog,
            signer: None,
            known: Known::default(),
            deferred: Deferred::new(options.generation),
            checkpoint_due: Instant::now(),
            in_doubt: false,
            // The last process may have died between an erasure and its checkpoint.
            log_holds_secret: true,
            log_due: Instant::now(),
            last_batch: 0,
            _lock: lock,
        };
        writer.read_key_counts()?;
        writer.read_recent()?;
        // The log may hold a commit that failed to become durable before the last
        // process died, and that is good to read all the same. Nothing is built on
        // it before the database has it: a later success of the disk would not
        // cover it.
        writer.try_truncate_log(busy_timeout)?;
        if let Err(error) = writer.move_what_is_left() {
            tracing::warn!(%error, "receipts cannot be listed in their places: they are in memory");
            writer.roll_back();
            writer.read_recent()?;
        }
        Ok(writer)
    }

    /// Serves until the queue is closed and empty.
    pub(super) fn serve(mut self, jobs: Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut commits = Vec::new();
            let mut probes = Vec::new();
            for job in self.gather(first, &jobs) {
                match job {
                    Job::Commit(job) => commits.push(job),
                    Job::StartCounter(key_id, answer) => {
                        let kept = match self.in_memory.recent_uses.get(key_id) {
                            Some(kept) => Ok(kept),
                            None => read_usage(&self.connection, key_id),
                        };
                        let counters = &self.in_memory.usage_counters;
                        let counter = kept.map(|kept| counters.start(key_id, kept));
                        // Whoever no longer waits needs no answer, here and below.
                        let _ = answer.send(counter.map_err(unavailable));
                    }
                    Job::BeginLedger(signer, answer) => {
                        let _ = answer.send(self.begin_ledger(signer));
                    }
                    Job::HandOver(answer) => {
                        // What was queued before it comes before it.
                        self.commit(std::mem::take(&mut commits));
                        let _ = answer.send(self.hand_over().map_err(Unavailable::from));
                    }
                    Job::Pin(name, value, answer) => {
                        let _ = answer.send(self.pin(name, &value).map_err(unavailable));
                    }
                    Job::Upkeep(job) => {
                        // What was queued before it comes before it: a key that is given up
                        // must not be stored by what was not looked at yet.
                        self.commit(std::mem::take(&mut commits));
                        self.do_upkeep(job);
                    }
                    Job::Handles(job) => self.do_with_handles(job),
                    Job::Probe(answer) => probes.push(answer),
                }
            }
            self.last_batch = commits.len();
            self.commit(commits);
            // Last: a probe that is answered says that what came before is decided.
            for answer in probes {
                let _ = answer.send(self.probe().map_err(Unavailable::from));
            }
        }
        self.log_holds_secret = true;
        self.truncate_log(self.busy_timeout);
    }

    /// This one and what comes soon enough to share the next write.
    fn gather(&self, first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
        let mut gathered = vec![first];
        if let Some(pause) = first_pause(self.last_batch) {
            std::thread::sleep(pause);
        }
        let mut waited = Duration::ZERO;
        loop {
            gathered.extend(jobs.try_iter().take(LARGEST_BATCH - gathered.len()));
            let came = Gathered {
                number: gathered.len(),
                all_took_long: gathered.iter().all(Job::took_long),
            };
            let Some(pause) = next_pause(came, self.backlog.waiting(), waited) else {
                break;
            };
            std::thread::sleep(pause);
            waited += pause;
        }
        gathered
    }

    fn commit(&mut self, jobs: Vec<CommitJob>) {
        if jobs.is_empty() {
            return;
        }
        let started = Instant::now();
        let mut kept = Vec::with_capacity(jobs.len());
        let mut refused = Vec::new();
        let effects = match self.write_batch(jobs, &mut kept, &mut refused) {
            Ok(effects) => effects,
            Err(fault) => {
                tracing::error!(
                    error = &fault as &dyn std::error::Error,
                    "a batch could not be committed"
                );
                self.roll_back();
                // A refusal may stand on what was rolled back: nobody gets one.
                for job in kept
                    .into_iter()
                    .chain(refused.into_iter().map(|(job, _)| job))
                {
                    fail(job, fault.clone());
                }
                return;
            }
        };
        let stats = CommitStats {
            duration: started.elapsed(),
            transactions: kept.len(),
            receipts: effects.receipts.len() as u64,
        };
        let has_erased = effects.keys.iter().any(|change| change.erases);
        self.publish(effects);
        if has_erased {
            // What holds the log up already, such as a backup, is not waited for again.
            let wait = match self.log_holds_secret {
                true => Duration::ZERO,
                false => self.busy_timeout,
            };
            self.log_holds_secret = true;
            self.truncate_log(wait);
        } else if Instant::now() >= self.log_due {
            self.truncate_log(Duration::ZERO);
        }
        if let Some(on_commit) = &self.on_commit
            && stats.transactions > 0
        {
            on_commit(stats);
        }
        for CommitJob {
            transaction,
            answer,
        } in kept
        {
            if let Some(key_use) = transaction.key_use {
                key_use.reservation.keep();
            }
            let _ = answer.send(Ok(()));
        }
        for (job, error) in refused {
            // The use is given back before the caller hears of it.
            drop(job.transaction);
            let _ = job.answer.send(Err(error));
        }
    }

    /// Applies and commits all that can be. On failure the jobs are in the two
    /// lists all the same, so that each can be answered.
    fn write_batch(
        &mut self,
        jobs: Vec<CommitJob>,
        kept: &mut Vec<CommitJob>,
        refused: &mut Vec<(CommitJob, CommitError)>,
    ) -> Result<Effects, StoreFault> {
        let mut jobs = jobs.into_iter();
        let outcome = self.apply_all(&mut jobs, kept, refused);
        kept.extend(jobs);
        outcome
    }

    fn apply_all(
        &mut self,
        jobs: &mut impl Iterator<Item = CommitJob>,
        kept: &mut Vec<CommitJob>,
        refused: &mut Vec<(CommitJob, CommitError)>,
    ) -> Result<Effects, StoreFault> {
        let signer = self.signer.clone().ok_or(StoreFault::LedgerNotBegun)?;
        begin(&self.connection)?;
        if self.in_doubt {
            self.settle_doubt(&*signer)?;
        }
        let tree = self.in_memory.ledger_head.load().tree.clone();
        let recent_uses = &self.in_memory.recent_uses;
        let mut batch = Batch::new(&self.connection, &*signer, &self.known, recent_uses, tree);
        applying::apply(&mut batch, jobs, kept, refused)?;
        let now = Instant::now();
        let keep_checkpoint = now >= self.checkpoint_due;
        let effects = batch.finish(keep_checkpoint)?;
        let receipts = effects.receipts.len() as u64;
        self.deferred.step(&self.connection, receipts)?;
        if keep_checkpoint && effects.head.is_some() {
            self.checkpoint_due = now + CHECKPOINT_EVERY;
        }
        if let Err(error) = commit(&self.connection) {
            self.in_doubt = true;
            // The readers' caches may not outlive what may have changed.
            self.invalidate(&effects);
            return Err(error.into());
        }
        Ok(effects)
    }

    fn publish(&mut self, effects: Effects) {
        self.invalidate(&effects);
        let in_memory = &self.in_memory;
        in_memory.count_keys(&effects.keys);
        self.known.remember(effects.scopes, effects.versions);
        in_memory.recent_uses.append(effects.uses);
        for CompleteTile { id, tile } in effects.tiles {
            in_memory.tiles.keep(id, Arc::new(tile));
        }
        if let Some(head) = effects.head {
            in_memory
                .memtable
                .append(effects.receipts, head.tree.size());
            in_memory.ledger_head.store(Arc::new(head));
        }
        self.have_moved();
    }

    fn invalidate(&self, effects: &Effects) {
        for change in &effects.keys {
            let names = change.aliases.iter().flatten().cloned().map(KeyRef::Alias);
            for name in names.chain([KeyRef::Id(change.key_id)]) {
                self.in_memory
                    .keys
                    .invalidate(&(change.scope.clone(), name));
            }
        }
    }

    /// Stores the value if the name has none, and answers what is stored.
    fn pin(&mut self, name: &'static str, value: &[u8]) -> rusqlite::Result<Vec<u8>> {
        // Read first: a later start needs no write, and so no lock.
        if let Some(pinned) = self.read_meta(name).optional()? {
            return Ok(pinned);
        }
        let pinned = begin(&self.connection)
            .and_then(|()| {
                self.connection.execute(
                    "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    params![name, value],
                )
            })
            .and_then(|_| commit(&self.connection))
            .and_then(|()| self.read_meta(name));
        if pinned.is_err() {
            self.roll_back();
        }
        pinned
    }

    /// Counts one up in a commit of its own, and reads it back.
    fn probe(&mut self) -> Result<(), StoreFault> {
        let number = self.in_memory.next_probe().to_be_bytes();
        let probed = begin(&self.connection)
            .and_then(|()| {
                self.connection.execute(
                    "INSERT INTO meta (name, value) VALUES (?1, ?2) \
                     ON CONFLICT DO UPDATE SET value = excluded.value",
                    params![PROBE, number],
                )
            })
            .and_then(|_| commit(&self.connection))
            .and_then(|()| self.read_meta(PROBE));
        match probed {
            Ok(read) if read == number => Ok(()),
            Ok(_) => Err(StoreFault::ProbeLost),
            Err(error) => {
                self.roll_back();
                Err(error.into())
            }
        }
    }

    fn read_meta(&self, name: &str) -> rusqlite::Result<Vec<u8>> {
        self.connection
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
    }

    fn read_key_counts(&self) -> rusqlite::Result<()> {
        *self.in_memory.lock_key_counts() = read_key_counts(&self.connection)?;
        Ok(())
    }

    /// Leaves no transaction open, whatever it takes; the next batch tries anew.
    fn roll_back(&mut self) {
        self.deferred.rolled_back();
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "a rollback failed, the store is opened anew");
        }
        if !self.connection.is_autocommit() {
            match open::writing_connection(&self.path, self.busy_timeout) {
                Ok(connection) => self.connection = connection,
                Err(error) => tracing::error!(%error, "the store cannot be opened"),
            }
        }
    }
}

fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("BEGIN IMMEDIATE")?
        .execute([])
        .map(drop)
}

fn commit(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("COMMIT")?.execute([]).map(drop)
}

fn fail(job: CommitJob, fault: StoreFault) {
    // The use is given back before the caller hears of it.
    drop(job.transaction);
    let _ = job.answer.send(Err(Unavailable::from(fault).into()));
}

fn unavailable(error: rusqlite::Error) -> Unavailable {
    StoreFault::from(error).into()
}
