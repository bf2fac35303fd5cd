//! A key's metadata and its state machine.

use std::fmt;
use std::time::Duration;

use super::algorithm::{Algorithm, KeyType};
use super::error::{InactiveReason, KmsError};
use super::ids::{KeyAlias, KeyId, ModuleId};
use super::key_usage::KeyUsageSet;
use super::policy::{AccessPolicy, AccessPolicyChoice};
use super::scope::Scope;
use super::time::{Period, Timestamp};
use super::wire::text_form;

/// Where a key stands in its life:
/// `active → pending_rotation → archived → destroyed`, and `destroyed` from anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyState {
    /// Does everything its usage allows, until `valid_until`.
    Active,
    /// Replaced, in its grace period: verifies and decrypts.
    PendingRotation,
    /// Verifies and decrypts what was protected in the past.
    Archived,
    /// Its secret is erased; only the metadata is left.
    Destroyed,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 4] = [
        Self::Active,
        Self::PendingRotation,
        Self::Archived,
        Self::Destroyed,
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PendingRotation => "pending_rotation",
            Self::Archived => "archived",
            Self::Destroyed => "destroyed",
        }
    }
}

text_form!(
    KeyState,
    "one of active, pending_rotation, archived, destroyed"
);

/// Why a key was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevocationReason {
    /// Somebody else has, or may have, the secret.
    Compromised,
    /// No longer needed.
    Retired,
    /// Used against the rules.
    PolicyViolation,
}

impl RevocationReason {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "compromised" => Some(Self::Compromised),
            "retired" => Some(Self::Retired),
            "policy_violation" => Some(Self::PolicyViolation),
            _ => None,
        }
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compromised => "compromised",
            Self::Retired => "retired",
            Self::PolicyViolation => "policy_violation",
        }
    }
}

text_form!(
    RevocationReason,
    "one of compromised, retired, policy_violation"
);

/// Which backend holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HsmBackendName {
    /// The software HSM.
    Software,
    /// A PKCS#11 token.
    Pkcs11,
}

impl HsmBackendName {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "software" => Some(Self::Software),
            "pkcs11" => Some(Self::Pkcs11),
            _ => None,
        }
    }

    /// The name in metadata and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Pkcs11 => "pkcs11",
        }
    }

    /// Whether the backend keeps secrets itself. Otherwise a key's handle is all
    /// there is of it, and goes where the handle goes.
    pub const fn keeps_keys(self) -> bool {
        match self {
            Self::Software => false,
            Self::Pkcs11 => true,
        }
    }
}

text_form!(HsmBackendName, "one of software, pkcs11");

/// The backend's own name for a key, opaque to everyone else: for the software
/// HSM the sealed secret itself, for a token the object's id.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHandle(Vec<u8>);

impl KeyHandle {
    /// A handle as the backend or the store gave it.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the backend that made them and for the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHandle({} bytes)", self.0.len())
    }
}

