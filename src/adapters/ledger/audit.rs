//! The auditor: checks a ledger from its first receipt to its last, in memory that
//! does not grow with it.
//!
//! Is handed keys, checkpoints, receipts and tiles, and knows nothing of where
//! they are from. Flaws are answered in the order of the ledger, the first first,
//! so that whoever hears of one knows what stands before it.

mod keys;
mod signatures;
mod walk;

use std::collections::BTreeMap;

use self::keys::{KeyLine, is_signed_by};
use self::signatures::SignatureBatch;
use crate::domain::ledger::{
    Checkpoint, CompleteTile, LedgerFlaw, SignedNote, TILE_WIDTH, TileId, Tree, TreeHash,
    VerifierKey,
};
use crate::domain::receipt::ReadReceipt;
use crate::ports::ledger_source::KeptCheckpoint;
use crate::ports::ledger_store::LedgerKey;

pub use self::walk::{AuditFailure, AuditProgress, AuditReport, audit};

/// What is known of a ledger before its receipts are looked at.
struct Claims<'a> {
    /// The keys that signed, the first one first.
    keys: Vec<LedgerKey>,
    /// The newest checkpoint, a note as text.
    head: Option<&'a str>,
    /// How many receipts there are.
    size: u64,
    /// The keys that the auditor trusts, of which the ledger has to have one; none
    /// where its own are taken.
    trusted: &'a [VerifierKey],
    /// A checkpoint that the auditor kept.
    since: Option<(&'a SignedNote, Checkpoint)>,
}

/// The check of one ledger, as far as it has got.
struct Auditor {
    keys: KeyLine,
    /// The receipts up to here are gone through.
    end: u64,
    /// What is wrong behind them.
    flaw_at_end: Option<LedgerFlaw>,
    tree: Tree,
    /// The roots that were signed, by size; or what is wrong at that size.
    expected: BTreeMap<u64, Result<TreeHash, LedgerFlaw>>,
    since: Option<Checkpoint>,
    /// The size of the last checkpoint that held.
    held: u64,
    /// The kept checkpoints so far, and the size of the last.
    checkpoints: u64,
    last_checkpoint: u64,
    by_tree_alone: u64,
    /// The stored tile over the receipt that comes next, once it is looked for;
    /// within, `None` where it is missing.
    tile: Option<Option<Vec<TreeHash>>>,
    batch: SignatureBatch,
}

/// Why receipts were not taken.
#[derive(Debug)]
enum Stop<E> {
    /// Something is wrong.
    Flaw(LedgerFlaw),
    /// A tile could not be read.
    Source(E),
}

