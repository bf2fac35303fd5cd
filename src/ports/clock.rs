//! The time, injected.

use crate::domain::time::Timestamp;

/// Tells the time in UTC.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}
