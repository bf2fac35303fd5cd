//! Leads the auditor through a ledger, wherever it is.

use super::{Auditor, Claims, Stop};
use crate::domain::ledger::{Checkpoint, LedgerFlaw, SignedNote, VerifierKey};
use crate::ports::ledger_source::{KeptCheckpoint, LedgerSource, SourceFault, Stretch};

/// Receipts that are looked at together: enough for their signatures to cost half,
/// and a whole tile or a few.
const STRIDE: u64 = 1024;

/// Kept checkpoints that are read together.
const CHECKPOINT_PAGE: usize = 256;

/// A ledger that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// The ledger's size and root.
    pub checkpoint: Checkpoint,
    /// How many of its receipts were not there to be looked at: the tree has the
    /// hashes of those that were signed.
    pub by_tree_alone: u64,
    /// The files that those are in.
    pub away: Vec<String>,
    /// The keys that signed, the first one first.
    pub keys: Vec<VerifierKey>,
    /// How many checkpoints on the way were there and held, beside the newest.
    pub kept_checkpoints: u64,
    /// The checkpoint that the auditor kept, where there is one.
    pub since: Option<Checkpoint>,
}

/// How far an audit has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditProgress {
    /// Receipts that are behind it.
    pub receipts: u64,
    /// All of them.
    pub of: u64,
}

/// Why a ledger was not found good.
#[derive(Debug, thiserror::Error)]
pub enum AuditFailure {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SourceFault),
    /// The checkpoint that the auditor kept is none.
    #[error("the given checkpoint is not a signed checkpoint of a ledger (C2SP tlog-checkpoint)")]
    SinceMalformed,
    /// It does not verify.
    #[error("{flaw}")]
    Flawed {
        /// The first flaw.
        flaw: LedgerFlaw,
        /// The first place that is or may be wrong.
        first_bad: u64,
        /// The receipts before this are under a checkpoint that holds.
        held: u64,
    },
}

/// Checks a ledger. Without a key to trust, its own are taken.
///
/// # Errors
/// [`AuditFailure`].
pub fn audit(
    source: &mut dyn LedgerSource,
    trusted: &[VerifierKey],
    since: Option<&str>,
    progress: &mut dyn FnMut(AuditProgress),
) -> Result<AuditReport, AuditFailure> {
    let since = match since {
        None => None,
        Some(text) => Some(read_note(text).ok_or(AuditFailure::SinceMalformed)?),
    };
    let since = since.as_ref().map(|(note, checkpoint)| (note, *checkpoint));
    let walked = walk(source, trusted, since, progress);
    // A flaw that somebody wrote in between is none, and neither is its absence.
    source.settle()?;
    walked
}

fn read_note(text: &str) -> Option<(SignedNote, Checkpoint)> {
    let note: SignedNote = text.parse().ok()?;
    let checkpoint = Checkpoint::from_text(&note.text).ok()?;
    Some((note, checkpoint))
}

fn walk(
    source: &mut dyn LedgerSource,
    trusted: &[VerifierKey],
    since: Option<(&SignedNote, Checkpoint)>,
    progress: &mut dyn FnMut(AuditProgress),
) -> Result<AuditReport, AuditFailure> {
    let head = source.head()?;
    let size = source.size()?;
    let claims = Claims {
        keys: source.keys()?,
        head: head.as_deref(),
        size,
        trusted,
        since,
    };
    let mut auditor = Auditor::new(claims).map_err(|flaw| flawed(flaw, 0, 0))?;
    let mut checkpoints = Checkpoints::default();
    let mut away = Vec::new();
    let of = auditor.end();
    while auditor.next() < of {
        let first = auditor.next();
        let most = (STRIDE - first % STRIDE).min(of - first);
        checkpoints.feed(source, &mut auditor, first + most)?;
        let taken = match source.stretch(first, most as usize)? {
            Stretch::Leaves(leaves) if leaves.is_empty() => {
                Err(Stop::Flaw(LedgerFlaw::ReceiptMissing { leaf_index: first }))
            }
            Stretch::Leaves(leaves) => auditor.take(&leaves, &mut |tile| source.tile(tile)),
            Stretch::Away { end, file } => {
                if !away.contains(&file) {
                    away.push(file);
                }
                let until = end.min(first + most);
                auditor.take_by_tree(until, &mut |tile| source.tile(tile))
            }
        };
        taken.map_err(|stop| stopped(stop, &auditor))?;
        progress(AuditProgress {
            receipts: auditor.next(),
            of,
        });
    }
    checkpoints.feed(source, &mut auditor, of)?;
    if let Some(leftover) = checkpoints.waiting {
        auditor.take_checkpoint(&leftover);
    }
    let (next, held) = (auditor.next(), auditor.held());
    let report = auditor
        .finish(&mut |tile| source.tile(tile))
        .map_err(|stop| match stop {
            Stop::Flaw(flaw) => flawed(flaw, next, held),
            Stop::Source(fault) => fault.into(),
        })?;
    Ok(AuditReport { away, ..report })
}

