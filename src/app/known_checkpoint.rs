//! The checkpoint that the ledger must contain at the start, and that is written
//! down anew while it grows.
//!
//! It stands in a file beside the store and not in it. So a store that was put
//! back to an earlier state, or whose newest part was lost, is noticed: going on
//! from there would be another ledger than the one that others have seen.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::start_error::StartError;
use crate::adapters::ledger::checkpoint_file;
use crate::config::{Config, StoreUrl};
use crate::service::{CheckpointRefusal, KmsService};

/// In the data folder.
pub(super) const CHECKPOINT_FILE: &str = "ledger.checkpoint";

/// How often the newest checkpoint is written down, while receipts come.
pub(super) const WRITE_EVERY: Duration = Duration::from_secs(60);

/// The file, and what is known to be in it.
pub(super) struct KnownCheckpoint {
    path: PathBuf,
    service: Arc<KmsService>,
    written: Mutex<String>,
}

impl KnownCheckpoint {
    /// Holds the ledger to the checkpoint in the file, if there is one. `None` for a
    /// store that forgets, whose ledger begins anew with every start.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) async fn require(
        config: &Config,
        service: &Arc<KmsService>,
    ) -> Result<Option<Self>, StartError> {
        if matches!(config.store.url, StoreUrl::Memory) {
            return Ok(None);
        }
        let path = config.data_dir.join(CHECKPOINT_FILE);
        let file = path.display().to_string();
        let read = checkpoint_file::read(&path).map_err(|source| StartError::KnownCheckpoint {
            file: file.clone(),
            source,
        })?;
        let written = read.unwrap_or_default();
        if !written.is_empty() {
            service
                .require_checkpoint(&written)
                .await
                .map_err(|refusal| match refusal {
                    CheckpointRefusal::Unavailable(error) => StartError::LedgerUnread(error),
                    CheckpointRefusal::Foreign => StartError::KnownCheckpointForeign { file },
                    CheckpointRefusal::Flawed(flaw) => StartError::LedgerOlder { file, flaw },
                })?;
        }
        Ok(Some(Self {
            path,
            service: Arc::clone(service),
            written: Mutex::new(written),
        }))
    }

    /// Writes the newest checkpoint down, unless it is already. A failure is logged:
    /// the file then holds an earlier one, which is as true.
    pub(super) async fn write_down(&self) {
        let note = self.service.checkpoint();
        let is_written = |written: &str| written == note;
        if note.is_empty() || is_written(&self.lock()) {
            return;
        }
        let path: PathBuf = self.path.clone();
        let text = note.clone();
        let outcome =
            tokio::task::spawn_blocking(move || checkpoint_file::write(&path, &text)).await;
        match outcome {
            Ok(Ok(())) => *self.lock() = note,
            Ok(Err(error)) => warn(&self.path, &error),
            Err(error) => warn(&self.path, &error),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, String> {
        // A text is whole, whoever panicked elsewhere.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn(path: &Path, error: &dyn std::fmt::Display) {
    tracing::warn!(
        file = %path.display(),
        %error,
        "the newest checkpoint of the ledger cannot be written down"
    );
}
