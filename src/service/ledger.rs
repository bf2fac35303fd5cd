//! The ledger as others see it: checkpoints, tiles, proofs and receipts.
//!
//! Checkpoints and hashes give nothing away and are for any caller; the receipts
//! themselves are their tenant's, and all of them an auditor's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{KmsService, RequestContext};
use crate::domain::caller::Caller;
use crate::domain::error::{Dependency, KmsError, RequestFault};
use crate::domain::ids::ReceiptId;
use crate::domain::ledger::{
    Checkpoint, LedgerFlaw, ORIGIN, ProofPlan, TILE_WIDTH, Tile, TileId, TileKind, TilePath, Tree,
    TreeHash, VerifierKey,
};
use crate::domain::scope::Scope;
use crate::ports::data_plane::Unavailable;
use crate::ports::ledger_store::{KeptReceipt, LedgerHead, LedgerKey, ReceiptPage, ReceiptQuery};

/// A receipt in its place, and the proof that it is there.
pub struct FoundReceipt {
    /// The receipt.
    pub kept: KeptReceipt,
    /// The hashes beside its way to the root, leaf upwards (RFC 9162 §2.1.3).
    pub inclusion_proof: Vec<TreeHash>,
    /// The tree that the proof leads to.
    pub checkpoint: Checkpoint,
    /// The same, signed.
    pub note: String,
}

/// The proof that one tree grew out of another.
pub struct Consistency {
    /// The size of the smaller tree.
    pub from: u64,
    /// The size of the larger.
    pub to: u64,
    /// The proof (RFC 9162 §2.1.4).
    pub proof: Vec<TreeHash>,
    /// The larger tree, signed.
    pub note: String,
}

/// Why the ledger is not held to contain a checkpoint.
#[derive(Debug)]
pub enum CheckpointRefusal {
    /// The store failed.
    Unavailable(KmsError),
    /// It is no checkpoint that a key of this ledger signed.
    Foreign,
    /// The ledger is shorter, or begins with other receipts.
    Flawed(LedgerFlaw),
}

/// A key that signs or has signed.
pub struct VerifierOfLedger {
    /// The key as text.
    pub key: VerifierKey,
    /// What is known of how it came to sign.
    pub kept: LedgerKey,
}

impl KmsService {
    /// The newest checkpoint, signed. What it is over is durable.
    pub fn checkpoint(&self) -> String {
        self.ports.data_plane.ledger_head().note.clone()
    }

    /// Holds the ledger to a checkpoint that was signed of it earlier: it must begin
    /// with exactly that.
    ///
    /// # Errors
    /// [`CheckpointRefusal`].
    pub async fn require_checkpoint(&self, note: &str) -> Result<(), CheckpointRefusal> {
        let known = self.ports.ledger.read_checkpoint(note);
        let known = known.ok_or(CheckpointRefusal::Foreign)?;
        let head = self.ports.data_plane.ledger_head();
        let kept = head.checkpoint.size;
        if known.size > kept {
            return Err(CheckpointRefusal::Flawed(LedgerFlaw::Older {
                known: known.size,
                kept,
            }));
        }
        let root = self.root_at(&head, known.size).await;
        if root.map_err(CheckpointRefusal::Unavailable)? == known.root {
            Ok(())
        } else {
            Err(CheckpointRefusal::Flawed(LedgerFlaw::RootDiffers {
                size: known.size,
            }))
        }
    }

    /// The root of the tree when it had this size.
    async fn root_at(&self, head: &LedgerHead, size: u64) -> Result<TreeHash, KmsError> {
        let plan = ProofPlan::root(size);
        let tiles = self.tiles(head, plan.tiles()).await?;
        let root = tiles.build(&plan)?.first().copied();
        Ok(root.unwrap_or_else(TreeHash::of_empty_tree))
    }

    /// The keys that sign and have signed, the first one first.
    ///
    /// # Errors
    /// [`KmsError::DependencyUnavailable`].
    pub async fn ledger_keys(&self) -> Result<Vec<VerifierOfLedger>, KmsError> {
        let keys = self.ports.data_plane.ledger_keys().await.map_err(away)?;
        Ok(keys
            .into_iter()
            .map(|kept| VerifierOfLedger {
                key: VerifierKey::new(ORIGIN, kept.public_key),
                kept,
            })
            .collect())
    }

    /// The bytes of a tile (C2SP tlog-tiles): hashes for any caller, entries for an
    /// auditor. They never change.
    ///
    /// # Errors
    /// [`RequestFault::UnknownTile`] where the tree has not come so far, and where
    /// entries are no longer here; [`KmsError::Unauthorized`];
    /// [`KmsError::DependencyUnavailable`].
    pub async fn tile(&self, caller: &Caller, path: &TilePath) -> Result<Vec<u8>, KmsError> {
        match path.kind {
            TileKind::Hashes { level } => {
                let id = TileId {
                    level,
                    index: path.index,
                };
                self.hash_tile(id, path.width).await
            }
            TileKind::Entries => {
                caller.authorize_audit(&self.policy.auditors)?;
                self.entries(path.index, path.width).await
            }
        }
    }

    async fn hash_tile(&self, id: TileId, width: usize) -> Result<Vec<u8>, KmsError> {
        let head = self.ports.data_plane.ledger_head();
        let tiles = self.tiles(&head, [id]).await?;
        let tile = tiles.get(id).filter(|tile| tile.width() >= width);
        let tile = tile.ok_or(RequestFault::UnknownTile)?;
        Ok(TreeHash::join(tile.hashes().take(width)))
    }

