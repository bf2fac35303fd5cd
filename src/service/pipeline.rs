//! The one road to a key: find it in its scope, authorize, do the work in the
//! HSM, make the receipt durable, answer. A refusal takes the same road to its
//! receipt as a success.

mod attempt;
mod receipts;

use std::sync::Arc;
use std::time::Instant;

use self::attempt::Attempt;
use self::receipts::NotKept;
use super::approvals::already_used;
use super::{KmsService, RequestContext};
use crate::domain::algorithm::{Algorithm, AlgorithmFamily};
use crate::domain::approval::Approval;
use crate::domain::error::{Dependency, KmsError, RequestFault};
use crate::domain::ids::KeyRef;
use crate::domain::key::StoredKey;
use crate::domain::key_usage::KeyUsage;
use crate::domain::permit::{KeyOperation, Permit, check_use};
use crate::domain::receipt::ReceiptOperation;
use crate::domain::scope::Scope;
use crate::domain::usage::{Exhausted, UsageReservation};
use crate::ports::data_plane::{Conflict, Unavailable};
use crate::ports::hsm::{HsmBackend, HsmError, HsmFault};

pub use self::attempt::{UseOfBatch, Used, UsedBatch};
pub(super) use self::receipts::RefusedSubject;

/// How often a use starts over because its key changed between the look-up and
/// the commit. Each change is a step that somebody asked for or that fell due: more
/// often than this within one use is nobody's doing, and the caller may try again.
const MAX_ATTEMPTS: usize = 8;

/// Which key is to be used, and how.
pub struct KeyChoice<A> {
    /// Where the key lives.
    pub scope: Scope,
    /// Which key.
    pub key: KeyRef,
    /// With which algorithm; the key's default where absent.
    pub algorithm: Option<A>,
}

/// The few lines in which one operation differs from another.
pub(super) trait Work<O: KeyOperation>: Sync {
    /// What one use gives out.
    type Output: Send;
    /// What its receipts say.
    const RECEIPT: ReceiptOperation;
    /// What it asks of the HSM, as the metrics call it.
    const HSM_CALL: &'static str = O::USAGE.as_str();

    /// How many uses of the key it is, at least one.
    fn uses(&self) -> usize {
        1
    }

    /// Does as much of the work, from its beginning, as the permit has uses: one result
    /// a use, and `None` where a ciphertext does not open.
    fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<O>,
    ) -> impl Future<Output = Result<Vec<Option<Self::Output>>, HsmError>> + Send;

    /// Whether the receipt calls this a success.
    fn succeeded(_output: &Self::Output) -> bool {
        true
    }
}

/// Which uses a key's policy lets through.
struct Authorized<O: KeyOperation> {
    /// For as many as are left; `None` where none are.
    permit: Option<Permit<O>>,
    algorithm: Algorithm,
    approval: Option<Approval>,
    /// Why there are no more.
    exhausted: Exhausted,
}

impl KmsService {
    /// Uses a key once. Nothing leaves before the receipt is durable.
    ///
    /// # Errors
    /// Every refusal of [`check_use`]; [`KmsError::KeyNotFound`]; approvals and
    /// daily limits; and [`KmsError::DependencyUnavailable`].
    pub(super) async fn use_key<O: KeyOperation, W: Work<O>>(
        &self,
        context: &RequestContext,
        choice: &KeyChoice<O::Algorithm>,
        work: &W,
    ) -> Result<Used<W::Output>, KmsError> {
        let used = self.use_key_for_each(context, choice, work).await?;
        let only = used.uses.into_iter().next();
        let only = only.ok_or_else(|| KmsError::internal("a use came to no result"))?;
        Ok(Used {
            output: only.outcome?,
            key_id: used.key_id,
            algorithm: used.algorithm,
            receipt_id: only.receipt_id,
        })
    }

