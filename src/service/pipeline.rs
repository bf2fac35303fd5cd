//! The one road to a key: find it in its scope, authorize, do the work in the
//! HSM, make the receipt durable, answer. A refusal takes the same road to its
//! receipt as a success.

use std::sync::Arc;
use std::time::Instant;

use super::approvals::{already_used, spend};
use super::{KmsService, RequestContext};
use crate::domain::algorithm::{Algorithm, AlgorithmFamily, KeyType};
use crate::domain::approval::{Approval, Grant};
use crate::domain::error::{Dependency, KmsError, RequestFault};
use crate::domain::ids::{KeyId, KeyRef, ReceiptId};
use crate::domain::key::{KeyRecord, StoredKey};
use crate::domain::key_usage::KeyUsage;
use crate::domain::permit::{KeyOperation, Permit, check_use};
use crate::domain::receipt::{
    KmsContext, Receipt, ReceiptAlgorithm, ReceiptOperation, SignedReceipt,
};
use crate::domain::scope::Scope;
use crate::domain::usage::UsageReservation;
use crate::ports::data_plane::{CommitError, Conflict, KeyUseMark, Transaction, Unavailable};
use crate::ports::hsm::{HsmBackend, HsmError, HsmFault};

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
    /// What it gives out.
    type Output: Send;
    /// What its receipt says.
    const RECEIPT: ReceiptOperation;

    /// Does the work.
    fn run(
        &self,
        hsm: &dyn HsmBackend,
        permit: &Permit<O>,
    ) -> impl Future<Output = Result<Self::Output, HsmError>> + Send;

    /// Whether the receipt calls this a success.
    fn succeeded(_output: &Self::Output) -> bool {
        true
    }
}

/// A use that is done, and whose receipt is durable.
pub struct Used<T> {
    /// What came of it.
    pub output: T,
    /// The key that was used.
    pub key_id: KeyId,
    /// The algorithm that was used.
    pub algorithm: Algorithm,
    /// The receipt that attests it.
    pub receipt_id: ReceiptId,
}

/// One walk down the road, up to the receipt.
struct Attempt<T> {
    outcome: Result<T, KmsError>,
    key: Option<Arc<StoredKey>>,
    algorithm: Option<Algorithm>,
    /// The counted use; `None` where the key was never reached.
    counted: Option<UsageReservation>,
    /// Who agreed to it, where the key asks for that.
    grants: Vec<Grant>,
    /// Whether the permit was there and the HSM did not deliver.
    hsm_failed: bool,
    /// Whether that was because the HSM does not have the key.
    is_missing: bool,
}

/// Why an attempt left no receipt.
enum NotKept {
    /// A condition no longer held.
    Conflict(Conflict),
    /// The store or the ledger's key is away, as the caller learns it.
    Away(KmsError),
}

