//! The growing edge of the tree: all that is needed to append to it.

use super::checkpoint::Checkpoint;
use super::hash::TreeHash;
use super::tile::{CompleteTile, TILE_HEIGHT, TILE_WIDTH, TileId};

/// A tree of some size, as far as appending needs it: the roots of its largest
/// perfect subtrees, and the tiles at its edge that are not complete yet.
///
/// Holds at most 64 hashes of the one and 255 a level of the other, whatever the
/// size. Complete tiles are handed out once and kept by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// One hash a bit of `size` that is set, the largest subtree first.
    frontier: Vec<TreeHash>,
    /// The incomplete tile of each level.
    edge: Vec<Vec<TreeHash>>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The tree without leaves.
    pub const fn new() -> Self {
        Self {
            size: 0,
            frontier: Vec::new(),
            edge: Vec::new(),
        }
    }

    /// The tree of this size whose incomplete tiles, from level 0 up, are these.
    /// `None` unless there is one of the right width for every level.
    pub fn from_edge(size: u64, edge: Vec<Vec<TreeHash>>) -> Option<Self> {
        let has_right_widths = edge
            .iter()
            .enumerate()
            .all(|(level, hashes)| hashes.len() == Self::edge_width(size, level));
        if edge.len() != Self::levels(size) || !has_right_widths {
            return None;
        }
        let mut frontier = Vec::new();
        for hashes in edge.iter().rev() {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let (subtree, after) = rest.split_at(1 << rest.len().ilog2());
                frontier.push(perfect_root(subtree));
                rest = after;
            }
        }
        Some(Self {
            size,
            frontier,
            edge,
        })
    }

    /// How many levels of tiles a tree of this size has.
    pub fn levels(size: u64) -> usize {
        match size.checked_ilog2() {
            None => 0,
            Some(height) => (height / u32::from(TILE_HEIGHT)) as usize + 1,
        }
    }

    /// How many hashes the incomplete tile of this level has, 0 to 255.
    pub fn edge_width(size: u64, level: usize) -> usize {
        let in_level = size
            .checked_shr(u32::from(TILE_HEIGHT) * level as u32)
            .unwrap_or(0);
        (in_level % TILE_WIDTH as u64) as usize
    }

    /// How many complete tiles a level has.
    pub fn complete_tiles(size: u64, level: usize) -> u64 {
        size.checked_shr(u32::from(TILE_HEIGHT) * (level as u32 + 1))
            .unwrap_or(0)
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root (RFC 9162 §2.1.1).
    pub fn root(&self) -> TreeHash {
        let mut smaller_first = self.frontier.iter().rev().copied();
        let Some(smallest) = smaller_first.next() else {
            return TreeHash::of_empty_tree();
        };
        smaller_first.fold(smallest, |right, left| TreeHash::of_children(left, right))
    }

    /// What is to be signed of it.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            size: self.size,
            root: self.root(),
        }
    }

    /// The incomplete tile of a level; empty where the level has none.
    pub fn edge(&self, level: u8) -> &[TreeHash] {
        self.edge.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// Appends the hash of a leaf, and hands out the tiles that it completes.
    pub fn push(&mut self, leaf: TreeHash, complete: &mut Vec<CompleteTile>) {
        let mut hash = leaf;
        let mut height = 0u8;
        self.add_to_edge(0, leaf, complete);
        // As in counting: each bit that carries merges two perfect subtrees.
        while (self.size >> height) & 1 == 1 {
            let Some(left) = self.frontier.pop() else {
                break;
            };
            hash = TreeHash::of_children(left, hash);
            height += 1;
            if height.is_multiple_of(TILE_HEIGHT) {
                self.add_to_edge(height / TILE_HEIGHT, hash, complete);
            }
        }
        self.frontier.push(hash);
        self.size += 1;
    }

    fn add_to_edge(&mut self, level: u8, hash: TreeHash, complete: &mut Vec<CompleteTile>) {
        let place = usize::from(level);
        if self.edge.len() <= place {
            self.edge.resize_with(place + 1, Vec::new);
        }
        let edge = &mut self.edge[place];
        edge.push(hash);
        if edge.len() == TILE_WIDTH {
            let hashes = std::mem::take(edge);
            let in_level = self.size >> (TILE_HEIGHT * level);
            complete.push(CompleteTile {
                id: TileId {
                    level,
                    index: in_level / TILE_WIDTH as u64,
                },
                hashes,
            });
        }
    }
}

/// The root of a perfect subtree over these hashes, whose number is a power of two.
pub(super) fn perfect_root(hashes: &[TreeHash]) -> TreeHash {
    match hashes {
        [] => TreeHash::of_empty_tree(),
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            TreeHash::of_children(perfect_root(left), perfect_root(right))
        }
    }
}

impl CompleteTile {
    /// The hash over the whole tile: its entry in the level above.
    pub fn root(&self) -> TreeHash {
        perfect_root(&self.hashes)
    }
}
