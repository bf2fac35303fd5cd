//! The ledger's mathematics: a Merkle tree over receipts (RFC 9162 §2.1), its
//! tiles (C2SP tlog-tiles), its proofs, and its signed checkpoints (C2SP
//! tlog-checkpoint and signed-note).
//!
//! Pure: nothing here reads, keeps or signs anything.

mod checkpoint;
mod flaw;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hash;
mod note;
mod proof;
mod tile;
mod tile_path;
mod tree;

pub use self::checkpoint::{Checkpoint, MalformedCheckpoint, ORIGIN};
pub use self::flaw::LedgerFlaw;
pub use self::hash::TreeHash;
pub use self::note::{MalformedNote, MalformedVerifierKey, NoteSignature, SignedNote, VerifierKey};
pub use self::proof::{Node, ProofPlan, verify_consistency, verify_inclusion};
pub use self::tile::{CompleteTile, TILE_WIDTH, Tile, TileId};
pub use self::tile_path::{TileKind, TilePath};
pub use self::tree::Tree;
