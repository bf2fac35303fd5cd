//! A key's state machine: every step that a key can take, and what each state allows.
//! Knows no clock; whoever calls says what time it is.

use std::time::Duration;

use super::{KeyRecord, KeyState, RevocationReason};
use crate::domain::error::{InactiveReason, KmsError};
use crate::domain::ids::{KeyAlias, KeyId};
use crate::domain::policy::AccessPolicyChoice;
use crate::domain::time::{Period, Timestamp};

/// The part of a key's period within which it is replaced before it ends, at most.
const ROTATION_LEAD: u32 = 10;

/// The longest time before its end at which a key is replaced.
const LONGEST_LEAD: Duration = Duration::from_secs(86_400);

/// When a key is to be replaced that signs and encrypts for so long: between half and
/// the whole of the lead before its end. Which, its id says, so that keys that were
/// made together are not all replaced together.
pub fn rotation_due(key_id: KeyId, valid_until: Timestamp, period: Period) -> Timestamp {
    let lead = (period.as_duration() / ROTATION_LEAD).min(LONGEST_LEAD);
    let [.., random] = key_id.as_bytes();
    let share = (256 + u32::from(*random)) as f64 / 512.0;
    valid_until.minus(lead.mul_f64(share))
}

impl KeyRecord {
    /// The record after its successor has taken over: `active → pending_rotation`.
    ///
    /// # Errors
    /// [`KmsError::KeyInactive`] or [`KmsError::KeyRevoked`] from any other state.
    pub fn replaced_by(
        &self,
        successor: KeyId,
        now: Timestamp,
        grace: Period,
    ) -> Result<Self, KmsError> {
        self.require_active()?;
        Ok(Self {
            key_state: KeyState::PendingRotation,
            version: self.version + 1,
            successor_key_id: Some(successor),
            rotated_at: Some(now),
            grace_until: Some(now.plus(grace)),
            rotate_at: None,
            ..self.clone()
        })
    }

    /// The record after its successor has taken over in an emergency, without a grace
    /// period: `active → archived`.
    ///
    /// # Errors
    /// [`KmsError::KeyInactive`] or [`KmsError::KeyRevoked`] from any other state.
    pub fn replaced_at_once(&self, successor: KeyId, now: Timestamp) -> Result<Self, KmsError> {
        self.require_active()?;
        Ok(Self {
            key_state: KeyState::Archived,
            version: self.version + 1,
            successor_key_id: Some(successor),
            rotated_at: Some(now),
            archived_at: Some(now),
            rotate_at: None,
            ..self.clone()
        })
    }

    /// The record after its grace period, or earlier where somebody says so:
    /// `active` or `pending_rotation → archived`.
    ///
    /// # Errors
    /// [`KmsError::KeyInactive`] or [`KmsError::KeyRevoked`] from any other state.
    pub fn archived(&self, now: Timestamp) -> Result<Self, KmsError> {
        match self.key_state {
            KeyState::Active | KeyState::PendingRotation => Ok(Self {
                key_state: KeyState::Archived,
                version: self.version + 1,
                archived_at: Some(now),
                rotate_at: None,
                ..self.clone()
            }),
            KeyState::Archived => Err(self.inactive(InactiveReason::NotActive)),
            KeyState::Destroyed => Err(KmsError::KeyRevoked),
        }
    }

    /// The record after revocation: `destroyed` from anywhere. The secret goes at
    /// `erase_at`, or with the record where there is none. A destroyed key whose secret
    /// waits can be revoked once more, as compromised: so that it waits no longer.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] when it is destroyed already.
    pub fn revoked(
        &self,
        reason: RevocationReason,
        now: Timestamp,
        erase_at: Option<Timestamp>,
    ) -> Result<Self, KmsError> {
        self.require_revocable(reason)?;
        Ok(Self {
            key_state: KeyState::Destroyed,
            version: self.version + 1,
            revoked_at: Some(now),
            revocation_reason: Some(reason),
            rotate_at: None,
            erase_at,
            ..self.clone()
        })
    }

    /// Whether the key can be revoked for this reason.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] when it is destroyed already.
    pub fn require_revocable(&self, reason: RevocationReason) -> Result<(), KmsError> {
        let waits = self.erase_at.is_some() && !self.erasure_has_begun();
        match self.key_state {
            KeyState::Active | KeyState::PendingRotation | KeyState::Archived => Ok(()),
            KeyState::Destroyed if waits && reason == RevocationReason::Compromised => Ok(()),
            KeyState::Destroyed => Err(KmsError::KeyRevoked),
        }
    }

    /// The record once the secret of a destroyed key is about to go from a backend that
    /// keeps it itself: from here on no clock brings it back.
    ///
    /// # Errors
    /// As for [`KeyRecord::erased`].
    pub fn erasure_begun(&self) -> Result<Self, KmsError> {
        let erased = self.erased()?;
        Ok(Self {
            erase_at: self.revoked_at,
            ..erased
        })
    }

    /// Whether the erasure of the secret has begun, or was never to wait.
    pub fn erasure_has_begun(&self) -> bool {
        self.erase_at.is_some() && self.erase_at <= self.revoked_at
    }

