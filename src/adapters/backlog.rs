//! How many calls wait for a core or for a session of a token: what one adapter knows, and
//! another goes by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of those that wait. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<AtomicUsize>);

/// One that waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Backlog);

impl Backlog {
    /// One more waits.
    pub(crate) fn wait(&self) -> Waiting {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waiting(self.clone())
    }

    /// How many wait, or did a moment ago.
    pub fn waiting(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