    /// Uses a key as often as the work says, authorized once. Nothing leaves before
    /// all receipts are durable, which are kept together.
    ///
    /// # Errors
    /// What concerns all uses, as for [`KmsService::use_key`]. A daily limit and a
    /// ciphertext that does not open concern one.
    pub(super) async fn use_key_for_each<O: KeyOperation, W: Work<O>>(
        &self,
        context: &RequestContext,
        choice: &KeyChoice<O::Algorithm>,
        work: &W,
    ) -> Result<UsedBatch<W::Output>, KmsError> {
        for _ in 0..MAX_ATTEMPTS {
            let mut attempt = self.attempt(context, choice, work).await;
            // A key that was revoked while it was being used is gone from the HSM
            // too: its new state is the reason, and not the HSM.
            if attempt.hsm_failed && self.has_changed(context, choice, &attempt).await {
                continue;
            }
            if attempt.is_missing
                && let Some(key) = &attempt.key
            {
                self.quarantine.add(&key.record, None);
            }
            let mut kept = self
                .keep_attempt::<O, W>(context, choice, &mut attempt)
                .await;
            if matches!(kept, Err(NotKept::Conflict(Conflict::GrantSpent))) {
                // Somebody else acted on the approval meanwhile: the results are
                // dropped, and the refusal gets the receipt.
                attempt.outcome = Err(already_used());
                kept = self
                    .keep_attempt::<O, W>(context, choice, &mut attempt)
                    .await;
            }
            let receipt_ids = match kept {
                Ok(receipt_ids) => receipt_ids,
                // The key was rotated or revoked while it was being used: the
                // results are dropped, and the key's new state decides.
                Err(NotKept::Conflict(Conflict::KeyChanged)) => continue,
                Err(NotKept::Conflict(other)) => return Err(KmsError::internal(other)),
                Err(NotKept::Away(away)) => return Err(away),
            };
            let outcomes = attempt.outcome?;
            let (Some(key), Some(algorithm)) = (attempt.key, attempt.algorithm) else {
                return Err(KmsError::internal("a use succeeded without a key"));
            };
            let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            self.metrics
                .count_key_usage(O::USAGE, key.record.key_type, done);
            let uses = outcomes.into_iter().zip(receipt_ids);
            return Ok(UsedBatch {
                key_id: key.record.key_id,
                algorithm,
                uses: uses
                    .map(|(outcome, receipt_id)| UseOfBatch {
                        outcome,
                        receipt_id,
                    })
                    .collect(),
            });
        }
        Err(KmsError::unavailable(
            Dependency::Store,
            "the key kept changing while it was being used",
        ))
    }

    async fn attempt<O: KeyOperation, W: Work<O>>(
        &self,
        context: &RequestContext,
        choice: &KeyChoice<O::Algorithm>,
        work: &W,
    ) -> Attempt<W::Output> {
        let mut attempt = Attempt {
            outcome: Err(KmsError::KeyNotFound),
            key: None,
            algorithm: choice.algorithm.map(AlgorithmFamily::widen),
            counted: None,
            grants: Vec::new(),
            hsm_failed: false,
            is_missing: false,
        };
        let key = match self.find_key(context, &choice.scope, &choice.key).await {
            Ok(key) => key,
            Err(refusal) => {
                attempt.outcome = Err(refusal);
                return attempt;
            }
        };
        attempt.key = Some(Arc::clone(&key));
        let authorized = self
            .authorize_uses::<O>(context, key, choice.algorithm, work.uses())
            .await;
        let authorized = match authorized {
            Ok(authorized) => authorized,
            Err(refusal) => {
                attempt.outcome = Err(refusal);
                return attempt;
            }
        };
        attempt.algorithm = Some(authorized.algorithm);
        attempt.grants = authorized
            .approval
            .map_or_else(Vec::new, |agreed| agreed.grants().to_vec());

        let mut uses = Vec::with_capacity(work.uses());
        if let Some(permit) = authorized.permit {
            match self.run_in_hsm(&permit, work).await {
                Ok(results) => uses.extend(
                    results
                        .into_iter()
                        .map(|opened| opened.ok_or_else(|| RequestFault::Undecryptable.into())),
                ),
                Err(failure) => {
                    attempt.hsm_failed = true;
                    attempt.is_missing = matches!(failure, HsmError::Fault(HsmFault::Missing));
                    attempt.outcome = Err(hsm_failure(failure));
                    return attempt;
                }
            }
            // Counted whatever came of it: guessing at ciphertexts is a use of the key.
            attempt.counted = Some(permit.into_reservation());
        }
        uses.resize_with(work.uses(), || Err(authorized.exhausted.into()));
        attempt.outcome = Ok(uses);
        attempt
    }

