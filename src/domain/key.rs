//! A key's metadata; `life` is its state machine.

mod life;

use std::fmt;

use super::algorithm::{Algorithm, KeyType};
use super::ids::{KeyAlias, KeyId, ModuleId};
use super::key_usage::KeyUsageSet;
use super::policy::AccessPolicy;
use super::scope::Scope;
use super::time::{Period, Timestamp};
use super::wire::text_form;

pub use self::life::{KeyUpdate, rotation_due};

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
    /// Does nothing any more: its secret is erased, or about to be.
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
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Compromised, Self::Retired, Self::PolicyViolation];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
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
    /// Every backend.
    pub const ALL: [Self; 2] = [Self::Software, Self::Pkcs11];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
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
}
