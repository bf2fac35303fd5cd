//! The PKCS#11 modules that this process has loaded: each once, and initialized
//! once, whoever uses it.
//!
//! A module that has lost its token for good (a proxy whose other end died) finds
//! it again only after `C_Finalize` and `C_Initialize`. Those must not meet any
//! other call (PKCS#11 v3.1 §5.4.2), and afterwards every session handle of before
//! may be somebody else's: so every call is made inside a [`Visit`], which names
//! the initialization that its session belongs to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::fault::TokenError;
use super::turns::Turns;

static LOADED: LazyLock<Mutex<HashMap<PathBuf, Arc<Library>>>> = LazyLock::new(Mutex::default);

/// How long making a key takes at the worst, on a machine with other work.
const LONGEST_TURN: Duration = Duration::from_secs(2);

/// A module that is loaded and initialized.
pub(super) struct Library {
    pkcs11: Pkcs11,
    /// Counts the initializations. What was opened under an earlier one is gone.
    epoch: AtomicU64,
    /// Read by every call, written while the module is initialized anew.
    calls: RwLock<()>,
    /// Held while objects are looked for, made and destroyed; see `quirks`.
    pub(super) objects: Turns,
}

/// The right to call the module, for as long as it lives.
pub(super) struct Visit<'a> {
    pub(super) pkcs11: &'a Pkcs11,
    pub(super) epoch: u64,
    _calls: RwLockReadGuard<'a, ()>,
}

impl Library {
    /// The module at this path, loaded and initialized if it was not yet.
    ///
    /// # Errors
    /// [`TokenError`], in words for an operator.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, TokenError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.get(path) {
            return Ok(Arc::clone(library));
        }
        let pkcs11 = Pkcs11::new(path).map_err(|error| {
            TokenError::Away(format!("{} cannot be loaded: {error}", path.display()))
        })?;
        initialize(&pkcs11).map_err(TokenError::of)?;
        let library = Arc::new(Self {
            pkcs11,
            epoch: AtomicU64::new(1),
            calls: RwLock::new(()),
            objects: Turns::new(LONGEST_TURN),
        });
        loaded.insert(path.to_owned(), Arc::clone(&library));
        Ok(library)
    }

    /// Enters for calls that belong to no session yet.
    pub(super) fn enter(&self) -> Visit<'_> {
        // Nothing is guarded but the order of calls, whoever panicked in one.
        let calls = self.calls.read().unwrap_or_else(PoisonError::into_inner);
        Visit {
            pkcs11: &self.pkcs11,
            epoch: self.epoch.load(Ordering::Relaxed),
            _calls: calls,
        }
    }

    /// Enters for calls of a session that was opened under this epoch; `None` when
    /// the module was initialized anew since.
    pub(super) fn enter_again(&self, epoch: u64) -> Option<Visit<'_>> {
        Some(self.enter()).filter(|visit| visit.epoch == epoch)
    }

    /// Initializes the module anew, if this has not happened since `epoch` and no
    /// call is under way, one that hangs included.
    ///
    /// # Errors
    /// [`TokenError`]; a module that is not initialized is tried again next time.
    pub(super) fn initialize_again(&self, epoch: u64) -> Result<(), TokenError> {
        let _alone = match self.calls.try_write() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let why = "a call to the module still waits for the token";
                return Err(TokenError::Away(why.to_owned()));
            }
        };
        if self.epoch.load(Ordering::Relaxed) != epoch {
            return Ok(());
        }
        self.epoch.store(epoch + 1, Ordering::Relaxed);
        match self.pkcs11.clone().finalize() {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
            Err(error) => return Err(TokenError::of(error)),
        }
        initialize(&self.pkcs11).map_err(TokenError::of)
    }
}

fn initialize(pkcs11: &Pkcs11) -> Result<(), Error> {
    // The module may be called from many threads and lock with the system's means.
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Somebody else in this process uses the same module.
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        outcome => outcome,
    }
}
