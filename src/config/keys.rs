//! `keys.*`: what holds for keys unless a key says otherwise.
//!
//! It knows the defaults, and not how they are applied.

use std::num::NonZeroU64;

use crate::domain::ids::ModuleId;
use crate::domain::policy::{LARGEST_DAILY_LIMIT, RotationSchedule};
use crate::domain::time::Period;

use super::reader::Reader;
use super::value::{list, module, period, period_or_none, whole};

/// The policy of keys.
pub struct Keys {
    /// How long a key of each type lives before it is rotated.
    pub rotation_schedule: RotationSchedule,
    /// How long a rotated key waits before it is archived.
    pub rotation_grace_period: Period,
    /// How long the secret of a revoked key is kept, unless it is compromised.
    pub erase_after: Period,
    /// How often a key may be used in one UTC day.
    pub max_usage_per_day: NonZeroU64,
    /// The modules that may use a key, beside its creator's.
    pub allowed_modules: Vec<ModuleId>,
}

impl Keys {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            rotation_schedule: RotationSchedule {
                rsa_2048: reader.take("keys.rotation_schedule.RSA-2048", period),
                ed25519: reader.take("keys.rotation_schedule.Ed25519", period),
                aes_256: reader.take("keys.rotation_schedule.AES-256", period),
            },
            rotation_grace_period: reader.take("keys.rotation_grace_period", period),
            erase_after: reader.take("keys.erase_after", period_or_none),
            max_usage_per_day: reader
                .take("keys.max_usage_per_day", whole(1..=LARGEST_DAILY_LIMIT)),
            allowed_modules: reader.take("keys.allowed_modules", list(module)),
        }
    }
}
