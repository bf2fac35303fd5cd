//! The policy check of a key's use, and the permits that only it can make.
//!
//! Whatever touches a key takes a permit, and a permit's fields are private to
//! this file: an unchecked use does not compile.

use std::sync::Arc;

use super::algorithm::{AeadAlgorithm, AlgorithmFamily, SigningAlgorithm};
use super::approval::{
    Approval, ApprovalOperation, ApprovalSubject, ApprovalTarget, approval_refused,
};
use super::caller::Caller;
use super::error::{ApprovalFault, KmsError, PolicyFault, algorithm_not_offered};
use super::key::{KeyHandle, KeyRecord, StoredKey};
use super::key_usage::KeyUsage;
use super::time::Timestamp;
use super::usage::UsageReservation;

/// A kind of use of a key: which usage it needs and which algorithms serve it.
pub trait KeyOperation: Send + Sync + 'static {
    /// The family of algorithms.
    type Algorithm: AlgorithmFamily;
    /// What `key_usage` must list.
    const USAGE: KeyUsage;
    /// Whether it makes something new that the key will answer for, which only
    /// an active key may; the others read what was made in the past.
    const PROTECTS: bool;
}

/// Making a signature.
pub enum Sign {}
/// Checking a signature.
pub enum Verify {}
/// Encrypting.
pub enum Encrypt {}
/// Decrypting.
pub enum Decrypt {}

impl KeyOperation for Sign {
    type Algorithm = SigningAlgorithm;
    const USAGE: KeyUsage = KeyUsage::Sign;
    const PROTECTS: bool = true;
}

impl KeyOperation for Verify {
    type Algorithm = SigningAlgorithm;
    const USAGE: KeyUsage = KeyUsage::Verify;
    const PROTECTS: bool = false;
}

impl KeyOperation for Encrypt {
    type Algorithm = AeadAlgorithm;
    const USAGE: KeyUsage = KeyUsage::Encrypt;
    const PROTECTS: bool = true;
}

impl KeyOperation for Decrypt {
    type Algorithm = AeadAlgorithm;
    const USAGE: KeyUsage = KeyUsage::Decrypt;
    const PROTECTS: bool = false;
}

/// A use that passed every check that needs no one else: what is left are the
/// approval, where the key asks for one, and the daily limit.
pub struct CheckedUse<O: KeyOperation> {
    key: Arc<StoredKey>,
    algorithm: O::Algorithm,
}

/// Checks a use of a key against its state, usage and policy.
///
/// # Errors
/// In this order: [`KmsError::KeyRevoked`], [`KmsError::KeyInactive`],
/// [`KmsError::PolicyViolation`] for the usage and for the module, and
/// [`KmsError::InvalidRequest`] for an algorithm that the key does not offer.
pub fn check_use<O: KeyOperation>(
    key: Arc<StoredKey>,
    caller: &Caller,
    wanted: Option<O::Algorithm>,
    now: Timestamp,
) -> Result<CheckedUse<O>, KmsError> {
    let record = &key.record;
    if O::PROTECTS {
        record.require_protecting(now)?;
    } else {
        record.require_reading()?;
    }
    if !record.key_usage.contains(O::USAGE) {
        return Err(PolicyFault::Usage {
            operation: O::USAGE.as_str(),
        }
        .into());
    }
    if !record
        .access_policy
        .allowed_modules
        .contains(caller.module())
    {
        return Err(PolicyFault::Module.into());
    }
    let algorithm = choose_algorithm(record, wanted)?;
    if key.handle.is_none() {
        return Err(KmsError::internal("a live key has no handle"));
    }
    Ok(CheckedUse { key, algorithm })
}

/// The wanted algorithm if the key offers it, else the key's default.
fn choose_algorithm<A: AlgorithmFamily>(
    record: &KeyRecord,
    wanted: Option<A>,
) -> Result<A, KmsError> {
    let offered = &record.algorithms;
    match wanted {
        Some(algorithm) if offered.contains(&algorithm.widen()) => Some(algorithm),
        Some(_) => None,
        None => offered.iter().copied().find_map(A::narrow),
    }
    .ok_or_else(|| algorithm_not_offered(offered))
}

impl<O: KeyOperation> CheckedUse<O> {
    /// What an approval of this use must be for, where the key's policy asks for one.
    pub fn approval_needed(&self) -> Option<ApprovalSubject> {
        let record = &self.key.record;
        record
            .access_policy
            .requires_approval
            .then(|| use_subject(record))
    }

    /// The key.
    pub fn record(&self) -> &KeyRecord {
        &self.key.record
    }

