//! What can be wrong with a ledger, each flaw with the first place where it shows.

use super::tile::TileId;

/// Why a ledger does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerFlaw {
    /// A place has no receipt.
    #[error("receipt {leaf_index} is missing")]
    ReceiptMissing {
        /// The place, from 0.
        leaf_index: u64,
    },
    /// A place has something that is not the canonical form of a receipt.
    #[error("receipt {leaf_index} is not a receipt in its canonical form")]
    ReceiptMalformed {
        /// The place, from 0.
        leaf_index: u64,
    },
    /// A receipt's signature is not good.
    #[error("receipt {leaf_index} does not bear a good signature")]
    ReceiptForged {
        /// The place, from 0.
        leaf_index: u64,
    },
    /// A receipt is signed by a key that was not the ledger's at that place.
    #[error("receipt {leaf_index} is signed by a key that was not in force there")]
    ReceiptSigner {
        /// The place, from 0.
        leaf_index: u64,
    },
    /// A receipt is not the one that the tree has at its place.
    #[error("receipt {leaf_index} is not the one that the tree was built over")]
    ReceiptChanged {
        /// The place, from 0.
        leaf_index: u64,
    },
    /// A complete tile is not there.
    #[error("tile {} of level {} is missing", tile.index, tile.level)]
    TileMissing {
        /// Which.
        tile: TileId,
    },
    /// A tile's hashes are not those of what is below it.
    #[error("tile {} of level {} does not fit what is below it", tile.index, tile.level)]
    TileWrong {
        /// Which.
        tile: TileId,
    },
    /// There are receipts, and no checkpoint over them.
    #[error("there is no checkpoint")]
    CheckpointMissing,
    /// A checkpoint is not signed by the ledger's key, or says nothing readable.
    #[error("the checkpoint of {size} receipts is not signed by the ledger's key")]
    CheckpointForged {
        /// The size it should be of.
        size: u64,
    },
    /// The newest checkpoint is of another number of receipts than there are.
    #[error("the newest checkpoint is of {signed} receipts, and there are {kept}")]
    CheckpointSize {
        /// What was signed.
        signed: u64,
        /// What is there.
        kept: u64,
    },
    /// The tree over the first receipts has another root than was signed.
    #[error(
        "the first {size} receipts are not those that the checkpoint of that size was signed over"
    )]
    RootDiffers {
        /// The size of the checkpoint.
        size: u64,
    },
    /// A checkpoint that was kept on the way is not there.
    #[error("kept checkpoint number {number} is missing")]
    CheckpointLost {
        /// Its number, from 1.
        number: u64,
    },
    /// A kept checkpoint stands behind a larger one, or under another size.
    #[error("kept checkpoint number {number} is not in its place")]
    CheckpointMisplaced {
        /// Its number, from 1.
        number: u64,
    },
    /// The given checkpoint is not one of this ledger's: signed by another key, or
    /// naming another that took over.
    #[error("the given checkpoint of {size} receipts is not signed by the keys of this ledger")]
    GivenForeign {
        /// What it is of.
        size: u64,
    },
    /// The ledger is another one than was seen before.
    #[error("the first {size} receipts are not those of the given checkpoint")]
    Forked {
        /// What the given checkpoint is of.
        size: u64,
    },
    /// The ledger is shorter than one that was seen before.
    #[error("the ledger has {kept} receipts, and had {known} when the given checkpoint was signed")]
    Older {
        /// What the given checkpoint is of.
        known: u64,
        /// What is there.
        kept: u64,
    },
    /// The keys that signed the ledger are not there.
    #[error("the ledger's public keys are missing")]
    KeysMissing,
    /// A public key is none, or does not follow the one before it.
    #[error("key {number} of the ledger is no usable key, or not in its place")]
    KeyWrong {
        /// Which key, from 0 for the first.
        number: usize,
    },
    /// A key took over without both signatures.
    #[error("key {number} of the ledger did not take over by a checkpoint that both keys signed")]
    HandoverForged {
        /// Which key, from 0 for the first.
        number: usize,
    },
    /// None of the ledger's keys is one that the auditor trusts.
    #[error("the ledger is not signed by a given public key")]
    KeyUntrusted,
}
