//! The ledger at the start, and its key when a new one is to take over.
//!
//! The key lies in `ledger.key`, one that waits to take over in `ledger.key.next`.
//! The store says which of them signs: it keeps the checkpoint by which a key
//! took over, and the files follow. So whatever the moment of a crash, the next
//! start finishes what was begun.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::start_error::StartError;
use crate::adapters::ledger::{LedgerSigner, NextKey};
use crate::adapters::secret_file;
use crate::domain::time::Timestamp;
use crate::ports::data_plane::DataPlane;
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_store::LedgerFault;
use crate::ports::material::{Material, MaterialFault, Standing};

/// The ledger's signing key, in the data folder.
pub(crate) const LEDGER_KEY_FILE: &str = "ledger.key";

/// The key that is to take its place.
pub(crate) const NEXT_LEDGER_KEY_FILE: &str = "ledger.key.next";

/// Makes the ledger ready: its key is made on the first start, and after that it
/// is the one that the store knows or none; what is kept is held to what was
/// signed; and a key that waits takes over.
pub(super) async fn begin_ledger(
    data_dir: &Path,
    data_plane: &Arc<dyn DataPlane>,
) -> Result<LedgerKeyMaterial, StartError> {
    let path = data_dir.join(LEDGER_KEY_FILE);
    let next_path = data_dir.join(NEXT_LEDGER_KEY_FILE);
    let file = path.display().to_string();
    let keys = data_plane.ledger_keys().await?;
    let has_history = data_plane.newest_receipt().await?.is_some();
    let in_force = keys.last().map(|key| key.public_key);

    let mut signer = LedgerSigner::load(&path)?;
    let current = signer.as_ref().map(|signer| signer.public_key());
    if let Some(in_force) = in_force
        && current != Some(in_force)
        && let Some(next) = LedgerSigner::load(&next_path)?
        && next.public_key() == in_force
    {
        // The last process ended between the takeover and this.
        tracing::info!(file, "finishing the takeover of the ledger's new key");
        secret_file::replace(&next_path, &path)?;
        signer = Some(next);
    }
    let signer = match signer {
        Some(signer) => signer,
        None if in_force.is_some() || has_history => {
            return Err(StartError::LedgerKeyMissing { file });
        }
        None => {
            tracing::info!(file, "made a new signing key for the ledger; back it up");
            LedgerSigner::create(&path)?
        }
    };
    signer.remember(
        keys.iter()
            .map(|key| key.public_key)
            .filter(|key| Some(*key) != in_force),
    );
    let signer = Arc::new(signer);
    data_plane
        .begin_ledger(Arc::clone(&signer) as _)
        .await
        .map_err(|fault| match fault {
            LedgerFault::Foreign => StartError::LedgerKeyForeign { file },
            LedgerFault::Unavailable(away) => StartError::StoreFailed(away),
            LedgerFault::Flawed(flaw) => StartError::LedgerBroken(flaw),
            LedgerFault::Key(error) => StartError::LedgerUnsigned(error),
        })?;
    let material = LedgerKeyMaterial {
        signer,
        data_plane: Arc::clone(data_plane),
        path,
        next_path,
    };
    if let Err(fault) = material.reload().await {
        tracing::error!(
            error = &fault as &dyn std::error::Error,
            "the ledger's new key did not take over; the old one signs on"
        );
    }
    Ok(material)
}

/// The ledger's key as something that the operator renews: by laying a new one
/// beside it.
pub(super) struct LedgerKeyMaterial {
    signer: Arc<LedgerSigner>,
    data_plane: Arc<dyn DataPlane>,
    path: PathBuf,
    next_path: PathBuf,
}

impl LedgerKeyMaterial {
    pub(super) fn signer(&self) -> Arc<LedgerSigner> {
        Arc::clone(&self.signer)
    }

    /// Puts the file of the key that signs where it belongs.
    fn move_file(&self) -> Result<(), MaterialFault> {
        secret_file::replace(&self.next_path, &self.path).map_err(|error| MaterialFault {
            what: "the ledger's new key signs and is still in its first place; the next start \
                   moves it"
                .to_owned(),
            source: Some(Box::new(error)),
        })
    }
}

#[async_trait]
impl Material for LedgerKeyMaterial {
    fn name(&self) -> &'static str {
        "ledger_key"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.next_path.clone()]
    }

    async fn reload(&self) -> Result<(), MaterialFault> {
        let fault = |what: &str, source: Box<dyn std::error::Error + Send + Sync>| MaterialFault {
            what: what.to_owned(),
            source: Some(source),
        };
        let next = self
            .signer
            .load_next(&self.next_path)
            .map_err(|error| fault("the ledger's new key cannot be used", Box::new(error)))?;
        let old = self.signer.verifier_key();
        match next {
            NextKey::None => return Ok(()),
            // A takeover whose answer came too late, or whose file did not move.
            NextKey::Signs => return self.move_file(),
            NextKey::Waits => {}
        }
        self.data_plane.hand_over_ledger().await.map_err(|error| {
            fault(
                "the takeover of the ledger's new key was not kept",
                Box::new(error),
            )
        })?;
        self.move_file()?;
        tracing::warn!(
            old = %old,
            new = %self.signer.verifier_key(),
            "a new key signs the ledger; give its public key to whoever checks the ledger"
        );
        Ok(())
    }

    fn standing(&self, _: Timestamp) -> Standing {
        Standing::Good(self.signer.verifier_key().to_string())
    }
}
