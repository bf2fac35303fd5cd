//! One thing in force that a better one may replace: verify, then swap.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::ports::material::{MaterialFault, Standing};

/// What is in force, and how the last attempt to renew it went.
pub(super) struct Renewable<T> {
    in_force: ArcSwap<T>,
    last_fault: Mutex<Option<String>>,
}

impl<T: Send + Sync + 'static> Renewable<T> {
    pub(super) fn new(first: T) -> Self {
        Self {
            in_force: ArcSwap::from_pointee(first),
            last_fault: Mutex::new(None),
        }
    }

    /// What is in force. Readers never wait.
    pub(super) fn in_force(&self) -> Arc<T> {
        self.in_force.load_full()
    }

    /// Puts what was read in the place of what is in force, or keeps that and
    /// remembers the fault. Files are read off the runtime's threads.
    pub(super) async fn renew(
        &self,
        read: impl FnOnce() -> Result<T, MaterialFault> + Send + 'static,
    ) -> Result<(), MaterialFault> {
        let read = tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(MaterialFault::new("reading it was cut short; try again")));
        let (fault, result) = match read {
            Ok(new) => {
                self.in_force.store(Arc::new(new));
                (None, Ok(()))
            }
            Err(fault) => (Some(fault.what.clone()), Err(fault)),
        };
        *self
            .last_fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fault;
        result
    }

    /// How it stands, given how what is in force stands by itself: good material
    /// whose successor was refused needs care.
    pub(super) fn standing(&self, by_itself: Standing) -> Standing {
        let last_fault = self
            .last_fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (&*last_fault, by_itself) {
            (None, standing) => standing,
            (Some(fault), Standing::Unusable(what)) => {
                Standing::Unusable(format!("{what}; the new one was refused: {fault}"))
            }
            (Some(fault), Standing::Good(what) | Standing::NeedsCare(what)) => Standing::NeedsCare(
                format!("the new one was refused: {fault}; in force: {what}"),
            ),
        }
    }
}