    /// One result a use that is permitted, or none at all.
    async fn run_in_hsm<O: KeyOperation, W: Work<O>>(
        &self,
        permit: &Permit<O>,
        work: &W,
    ) -> Result<Vec<Option<W::Output>>, HsmError> {
        let started = Instant::now();
        let record = permit.record();
        let done = match self.ports.hsm.holding(record.backend) {
            // Not asked again and again for what it does not have.
            Ok(_) if self.quarantine.holds(record.key_id) => {
                Err(HsmError::Fault(HsmFault::Missing))
            }
            Ok(hsm) => work.run(hsm, permit).await,
            Err(error) => Err(error),
        };
        self.metrics.observe_hsm(W::HSM_CALL, started.elapsed());
        match done {
            // A result too few would pass for a use that was past a limit.
            Ok(results) if results.len() != permit.uses() => {
                Err(HsmError::Fault(HsmFault::Refused))
            }
            done => done,
        }
    }

    /// Whether the key is no longer as the attempt found it.
    async fn has_changed<A, T>(
        &self,
        context: &RequestContext,
        choice: &KeyChoice<A>,
        attempt: &Attempt<T>,
    ) -> bool {
        let Some(then) = &attempt.key else {
            return false;
        };
        let id = KeyRef::Id(then.record.key_id);
        match self.find_key(context, &choice.scope, &id).await {
            Ok(now) => now.record.version != then.record.version,
            Err(_) => false,
        }
    }

    /// The checks, in the order of the product contract: state, usage, module
    /// and algorithm in the domain, then the approval, then the daily limit, which lets
    /// through as many of the uses as are left.
    async fn authorize_uses<O: KeyOperation>(
        &self,
        context: &RequestContext,
        key: Arc<StoredKey>,
        wanted: Option<O::Algorithm>,
        uses: usize,
    ) -> Result<Authorized<O>, KmsError> {
        let now = self.ports.clock.now();
        let checked = check_use::<O>(key, &context.caller, wanted, now)?;
        let approval = match checked.approval_needed() {
            Some(subject) => Some(self.verify_approval(context, &subject).await?),
            None => None,
        };
        let record = checked.record();
        let reserved = self
            .ports
            .data_plane
            .usage_counter(record.key_id)
            .await
            .map_err(store_away)?
            .reserve_up_to(
                uses as u64,
                now,
                record.access_policy.max_usage_per_day,
                O::USAGE == KeyUsage::Encrypt,
            );
        if reserved.neared_limit {
            self.metrics.count_daily_limit_neared();
        }
        let permitted = reserved
            .reservation
            .as_ref()
            .map_or(0, UsageReservation::uses);
        if matches!(reserved.exhausted, Exhausted::Today { .. }) {
            self.metrics
                .count_daily_limit_refusals(uses as u64 - permitted);
        }
        Ok(Authorized {
            algorithm: checked.algorithm().widen(),
            permit: match reserved.reservation {
                Some(reservation) => Some(checked.permit(approval.as_ref(), reservation)?),
                None => None,
            },
            approval,
            exhausted: reserved.exhausted,
        })
    }

    /// The key that a reference names, for a caller that may speak for the scope.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`KmsError::KeyNotFound`],
    /// [`KmsError::DependencyUnavailable`].
    pub(super) async fn find_key(
        &self,
        context: &RequestContext,
        scope: &Scope,
        key: &KeyRef,
    ) -> Result<Arc<StoredKey>, KmsError> {
        context.caller.authorize(scope)?;
        self.ports
            .data_plane
            .find_key(scope, key)
            .await
            .map_err(store_away)?
            .ok_or(KmsError::KeyNotFound)
    }
}

/// A store that cannot be reached, as the caller learns it.
pub(super) fn store_away(away: Unavailable) -> KmsError {
    KmsError::unavailable(Dependency::Store, away)
}

/// A backend's failure, as the caller learns it.
pub(super) fn hsm_failure(failure: HsmError) -> KmsError {
    match failure {
        HsmError::Undecryptable => RequestFault::Undecryptable.into(),
        HsmError::Unavailable(_) | HsmError::Fault(HsmFault::Missing) => {
            KmsError::unavailable(Dependency::Hsm, failure)
        }
        HsmError::Fault(_) => KmsError::internal(failure),
    }
}
