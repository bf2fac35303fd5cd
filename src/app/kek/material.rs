//! The key-encryption key as something that the operator renews: by laying a new one
//! beside it. Passes on what is asked, and tells how it stands.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::files::KekFiles;
use crate::domain::time::Timestamp;
use crate::ports::material::{Material, MaterialFault, Standing};

/// Asks the keeper to look at the files again, and where its answer goes.
pub(super) type Ask = oneshot::Sender<Result<(), MaterialFault>>;

/// What the keeper writes and the health report reads.
#[derive(Default)]
pub(super) struct Board(Mutex<Notes>);

/// How the key-encryption keys stand.
#[derive(Clone, Default)]
pub(super) struct Notes {
    /// The id of the key in force.
    pub(super) in_force: String,
    /// What is going on, while secrets are sealed anew.
    pub(super) resealing: Option<String>,
    /// What the operator has to do about the files.
    pub(super) files: Option<String>,
    /// Why the next key is not taken.
    pub(super) next: Option<String>,
}

impl Board {
    pub(super) fn write(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.lock());
    }

    pub(super) fn read(&self) -> Notes {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Notes are whole after every step, whoever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key-encryption key, for whoever keeps material fresh.
pub(super) struct KekMaterial {
    pub(super) files: KekFiles,
    pub(super) board: Arc<Board>,
    pub(super) keeper: mpsc::Sender<Ask>,
}

#[async_trait]
impl Material for KekMaterial {
    fn name(&self) -> &'static str {
        "kek"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.files.next()]
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let gone = || MaterialFault::new("the service is shutting down");
        let (answer, answered) = oneshot::channel();
        self.keeper.send(answer).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    fn standing(&self, _: Timestamp) -> Standing {
        let notes = self.board.read();
        let care: Vec<String> = [notes.resealing, notes.files, notes.next]
            .into_iter()
            .flatten()
            .collect();
        match care.is_empty() {
            true => Standing::Good(format!("secrets are sealed under {}", notes.in_force)),
            false => Standing::NeedsCare(care.join("; ")),
        }
    }
}
