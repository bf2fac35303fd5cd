//! The growing edge of the tree: all that is needed to append to it.

use super::checkpoint::Checkpoint;
use super::hash::TreeHash;
use super::tile::{CompleteTile, TILE_HEIGHT, TILE_WIDTH, Tile, TileId};

/// A tree of some size, as far as appending needs it: the tiles at its edge that are not
/// complete yet, one a level.
///
/// Holds at most 502 hashes a level, whatever the size. Complete tiles are handed out
/// once and kept by the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// The incomplete tile of each level.
    edge: Vec<Tile>,
}

impl Tree {
    /// The tree without leaves.
    pub const fn new() -> Self {
        Self {
            size: 0,
            edge: Vec::new(),
        }
    }

    /// The tree of this size whose incomplete tiles, from level 0 up, are these.
    /// `None` unless there is one of the right width for every level.
    pub fn from_edge(size: u64, edge: &[Vec<TreeHash>]) -> Option<Self> {
        let has_right_widths = edge
            .iter()
            .enumerate()
            .all(|(level, hashes)| hashes.len() == Self::edge_width(size, level));
        if edge.len() != Self::levels(size) || !has_right_widths {
            return None;
        }
        let edge = edge.iter().map(|hashes| Tile::of(hashes));
        Some(Self {
            size,
            edge: edge.collect::<Option<_>>()?,
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
        // A subtree of a lower level is smaller and further behind.
        let mut smaller_first = self.edge.iter().flat_map(Tile::peaks);
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
    pub fn edge(&self, level: u8) -> &Tile {
        static NONE: Tile = Tile::new();
        self.edge.get(usize::from(level)).unwrap_or(&NONE)
    }

    /// Appends the hash of a leaf, and hands out the tiles that it completes.
    pub fn push(&mut self, leaf: TreeHash, complete: &mut Vec<CompleteTile>) {
        let mut hash = leaf;
        // At most 8 levels: a size has 64 bits.
        for level in 0u8.. {
            let place = usize::from(level);
            if self.edge.len() == place {
                self.edge.push(Tile::new());
            }
            let tile = &mut self.edge[place];
            let Some(root) = tile.push(hash) else {
                break;
            };
            complete.push(CompleteTile {
                id: TileId {
                    level,
                    index: self.size >> (TILE_HEIGHT * (level + 1)),
                },
                tile: std::mem::take(tile),
            });
            hash = root;
        }
        self.size += 1;
    }
}
