//! Asking for everything to be read again, and knowing when it was.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Asks for everything to be read again: what SIGHUP does.
#[derive(Clone, Debug)]
pub struct ReloadHandle {
    /// How often it was asked.
    asked: watch::Sender<u64>,
    /// Up to which asking each task has come.
    answered: Arc<Mutex<Vec<watch::Receiver<u64>>>>,
}

impl ReloadHandle {
    pub(in crate::app) fn new() -> Self {
        Self {
            asked: watch::Sender::new(0),
            answered: Arc::default(),
        }
    }

    /// Hears of everything that is asked for from now on.
    pub(in crate::app) fn listen(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Where one more task says up to which asking it has come.
    pub(super) fn answering(&self) -> watch::Sender<u64> {
        let (answering, answered) = watch::channel(0);
        self.all_answered().push(answered);
        answering
    }

    /// Asks; answers at once. What fails keeps the old and says so in the log,
    /// the metrics and the health report.
    pub fn reload(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// Waits until all that was asked for was read, or refused.
    pub async fn settled(&self) {
        let asked = *self.asked.borrow();
        let answered = self.all_answered().clone();
        for mut one in answered {
            // A task that is gone has nothing left to read.
            let _ = one.wait_for(|answered| *answered >= asked).await;
        }
    }

    fn all_answered(&self) -> MutexGuard<'_, Vec<watch::Receiver<u64>>> {
        // A list is whole after every push.
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
