//! The clock of the machine.

use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;

/// Tells the machine's time.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the service asks for the time"
    )]
    fn now(&self) -> Timestamp {
        jiff::Timestamp::now().into()
    }
}
