//! The permits for the steps of a key's life: making, replacing, erasing.
//!
//! As with uses, the fields are private to this file: nothing else can make one.

use std::sync::Arc;

use super::algorithm::KeyType;
use super::approval::{Approval, ApprovalOperation, ApprovalSubject, ApprovalTarget, Grant};
use super::error::KmsError;
use super::key::{KeyHandle, KeyRecord, RevocationReason, StoredKey};
use super::key_usage::{KeyUsage, KeyUsageSet};
use super::scope::Scope;
use super::time::Timestamp;

/// The right to make one new key.
pub struct GeneratePermit {
    scope: Scope,
    key_type: KeyType,
}

impl GeneratePermit {
    /// Where the key will live.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What kind of key.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }
}

/// The right to erase one key's secret.
pub struct ErasePermit {
    key: Arc<StoredKey>,
}

impl ErasePermit {
    /// The key whose secret is to go.
    pub fn record(&self) -> &KeyRecord {
        &self.key.record
    }

    /// How its backend finds it.
    pub fn handle(&self) -> Option<&KeyHandle> {
        self.key.handle.as_ref()
    }
}

/// What an approval of a new key must be for.
pub fn generation_subject(
    scope: &Scope,
    key_type: KeyType,
    key_usage: KeyUsageSet,
) -> ApprovalSubject {
    ApprovalSubject {
        operation: ApprovalOperation::KeyGenerate,
        scope: scope.clone(),
        target: ApprovalTarget::NewKey {
            key_type,
            key_usage,
        },
    }
}

/// What an approval of a step in a key's life must be for.
pub fn lifecycle_subject(operation: ApprovalOperation, key: &KeyRecord) -> ApprovalSubject {
    ApprovalSubject {
        operation,
        scope: key.scope.clone(),
        target: ApprovalTarget::Key(key.key_id),
    }
}

/// An operation's approval, or the configuration's word that it needs none.
pub enum Consent {
    /// A second person agreed.
    Approved(Approval),
    /// The configuration does not ask.
    NotRequired,
}

impl Consent {
    /// What has to be spent with the deed.
    pub fn grants(&self) -> &[Grant] {
        match self {
            Self::Approved(approval) => approval.grants(),
            Self::NotRequired => &[],
        }
    }

    fn check(&self, subject: &ApprovalSubject) -> Result<(), KmsError> {
        match self {
            Self::Approved(approval) => approval.covers(subject),
            Self::NotRequired => Ok(()),
        }
    }
}

/// Permits making a new key.
///
/// # Errors
/// [`KmsError::InvalidRequest`] when the usage does not fit the type;
/// [`KmsError::Unauthorized`] when the approval is for something else.
pub fn permit_generation(
    scope: &Scope,
    key_type: KeyType,
    key_usage: KeyUsageSet,
    consent: &Consent,
) -> Result<GeneratePermit, KmsError> {
    check_usage_fits(key_type, key_usage)?;
    consent.check(&generation_subject(scope, key_type, key_usage))?;
    Ok(GeneratePermit {
        scope: scope.clone(),
        key_type,
    })
}

/// Whether a key of this type can serve all of these usages.
///
/// # Errors
/// [`KmsError::InvalidRequest`], naming `key_usage`.
pub fn check_usage_fits(key_type: KeyType, key_usage: KeyUsageSet) -> Result<(), KmsError> {
    if key_usage.iter().all(|usage| usage.fits(key_type)) {
        return Ok(());
    }
    let fitting: Vec<&str> = KeyUsage::ALL
        .into_iter()
        .filter(|usage| usage.fits(key_type))
        .map(KeyUsage::as_str)
        .collect();
    Err(KmsError::field(
        "key_usage",
        format!("for {key_type} only {}", fitting.join(", ")),
    ))
}

/// Permits making the successor of an active key: with the approval of a rotation, or
/// where there is to be no grace period, of an emergency.
///
/// # Errors
/// [`KmsError::KeyInactive`] and [`KmsError::KeyRevoked`] by its state;
/// [`KmsError::Unauthorized`] when the approval is for something else.
pub fn permit_rotation(
    key: &KeyRecord,
    operation: ApprovalOperation,
    consent: &Consent,
) -> Result<GeneratePermit, KmsError> {
    key.require_active()?;
    consent.check(&lifecycle_subject(operation, key))?;
    Ok(successor_permit(key))
}

/// Permits making the successor of an active key whose time has come, which nobody has
/// to approve.
///
/// # Errors
/// [`KmsError::KeyInactive`] and [`KmsError::KeyRevoked`] by its state, and before its
/// time.
pub fn permit_scheduled_rotation(
    key: &KeyRecord,
    now: Timestamp,
) -> Result<GeneratePermit, KmsError> {
    key.require_rotation_due(now)?;
    Ok(successor_permit(key))
}

fn successor_permit(key: &KeyRecord) -> GeneratePermit {
    GeneratePermit {
        scope: key.scope.clone(),
        key_type: key.key_type,
    }
}

