//! Ledgers in memory for tests, kept the way the store keeps them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use super::signer::{LedgerSigner, NextKey};
use crate::adapters::secret_file;
use crate::domain::ledger::{Checkpoint, SignedNote, TileId, Tree, TreeHash, VerifierKey};
use crate::domain::receipt::tests::receipt;
use crate::domain::secret::SecretBytes;
use crate::ports::ledger::EvidenceLedger as _;
use crate::ports::ledger_source::{KeptCheckpoint, LedgerSource, SourceFault, Stretch};
use crate::ports::ledger_store::LedgerKey;

/// A ledger that tests may change however they like.
#[derive(Clone, Default)]
pub(super) struct MemoryLedger {
    pub(super) leaves: BTreeMap<u64, Vec<u8>>,
    pub(super) away: Option<Range<u64>>,
    pub(super) tiles: BTreeMap<TileId, Vec<TreeHash>>,
    pub(super) checkpoints: Vec<KeptCheckpoint>,
    pub(super) keys: Vec<LedgerKey>,
    pub(super) head: Option<String>,
    pub(super) tree: Tree,
    pub(super) is_written: bool,
}

/// The signer with this seed.
pub(super) fn signer(seed: u8) -> LedgerSigner {
    LedgerSigner::from_seed(&[seed; 32]).expect("32 bytes")
}

/// A new receipt, signed.
pub(super) fn signed_by(signer: &LedgerSigner) -> Vec<u8> {
    signer.sign(receipt()).expect("signed").leaf
}

/// The note by which the key with seed `to` takes over from that with seed `from`.
pub(super) fn handover(from: u8, to: u8, checkpoint: &Checkpoint) -> SignedNote {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("next");
    let seed = SecretBytes::take_from(&mut [to; 32]);
    secret_file::create(&path, &seed).expect("written");
    let signer = signer(from);
    assert_eq!(signer.load_next(&path).expect("readable"), NextKey::Waits);
    signer.begin_handover(checkpoint).expect("a key waits").note
}

/// The verifier key of the signer with this seed.
pub(super) fn verifier(seed: u8) -> VerifierKey {
    signer(seed).verifier_key()
}

impl MemoryLedger {
    /// An empty ledger of the key with this seed, as the first start leaves it.
    pub(super) fn begun(seed: u8) -> Self {
        let mut ledger = Self::default();
        ledger.keys.push(LedgerKey {
            public_key: signer(seed).public_key(),
            from_size: 0,
            handover: None,
        });
        ledger.keep(seed);
        ledger
    }

    /// A sound ledger of one key: 700 receipts, and checkpoints of 0, 100, 300,
    /// 512 and 600 of them.
    pub(super) fn sound() -> Self {
        static SOUND: LazyLock<MemoryLedger> = LazyLock::new(|| {
            let mut ledger = MemoryLedger::begun(1);
            for more in [100, 200, 212, 88] {
                ledger.grow(1, more);
                ledger.keep(1);
            }
            ledger.grow(1, 100);
            ledger
        });
        SOUND.clone()
    }

    /// Appends receipts with a checkpoint over them.
    pub(super) fn grow(&mut self, seed: u8, number: u64) {
        let signer = signer(seed);
        for _ in 0..number {
            self.append(signed_by(&signer));
        }
        self.sign_head(seed);
    }

    /// Appends a leaf.
    pub(super) fn append(&mut self, leaf: Vec<u8>) {
        self.append_hash(TreeHash::of_leaf(&leaf));
        self.leaves.insert(self.tree.size() - 1, leaf);
    }

    /// Appends the hash of a leaf that nobody has.
    pub(super) fn append_hash(&mut self, hash: TreeHash) {
        let mut complete = Vec::new();
        self.tree.push(hash, &mut complete);
        self.tiles.extend(
            complete
                .into_iter()
                .map(|complete| (complete.id, complete.tile.hashes().collect())),
        );
    }

