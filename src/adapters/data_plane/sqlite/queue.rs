//! The bounded queue in front of the writer's thread: who waits there, for how
//! long, and how it ends. Knows no SQL.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::fault::StoreFault;
use crate::domain::ids::KeyId;
use crate::domain::time::Timestamp;
use crate::domain::usage::UsageCounter;
use crate::ports::data_plane::{CommitError, Transaction, Unavailable};
use crate::ports::handle_store::HandleReplacement;
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_store::LedgerFault;
use crate::ports::upkeep_store::{KeyIntent, Lease, LeaseHolder};

/// Where an answer goes; closed once nobody waits for it.
pub(super) type Answer<T, E = Unavailable> = oneshot::Sender<Result<T, E>>;

/// One piece of work for the writer.
pub(super) enum Job {
    /// Keep a transaction.
    Commit(CommitJob),
    /// Start the live counter of a key.
    StartCounter(KeyId, Answer<Arc<UsageCounter>>),
    /// Verify the ledger, and begin to append with this signer.
    BeginLedger(Arc<dyn EvidenceLedger>, Answer<(), LedgerFault>),
    /// Let the signer's next key take over.
    HandOver(Answer<()>),
    /// Pin a value to a name.
    Pin(&'static str, Vec<u8>, Answer<Vec<u8>>),
    /// Something for upkeep.
    Upkeep(UpkeepJob),
    /// Something with handles.
    Handles(HandleJob),
    /// Write and read back.
    Probe(Answer<()>),
}

impl Job {
    /// Whether it keeps uses that took long, so that it may wait a moment longer.
    pub(super) fn took_long(&self) -> bool {
        match self {
            Self::Commit(job) => {
                let key_use = job.transaction.key_use.as_ref();
                key_use.is_some_and(|key_use| key_use.took_long)
            }
            _ => false,
        }
    }
}

/// What there is to do for upkeep.
pub(super) enum UpkeepJob {
    /// Take a task on.
    TakeLease(&'static str, Timestamp, Lease, Answer<bool>),
    /// Leave a task to others.
    ReleaseLease(&'static str, LeaseHolder, Answer<()>),
    /// Announce a key.
    BeginKey(KeyIntent, Answer<()>),
    /// Give an announced key up.
    AbandonKey(KeyId, Answer<bool>),
    /// Forget a key that was given up.
    EndIntent(KeyId, Answer<()>),
}

/// What there is to do with handles that are replaced.
pub(super) enum HandleJob {
    /// Replace them.
    Replace(Vec<HandleReplacement>, Answer<u64>),
    /// Leave nothing of the old ones on the disk.
    WipeReplaced(Answer<bool>),
    /// Move a pin from one value to another.
    MovePin(&'static str, Vec<u8>, Vec<u8>, Answer<Vec<u8>>),
}

/// A transaction and who waits for it.
pub(super) struct CommitJob {
    pub(super) transaction: Transaction,
    pub(super) answer: Answer<(), CommitError>,
}

/// The sending side, and the thread behind it.
pub(super) struct JobQueue {
    /// Dropped to close: the thread then finishes what is queued, and ends.
    sender: RwLock<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closes when the thread has ended.
    ended: watch::Receiver<()>,
    deadline: Duration,
}

impl JobQueue {
    /// A queue of `capacity` jobs, and the thread that runs `serve` on it.
    pub(super) fn start(
        capacity: usize,
        deadline: Duration,
        serve: impl FnOnce(Receiver<Job>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, jobs) = sync_channel(capacity.max(1));
        let (end, ended) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("kms-store-writer".to_owned())
            .spawn(move || {
                // Dropped last, whether the thread ends or panics.
                let _end = end;
                serve(jobs);
            })?;
        Ok(Self {
            sender: RwLock::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            ended,
            deadline,
        })
    }

    /// Hands over a job and waits for its answer, at most until the deadline.
    pub(super) async fn ask<T, E: From<Unavailable>>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Job,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.deadline, self.ask_and_wait(job)).await {
            Ok(answer) => answer,
            Err(_) => Err(gone(StoreFault::DeadlinePassed(self.deadline))),
        }
    }

    /// The same for as long as it takes: for the start, where nobody waits.
    pub(super) async fn ask_and_wait<T, E: From<Unavailable>>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Job,
    ) -> Result<T, E> {
        let (answer, answered) = oneshot::channel();
        self.send(job(answer)).map_err(gone)?;
        // An error says that the writer has gone, its work with it.
        answered
            .await
            .unwrap_or_else(|_| Err(gone(StoreFault::Closed)))
    }

    /// Takes no more jobs and waits until those that are queued are done.
    pub(super) async fn close(&self) {
        self.stop_taking();
        let mut ended = self.ended.clone();
        // Nothing is ever sent: an error means that the sender was dropped.
        while ended.changed().await.is_ok() {}
        self.join();
    }

    /// The same, for those who cannot await.
    pub(super) fn close_blocking(&self) {
        self.stop_taking();
        self.join();
    }

    fn send(&self, job: Job) -> Result<(), StoreFault> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.as_ref().ok_or(StoreFault::Closed)?;
        sender.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreFault::QueueFull,
            TrySendError::Disconnected(_) => StoreFault::Closed,
        })
    }

    fn stop_taking(&self) {
        self.sender
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer has panicked");
        }
    }
}

fn gone<E: From<Unavailable>>(fault: StoreFault) -> E {
    E::from(Unavailable::from(fault))
}