    async fn entries(&self, index: u64, width: usize) -> Result<Vec<u8>, KmsError> {
        let head = self.ports.data_plane.ledger_head();
        let first = index
            .checked_mul(TILE_WIDTH as u64)
            .filter(|first| first.saturating_add(width as u64) <= head.checkpoint.size)
            .ok_or(RequestFault::UnknownTile)?;
        let leaves = self.ports.data_plane.read_leaves(first, width).await;
        let leaves = leaves.map_err(away)?;
        if leaves.len() < width {
            return Err(RequestFault::UnknownTile.into());
        }
        let mut bundle = Vec::with_capacity(leaves.iter().map(|leaf| leaf.len() + 2).sum());
        for leaf in leaves {
            let length = u16::try_from(leaf.len()).map_err(KmsError::internal)?;
            bundle.extend_from_slice(&length.to_be_bytes());
            bundle.extend_from_slice(&leaf);
        }
        Ok(bundle)
    }

    /// The proof that the tree of size `to`, by default the newest, begins with the
    /// one of size `from`.
    ///
    /// # Errors
    /// [`KmsError::InvalidRequest`] that names what is out of range;
    /// [`KmsError::DependencyUnavailable`].
    pub async fn prove_consistency(
        &self,
        from: u64,
        to: Option<u64>,
    ) -> Result<Consistency, KmsError> {
        let head = self.ports.data_plane.ledger_head();
        let size = head.checkpoint.size;
        let to = to.unwrap_or(size);
        if to > size {
            return Err(KmsError::field("to", format!("a size of at most {size}")));
        }
        let plan = ProofPlan::consistency(from, to)
            .ok_or_else(|| KmsError::field("from", format!("a size of at most {to}")))?;
        let tiles = self.tiles(&head, plan.tiles()).await?;
        let proof = tiles.build(&plan)?;
        let note = if to == size {
            head.note.clone()
        } else {
            let root = self.root_at(&head, to).await?;
            let checkpoint = Checkpoint { size: to, root };
            self.ports.ledger.sign_checkpoint(&checkpoint).to_string()
        };
        Ok(Consistency {
            from,
            to,
            proof,
            note,
        })
    }

    /// One receipt of a scope, with the proof that it is in the ledger.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`RequestFault::UnknownReceipt`],
    /// [`KmsError::DependencyUnavailable`].
    pub async fn get_receipt(
        &self,
        context: &RequestContext,
        scope: &Scope,
        receipt_id: ReceiptId,
    ) -> Result<FoundReceipt, KmsError> {
        context.caller.authorize(scope)?;
        let data_plane = &self.ports.data_plane;
        let kept = data_plane
            .find_receipt(scope, receipt_id)
            .await
            .map_err(away)?
            .ok_or(RequestFault::UnknownReceipt)?;
        let mut head = data_plane.ledger_head();
        if head.checkpoint.size <= kept.leaf_index {
            // Durable, and a moment away from being in the head: its commit is being
            // published. Whoever has its id from an answer cannot come so early.
            data_plane.probe_write().await.map_err(away)?;
            head = data_plane.ledger_head();
        }
        let plan = ProofPlan::inclusion(kept.leaf_index, head.checkpoint.size)
            .ok_or_else(|| KmsError::internal("a receipt is beyond the ledger's head"))?;
        let tiles = self.tiles(&head, plan.tiles()).await?;
        Ok(FoundReceipt {
            inclusion_proof: tiles.build(&plan)?,
            kept,
            checkpoint: head.checkpoint,
            note: head.note.clone(),
        })
    }

    /// One page of a scope's receipts.
    ///
    /// # Errors
    /// [`KmsError::Unauthorized`], [`KmsError::DependencyUnavailable`].
    pub async fn list_receipts(
        &self,
        context: &RequestContext,
        query: ReceiptQuery,
    ) -> Result<ReceiptPage, KmsError> {
        context.caller.authorize(&query.scope)?;
        let page = self.ports.data_plane.list_receipts(query).await;
        page.map_err(away)
    }

    /// These tiles of the tree at this head: complete ones from the store, those at
    /// the edge from the head.
    async fn tiles<'a>(
        &self,
        head: &'a LedgerHead,
        wanted: impl IntoIterator<Item = TileId>,
    ) -> Result<Tiles<'a>, KmsError> {
        let wanted = wanted.into_iter();
        let complete = wanted.filter(|id| {
            id.index < Tree::complete_tiles(head.checkpoint.size, usize::from(id.level))
        });
        let complete = self.ports.data_plane.read_tiles(complete.collect()).await;
        Ok(Tiles {
            tree: &head.tree,
            complete: complete.map_err(away)?,
        })
    }
}

/// Tiles of one tree.
struct Tiles<'a> {
    tree: &'a Tree,
    complete: BTreeMap<TileId, Arc<Tile>>,
}

impl Tiles<'_> {
    fn get(&self, id: TileId) -> Option<&Tile> {
        match id.index == Tree::complete_tiles(self.tree.size(), usize::from(id.level)) {
            true => Some(self.tree.edge(id.level)),
            false => self.complete.get(&id).map(Arc::as_ref),
        }
    }

    /// The proof from these tiles.
    fn build(&self, plan: &ProofPlan) -> Result<Vec<TreeHash>, KmsError> {
        plan.build(|node| node.in_tile(self.get(node.tile())?))
            .ok_or_else(|| KmsError::internal("a tile of the ledger is missing"))
    }
}

fn away(away: Unavailable) -> KmsError {
    KmsError::unavailable(Dependency::Ledger, away)
}
