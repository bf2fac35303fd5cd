//! A clock that stands still until somebody moves it.

use std::sync::Mutex;

use crate::domain::time::{Period, Timestamp};
use crate::ports::clock::Clock;

pub(super) struct MovableClock(Mutex<Timestamp>);

impl MovableClock {
    pub(super) fn new(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    pub(super) fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap() = now;
    }

    pub(super) fn advance(&self, period: Period) {
        let mut now = self.0.lock().unwrap();
        *now = now.plus(period);
    }

    pub(super) fn step_back(&self, period: Period) {
        let mut now = self.0.lock().unwrap();
        *now = now.minus(period.as_duration());
    }
}

impl Clock for MovableClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}