/// Everything there is to know about a key but its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key's id.
    pub key_id: KeyId,
    /// Where it lives.
    pub scope: Scope,
    /// What kind of key.
    pub key_type: KeyType,
    /// What it may be used for.
    pub key_usage: KeyUsageSet,
    /// The alias of its line, if it has one.
    pub key_alias: Option<KeyAlias>,
    /// Where it stands in its life.
    pub key_state: KeyState,
    /// Counts the changes of this record, from 1; a change is made only to the
    /// version it was decided on.
    pub version: u64,
    /// What its backend can do with it, the default first.
    pub algorithms: Vec<Algorithm>,
    /// Which backend holds it.
    pub backend: HsmBackendName,
    /// SPKI PEM of the public half; `None` for a symmetric key.
    pub public_key: Option<String>,
    /// Who may use it, and how often.
    pub access_policy: AccessPolicy,
    /// When it was made.
    pub created_at: Timestamp,
    /// The module that had it made.
    pub created_by: ModuleId,
    /// Until when it signs and encrypts.
    pub valid_until: Timestamp,
    /// Its own schedule; its type's where it has none.
    pub rotation_period: Option<Period>,
    /// When it is to be replaced without anybody asking, some time before its
    /// `valid_until`; only while it is active.
    pub rotate_at: Option<Timestamp>,
    /// The line of rotations it belongs to: the id of the line's first key.
    pub line_id: KeyId,
    /// How many rotations lie before it in its line.
    pub rotation_count: u32,
    /// The key it replaced.
    pub predecessor_key_id: Option<KeyId>,
    /// The key that replaced it.
    pub successor_key_id: Option<KeyId>,
    /// When it was replaced.
    pub rotated_at: Option<Timestamp>,
    /// Until when `pending_rotation` lasts.
    pub grace_until: Option<Timestamp>,
    /// When it was archived.
    pub archived_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why it was revoked.
    pub revocation_reason: Option<RevocationReason>,
    /// When the secret of a destroyed key goes; `None` once it is gone.
    pub erase_at: Option<Timestamp>,
}

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

