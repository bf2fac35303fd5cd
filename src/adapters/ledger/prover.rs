//! Proofs for the receipts of a ledger that is read from somewhere, one after the
//! other.

use std::collections::HashMap;

use crate::domain::ledger::{
    LedgerFlaw, Node, ProofPlan, TILE_WIDTH, Tile, TileId, Tree, TreeHash,
};
use crate::ports::ledger_source::{LedgerSource, SourceFault, Stretch};

/// Tiles that are remembered: one a level, and some beside them.
const MOST_TILES: usize = 64;

/// Makes proofs that receipts are in the tree of one size.
pub struct Prover {
    /// That tree.
    edge: Tree,
    tiles: HashMap<TileId, Tile>,
}

/// Why there is no proof, or no receipt.
#[derive(Debug, thiserror::Error)]
pub enum ProofFault {
    /// The ledger cannot be read.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// Something is missing.
    #[error(transparent)]
    Flawed(#[from] LedgerFlaw),
}

impl Prover {
    /// A prover for the tree of this size.
    ///
    /// # Errors
    /// [`ProofFault`] where its edge cannot be read.
    pub fn new(source: &mut dyn LedgerSource, size: u64) -> Result<Self, ProofFault> {
        let mut edge = Vec::new();
        for level in 0..Tree::levels(size) {
            let width = Tree::edge_width(size, level);
            let first = Tree::complete_tiles(size, level) * TILE_WIDTH as u64;
            if level == 0 {
                edge.push(leaf_hashes(source, first, width)?);
                continue;
            }
            let mut hashes = Vec::with_capacity(width);
            for index in first..first + width as u64 {
                let id = TileId {
                    // At most 7: a size has 64 bits.
                    level: level as u8 - 1,
                    index,
                };
                let root = complete(source, id)?.root();
                hashes.push(root.ok_or(LedgerFlaw::TileWrong { tile: id })?);
            }
            edge.push(hashes);
        }
        Ok(Self {
            edge: Tree::from_edge(size, &edge).ok_or(LedgerFlaw::RootDiffers { size })?,
            tiles: HashMap::new(),
        })
    }

    /// The root of the tree.
    pub fn root(&self) -> TreeHash {
        self.edge.root()
    }

    /// The proof that the receipt at this place is in the tree, leaf upwards.
    ///
    /// # Errors
    /// [`ProofFault`] where it has no such receipt, or a tile is missing.
    pub fn inclusion(
        &mut self,
        source: &mut dyn LedgerSource,
        leaf_index: u64,
    ) -> Result<Vec<TreeHash>, ProofFault> {
        let missing = LedgerFlaw::ReceiptMissing { leaf_index };
        let plan = ProofPlan::inclusion(leaf_index, self.edge.size()).ok_or(missing)?;
        let mut fault = None;
        let proof = plan.build(|node| match self.hash(source, node) {
            Ok(hash) => Some(hash),
            Err(error) => {
                fault = Some(error);
                None
            }
        });
        match (proof, fault) {
            (_, Some(fault)) => Err(fault),
            (Some(proof), None) => Ok(proof),
            (None, None) => Err(missing.into()),
        }
    }