    /// With which algorithm.
    pub fn algorithm(&self) -> O::Algorithm {
        self.algorithm
    }

    /// The permit, once the uses are approved and counted. One approval is for all of
    /// them.
    ///
    /// # Errors
    /// [`ApprovalFault::Missing`] where the key's policy asks for an approval
    /// and there is none; [`ApprovalFault::WrongSubject`] where it is for
    /// something else.
    pub fn permit(
        self,
        approval: Option<&Approval>,
        reservation: UsageReservation,
    ) -> Result<Permit<O>, KmsError> {
        if let Some(subject) = self.approval_needed() {
            require_approval(approval, &subject)?;
        }
        Ok(Permit {
            key: self.key,
            algorithm: self.algorithm,
            reservation,
        })
    }
}

fn use_subject(record: &KeyRecord) -> ApprovalSubject {
    ApprovalSubject {
        operation: ApprovalOperation::KeyUse,
        scope: record.scope.clone(),
        target: ApprovalTarget::Key(record.key_id),
    }
}

fn require_approval(
    approval: Option<&Approval>,
    subject: &ApprovalSubject,
) -> Result<(), KmsError> {
    approval
        .ok_or_else(|| approval_refused(ApprovalFault::Missing))?
        .covers(subject)
}

/// The right to use one key for one kind of operation, as often as was counted: once,
/// unless a batch asked for more.
#[must_use = "a permit that is dropped gives its uses back"]
pub struct Permit<O: KeyOperation> {
    key: Arc<StoredKey>,
    algorithm: O::Algorithm,
    reservation: UsageReservation,
}

impl<O: KeyOperation> Permit<O> {
    /// The key that may be used.
    pub fn record(&self) -> &KeyRecord {
        &self.key.record
    }

    /// How its backend finds it; there is one, since the check asked for it.
    pub fn handle(&self) -> Option<&KeyHandle> {
        self.key.handle.as_ref()
    }

    /// With which algorithm.
    pub fn algorithm(&self) -> O::Algorithm {
        self.algorithm
    }

    /// How often it may be used.
    pub fn uses(&self) -> usize {
        // A batch is counted in `usize`, so no permit is for more.
        usize::try_from(self.reservation.mark().uses).unwrap_or(usize::MAX)
    }

    /// Of these items as many, from the first on, as uses were counted.
    pub fn batch<I>(&self, items: impl IntoIterator<Item = I>) -> PermittedBatch<'_, O, I> {
        PermittedBatch {
            permit: self,
            items: items.into_iter().take(self.uses()).collect(),
        }
    }

    /// The counted uses, for the store to write down.
    pub fn into_reservation(self) -> UsageReservation {
        self.reservation
    }
}

/// What one permit allows to be done one by one: never more than uses were counted.
pub struct PermittedBatch<'a, O: KeyOperation, I> {
    permit: &'a Permit<O>,
    items: Vec<I>,
}

