//! Which transactions of a batch are applied together, and what becomes of each.

use super::super::batch::{Batch, Refusal};
use super::super::fault::StoreFault;
use super::super::ledger::appender::in_statements;
use super::super::queue::CommitJob;
use super::unavailable;
use crate::ports::data_plane::CommitError;

/// Applies all that can be. On failure every job is in one of the lists or left in `jobs`.
pub(super) fn apply(
    batch: &mut Batch<'_>,
    jobs: &mut impl Iterator<Item = CommitJob>,
    kept: &mut Vec<CommitJob>,
    refused: &mut Vec<(CommitJob, CommitError)>,
) -> Result<(), StoreFault> {
    let mut plain = Vec::new();
    // Whoever has given up gets nothing done, and the use is given back.
    for job in jobs.filter(|job| !job.answer.is_closed()) {
        let outcome = if Batch::is_plain(&job.transaction) {
            match batch.check(&job.transaction) {
                Ok(()) => {
                    plain.push(job);
                    Ok(())
                }
                not => sort_out(job, not, kept, refused),
            }
        } else {
            // What came before it comes before it.
            let before = apply_plain(batch, std::mem::take(&mut plain), kept, refused);
            let applied = match before {
                Ok(()) => batch.apply(&job.transaction),
                Err(fault) => Err(Refusal::Failed(fault)),
            };
            sort_out(job, applied, kept, refused)
        };
        if outcome.is_err() {
            kept.append(&mut plain);
            return outcome;
        }
    }
    apply_plain(batch, plain, kept, refused)
}

/// Applies transactions together, as far as none of them breaks a constraint; else each
/// by itself, so that it concerns nobody else.
fn apply_plain(
    batch: &mut Batch<'_>,
    jobs: Vec<CommitJob>,
    kept: &mut Vec<CommitJob>,
    refused: &mut Vec<(CommitJob, CommitError)>,
) -> Result<(), StoreFault> {
    let sizes: Vec<usize> = in_statements(&jobs).map(<[_]>::len).collect();
    let mut jobs = jobs.into_iter();
    let outcome = sizes.into_iter().try_for_each(|size| {
        let piece: Vec<_> = jobs.by_ref().take(size).collect();
        let transactions: Vec<_> = piece.iter().map(|job| &job.transaction).collect();
        match batch.apply_together(&transactions) {
            Ok(()) => {
                kept.extend(piece);
                Ok(())
            }
            Err(Refusal::Failed(fault)) => {
                kept.extend(piece);
                Err(fault)
            }
            // Nothing of the piece is written: whichever it was, it is alone in that.
            Err(Refusal::Malformed(_) | Refusal::Conflict(_)) => {
                let mut piece = piece.into_iter();
                let outcome = piece.by_ref().try_for_each(|job| {
                    let applied = batch.apply(&job.transaction);
                    sort_out(job, applied, kept, refused)
                });
                kept.extend(piece);
                outcome
            }
        }
    });
    kept.extend(jobs);
    outcome
}

/// Puts a job to those of its kind. On failure it is among the kept, so that it can be
/// answered.
fn sort_out(
    job: CommitJob,
    applied: Result<(), Refusal>,
    kept: &mut Vec<CommitJob>,
    refused: &mut Vec<(CommitJob, CommitError)>,
) -> Result<(), StoreFault> {
    match applied {
        Ok(()) => kept.push(job),
        Err(Refusal::Conflict(conflict)) => refused.push((job, conflict.into())),
        Err(Refusal::Malformed(error)) => {
            tracing::error!(%error, "a transaction breaks a constraint of the store");
            refused.push((job, unavailable(error).into()));
        }
        Err(Refusal::Failed(fault)) => {
            kept.push(job);
            return Err(fault);
        }
    }
    Ok(())
}
