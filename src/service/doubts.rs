//! What nobody knows for the moment: consequences of transactions whose request
//! was given up, or that the store did not answer in time. They wait here for a
//! probe that finds the store well and asks it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Far more than anyone causes between two probes.
const MOST_DOUBTS: usize = 10_000;

/// Things in doubt.
pub(super) struct Doubts<T>(Mutex<Vec<T>>);

impl<T> Default for Doubts<T> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T> Doubts<T> {
    /// Takes note of one; gives it back where there is no room for more.
    pub(super) fn note(&self, doubt: T) -> Result<(), T> {
        let mut doubts = self.lock();
        if doubts.len() < MOST_DOUBTS {
            doubts.push(doubt);
            Ok(())
        } else {
            Err(doubt)
        }
    }

    /// Takes all of them.
    pub(super) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        // A list is whole after every step, whoever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