/// A key as the store holds it: what is known of it and how its backend finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// The metadata.
    pub record: KeyRecord,
    /// The backend's handle; `None` once the secret is erased.
    pub handle: Option<KeyHandle>,
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::key_usage::KeyUsage;

    /// An active Ed25519 key of tenant `t`, for tests that need some key.
    pub(crate) fn active_key() -> KeyRecord {
        let created_at: Timestamp = "2026-01-01T00:00:00Z".parse().expect("valid");
        let key_id = KeyId::generate();
        KeyRecord {
            key_id,
            scope: Scope {
                tenant_id: "t".parse().expect("valid"),
                environment: super::super::scope::Environment::Dev,
                plane: super::super::scope::Plane::Tenant,
            },
            key_type: KeyType::Ed25519,
            key_usage: KeyUsageSet::of([KeyUsage::Sign, KeyUsage::Verify]).expect("not empty"),
            key_alias: None,
            key_state: KeyState::Active,
            version: 1,
            algorithms: KeyType::Ed25519.algorithms().to_vec(),
            backend: HsmBackendName::Software,
            public_key: Some("-----BEGIN PUBLIC KEY-----\n".to_owned()),
            access_policy: AccessPolicy {
                allowed_modules: vec!["M21".parse().expect("valid")],
                requires_approval: false,
                max_usage_per_day: 10,
            },
            created_at,
            created_by: "M21".parse().expect("valid"),
            valid_until: created_at.plus(Period::days(365)),
            rotation_period: None,
            rotate_at: Some(created_at.plus(Period::days(364))),
            line_id: key_id,
            rotation_count: 0,
            predecessor_key_id: None,
            successor_key_id: None,
            rotated_at: None,
            grace_until: None,
            archived_at: None,
            revoked_at: None,
            revocation_reason: None,
            erase_at: None,
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Replace,
        ReplaceAtOnce,
        Archive,
        RevokeLater,
        RevokeAtOnce,
        Erase,
        Restore,
        BeginErasure,
        Update,
    }

    const STEPS: [Step; 9] = [
        Step::Replace,
        Step::ReplaceAtOnce,
        Step::Archive,
        Step::RevokeLater,
        Step::RevokeAtOnce,
        Step::Erase,
        Step::Restore,
        Step::BeginErasure,
        Step::Update,
    ];

    fn take(step: Step, key: &KeyRecord) -> Result<KeyRecord, KmsError> {
        let now = key.created_at;
        let later = Some(now.plus(Period::days(7)));
        match step {
            Step::Replace => key.replaced_by(KeyId::generate(), now, Period::days(7)),
            Step::ReplaceAtOnce => key.replaced_at_once(KeyId::generate(), now),
            Step::Archive => key.archived(now),
            Step::RevokeLater => key.revoked(RevocationReason::Retired, now, later),
            Step::RevokeAtOnce => key.revoked(RevocationReason::Compromised, now, None),
            Step::Erase => key.erased(),
            Step::Restore => key.restored(now),
            Step::BeginErasure => key.erasure_begun(),
            Step::Update => key.changed(KeyUpdate::default()),
        }
    }

    /// How much of a destroyed key's secret is left.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Left {
        All,
        Going,
        Nothing,
    }

    /// The table of the product contract, written a second time.
    fn expected(at: (KeyState, Left), step: Step) -> Option<(KeyState, Left)> {
        use KeyState::{Active, Archived, Destroyed, PendingRotation};
        use Left::{All, Going, Nothing};
        match (at, step) {
            ((Active, _), Step::Replace) => Some((PendingRotation, All)),
            ((Active, _), Step::ReplaceAtOnce) => Some((Archived, All)),
            ((Active | PendingRotation, _), Step::Archive) => Some((Archived, All)),
            ((Destroyed, All), Step::RevokeAtOnce) => Some((Destroyed, Nothing)),
            ((Destroyed, All | Going), Step::Erase) => Some((Destroyed, Nothing)),
            ((Destroyed, All | Going), Step::BeginErasure) => Some((Destroyed, Going)),
            ((Destroyed, All), Step::Restore) => Some((Archived, All)),
            ((Destroyed, _), _) => None,
            (_, Step::RevokeLater) => Some((Destroyed, All)),
            (_, Step::RevokeAtOnce) => Some((Destroyed, Nothing)),
            (at, Step::Update) => Some(at),
            _ => None,
        }
    }

    fn place(key: &KeyRecord) -> (KeyState, Left) {
        let left = match (key.is_erased(), key.erasure_has_begun()) {
            (true, _) => Left::Nothing,
            (false, true) => Left::Going,
            (false, false) => Left::All,
        };
        (key.key_state, left)
    }

    proptest! {
        #[test]
        fn the_state_machine_is_the_table_and_every_change_counts(
            steps in prop::collection::vec(prop::sample::select(&STEPS[..]), 0..16)
        ) {
            let mut key = active_key();
            for step in steps {
                match (take(step, &key), expected(place(&key), step)) {
                    (Ok(next), Some(expected)) => {
                        prop_assert_eq!(place(&next), expected);
                        prop_assert_eq!(next.version, key.version + 1);
                        let is_active = next.key_state == KeyState::Active;
                        prop_assert_eq!(next.rotate_at.is_some(), is_active);
                        key = next;
                    }
                    (Err(error), None) => {
                        let revoked = key.key_state == KeyState::Destroyed;
                        prop_assert_eq!(matches!(error, KmsError::KeyRevoked), revoked);
                    }
                    (outcome, wanted) => prop_assert!(false, "{outcome:?} against {wanted:?}"),
                }
            }
        }
    }

    #[test]
    fn a_key_is_replaced_within_the_last_tenth_of_its_time_and_keys_differ() {
        let created_at = active_key().created_at;
        for (period, longest) in [
            (Period::seconds(100), 10),
            (Period::days(5), 43_200),
            (Period::days(365), 86_400),
        ] {
            let valid_until = created_at.plus(period);
            let leads: Vec<i64> = (0..=255)
                .map(|random| {
                    let mut id = [0; 16];
                    id[15] = random;
                    let due = rotation_due(KeyId::from_bytes(id), valid_until, period);
                    valid_until.microseconds() - due.microseconds()
                })
                .collect();
            let longest = longest * 1_000_000;
            assert!(
                leads
                    .iter()
                    .all(|lead| (longest / 2..=longest).contains(lead))
            );
            let different: std::collections::BTreeSet<_> = leads.iter().collect();
            assert_eq!(different.len(), 256);
        }
    }

    #[test]
    fn a_revocation_is_taken_back_only_before_the_secret_is_due_to_go() {
        let key = active_key();
        let now = key.created_at;
        let erase_at = now.plus(Period::days(7));
        let revoked = key
            .revoked(RevocationReason::Retired, now, Some(erase_at))
            .expect("active");
        let last = Timestamp::from_microseconds(erase_at.microseconds() - 1);
        let restored = revoked.restored(last.expect("valid")).expect("in time");
        assert_eq!(restored.key_state, KeyState::Archived);
        assert_eq!((restored.revoked_at, restored.erase_at), (None, None));
        assert!(matches!(
            revoked.restored(erase_at),
            Err(KmsError::KeyRevoked)
        ));
    }

    #[test]
    fn a_key_that_waits_for_its_erasure_can_still_be_called_compromised_and_once() {
        let key = active_key();
        let now = key.created_at;
        let erase_at = Some(now.plus(Period::days(7)));
        let waiting = key
            .revoked(RevocationReason::Retired, now, erase_at)
            .expect("active");
        for reason in [RevocationReason::Retired, RevocationReason::PolicyViolation] {
            assert!(waiting.revoked(reason, now, None).is_err());
        }
        // Where the backend has its own copy, the record waits for that to go.
        let compromised = waiting
            .revoked(RevocationReason::Compromised, now, Some(now))
            .expect("an escalation");
        assert!(
            compromised
                .revoked(RevocationReason::Compromised, now, None)
                .is_err()
        );
    }

    #[test]
    fn only_an_active_key_changes_its_alias_and_every_live_one_its_policy() {
        let key = active_key();
        let pending = key
            .replaced_by(KeyId::generate(), key.created_at, Period::days(7))
            .expect("active");
        let alias = KeyUpdate {
            key_alias: Some(Some("other".parse().expect("valid"))),
            ..KeyUpdate::default()
        };
        let policy = KeyUpdate {
            access_policy: AccessPolicyChoice {
                max_usage_per_day: Some(7),
                ..AccessPolicyChoice::default()
            },
            ..KeyUpdate::default()
        };
        assert!(key.changed(alias.clone()).is_ok());
        assert!(matches!(
            pending.changed(alias),
            Err(KmsError::KeyInactive { .. })
        ));
        let changed = pending.changed(policy).expect("a live key");
        assert_eq!(changed.access_policy.max_usage_per_day, 7);
        assert_eq!(
            changed.access_policy.allowed_modules,
            key.access_policy.allowed_modules
        );
    }

    #[test]
    fn an_active_key_protects_only_until_its_valid_until() {
        let key = active_key();
        let last = Timestamp::from_microseconds(key.valid_until.microseconds() - 1);
        assert!(key.require_protecting(last.expect("valid")).is_ok());
        assert!(matches!(
            key.require_protecting(key.valid_until),
            Err(KmsError::KeyInactive {
                key_state: KeyState::Active,
                reason: InactiveReason::Expired,
                ..
            })
        ));
        assert!(key.require_reading().is_ok());
    }

    #[test]
    fn a_replaced_key_names_its_successor_when_it_refuses() {
        let successor = KeyId::generate();
        let key = active_key();
        let pending = key
            .replaced_by(successor, key.created_at, Period::days(7))
            .expect("an active key can be replaced");
        assert_eq!(
            pending.grace_until,
            Some(key.created_at.plus(Period::days(7)))
        );
        assert!(matches!(
            pending.require_protecting(key.created_at),
            Err(KmsError::KeyInactive { successor_key_id: Some(id), .. }) if id == successor
        ));
        assert!(pending.require_reading().is_ok());
    }

    #[test]
    fn a_destroyed_key_reads_nothing() {
        let key = active_key();
        let destroyed = key
            .revoked(RevocationReason::Compromised, key.created_at, None)
            .expect("an active key can be revoked");
        assert!(matches!(
            destroyed.require_reading(),
            Err(KmsError::KeyRevoked)
        ));
        assert!(matches!(
            destroyed.require_protecting(key.created_at),
            Err(KmsError::KeyRevoked)
        ));
    }
}
