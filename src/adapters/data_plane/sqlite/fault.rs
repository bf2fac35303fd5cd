//! What goes wrong in this store, as the cause inside the port's `Unavailable`.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::ledger::LedgerFlaw;
use crate::ports::data_plane::Unavailable;
use crate::ports::ledger::LedgerError;
use crate::ports::ledger_store::LedgerFault;

/// Why the store could not do it. Cheap to clone: one failed batch tells all of
/// its callers.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreFault {
    #[error("the queue of the writer is full")]
    QueueFull,
    #[error("the store is closed")]
    Closed,
    #[error("the writer did not answer within {0:?}")]
    DeadlinePassed(Duration),
    #[error("the probe did not read back what it wrote")]
    ProbeLost,
    #[error("a read was not done within {0:?}")]
    ReadDeadlinePassed(Duration),
    #[error("a read was cut off")]
    ReadCutOff,
    #[error("nothing is pinned to {0}")]
    NotPinned(&'static str),
    #[error("the ledger has not begun")]
    LedgerNotBegun,
    #[error("the ledger does not verify")]
    LedgerFlawed(#[source] LedgerFlaw),
    #[error("what became of the ledger cannot be told")]
    LedgerUnsettled(#[source] Arc<LedgerFault>),
    #[error("a receipt could not be signed again")]
    Unsigned(#[source] Arc<LedgerError>),
    #[error("SQLite failed")]
    Sqlite(#[source] Arc<rusqlite::Error>),
}

impl From<rusqlite::Error> for StoreFault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<StoreFault> for Unavailable {
    fn from(fault: StoreFault) -> Self {
        Self(Box::new(fault))
    }
}
