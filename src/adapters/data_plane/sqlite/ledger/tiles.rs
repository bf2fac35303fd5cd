//! Complete tiles in memory: the newest, and those that were asked for lately. A tile
//! that is complete never changes, so there is nothing to invalidate.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::adapters::cache::CoherentCache;
use crate::domain::ledger::{Tile, TileId};

/// How many, of 16 KiB each: those over the newest hundred thousand receipts, or as many
/// others.
const MOST_TILES: usize = 512;

/// The tiles.
pub(in super::super) struct TileCache(CoherentCache<TileId, Arc<Tile>>);

impl Default for TileCache {
    fn default() -> Self {
        Self(CoherentCache::new(MOST_TILES))
    }
}

impl TileCache {
    /// Those that are here, and the others.
    pub(in super::super) fn look(
        &self,
        wanted: Vec<TileId>,
    ) -> (BTreeMap<TileId, Arc<Tile>>, Vec<TileId>) {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for id in wanted {
            match self.0.get(&id) {
                Some(tile) => {
                    found.insert(id, tile);
                }
                None => missing.push(id),
            }
        }
        (found, missing)
    }

    /// Keeps a tile that is durable.
    pub(in super::super) fn keep(&self, id: TileId, tile: Arc<Tile>) {
        self.0.fill(self.0.begin_fill(), id, tile);
    }
}
