//! `LedgerSource`: a ledger as whoever checks it reads it, wherever it is.

use crate::domain::ledger::{TileId, TreeHash};
use crate::ports::ledger_store::LedgerKey;

/// One state of a ledger, read from the first receipt to the last.
///
/// Everything it answers may be a lie: it reads, and believes nothing. Calls
/// block, since whoever checks a ledger does nothing else.
pub trait LedgerSource {
    /// How many receipts there are, moved ones included.
    ///
    /// # Errors
    /// [`SourceFault`].
    fn size(&mut self) -> Result<u64, SourceFault>;

    /// The newest checkpoint, a note as text.
    ///
    /// # Errors
    /// [`SourceFault`].
    fn head(&mut self) -> Result<Option<String>, SourceFault>;

    /// The public keys that signed, the first one first.
    ///
    /// # Errors
    /// [`SourceFault`].
    fn keys(&mut self) -> Result<Vec<LedgerKey>, SourceFault>;

    /// The checkpoints that were kept on the way, from this number on, at most
    /// so many, in the order of their numbers.
    ///
    /// # Errors
    /// [`SourceFault`].
    fn checkpoints(&mut self, from: u64, most: usize) -> Result<Vec<KeptCheckpoint>, SourceFault>;

    /// A complete tile.
    ///
    /// # Errors
    /// [`SourceFault`].
    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<TreeHash>>, SourceFault>;

    /// The receipts from this place on, at most so many.
    ///
    /// # Errors
    /// [`SourceFault`].
    fn stretch(&mut self, first: u64, most: usize) -> Result<Stretch, SourceFault>;

    /// Whether all that was read was one state.
    ///
    /// # Errors
    /// [`SourceFault`] where somebody wrote in between.
    fn settle(&mut self) -> Result<(), SourceFault>;
}

/// A checkpoint that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// Its number, from 1 and without a gap.
    pub number: u64,
    /// The size that it is kept under.
    pub size: u64,
    /// The note.
    pub note: String,
}

/// What is found at a place of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Receipts, one after the other; none where the first is missing.
    Leaves(Vec<Vec<u8>>),
    /// The receipts before `end` were moved to a file that is not there.
    Away {
        /// The first that was not.
        end: u64,
        /// The file.
        file: String,
    },
}

/// Why a ledger cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SourceFault {
    /// What cannot be done, and with what.
    pub what: String,
    /// What the system said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceFault {
    /// A fault that is nobody else's.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// A fault with its cause.
    pub fn because(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            what: what.into(),
            source: Some(source.into()),
        }
    }
}
