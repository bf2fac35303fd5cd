//! The ledger of a running service, by its address (C2SP tlog-tiles over HTTP).
//! Believes nothing of what it is answered, and takes only so much of it.

mod decode;

use std::time::Duration;

use crate::adapters::remote::{Patience, Question, RemoteFault, RemoteOptions, RemoteService};
use crate::domain::ledger::{
    Checkpoint, SignedNote, TILE_WIDTH, TileId, TileKind, TilePath, Tree, TreeHash,
};
use crate::ports::ledger_source::{KeptCheckpoint, LedgerSource, SourceFault, Stretch};
use crate::ports::ledger_store::LedgerKey;

/// Where the ledger is, below a service's address.
const BASE: &str = "kms/v1/ledger/";

/// How often one request is sent when the service asks for patience.
const MOST_TRIES: u32 = 30;

/// The longest that a service's wish for patience is heeded at a time.
const LONGEST_REST: Duration = Duration::from_secs(60);

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
    service: RemoteService,
    note: String,
    size: u64,
}

impl RemoteLedger {
    /// The ledger at this address (`http` or `https`).
    ///
    /// # Errors
    /// [`SourceFault`] where nobody answers with a checkpoint there.
    pub fn connect(address: &str, options: &RemoteOptions) -> Result<Self, SourceFault> {
        let service = RemoteService::new(address, options)?;
        let path = "checkpoint";
        let note = get(&service, path, LONGEST_NOTE)?;
        let address = address_of(&service, path);
        let not_there = || SourceFault::new(format!("{address} is not there"));
        let note = String::from_utf8(note.ok_or_else(not_there)?)
            .map_err(|error| SourceFault::because(format!("{address} is no text"), error))?;
        // Whoever checks the ledger reads it again, with its signature.
        let checkpoint = note
            .parse::<SignedNote>()
            .ok()
            .and_then(|note| Checkpoint::from_text(&note.text).ok());
        Ok(Self {
            service,
            note,
            size: checkpoint.map_or(0, |checkpoint| checkpoint.size),
        })
    }

    fn get(&self, path: &TilePath, most: usize) -> Result<Option<Vec<u8>>, SourceFault> {
        get(&self.service, &format!("tile/{path}"), most)
    }

    fn malformed(&self, path: &TilePath, what: &str) -> SourceFault {
        let address = address_of(&self.service, &format!("tile/{path}"));
        SourceFault::new(format!("{address} is no {what}"))
    }
}

/// The address of something below the ledger's.
fn address_of(service: &RemoteService, path: &str) -> String {
    service.address(&format!("{BASE}{path}"))
}

/// What is there, at most `most` bytes of it; `None` where there is nothing.
fn get(service: &RemoteService, path: &str, most: usize) -> Result<Option<Vec<u8>>, SourceFault> {
    let patience = Patience::new(MOST_TRIES, LONGEST_REST, Duration::MAX);
    match service.ask(&Question::get(&format!("{BASE}{path}"), most), patience)? {
        Ok(body) => Ok(Some(body.expose().to_vec())),
        Err(refusal) if refusal.status == 404 => Ok(None),
        Err(refusal) => {
            let why = match refusal.said {
                Some(_) => format!(": {refusal}"),
                None => String::new(),
            };
            Err(SourceFault::new(format!(
                "{} answers {} and not 200{why}",
                address_of(service, path),
                refusal.status
            )))
        }
    }
}

impl From<RemoteFault> for SourceFault {
    fn from(fault: RemoteFault) -> Self {
        Self {
            what: fault.what,
            source: fault.source,
        }
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
        let body = get(&self.service, path, LONGEST_KEYS)?.unwrap_or_default();
        let mut keys = decode::keys(&body).map_err(|cause| {
            let address = address_of(&self.service, path);
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
            // Moved to an archive, as far as the service says.
            return Ok(Stretch::Away {
                end: index * width + in_bundle,
                file: format!(
                    "those that {} has no longer",
                    address_of(&self.service, "tile/entries/")
                ),
            });
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