impl<E> From<LedgerFlaw> for Stop<E> {
    fn from(flaw: LedgerFlaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl Auditor {
    /// An auditor that has these claims to hold receipts to.
    ///
    /// # Errors
    /// The [`LedgerFlaw`] of a ledger that need not be looked at any further: its
    /// keys are none or not trusted, or it is not the one that the auditor knows.
    fn new(claims: Claims<'_>) -> Result<Self, LedgerFlaw> {
        let keys = KeyLine::new(claims.keys)?;
        let size = claims.size;
        if !claims.trusted.is_empty() && !keys.has_one_of(claims.trusted) {
            return Err(LedgerFlaw::KeyUntrusted);
        }
        let head = match claims.head {
            None => Err(LedgerFlaw::CheckpointMissing),
            Some(note) => keys
                .read_checkpoint(note)
                .ok_or(LedgerFlaw::CheckpointForged { size }),
        };
        let signed = head.map_or(size, |head| head.size);
        if let Some((note, since)) = claims.since {
            let is_genuine =
                keys.signed(note) || claims.trusted.iter().any(|key| is_signed_by(key, note));
            let foreign = LedgerFlaw::GivenForeign { size: since.size };
            if !is_genuine {
                return Err(foreign);
            }
            if since.size > signed {
                return Err(LedgerFlaw::Older {
                    known: since.size,
                    kept: signed,
                });
            }
            if !keys.goes_on_from(note, since.size) {
                return Err(foreign);
            }
        }
        let flaw_at_end = match head {
            Err(flaw) => Some(flaw),
            Ok(head) if head.size > size => Some(LedgerFlaw::ReceiptMissing { leaf_index: size }),
            Ok(head) if head.size < size => Some(LedgerFlaw::CheckpointSize {
                signed: head.size,
                kept: size,
            }),
            Ok(_) => None,
        };
        let mut auditor = Self {
            end: size.min(signed),
            flaw_at_end,
            tree: Tree::new(),
            expected: BTreeMap::new(),
            since: claims.since.map(|(_, since)| since),
            held: 0,
            checkpoints: 0,
            last_checkpoint: 0,
            by_tree_alone: 0,
            tile: None,
            batch: SignatureBatch::default(),
            keys,
        };
        let handovers: Vec<_> = auditor.keys.handovers().collect();
        for (from_size, handover) in handovers {
            auditor.expect(from_size, handover.map(|checkpoint| checkpoint.root));
        }
        if let Ok(head) = head {
            auditor.expect(head.size, Ok(head.root));
        }
        Ok(auditor)
    }

    /// Up to which place receipts are to be taken.
    fn end(&self) -> u64 {
        self.end
    }

    /// The place of the receipt that comes next.
    fn next(&self) -> u64 {
        self.tree.size()
    }

    /// The size of the last checkpoint that held: the receipts before it are those
    /// that were signed.
    fn held(&self) -> u64 {
        self.held
    }

    /// The keys of the ledger, the first one first.
    fn keys(&self) -> Vec<VerifierKey> {
        self.keys.verifier_keys().collect()
    }

    /// Takes the kept checkpoint that comes next, which has to be before the
    /// receipts that it is over are taken.
    fn take_checkpoint(&mut self, kept: &KeptCheckpoint) {
        self.checkpoints += 1;
        let size = kept.size;
        let root = match self.keys.read_checkpoint(&kept.note) {
            _ if kept.number != self.checkpoints => Err(LedgerFlaw::CheckpointLost {
                number: self.checkpoints,
            }),
            None => Err(LedgerFlaw::CheckpointForged { size }),
            Some(signed) if signed.size != size || size < self.last_checkpoint => {
                Err(LedgerFlaw::CheckpointMisplaced {
                    number: kept.number,
                })
            }
            Some(signed) => Ok(signed.root),
        };
        self.last_checkpoint = size;
        // One of a size that is past shows now.
        self.expect(size.max(self.tree.size()), root);
    }

    /// Takes the receipts that come next. Tiles are asked for as they complete.
    ///
    /// # Errors
    /// [`Stop`]; nothing can be taken after that.
    fn take<E>(
        &mut self,
        leaves: &[Vec<u8>],
        stored: &mut impl FnMut(TileId) -> Result<Option<Vec<TreeHash>>, E>,
    ) -> Result<(), Stop<E>> {
        let flaw = self.first_flaw(leaves);
        self.reach()?;
        for leaf in leaves {
            if let Some((leaf_index, flaw)) = flaw
                && leaf_index == self.tree.size()
            {
                return Err(flaw.into());
            }
            let hash = TreeHash::of_leaf(leaf);
            let place = self.turn_to_tile(stored)?;
            if let Some(Some(tile)) = &self.tile
                && tile.get(place) != Some(&hash)
            {
                let leaf_index = self.tree.size();
                return Err(LedgerFlaw::ReceiptChanged { leaf_index }.into());
            }
            self.push(hash, stored)?;
        }
        Ok(())
    }

    /// Takes the receipts up to this place as the tree has them: they are not
    /// there to be looked at.
    ///
    /// # Errors
    /// [`Stop`]; nothing can be taken after that.
    fn take_by_tree<E>(
        &mut self,
        until: u64,
        stored: &mut impl FnMut(TileId) -> Result<Option<Vec<TreeHash>>, E>,
    ) -> Result<(), Stop<E>> {
        self.reach()?;
        while self.tree.size() < until {
            let leaf_index = self.tree.size();
            let place = self.turn_to_tile(stored)?;
            let hash = match &self.tile {
                Some(Some(tile)) => tile.get(place).copied(),
                _ => None,
            };
            let hash = hash.ok_or(LedgerFlaw::ReceiptMissing { leaf_index })?;
            self.push(hash, stored)?;
            self.by_tree_alone += 1;
        }
        Ok(())
    }

    /// What is wrong with a ledger that has no more receipts than were taken.
    ///
    /// # Errors
    /// [`Stop`].
    fn finish<E>(
        mut self,
        stored: &mut impl FnMut(TileId) -> Result<Option<Vec<TreeHash>>, E>,
    ) -> Result<AuditReport, Stop<E>> {
        self.reach()?;
        let kept = self.tree.size();
        if let Some(flaw) = self.flaw_at_end {
            return Err(flaw.into());
        }
        if let Some((&signed, expected)) = self.expected.first_key_value() {
            (*expected)?;
            return Err(LedgerFlaw::CheckpointSize { signed, kept }.into());
        }
        // What a longer ledger left behind.
        for level in 0..=Tree::levels(kept) {
            let tile = TileId {
                // At most 8: a size has 64 bits.
                level: level as u8,
                index: Tree::complete_tiles(kept, level),
            };
            if stored(tile).map_err(Stop::Source)?.is_some() {
                return Err(LedgerFlaw::TileWrong { tile }.into());
            }
        }
        Ok(AuditReport {
            checkpoint: self.tree.checkpoint(),
            by_tree_alone: self.by_tree_alone,
            away: Vec::new(),
            keys: self.keys(),
            kept_checkpoints: self.checkpoints,
            since: self.since,
        })
    }

    fn expect(&mut self, size: u64, root: Result<TreeHash, LedgerFlaw>) {
        let first = *self.expected.entry(size).or_insert(root);
        let agreed = match (first, root) {
            (Ok(first), Ok(root)) if first != root => Err(LedgerFlaw::RootDiffers { size }),
            (Ok(_), Err(flaw)) => Err(flaw),
            (first, _) => first,
        };
        self.expected.insert(size, agreed);
    }

    /// Holds the tree to what was signed of its size.
    fn reach(&mut self) -> Result<(), LedgerFlaw> {
        let size = self.tree.size();
        while let Some(first) = self.expected.first_entry()
            && *first.key() <= size
        {
            if first.remove()? != self.tree.root() {
                return Err(LedgerFlaw::RootDiffers { size });
            }
            self.held = size;
        }
        match self.since {
            Some(since) if since.size == size && since.root != self.tree.root() => {
                Err(LedgerFlaw::Forked { size })
            }
            _ => Ok(()),
        }
    }

    /// The first of these that is no receipt, or not signed by the key in force.
    fn first_flaw(&mut self, leaves: &[Vec<u8>]) -> Option<(u64, LedgerFlaw)> {
        let first = self.tree.size();
        let mut flaw = None;
        for (leaf_index, leaf) in (first..).zip(leaves) {
            let Some(read) = ReadReceipt::parse(leaf) else {
                flaw = Some((leaf_index, LedgerFlaw::ReceiptMalformed { leaf_index }));
                break;
            };
            let key = self.keys.in_force(leaf_index);
            let Some(key) = key.filter(|key| key.signer_key_id == *read.receipt.signer_key_id)
            else {
                flaw = Some((leaf_index, LedgerFlaw::ReceiptSigner { leaf_index }));
                break;
            };
            self.batch
                .push(&key.verifying, read.unsigned, &read.signature);
        }
        // Those in the batch are all before that one.
        match self.batch.first_bad() {
            None => flaw,
            Some(place) => {
                let leaf_index = first + place as u64;
                Some((leaf_index, LedgerFlaw::ReceiptForged { leaf_index }))
            }
        }
    }

    /// Looks for the stored tile over the next receipt, if it is complete, and
    /// answers the receipt's place in it.
    fn turn_to_tile<E>(
        &mut self,
        stored: &mut impl FnMut(TileId) -> Result<Option<Vec<TreeHash>>, E>,
    ) -> Result<usize, Stop<E>> {
        let width = TILE_WIDTH as u64;
        let (index, place) = (self.tree.size() / width, self.tree.size() % width);
        let is_complete = index < Tree::complete_tiles(self.end, 0);
        if self.tile.is_none() && is_complete {
            let tile = TileId { level: 0, index };
            self.tile = Some(stored(tile).map_err(Stop::Source)?);
        }
        Ok(place as usize)
    }

    fn push<E>(
        &mut self,
        hash: TreeHash,
        stored: &mut impl FnMut(TileId) -> Result<Option<Vec<TreeHash>>, E>,
    ) -> Result<(), Stop<E>> {
        let mut complete = Vec::new();
        self.tree.push(hash, &mut complete);
        for CompleteTile {
            id: tile,
            tile: grown,
        } in complete
        {
            let kept = match tile.level {
                0 => self.tile.take().flatten(),
                _ => stored(tile).map_err(Stop::Source)?,
            };
            let kept = kept.ok_or(LedgerFlaw::TileMissing { tile })?;
            if !grown.hashes().eq(kept) {
                return Err(LedgerFlaw::TileWrong { tile }.into());
            }
        }
        Ok(self.reach()?)
    }
}

#[cfg(test)]
mod tests;