    fn hash(&mut self, source: &mut dyn LedgerSource, node: Node) -> Result<TreeHash, ProofFault> {
        let tile = node.tile();
        let complete_tiles = Tree::complete_tiles(self.edge.size(), usize::from(tile.level));
        let found = if tile.index >= complete_tiles {
            Some(self.edge.edge(tile.level))
        } else {
            if !self.tiles.contains_key(&tile) {
                if self.tiles.len() == MOST_TILES {
                    self.tiles.clear();
                }
                self.tiles.insert(tile, complete(source, tile)?);
            }
            self.tiles.get(&tile)
        };
        let hash = found.and_then(|found| node.in_tile(found));
        Ok(hash.ok_or(LedgerFlaw::TileWrong { tile })?)
    }
}

fn complete(source: &mut dyn LedgerSource, tile: TileId) -> Result<Tile, ProofFault> {
    let hashes = source.tile(tile)?;
    let hashes = hashes.ok_or(LedgerFlaw::TileMissing { tile })?;
    let complete = Tile::of(&hashes).filter(|tile| tile.width() == TILE_WIDTH);
    Ok(complete.ok_or(LedgerFlaw::TileWrong { tile })?)
}

fn leaf_hashes(
    source: &mut dyn LedgerSource,
    first: u64,
    number: usize,
) -> Result<Vec<TreeHash>, ProofFault> {
    let mut hashes = Vec::with_capacity(number);
    while hashes.len() < number {
        let leaf_index = first + hashes.len() as u64;
        let leaves = present(source, leaf_index, number - hashes.len())?;
        hashes.extend(leaves.iter().map(|leaf| TreeHash::of_leaf(leaf)));
    }
    Ok(hashes)
}

/// The receipts from this place on, at least one and at most so many.
///
/// # Errors
/// [`ProofFault`] where the first is missing, or in an archive that is not there.
pub fn present(
    source: &mut dyn LedgerSource,
    first: u64,
    most: usize,
) -> Result<Vec<Vec<u8>>, ProofFault> {
    match source.stretch(first, most)? {
        Stretch::Leaves(leaves) if leaves.is_empty() => {
            Err(LedgerFlaw::ReceiptMissing { leaf_index: first }.into())
        }
        Stretch::Leaves(leaves) => Ok(leaves),
        Stretch::Away { end, file } => Err(SourceFault::new(format!(
            "the receipts from {first} to {} are in the archive {file}, which is not there",
            end - 1
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::ledger::testing::MemoryLedger;
    use crate::domain::ledger::verify_inclusion;

    /// A ledger of this many leaves, without a signature.
    fn ledger(size: u64) -> MemoryLedger {
        let mut ledger = MemoryLedger::default();
        for place in 0..size {
            ledger.append(place.to_be_bytes().to_vec());
        }
        ledger
    }

    #[track_caller]
    fn proved(ledger: &mut MemoryLedger, places: impl Iterator<Item = u64>) {
        let (size, root) = (ledger.tree.size(), ledger.tree.root());
        let mut prover = Prover::new(ledger, size).expect("an edge");
        for place in places {
            let proof = prover.inclusion(ledger, place).expect("a proof");
            let leaf = TreeHash::of_leaf(&place.to_be_bytes());
            let holds = verify_inclusion(leaf, place, size, &proof, root);
            assert!(holds, "{place} of {size}");
        }
    }

    #[test]
    fn every_receipt_of_a_tree_is_proved() {
        for size in [1, 2, 255, 256, 257, 700, 1024] {
            proved(&mut ledger(size), 0..size);
        }
    }

    #[test]
    fn receipts_of_a_tree_with_tiles_of_level_1_are_proved() {
        let size = 65_536 + 3 * 256 + 5;
        let mut ledger = ledger(size);
        proved(&mut ledger, (0..size).step_by(97));
        // More than is remembered, there and back.
        proved(
            &mut ledger,
            (0..40_000).chain((0..40_000).rev().step_by(251)),
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut whole = ledger(600);
        let mut prover = Prover::new(&mut whole, 600).expect("an edge");
        assert!(matches!(
            prover.inclusion(&mut whole, 600),
            Err(ProofFault::Flawed(LedgerFlaw::ReceiptMissing {
                leaf_index: 600
            }))
        ));
        let tile = TileId { level: 0, index: 1 };
        let mut lacking = whole.clone();
        lacking.tiles.remove(&tile);
        assert!(matches!(
            Prover::new(&mut lacking, 600).err(),
            Some(ProofFault::Flawed(LedgerFlaw::TileMissing { tile: named })) if named == tile
        ));
        whole.tiles.get_mut(&tile).expect("a tile").pop();
        assert!(matches!(
            Prover::new(&mut whole, 600).err(),
            Some(ProofFault::Flawed(LedgerFlaw::TileWrong { tile: named })) if named == tile
        ));
        let mut lacking = ledger(600);
        lacking.leaves.remove(&550);
        assert!(matches!(
            Prover::new(&mut lacking, 600).err(),
            Some(ProofFault::Flawed(LedgerFlaw::ReceiptMissing {
                leaf_index: 550
            }))
        ));
        lacking.away = Some(540..560);
        let fault = Prover::new(&mut lacking, 600).err().expect("away");
        assert!(
            fault
                .to_string()
                .contains("from 540 to 559 are in the archive away.db")
        );
    }
}
