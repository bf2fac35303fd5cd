//! Tiles: 256 hashes of one level of the tree side by side (C2SP tlog-tiles), and
//! the nodes above them within the tile.

use super::hash::TreeHash;

/// Hashes in a complete tile, and receipts in a complete bundle of entries.
pub const TILE_WIDTH: usize = 256;

/// The levels of the tree that one level of tiles spans.
pub(super) const TILE_HEIGHT: u8 = 8;

/// Which tile: tile `index` of level `level` begins with the tree's node
/// `256 * index` at height `8 * level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    /// The level, from 0 for the hashes of leaves.
    pub level: u8,
    /// The place in the level, from 0.
    pub index: u64,
}

impl TileId {
    /// The first leaf that it spans.
    pub fn first_leaf(self) -> u64 {
        let height = u32::from(TILE_HEIGHT) * (u32::from(self.level) + 1);
        self.index.checked_shl(height).unwrap_or(0)
    }
}

/// A tile, complete or growing: its hashes, and the root of every perfect subtree over
/// them. At most 511 hashes, 16 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    width: usize,
    /// Children before their parent, the left before the right, so that whatever comes
    /// later stands behind.
    nodes: Vec<TreeHash>,
}

impl Tile {
    /// The tile without hashes.
    pub(super) const fn new() -> Self {
        Self {
            width: 0,
            nodes: Vec::new(),
        }
    }

    /// The tile of these hashes; `None` where they are more than a tile has.
    pub fn of(hashes: &[TreeHash]) -> Option<Self> {
        if hashes.len() > TILE_WIDTH {
            return None;
        }
        let mut tile = Self {
            width: 0,
            nodes: Vec::with_capacity(2 * hashes.len()),
        };
        for hash in hashes {
            tile.push(*hash);
        }
        Some(tile)
    }

    /// How many hashes it has, at most 256.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its hashes, in their order.
    pub fn hashes(&self) -> impl Iterator<Item = TreeHash> {
        (0..self.width).map(|place| self.nodes[standing(place)])
    }

    /// The hash over all of it, which is its entry in the level above; `None` unless it is
    /// complete.
    pub fn root(&self) -> Option<TreeHash> {
        self.node(TILE_HEIGHT, 0)
    }

    /// The root of the subtree over the hashes from `index << height` on, `1 << height` of
    /// them; `None` where the tile has not come so far.
    pub(super) fn node(&self, height: u8, index: usize) -> Option<TreeHash> {
        let end = (index + 1) << height;
        if end > self.width {
            return None;
        }
        // Every subtree that ends here stands behind its last hash, the smallest first.
        self.nodes
            .get(standing(end - 1) + usize::from(height))
            .copied()
    }

    /// The roots of its largest perfect subtrees, the smallest and last one first.
    pub(super) fn peaks(&self) -> impl Iterator<Item = TreeHash> {
        let mut end = self.width;
        std::iter::from_fn(move || {
            if end == 0 {
                return None;
            }
            let height = end.trailing_zeros();
            let peak = self.node(height as u8, (end >> height) - 1);
            end -= 1 << height;
            peak
        })
    }

    /// Appends a hash, and answers the root where that makes it complete.
    pub(super) fn push(&mut self, hash: TreeHash) -> Option<TreeHash> {
        self.nodes.push(hash);
        let mut root = hash;
        // As in counting: each bit that carries merges two perfect subtrees.
        for height in 0..self.width.trailing_ones() {
            // Before the right one's last node is the rest of it, and then the left one's.
            let left = self.nodes.len() - (2 << height);
            root = TreeHash::of_children(self.nodes[left], root);
            self.nodes.push(root);
        }
        self.width += 1;
        if self.width < TILE_WIDTH {
            return None;
        }
        // It will not grow any more, and many are kept in memory.
        self.nodes.shrink_to_fit();
        Some(root)
    }
}

/// Where a hash stands among the nodes: behind all those before it and their parents.
const fn standing(place: usize) -> usize {
    2 * place - place.count_ones() as usize
}

/// A tile that no longer changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteTile {
    /// Which.
    pub id: TileId,
    /// Its 256 hashes, and what is over them.
    pub tile: Tile,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(number: usize) -> Vec<TreeHash> {
        (0..number)
            .map(|place| TreeHash::of_leaf(&place.to_be_bytes()))
            .collect()
    }

    /// The root over a power of two of hashes, by the definition (RFC 9162 §2.1.1).
    fn naive_root(hashes: &[TreeHash]) -> TreeHash {
        match hashes {
            [one] => *one,
            more => {
                let (left, right) = more.split_at(more.len() / 2);
                TreeHash::of_children(naive_root(left), naive_root(right))
            }
        }
    }

    #[test]
    fn every_node_is_the_root_over_its_hashes_as_soon_as_they_are_there() {
        let all = hashes(TILE_WIDTH);
        let mut tile = Tile::new();
        for width in 0..=TILE_WIDTH {
            assert_eq!(tile.width(), width);
            assert!(tile.hashes().eq(all[..width].iter().copied()), "{width}");
            assert_eq!(Tile::of(&all[..width]), Some(tile.clone()), "{width}");
            for height in 0..=TILE_HEIGHT {
                for index in 0..TILE_WIDTH >> height {
                    let (first, end) = (index << height, (index + 1) << height);
                    let expected = (end <= width).then(|| naive_root(&all[first..end]));
                    assert_eq!(
                        tile.node(height, index),
                        expected,
                        "{width}: {height} {index}"
                    );
                }
            }
            let complete = (width == TILE_WIDTH).then(|| naive_root(&all));
            assert_eq!(tile.root(), complete, "{width}");
            if let Some(hash) = all.get(width) {
                let root = tile.push(*hash);
                assert_eq!(root.is_some(), width + 1 == TILE_WIDTH);
                assert_eq!(root, tile.root());
            }
        }
    }

    #[test]
    fn peaks_are_the_largest_subtrees_from_the_last_one_on() {
        let all = hashes(TILE_WIDTH);
        for width in 0..=TILE_WIDTH {
            let mut expected = Vec::new();
            let mut rest = &all[..width];
            while !rest.is_empty() {
                let (subtree, behind) = rest.split_at(1 << rest.len().ilog2());
                expected.insert(0, naive_root(subtree));
                rest = behind;
            }
            let tile = Tile::of(&all[..width]).expect("no more than a tile");
            assert_eq!(tile.peaks().collect::<Vec<_>>(), expected, "{width}");
        }
    }

    #[test]
    fn a_tile_has_no_more_hashes_than_fit() {
        assert_eq!(Tile::of(&hashes(TILE_WIDTH + 1)), None);
    }
}