    /// Signs the newest checkpoint.
    pub(super) fn sign_head(&mut self, seed: u8) {
        self.head = Some(self.note(seed).to_string());
    }

    /// The newest checkpoint, signed.
    pub(super) fn note(&self, seed: u8) -> SignedNote {
        signer(seed).sign_checkpoint(&self.tree.checkpoint())
    }

    /// Keeps the newest checkpoint.
    pub(super) fn keep(&mut self, seed: u8) {
        self.sign_head(seed);
        self.keep_note(self.tree.size(), &self.note(seed));
    }

    /// Keeps a checkpoint.
    pub(super) fn keep_note(&mut self, size: u64, note: &SignedNote) {
        self.checkpoints.push(KeptCheckpoint {
            number: self.checkpoints.len() as u64 + 1,
            size,
            note: note.to_string(),
        });
    }

    /// Lets another key take over.
    pub(super) fn hand_over(&mut self, from: u8, to: u8) {
        let note = handover(from, to, &self.tree.checkpoint());
        self.keys.push(LedgerKey {
            public_key: signer(to).public_key(),
            from_size: self.tree.size(),
            handover: Some(note.to_string()),
        });
        self.keep_note(self.tree.size(), &note);
        self.head = Some(note.to_string());
    }

    /// Builds the tree and its tiles anew over the leaves, as somebody would who
    /// covers something up, with checkpoints left as they are.
    pub(super) fn rebuild_tree(&mut self) {
        self.tree = Tree::new();
        self.tiles.clear();
        for leaf in std::mem::take(&mut self.leaves).into_values() {
            self.append(leaf);
        }
    }

    /// Moves the leaves from this place on down, or up by one.
    pub(super) fn shift(&mut self, from: u64, up: bool) {
        let moved = self.leaves.split_off(&from);
        let places = if up { from + 1.. } else { from - 1.. };
        self.leaves.extend(places.zip(moved.into_values()));
    }
}

/// A checkpoint of a ledger that nobody has.
pub(super) fn foreign(size: u64) -> Checkpoint {
    let root = TreeHash::of_leaf(b"foreign");
    Checkpoint { size, root }
}

/// The same, signed.
pub(super) fn foreign_note(seed: u8, size: u64) -> SignedNote {
    signer(seed).sign_checkpoint(&foreign(size))
}

impl LedgerSource for MemoryLedger {
    fn size(&mut self) -> Result<u64, SourceFault> {
        let here = self.leaves.last_key_value().map_or(0, |(last, _)| last + 1);
        Ok(self.away.as_ref().map_or(here, |away| here.max(away.end)))
    }

    fn head(&mut self) -> Result<Option<String>, SourceFault> {
        Ok(self.head.clone())
    }

    fn keys(&mut self) -> Result<Vec<LedgerKey>, SourceFault> {
        Ok(self.keys.clone())
    }

    fn checkpoints(&mut self, from: u64, most: usize) -> Result<Vec<KeptCheckpoint>, SourceFault> {
        let behind = self.checkpoints.iter().filter(|kept| kept.number >= from);
        Ok(behind.take(most).cloned().collect())
    }

    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<TreeHash>>, SourceFault> {
        Ok(self.tiles.get(&tile).cloned())
    }

    fn stretch(&mut self, first: u64, most: usize) -> Result<Stretch, SourceFault> {
        if let Some(away) = self.away.clone().filter(|away| away.contains(&first)) {
            return Ok(Stretch::Away {
                end: away.end,
                file: "away.db".to_owned(),
            });
        }
        let start = self.away.as_ref().map(|away| away.start);
        let end = start.filter(|start| *start > first).unwrap_or(u64::MAX);
        let leaves =
            (first..end.min(first + most as u64)).map_while(|place| self.leaves.get(&place));
        Ok(Stretch::Leaves(leaves.cloned().collect()))
    }

    fn settle(&mut self) -> Result<(), SourceFault> {
        match self.is_written {
            false => Ok(()),
            true => Err(SourceFault::new("written meanwhile")),
        }
    }
}
