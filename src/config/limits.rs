//! `limits.*`: how fast one caller may go.
//!
//! It knows the numbers, and not who is counted or how.

use std::num::NonZeroU32;

use super::reader::Reader;
use super::value::whole;

/// The rate of one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests a second are sustained.
    pub requests_per_second: NonZeroU32,
    /// How many requests may come at once after a pause.
    pub burst: NonZeroU32,
}

impl Limits {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            requests_per_second: reader.take("limits.requests_per_second", whole(1..=1_000_000)),
            burst: reader.take("limits.burst", whole(1..=1_000_000)),
        }
    }
}
