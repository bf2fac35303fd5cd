//! `LedgerStore`: the data plane's side of the ledger, what is kept of it and
//! what is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::data_plane::Unavailable;
use super::ledger::{EvidenceLedger, LedgerError};
use crate::domain::ids::ReceiptId;
use crate::domain::ledger::{Checkpoint, LedgerFlaw, Tile, TileId, Tree};
use crate::domain::receipt::OperationName;
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;

/// The ledger as it is kept: receipts in one dense order, the tree over them in
/// complete tiles, the newest checkpoint, some of the earlier ones, and the public
/// keys that signed.
///
/// **Atomic:** a batch of receipts, the tiles that they complete and the checkpoint
/// over them are kept together or not at all. A checkpoint that anybody gets to see
/// is durable, and so is every receipt under it.
#[async_trait]
pub trait LedgerStore: Send + Sync + 'static {
    /// Holds what is kept to its checkpoint, and begins to append with this
    /// signer. Until then every commit is refused. Takes the same time whatever
    /// the size: the tree's edge is read, and the receipts under it. (Only the
    /// receipts of a release that knew no tree are gone through once, all of them.)
    ///
    /// # Errors
    /// [`LedgerFault`]; nothing is changed then.
    async fn begin_ledger(&self, signer: Arc<dyn EvidenceLedger>) -> Result<(), LedgerFault>;

    /// Lets the signer's next key take over at the newest checkpoint.
    ///
    /// # Errors
    /// [`Unavailable`]; whether the key took over is then for the next start to
    /// say, which compares the keys that are kept.
    async fn hand_over_ledger(&self) -> Result<(), Unavailable>;

    /// The newest durable state of the tree, from memory.
    fn ledger_head(&self) -> Arc<LedgerHead>;

    /// The complete tiles among these.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn read_tiles(
        &self,
        tiles: Vec<TileId>,
    ) -> Result<BTreeMap<TileId, Arc<Tile>>, Unavailable>;

    /// The leaves from `first` on, `number` of them; fewer where they are not
    /// there, or no longer here.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn read_leaves(&self, first: u64, number: usize) -> Result<Vec<Vec<u8>>, Unavailable>;

    /// A receipt of a scope by its id.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn find_receipt(
        &self,
        scope: &Scope,
        receipt_id: ReceiptId,
    ) -> Result<Option<KeptReceipt>, Unavailable>;

    /// One page of a scope's receipts by time, oldest first.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn list_receipts(&self, query: ReceiptQuery) -> Result<ReceiptPage, Unavailable>;

    /// The newest receipt of the whole ledger.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn newest_receipt(&self) -> Result<Option<KeptReceipt>, Unavailable>;

    /// The public keys that signed, the first one first. Empty before the ledger
    /// was begun for the first time.
    ///
    /// # Errors
    /// [`Unavailable`].
    async fn ledger_keys(&self) -> Result<Vec<LedgerKey>, Unavailable>;

    /// How many receipts there are, from memory.
    fn ledger_size(&self) -> u64 {
        self.ledger_head().checkpoint.size
    }
}

/// The tree as it is known to be durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerHead {
    /// Its size and root.
    pub checkpoint: Checkpoint,
    /// The same, signed: a note as text. Empty until the ledger has begun.
    pub note: String,
    /// The edge of the tree.
    pub tree: Tree,
}

impl LedgerHead {
    /// The head of a tree, with the signed checkpoint of it.
    pub fn new(tree: Tree, checkpoint: Checkpoint, note: String) -> Self {
        Self {
            checkpoint,
            note,
            tree,
        }
    }

    /// The head before anything is known.
    pub fn unknown() -> Self {
        let tree = Tree::new();
        let checkpoint = tree.checkpoint();
        Self::new(tree, checkpoint, String::new())
    }
}

/// A key that signs or has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerKey {
    /// The key (RFC 8032 §5.1.5).
    pub public_key: [u8; 32],
    /// The first receipt that it signed, or would have.
    pub from_size: u64,
    /// The checkpoint by which it took over; `None` for the first key.
    pub handover: Option<String>,
}

/// A receipt in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptReceipt {
    /// Its place in the ledger, from 0.
    pub leaf_index: u64,
    /// The canonical JSON with the signature, byte for byte as it was kept.
    pub leaf: Vec<u8>,
}

/// Which receipts of a scope to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptQuery {
    /// The scope.
    pub scope: Scope,
    /// Only those about this key, as the receipt names it.
    pub key_id: Option<String>,
    /// Only those of this operation.
    pub operation: Option<OperationName>,
    /// Only those from this instant on.
    pub from: Option<Timestamp>,
    /// Only those before this instant.
    pub until: Option<Timestamp>,
    /// Only those after this place.
    pub after: Option<ReceiptPlace>,
    /// At most so many.
    pub limit: usize,
}

/// Where a receipt stands among those of its scope: they are listed by time, and
/// at one time by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptPlace {
    /// When, in microseconds since 1970-01-01 UTC.
    pub microseconds: i64,
    /// Its place in the ledger.
    pub leaf_index: u64,
}

/// The most receipts that one page looks at. A page of a rare operation would
/// otherwise go through millions of others; it may end early instead, and even be
/// empty, with the place to go on from.
pub const MOST_LOOKED_AT: usize = 50_000;

/// One page of receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptPage {
    /// The receipts.
    pub receipts: Vec<KeptReceipt>,
    /// Where the next page begins, if there may be one.
    pub next: Option<ReceiptPlace>,
}

/// Why a ledger cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFault {
    /// The store failed.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What is kept does not verify.
    #[error(transparent)]
    Flawed(#[from] LedgerFlaw),
    /// What is kept was signed by another key.
    #[error("the ledger was signed with another key")]
    Foreign,
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] LedgerError),
}