/// Permits erasing the secret of a key that can be revoked for this reason.
///
/// # Errors
/// [`KmsError::KeyRevoked`] when it cannot; [`KmsError::Unauthorized`] when
/// the approval is for something else.
pub fn permit_revocation(
    key: Arc<StoredKey>,
    reason: RevocationReason,
    consent: &Consent,
) -> Result<ErasePermit, KmsError> {
    key.record.require_revocable(reason)?;
    consent.check(&lifecycle_subject(
        ApprovalOperation::KeyRevoke,
        &key.record,
    ))?;
    Ok(ErasePermit { key })
}

/// Permits erasing the secret of a destroyed key whose time has come.
///
/// # Errors
/// [`KmsError::KeyRevoked`] where it is gone already; [`KmsError::KeyInactive`] before
/// its time, and for a key that is not destroyed.
pub fn permit_erasure(key: Arc<StoredKey>, now: Timestamp) -> Result<ErasePermit, KmsError> {
    key.record.require_erasure_due(now)?;
    Ok(ErasePermit { key })
}

/// Checks the consent to a change of a key's record alone, which touches no secret and
/// so needs no permit.
///
/// # Errors
/// [`KmsError::Unauthorized`] when the approval is for something else.
pub fn check_change_consent(subject: &ApprovalSubject, consent: &Consent) -> Result<(), KmsError> {
    consent.check(subject)
}

/// Checks the consent to a change of the trust anchors, which has no key and so
/// no permit.
///
/// # Errors
/// [`KmsError::Unauthorized`] when the approval is for something else.
pub fn check_anchor_consent(subject: &ApprovalSubject, consent: &Consent) -> Result<(), KmsError> {
    consent.check(subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::tests::active_key;

    fn stored(record: KeyRecord) -> Arc<StoredKey> {
        Arc::new(StoredKey {
            record,
            handle: Some(KeyHandle::from_bytes(vec![1])),
        })
    }

    #[test]
    fn a_lifecycle_step_takes_no_approval_of_another_step() {
        let key = active_key();
        let rotations = [
            ApprovalOperation::KeyRotate,
            ApprovalOperation::KeyRotateEmergency,
        ];
        let changes = [
            ApprovalOperation::KeyArchive,
            ApprovalOperation::KeyUpdate,
            ApprovalOperation::KeyRestore,
        ];
        for approved in ApprovalOperation::ALL {
            let subject = lifecycle_subject(approved, &key);
            let consent = Consent::Approved(Approval::new(subject, Vec::new()));
            for rotation in rotations {
                let permit = permit_rotation(&key, rotation, &consent);
                assert_eq!(permit.is_ok(), approved == rotation, "{approved}");
            }
            for change in changes {
                let checked = check_change_consent(&lifecycle_subject(change, &key), &consent);
                assert_eq!(
                    checked.is_ok(),
                    approved == change,
                    "{approved} for {change}"
                );
            }
            let revocation =
                permit_revocation(stored(key.clone()), RevocationReason::Retired, &consent);
            let is_for_revocation = approved == ApprovalOperation::KeyRevoke;
            assert_eq!(revocation.is_ok(), is_for_revocation, "{approved}");
            let usage = key.key_usage;
            assert!(permit_generation(&key.scope, KeyType::Ed25519, usage, &consent).is_err());
        }
    }

    #[test]
    fn a_step_that_nobody_approved_is_permitted_when_it_is_due_and_not_before() {
        let key = active_key();
        let due = key.rotate_at.expect("active");
        let before = due.minus(std::time::Duration::from_micros(1));
        assert!(permit_scheduled_rotation(&key, before).is_err());
        assert!(permit_scheduled_rotation(&key, due).is_ok());
        let archived = key.archived(due).expect("active");
        assert!(permit_scheduled_rotation(&archived, due).is_err());

        let revoked = |at, erase_at| {
            let revoked = key.revoked(RevocationReason::Retired, at, erase_at);
            stored(revoked.expect("active"))
        };
        let now = key.created_at;
        let waiting = revoked(now, Some(due));
        assert!(permit_erasure(Arc::clone(&waiting), before).is_err());
        assert!(permit_erasure(waiting, due).is_ok());
        // Once it has begun, no clock holds it up.
        let begun = revoked(due, Some(due));
        assert!(permit_erasure(begun, before).is_ok());
        for record in [key.clone(), archived] {
            assert!(permit_erasure(stored(record), due).is_err());
        }
        assert!(permit_erasure(revoked(now, None), due).is_err());
    }

    #[test]
    fn a_usage_that_does_not_fit_the_type_is_refused_before_a_key_is_made() {
        let scope = active_key().scope;
        for (key_type, usage) in [
            (KeyType::Rsa2048, KeyUsage::Encrypt),
            (KeyType::Ed25519, KeyUsage::Decrypt),
            (KeyType::Aes256, KeyUsage::Sign),
        ] {
            let usage = KeyUsageSet::of([usage]).expect("not empty");
            let permit = permit_generation(&scope, key_type, usage, &Consent::NotRequired);
            assert!(permit.is_err(), "{key_type} {usage:?}");
        }
    }
}
