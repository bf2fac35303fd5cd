//! How long a store remembers which grants were spent.
//!
//! A store has no clock. But a grant that is being spent was verified a moment
//! ago and lives for minutes, so its own end tells the time well enough to know
//! what nobody can present any longer.

use crate::domain::approval::Grant;

/// How much older than the grant being spent another must be to be forgotten: about a
/// hundred times as long as any token lives, so that no leeway and no difference
/// between clocks matters.
const MARGIN_MICROSECONDS: i64 = 24 * 60 * 60 * 1_000_000;

/// Grants that one transaction forgets, at most: more than it can add, so that
/// what is remembered stays bounded, and few enough to cost nothing.
pub(super) const FORGOTTEN_AT_ONCE: usize = 100;

/// Grants that were usable until before this instant (microseconds since
/// 1970-01-01T00:00:00Z) may be forgotten once these are spent; `None` where
/// there are none.
pub(super) fn forgettable_before<'a>(spent: impl Iterator<Item = &'a Grant>) -> Option<i64> {
    spent
        .map(|grant| grant.usable_until.microseconds())
        .max()
        .map(|newest| newest.saturating_sub(MARGIN_MICROSECONDS))
}