impl KmsService {
    /// Uses a key. Nothing leaves before the receipt is durable.
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
                // Somebody else acted on the approval meanwhile: the result is
                // dropped, and the refusal gets the receipt.
                attempt.outcome = Err(already_used());
                kept = self
                    .keep_attempt::<O, W>(context, choice, &mut attempt)
                    .await;
            }
            let receipt_id = match kept {
                Ok(receipt_id) => receipt_id,
                // The key was rotated or revoked while it was being used: the
                // result is dropped, and the key's new state decides.
                Err(NotKept::Conflict(Conflict::KeyChanged)) => continue,
                Err(NotKept::Conflict(other)) => return Err(KmsError::internal(other)),
                Err(NotKept::Away(away)) => return Err(away),
            };
            let output = attempt.outcome?;
            let (Some(key), Some(algorithm)) = (attempt.key, attempt.algorithm) else {
                return Err(KmsError::internal("a use succeeded without a key"));
            };
            self.metrics.count_key_usage(O::USAGE, key.record.key_type);
            return Ok(Used {
                output,
                key_id: key.record.key_id,
                algorithm,
                receipt_id,
            });
        }
        Err(KmsError::unavailable(
            Dependency::Store,
            "the key kept changing while it was being used",
        ))
    }

    /// Signs the receipt of an attempt and keeps it, with the use where it was
    /// counted and with the grants where it succeeded.
    async fn keep_attempt<O: KeyOperation, W: Work<O>>(
        &self,
        context: &RequestContext,
        choice: &KeyChoice<O::Algorithm>,
        attempt: &mut Attempt<W::Output>,
    ) -> Result<ReceiptId, NotKept> {
        let kms_context = Self::use_context::<O, W>(&choice.key, attempt);
        let changes = spend(&kms_context.approvals).collect();
        let receipt = self
            .sign_receipt(
                context,
                &context.caller.accountable_scope(&choice.scope),
                W::RECEIPT,
                kms_context,
            )
            .map_err(NotKept::Away)?;
        let receipt_id = receipt.receipt_id;
        let key_use = attempt
            .counted
            .take()
            .zip(attempt.key.as_ref())
            .map(|(reservation, key)| KeyUseMark {
                key_id: key.record.key_id,
                version: key.record.version,
                reservation,
            });
        let transaction = Transaction {
            key_use,
            changes,
            receipts: vec![receipt],
        };
        match self.ports.data_plane.commit(transaction).await {
            Ok(()) => Ok(receipt_id),
            Err(CommitError::Conflict(conflict)) => Err(NotKept::Conflict(conflict)),
            Err(CommitError::Unavailable(away)) => Err(NotKept::Away(KmsError::unavailable(
                Dependency::Ledger,
                away,
            ))),
        }
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
            .authorize_use::<O>(context, key, choice.algorithm)
            .await;
        let permit = match authorized {
            Ok((permit, approval)) => {
                attempt.grants = approval.map_or_else(Vec::new, |agreed| agreed.grants().to_vec());
                permit
            }
            Err(refusal) => {
                attempt.outcome = Err(refusal);
                return attempt;
            }
        };
        attempt.algorithm = Some(permit.algorithm().widen());

        let started = Instant::now();
        let record = permit.record();
        let done = match self.ports.hsm.holding(record.backend) {
            // Not asked again and again for what it does not have.
            Ok(_) if self.quarantine.holds(record.key_id) => {
                Err(HsmError::Fault(HsmFault::Missing))
            }
            Ok(hsm) => work.run(hsm, &permit).await,
            Err(error) => Err(error),
        };
        self.metrics
            .observe_hsm(O::USAGE.as_str(), started.elapsed());
        match done {
            Ok(output) => {
                attempt.counted = Some(permit.into_reservation());
                attempt.outcome = Ok(output);
            }
            Err(HsmError::Undecryptable) => {
                // Counted: guessing at ciphertexts is a use of the key.
                attempt.counted = Some(permit.into_reservation());
                attempt.outcome = Err(RequestFault::Undecryptable.into());
            }
            Err(failure) => {
                attempt.hsm_failed = true;
                attempt.is_missing = matches!(failure, HsmError::Fault(HsmFault::Missing));
                attempt.outcome = Err(hsm_failure(failure));
            }
        }
        attempt
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
    /// and algorithm in the domain, then the approval, then the daily limit.
    async fn authorize_use<O: KeyOperation>(
        &self,
        context: &RequestContext,
        key: Arc<StoredKey>,
        wanted: Option<O::Algorithm>,
    ) -> Result<(Permit<O>, Option<Approval>), KmsError> {
        let now = self.ports.clock.now();
        let checked = check_use::<O>(key, &context.caller, wanted, now)?;
        let approval = match checked.approval_needed() {
            Some(subject) => Some(self.verify_approval(context, &subject).await?),
            None => None,
        };
        let record = checked.record();
        let reservation = self
            .ports
            .data_plane
            .usage_counter(record.key_id)
            .await
            .map_err(store_away)?
            .reserve(
                now,
                record.access_policy.max_usage_per_day,
                O::USAGE == KeyUsage::Encrypt,
            )?;
        let permit = checked.permit(approval.as_ref(), reservation)?;
        Ok((permit, approval))
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

    fn use_context<O: KeyOperation, W: Work<O>>(
        wanted: &KeyRef,
        attempt: &Attempt<W::Output>,
    ) -> KmsContext {
        let record = attempt.key.as_ref().map(|key| &key.record);
        KmsContext {
            key_id: Some(
                record.map_or_else(|| wanted.to_string(), |record| record.key_id.to_string()),
            ),
            algorithm: attempt.algorithm.map(ReceiptAlgorithm::Algorithm),
            key_size_bits: record.map(|record| record.key_type.size_bits()),
            success: attempt.outcome.as_ref().is_ok_and(W::succeeded),
            error_code: attempt.outcome.as_ref().err().map(KmsError::code),
            approvals: match attempt.outcome {
                Ok(_) => attempt.grants.clone(),
                // Nothing was done that anybody agreed to, so nothing is spent.
                Err(_) => Vec::new(),
            },
        }
    }

    /// Signs a receipt of what has just happened.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`] when the ledger's key cannot be used.
    pub(super) fn sign_receipt(
        &self,
        context: &RequestContext,
        scope: &Scope,
        operation: ReceiptOperation,
        kms_context: KmsContext,
    ) -> Result<SignedReceipt, KmsError> {
        self.ports
            .ledger
            .sign(Receipt {
                receipt_id: ReceiptId::generate(),
                ts: self.ports.clock.now(),
                scope: scope.clone(),
                operation,
                context: kms_context,
                requesting_module: context.caller.module().clone(),
                request_id: context.request_id,
            })
            .map_err(|error| KmsError::unavailable(Dependency::Ledger, error))
    }

    /// Leaves the receipt of a refusal, and gives the refusal back.
    pub(super) async fn refuse(
        &self,
        context: &RequestContext,
        scope: &Scope,
        operation: ReceiptOperation,
        about: RefusedSubject<'_>,
        refusal: KmsError,
    ) -> KmsError {
        let kms_context = KmsContext {
            key_id: about.id,
            algorithm: about
                .record
                .map(|record| record.key_type)
                .or(about.key_type)
                .map(ReceiptAlgorithm::KeyType),
            key_size_bits: about
                .record
                .map(|record| record.key_type)
                .or(about.key_type)
                .map(KeyType::size_bits),
            success: false,
            error_code: Some(refusal.code()),
            approvals: Vec::new(),
        };
        let scope = context.caller.accountable_scope(scope);
        let receipt = match self.sign_receipt(context, &scope, operation, kms_context) {
            Ok(receipt) => receipt,
            Err(away) => return away,
        };
        let transaction = Transaction {
            receipts: vec![receipt],
            ..Transaction::default()
        };
        match self.ports.data_plane.commit(transaction).await {
            Ok(()) => refusal,
            Err(CommitError::Unavailable(away)) => KmsError::unavailable(Dependency::Ledger, away),
            Err(CommitError::Conflict(conflict)) => KmsError::internal(conflict),
        }
    }
}

/// What a refused step in a key's life was about, as far as it is known.
#[derive(Default)]
pub(super) struct RefusedSubject<'a> {
    /// The id or reference in the request.
    pub(super) id: Option<String>,
    /// The key, where it was found.
    pub(super) record: Option<&'a KeyRecord>,
    /// The type of a key that was to be made.
    pub(super) key_type: Option<KeyType>,
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
