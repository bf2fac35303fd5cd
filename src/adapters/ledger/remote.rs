//! The ledger of a running service, by its address (C2SP tlog-tiles over HTTP).
//! Believes nothing of what it is answered, and takes only so much of it.

mod client;
mod decode;

use self::client::Client;
use crate::domain::ledger::{
    Checkpoint, SignedNote, TILE_WIDTH, TileId, TileKind, TilePath, Tree, TreeHash,
};
use crate::ports::ledger_source::{KeptCheckpoint, LedgerSource, SourceFault, Stretch};
use crate::ports::ledger_store::LedgerKey;

pub use self::client::RemoteOptions;

/// The longest note that is read, in bytes.
const LONGEST_NOTE: usize = 64 * 1024;

/// The longest list of keys, in bytes.
const LONGEST_KEYS: usize = 4 * 1024 * 1024;

/// The longest bundle of receipts: each has two bytes for its length.
const LONGEST_BUNDLE: usize = TILE_WIDTH * (2 + 65_535);

/// The length of a complete tile.
const TILE_LEN: usize = TILE_WIDTH * TreeHash::LEN;

/// The ledger of a running service, as it was when it was first asked.
pub struct RemoteLedger {
    client: Client,
    note: String,
    size: u64,
}

impl RemoteLedger {
    /// The ledger at this address (`http` or `https`).
    ///
    /// # Errors
    /// [`SourceFault`] where nobody answers with a checkpoint there.
    pub fn connect(address: &str, options: &RemoteOptions) -> Result<Self, SourceFault> {
        let client = Client::new(address, options)?;
        let path = "checkpoint";
        let note = client.get(path, LONGEST_NOTE)?;
        let not_there = || SourceFault::new(format!("{} is not there", client.address(path)));
        let note = String::from_utf8(note.ok_or_else(not_there)?).map_err(|error| {
            SourceFault::because(format!("{} is no text", client.address(path)), error)
        })?;
        // Whoever checks the ledger reads it again, with its signature.
        let checkpoint = note
            .parse::<SignedNote>()
            .ok()
            .and_then(|note| Checkpoint::from_text(&note.text).ok());
        Ok(Self {
            client,
            note,
            size: checkpoint.map_or(0, |checkpoint| checkpoint.size),
        })
    }

    fn get(&self, path: &TilePath, most: usize) -> Result<Option<Vec<u8>>, SourceFault> {
        self.client.get(&format!("tile/{path}"), most)
    }

    fn malformed(&self, path: &TilePath, what: &str) -> SourceFault {
        let address = self.client.address(&format!("tile/{path}"));
        SourceFault::new(format!("{address} is no {what}"))
    }
}

impl LedgerSource for RemoteLedger {
    fn size(&mut self) -> Result<u64, SourceFault> {
        Ok(self.size)
    }

    fn head(&mut self) -> Result<Option<String>, SourceFault> {
        Ok(Some(self.note.clone()))
    }

    fn keys(&mut self) -> Result<Vec<LedgerKey>, SourceFault> {
        let path = "keys";
        let body = self.client.get(path, LONGEST_KEYS)?.unwrap_or_default();
        let mut keys = decode::keys(&body).map_err(|cause| {
            let address = self.client.address(path);
            SourceFault::because(format!("{address} is no list of the ledger's keys"), cause)
        })?;
        // Those that took over since the checkpoint was asked for.
        keys.retain(|key| key.from_size <= self.size);
        Ok(keys)
    }

    /// None: a service hands out the newest checkpoint only.
    fn checkpoints(&mut self, _: u64, _: usize) -> Result<Vec<KeptCheckpoint>, SourceFault> {
        Ok(Vec::new())
    }

    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<TreeHash>>, SourceFault> {
        // The service may have more by now.
        if tile.index >= Tree::complete_tiles(self.size, usize::from(tile.level)) {
            return Ok(None);
        }
        let path = TilePath {
            kind: TileKind::Hashes { level: tile.level },
            index: tile.index,
            width: TILE_WIDTH,
        };
        let Some(body) = self.get(&path, TILE_LEN)? else {
            return Ok(None);
        };
        TreeHash::split(&body)
            .filter(|hashes| hashes.len() == TILE_WIDTH)
            .map(Some)
            .ok_or_else(|| self.malformed(&path, "tile of 256 hashes"))
    }

    fn stretch(&mut self, first: u64, most: usize) -> Result<Stretch, SourceFault> {
        let width = TILE_WIDTH as u64;
        let (index, skipped) = (first / width, first % width);
        let in_bundle = self.size.saturating_sub(index * width).min(width);
        if skipped >= in_bundle {
            return Ok(Stretch::Leaves(Vec::new()));
        }
        let path = TilePath {
            kind: TileKind::Entries,
            index,
            width: in_bundle as usize,
        };
        let Some(body) = self.get(&path, LONGEST_BUNDLE)? else {
            return Ok(Stretch::Leaves(Vec::new()));
        };
        let leaves = decode::bundle(&body)
            .filter(|leaves| leaves.len() as u64 == in_bundle)
            .ok_or_else(|| self.malformed(&path, &format!("bundle of {in_bundle} receipts")))?;
        let wanted = leaves.into_iter().skip(skipped as usize).take(most);
        Ok(Stretch::Leaves(wanted.collect()))
    }

    fn settle(&mut self) -> Result<(), SourceFault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