    /// The record once the secret of a destroyed key is gone.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] when it is gone already; [`KmsError::KeyInactive`] when
    /// the key is not destroyed.
    pub fn erased(&self) -> Result<Self, KmsError> {
        match (self.key_state, self.erase_at) {
            (KeyState::Destroyed, Some(_)) => Ok(Self {
                version: self.version + 1,
                erase_at: None,
                ..self.clone()
            }),
            (KeyState::Destroyed, None) => Err(KmsError::KeyRevoked),
            _ => Err(self.inactive(InactiveReason::NotRevoked)),
        }
    }

    /// The record after its revocation was taken back: `destroyed → archived`, as long
    /// as the secret waits for its erasure.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] when the time is over; [`KmsError::KeyInactive`] when
    /// the key is not destroyed.
    pub fn restored(&self, now: Timestamp) -> Result<Self, KmsError> {
        self.require_restorable(now)?;
        Ok(Self {
            key_state: KeyState::Archived,
            version: self.version + 1,
            archived_at: Some(now),
            revoked_at: None,
            revocation_reason: None,
            erase_at: None,
            ..self.clone()
        })
    }

    /// Whether a revocation can be taken back now.
    ///
    /// # Errors
    /// As for [`KeyRecord::restored`].
    pub fn require_restorable(&self, now: Timestamp) -> Result<(), KmsError> {
        match (self.key_state, self.erase_at) {
            (KeyState::Destroyed, Some(erase_at))
                if now < erase_at && !self.erasure_has_begun() =>
            {
                Ok(())
            }
            (KeyState::Destroyed, _) => Err(KmsError::KeyRevoked),
            _ => Err(self.inactive(InactiveReason::NotRevoked)),
        }
    }

    /// The record with another alias, or another policy.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] for a destroyed key; [`KmsError::KeyInactive`] for the
    /// alias of one that is not active.
    pub fn changed(&self, change: KeyUpdate) -> Result<Self, KmsError> {
        self.require_reading()?;
        if change.key_alias.is_some() {
            self.require_active()?;
        }
        Ok(Self {
            version: self.version + 1,
            key_alias: change.key_alias.unwrap_or_else(|| self.key_alias.clone()),
            access_policy: change.access_policy.over(&self.access_policy),
            ..self.clone()
        })
    }

    /// Whether the key is to be replaced without anybody asking.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] or [`KmsError::KeyInactive`].
    pub fn require_rotation_due(&self, now: Timestamp) -> Result<(), KmsError> {
        self.require_active()?;
        match self.rotate_at {
            Some(due) if due <= now => Ok(()),
            _ => Err(self.inactive(InactiveReason::NotDue)),
        }
    }

    /// Whether the grace period of a replaced key is over.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] or [`KmsError::KeyInactive`].
    pub fn require_grace_over(&self, now: Timestamp) -> Result<(), KmsError> {
        self.require_reading()?;
        match (self.key_state, self.grace_until) {
            (KeyState::PendingRotation, Some(until)) if until <= now => Ok(()),
            _ => Err(self.inactive(InactiveReason::NotDue)),
        }
    }

    /// Whether the secret of a destroyed key is to go.
    ///
    /// # Errors
    /// As for [`KeyRecord::erased`], and [`KmsError::KeyInactive`] before its time.
    pub fn require_erasure_due(&self, now: Timestamp) -> Result<(), KmsError> {
        self.erased()?;
        match self.erase_at {
            Some(due) if due <= now || self.erasure_has_begun() => Ok(()),
            _ => Err(self.inactive(InactiveReason::NotDue)),
        }
    }

    /// Whether the secret is gone.
    pub fn is_erased(&self) -> bool {
        self.key_state == KeyState::Destroyed && self.erase_at.is_none()
    }

    /// Whether the state allows making new signatures and ciphertexts now.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] or [`KmsError::KeyInactive`], which names the successor.
    pub fn require_protecting(&self, now: Timestamp) -> Result<(), KmsError> {
        self.require_active()?;
        if now >= self.valid_until {
            return Err(self.inactive(InactiveReason::Expired));
        }
        Ok(())
    }

    /// Whether the state allows reading what was protected in the past.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] when it is destroyed.
    pub fn require_reading(&self) -> Result<(), KmsError> {
        match self.key_state {
            KeyState::Active | KeyState::PendingRotation | KeyState::Archived => Ok(()),
            KeyState::Destroyed => Err(KmsError::KeyRevoked),
        }
    }

    /// Whether the state is `active`, whatever the time.
    ///
    /// # Errors
    /// [`KmsError::KeyRevoked`] or [`KmsError::KeyInactive`], which names the successor.
    pub fn require_active(&self) -> Result<(), KmsError> {
        match self.key_state {
            KeyState::Active => Ok(()),
            KeyState::PendingRotation | KeyState::Archived => {
                Err(self.inactive(InactiveReason::NotActive))
            }
            KeyState::Destroyed => Err(KmsError::KeyRevoked),
        }
    }

    fn inactive(&self, reason: InactiveReason) -> KmsError {
        KmsError::KeyInactive {
            key_state: self.key_state,
            successor_key_id: self.successor_key_id,
            reason,
        }
    }
}

/// What is to change in a key's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUpdate {
    /// The alias of its line from now on, or that it has none.
    pub key_alias: Option<Option<KeyAlias>>,
    /// What is to change in its policy.
    pub access_policy: AccessPolicyChoice,
}

impl KeyUpdate {
    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.key_alias.is_none() && self.access_policy.is_empty()
    }
}

#[cfg(test)]
mod tests;
