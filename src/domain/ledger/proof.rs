//! Proofs that a receipt is in the tree, and that one tree grew out of another
//! (RFC 9162 §2.1.3 and §2.1.4).

use std::collections::BTreeSet;

use super::hash::TreeHash;
use super::tile::{TILE_HEIGHT, TILE_WIDTH, Tile, TileId};

/// The root of a perfect subtree: node `index` at height `height` spans the
/// leaves from `index << height`, `1 << height` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The height, 0 for a leaf.
    pub height: u8,
    /// The place at that height, from 0.
    pub index: u64,
}

impl Node {
    /// The tile that it is in.
    pub fn tile(&self) -> TileId {
        TileId {
            level: self.height / TILE_HEIGHT,
            index: (self.index << (self.height % TILE_HEIGHT)) / TILE_WIDTH as u64,
        }
    }

    /// Its hash in that tile; `None` where the tile has not come so far.
    pub fn in_tile(&self, tile: &Tile) -> Option<TreeHash> {
        let height = self.height % TILE_HEIGHT;
        let in_tile = self.index % (TILE_WIDTH as u64 >> height);
        // Less than 256.
        tile.node(height, in_tile as usize)
    }
}

/// A proof that is to be made: each element is the hash over a range of leaves,
/// which the roots of a few perfect subtrees give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofPlan(Vec<Vec<Node>>);

impl ProofPlan {
    /// The proof that leaf `index` is in the tree of this size, leaf upwards
    /// (RFC 9162 §2.1.3.1). `None` where the tree has no such leaf.
    pub fn inclusion(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut low, mut high) = (0, size);
        let mut siblings = Vec::new();
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                siblings.push(nodes(middle, high));
                high = middle;
            } else {
                siblings.push(nodes(low, middle));
                low = middle;
            }
        }
        siblings.reverse();
        Some(Self(siblings))
    }

    /// The proof that the tree of size `to` begins with the tree of size `from`
    /// (RFC 9162 §2.1.4.1). Nothing has to be proved where they are equal, or
    /// where the smaller is empty. `None` where `from` is the larger.
    pub fn consistency(from: u64, to: u64) -> Option<Self> {
        if from > to {
            return None;
        }
        let mut elements = Vec::new();
        if from == 0 || from == to {
            return Some(Self(elements));
        }
        let (mut low, mut high) = (0, to);
        let mut is_whole = true;
        while from != high {
            let middle = low + split(high - low);
            if from <= middle {
                elements.push(nodes(middle, high));
                high = middle;
            } else {
                elements.push(nodes(low, middle));
                low = middle;
                is_whole = false;
            }
        }
        if !is_whole {
            elements.push(nodes(low, high));
        }
        elements.reverse();
        Some(Self(elements))
    }

    /// The root of the tree of this size, as a proof of one element; of none for
    /// the empty tree.
    pub fn root(size: u64) -> Self {
        Self(match size {
            0 => Vec::new(),
            size => vec![nodes(0, size)],
        })
    }

    /// The tiles that are needed.
    pub fn tiles(&self) -> BTreeSet<TileId> {
        self.0.iter().flatten().map(Node::tile).collect()
    }

    /// The proof, from the hashes of nodes; `None` where one is missing.
    pub fn build(&self, mut hash: impl FnMut(Node) -> Option<TreeHash>) -> Option<Vec<TreeHash>> {
        self.0
            .iter()
            .map(|nodes| {
                let (smallest, larger) = nodes.split_last()?;
                let mut right = hash(*smallest)?;
                for node in larger.iter().rev() {
                    right = TreeHash::of_children(hash(*node)?, right);
                }
                Some(right)
            })
            .collect()
    }
}

/// The largest power of two that is smaller than `leaves`, which is at least 2.
const fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// The perfect subtrees of the leaves from `low` to before `high`, largest
/// first. `low` is a multiple of the largest one's size, as it is for every range
/// that the definitions of RFC 9162 lead to.
fn nodes(mut low: u64, high: u64) -> Vec<Node> {
    let mut found = Vec::new();
    while low < high {
        let height = (high - low).ilog2();
        found.push(Node {
            // At most 63.
            height: height as u8,
            index: low >> height,
        });
        low += 1 << height;
    }
    found
}

/// Whether the proof leads from a leaf's hash to the root (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(
    leaf: TreeHash,
    index: u64,
    size: u64,
    proof: &[TreeHash],
    root: TreeHash,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last) = (index, size - 1);
    let mut hash = leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = TreeHash::of_children(*sibling, hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = TreeHash::of_children(hash, *sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root
}

/// Whether the proof shows that the larger tree begins with the smaller one
/// (RFC 9162 §2.1.4.2); trivially so for the empty tree, and for trees of one
/// size only if they are the same.
pub fn verify_consistency(
    from: u64,
    from_root: TreeHash,
    to: u64,
    to_root: TreeHash,
    proof: &[TreeHash],
) -> bool {
    if from == 0 {
        return proof.is_empty() && from_root == TreeHash::of_empty_tree();
    }
    if from == to {
        return proof.is_empty() && from_root == to_root;
    }
    if from > to {
        return false;
    }
    let mut proof = proof.iter();
    // A perfect tree is a node of the larger one: its hash is known.
    let first = if from.is_power_of_two() {
        Some(from_root)
    } else {
        proof.next().copied()
    };
    let Some(first) = first else {
        return false;
    };
    let (mut place, mut last) = (from - 1, to - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (first, first);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            old = TreeHash::of_children(*sibling, old);
            new = TreeHash::of_children(*sibling, new);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            new = TreeHash::of_children(new, *sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && old == from_root && new == to_root
}

#[cfg(test)]
mod tests;
