//! How fast one caller may go: the numbers, and what they are counted for.

use std::num::NonZeroU32;

/// What a caller may do over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many requests a second are sustained.
    pub requests_per_second: NonZeroU32,
    /// How many requests may come at once after a pause.
    pub burst: NonZeroU32,
}

/// Operations that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateGroup {
    /// Steps in the life of a key or of a trust anchor.
    Lifecycle,
    /// Signatures.
    Sign,
    /// Verifications.
    Verify,
    /// Encryptions.
    Encrypt,
    /// Decryptions.
    Decrypt,
    /// Whatever changes nothing and uses no key.
    Read,
}

impl RateGroup {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// Its place, from 0.
    pub const fn index(self) -> usize {
        match self {
            Self::Lifecycle => 0,
            Self::Sign => 1,
            Self::Verify => 2,
            Self::Encrypt => 3,
            Self::Decrypt => 4,
            Self::Read => 5,
        }
    }
}

/// The rates in force. A group without a rate of its own shares the caller's one
/// default allowance with the others that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePolicy {
    /// What holds where a group says nothing.
    pub default: Rate,
    /// What holds for a group, by [`RateGroup::index`].
    pub groups: [Option<Rate>; RateGroup::COUNT],
}