impl<'a, O: KeyOperation, I> PermittedBatch<'a, O, I> {
    /// What permits it.
    pub fn permit(&self) -> &'a Permit<O> {
        self.permit
    }

    /// The permit, and what it allows to be done.
    pub fn into_parts(self) -> (&'a Permit<O>, Vec<I>) {
        (self.permit, self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::algorithm::Algorithm;
    use crate::domain::algorithm::KeyType;
    use crate::domain::caller::Reach;
    use crate::domain::ids::KeyId;
    use crate::domain::key::RevocationReason;
    use crate::domain::key::tests::active_key;
    use crate::domain::key_usage::KeyUsageSet;
    use crate::domain::lifecycle_permit::lifecycle_subject;
    use crate::domain::time::Period;
    use crate::domain::usage::{UsageCount, UsageCounter};

    fn caller(module: &str) -> Caller {
        Caller::new(module.parse().expect("valid"), Reach::AnyScope)
    }

    fn stored(record: KeyRecord) -> Arc<StoredKey> {
        Arc::new(StoredKey {
            record,
            handle: Some(KeyHandle::from_bytes(vec![1])),
        })
    }

    fn reservation(now: Timestamp) -> UsageReservation {
        UsageCounter::starting_from(UsageCount::default())
            .reserve(now, 10, false)
            .expect("ten are left")
    }

    #[test]
    fn an_allowed_use_gets_a_permit_with_the_default_algorithm() {
        let key = stored(active_key());
        let now = key.record.created_at;
        let permit = check_use::<Sign>(key, &caller("M21"), None, now)
            .and_then(|checked| checked.permit(None, reservation(now)))
            .expect("allowed");
        assert_eq!(permit.algorithm(), SigningAlgorithm::Ed25519);
    }

    #[test]
    fn a_permit_allows_no_more_of_a_batch_than_was_counted() {
        let key = stored(active_key());
        let now = key.record.created_at;
        let counter = UsageCounter::starting_from(UsageCount::default());
        let reserved = counter.reserve_up_to(5, now, 3, false);
        let permit = check_use::<Sign>(key, &caller("M21"), None, now)
            .and_then(|checked| checked.permit(None, reserved.reservation.expect("some")))
            .expect("allowed");
        assert_eq!(permit.uses(), 3);
        assert_eq!(permit.batch(0..5).into_parts().1, [0, 1, 2]);
        assert_eq!(permit.batch(0..2).into_parts().1, [0, 1]);
    }

    #[test]
    fn each_rule_refuses_alone() {
        let key = active_key();
        let now = key.created_at;
        let refused = |record: KeyRecord, module: &str, wanted: Option<SigningAlgorithm>| {
            check_use::<Sign>(stored(record), &caller(module), wanted, now)
                .err()
                .expect("refused")
        };

        let verify_only = KeyRecord {
            key_usage: KeyUsageSet::of([KeyUsage::Verify]).expect("not empty"),
            ..key.clone()
        };
        assert!(matches!(
            refused(verify_only, "M21", None),
            KmsError::PolicyViolation(PolicyFault::Usage { operation: "sign" })
        ));
        assert!(matches!(
            refused(key.clone(), "M99", None),
            KmsError::PolicyViolation(PolicyFault::Module)
        ));
        assert!(matches!(
            refused(key.clone(), "M21", Some(SigningAlgorithm::RsaPssSha256)),
            KmsError::InvalidRequest(_)
        ));
        // One that waits for its erasure, which has a handle, no less than one that
        // is erased.
        for erase_at in [None, Some(now.plus(Period::days(7)))] {
            let destroyed = key
                .revoked(RevocationReason::Retired, now, erase_at)
                .expect("active");
            assert!(matches!(
                refused(destroyed, "M21", None),
                KmsError::KeyRevoked
            ));
        }
        let pending = key
            .replaced_by(KeyId::generate(), now, Period::days(7))
            .expect("active");
        assert!(matches!(
            refused(pending, "M21", None),
            KmsError::KeyInactive { .. }
        ));
    }

    #[test]
    fn a_replaced_and_an_archived_key_still_verify() {
        let key = active_key();
        let now = key.created_at;
        let pending = key
            .replaced_by(KeyId::generate(), now, Period::days(7))
            .expect("active");
        let archived = pending.archived(now).expect("pending");
        for record in [pending, archived] {
            assert!(check_use::<Verify>(stored(record), &caller("M21"), None, now).is_ok());
        }
    }

    #[test]
    fn an_algorithm_the_backend_lacks_is_not_offered() {
        let record = KeyRecord {
            key_type: KeyType::Aes256,
            key_usage: KeyUsageSet::of([KeyUsage::Encrypt]).expect("not empty"),
            algorithms: vec![Algorithm::Aead(AeadAlgorithm::Aes256Gcm)],
            ..active_key()
        };
        let now = record.created_at;
        let wanted = Some(AeadAlgorithm::ChaCha20Poly1305);
        let refusal = check_use::<Encrypt>(stored(record), &caller("M21"), wanted, now).err();
        assert!(matches!(refusal, Some(KmsError::InvalidRequest(_))));
    }

    #[test]
    fn a_key_that_requires_approval_gives_no_permit_without_its_own() {
        let mut record = active_key();
        record.access_policy.requires_approval = true;
        let key = stored(record);
        let now = key.record.created_at;
        let checked = || {
            check_use::<Sign>(Arc::clone(&key), &caller("M21"), None, now).expect("allowed so far")
        };
        let refusal = checked().permit(None, reservation(now)).err();
        assert!(matches!(
            refusal,
            Some(KmsError::Unauthorized(
                crate::domain::error::AuthorizationFault::Approval(ApprovalFault::Missing)
            ))
        ));

        let subject = checked().approval_needed().expect("needed");
        let other = Approval::new(
            lifecycle_subject(ApprovalOperation::KeyRotate, &key.record),
            Vec::new(),
        );
        assert!(checked().permit(Some(&other), reservation(now)).is_err());
        let own = Approval::new(subject, Vec::new());
        assert!(checked().permit(Some(&own), reservation(now)).is_ok());
    }
}