/// The kept checkpoints that the auditor has not been given yet.
#[derive(Default)]
struct Checkpoints {
    page: std::vec::IntoIter<KeptCheckpoint>,
    read: u64,
    waiting: Option<KeptCheckpoint>,
}

impl Checkpoints {
    /// Gives the auditor those up to the first of a tree beyond this size.
    fn feed(
        &mut self,
        source: &mut dyn LedgerSource,
        auditor: &mut Auditor,
        size: u64,
    ) -> Result<(), SourceFault> {
        loop {
            if self.waiting.is_none() {
                self.waiting = self.next(source)?;
            }
            match self.waiting.take() {
                Some(kept) if kept.size <= size => auditor.take_checkpoint(&kept),
                waiting => {
                    self.waiting = waiting;
                    return Ok(());
                }
            }
        }
    }

    fn next(
        &mut self,
        source: &mut dyn LedgerSource,
    ) -> Result<Option<KeptCheckpoint>, SourceFault> {
        if let Some(kept) = self.page.next() {
            return Ok(Some(kept));
        }
        let page = source.checkpoints(self.read + 1, CHECKPOINT_PAGE)?;
        self.read = page.last().map_or(self.read, |kept| kept.number);
        self.page = page.into_iter();
        Ok(self.page.next())
    }
}

fn stopped(stop: Stop<SourceFault>, auditor: &Auditor) -> AuditFailure {
    match stop {
        Stop::Flaw(flaw) => flawed(flaw, auditor.next(), auditor.held()),
        Stop::Source(fault) => fault.into(),
    }
}

/// A flaw with the first place that it touches. What a checkpoint shows is
/// somewhere behind the last one that held.
fn flawed(flaw: LedgerFlaw, next: u64, held: u64) -> AuditFailure {
    let first_bad = match flaw {
        LedgerFlaw::ReceiptMissing { leaf_index }
        | LedgerFlaw::ReceiptMalformed { leaf_index }
        | LedgerFlaw::ReceiptForged { leaf_index }
        | LedgerFlaw::ReceiptSigner { leaf_index }
        | LedgerFlaw::ReceiptChanged { leaf_index } => leaf_index,
        LedgerFlaw::RootDiffers { .. } | LedgerFlaw::Forked { .. } => held,
        LedgerFlaw::TileMissing { tile } | LedgerFlaw::TileWrong { tile } => tile.first_leaf(),
        LedgerFlaw::CheckpointSize { signed, kept } => signed.min(kept),
        LedgerFlaw::Older { kept, .. } => kept,
        LedgerFlaw::KeysMissing
        | LedgerFlaw::KeyWrong { .. }
        | LedgerFlaw::KeyUntrusted
        | LedgerFlaw::GivenForeign { .. } => 0,
        LedgerFlaw::CheckpointMissing
        | LedgerFlaw::CheckpointForged { .. }
        | LedgerFlaw::CheckpointLost { .. }
        | LedgerFlaw::CheckpointMisplaced { .. }
        | LedgerFlaw::HandoverForged { .. } => next,
    };
    AuditFailure::Flawed {
        flaw,
        first_bad,
        held,
    }
}
