//! `keys.*`: what holds for keys unless a key says otherwise.
//!
//! It knows the defaults, and not how they are applied.

use std::num::NonZeroU64;

use crate::domain::time::Period;

use super::reader::Reader;
use super::value::{Outcome, Parsed, Raw, list, period, quoted, whole};

/// The largest daily limit: what every JSON reader can hold exactly.
const MOST_USES_PER_DAY: u64 = (1 << 53) - 1;

/// The policy of keys.
pub struct Keys {
    /// How long a key of each type lives before it is rotated.
    pub rotation_schedule: RotationSchedule,
    /// How long a rotated key waits before it is archived.
    pub rotation_grace_period: Period,
    /// How often a key may be used in one UTC day.
    pub max_usage_per_day: NonZeroU64,
    /// The modules that may use a key, beside its creator's.
    pub allowed_modules: Vec<String>,
}

/// A period a key type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationSchedule {
    /// `RSA-2048`.
    pub rsa_2048: Period,
    /// `Ed25519`.
    pub ed25519: Period,
    /// `AES-256`.
    pub aes_256: Period,
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
            max_usage_per_day: reader.take("keys.max_usage_per_day", whole(1..=MOST_USES_PER_DAY)),
            allowed_modules: reader.take("keys.allowed_modules", list(module)),
        }
    }
}

fn module(raw: &Raw) -> Outcome<String> {
    let text = raw.text().unwrap_or_default();
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && text.len() <= 64 && text.bytes().all(allowed) {
        Ok(Parsed {
            value: text.to_owned(),
            shown: quoted(text),
        })
    } else {
        Err(
            "expected a module's name: up to 64 letters, digits, dots, underscores and hyphens, \
             a letter or digit first"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_names_of_their_own_alphabet() {
        let is_module = |text: &str| module(&Raw::Variable(text.to_owned())).is_ok();
        for text in ["M21", "EPC-1", "a.b_c", &"x".repeat(64)] {
            assert!(is_module(text), "{text}");
        }
        for text in ["", "-M21", "M 21", "M21/x", "Mü", &"x".repeat(65)] {
            assert!(!is_module(text), "{text}");
        }
    }
}
