//! The ledger at the start: held to what was signed of it, before anything is
//! appended.

use rusqlite::{Connection, OptionalExtension as _};

use super::rows;
use crate::adapters::data_plane::sqlite::fault::StoreFault;
use crate::adapters::data_plane::sqlite::rows::read_ledger_size;
use crate::domain::ledger::{LedgerFlaw, TILE_WIDTH, Tree, TreeHash};
use crate::ports::data_plane::Unavailable;
use crate::ports::ledger::EvidenceLedger;
use crate::ports::ledger_store::{LedgerFault, LedgerHead, LedgerKey};

/// Under this name the first release pinned the ledger's public key.
const FIRST_RELEASE_PIN: &str = "ledger_public_key";

/// How often the reading of a first release's receipts is heard of.
const PROGRESS_EVERY: u64 = 1_000_000;

/// Checks the kept ledger, or lays out a new one, inside an open transaction, and
/// answers its head.
pub(in super::super) fn begin(
    connection: &Connection,
    signer: &dyn EvidenceLedger,
) -> Result<LedgerHead, LedgerFault> {
    let size = read_ledger_size(connection).map_err(failed)?;
    let keys = rows::read_keys(connection).map_err(failed)?;
    match keys.last() {
        None => lay_out(connection, signer, size),
        Some(newest) if newest.public_key != signer.public_key() => Err(LedgerFault::Foreign),
        Some(_) => check(connection, signer, size),
    }
}

/// Holds the tree's edge and the receipts under it to the newest checkpoint. Only reads.
pub(in super::super) fn check(
    connection: &Connection,
    signer: &dyn EvidenceLedger,
    size: u64,
) -> Result<LedgerHead, LedgerFault> {
    let note = rows::read_head(connection)
        .map_err(failed)?
        .ok_or(LedgerFlaw::CheckpointMissing)?;
    let signed = signer
        .read_checkpoint(&note)
        .ok_or(LedgerFlaw::CheckpointForged { size })?;
    if signed.size != size {
        return Err(LedgerFlaw::CheckpointSize {
            signed: signed.size,
            kept: size,
        }
        .into());
    }
    let tree = rows::read_tree(connection, size).map_err(failed)??;
    // At least the newest one, and all that the tree has no complete tile over.
    // Before the root, since this names the receipt.
    let edge = Tree::edge_width(size, 0).max(1) as u64;
    let first = size.saturating_sub(edge);
    let mut forged = None;
    rows::for_leaves(connection, first, edge, |leaf_index, leaf| {
        if forged.is_none() && !signer.is_genuine(leaf) {
            forged = Some(LedgerFlaw::ReceiptForged { leaf_index });
        }
    })
    .map_err(failed)?;
    match forged {
        Some(flaw) => Err(flaw.into()),
        None if tree.checkpoint() != signed => Err(LedgerFlaw::RootDiffers { size }.into()),
        None => Ok(LedgerHead::new(tree, signed, note)),
    }
}

/// The tables of a ledger that was never begun: new, or of the first release,
/// which kept receipts without a tree and pinned the key.
fn lay_out(
    connection: &Connection,
    signer: &dyn EvidenceLedger,
    size: u64,
) -> Result<LedgerHead, LedgerFault> {
    let is_begun: bool = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM tiles) OR EXISTS (SELECT 1 FROM ledger_head) \
             OR EXISTS (SELECT 1 FROM checkpoints)",
            [],
            |row| row.get(0),
        )
        .map_err(failed)?;
    let pinned: Option<Vec<u8>> = connection
        .query_row(
            "SELECT value FROM meta WHERE name = ?1",
            [FIRST_RELEASE_PIN],
            |row| row.get(0),
        )
        .optional()
        .map_err(failed)?;
    match pinned {
        _ if is_begun => return Err(LedgerFlaw::KeysMissing.into()),
        Some(pinned) if pinned != signer.public_key() => return Err(LedgerFault::Foreign),
        None if size > 0 => return Err(LedgerFlaw::KeysMissing.into()),
        _ => {}
    }
    let tree = grow(connection, signer, size)?;
    let key = LedgerKey {
        public_key: signer.public_key(),
        from_size: 0,
        handover: None,
    };
    let checkpoint = tree.checkpoint();
    let note = signer.sign_checkpoint(&checkpoint).to_string();
    rows::insert_key(connection, &key)
        .and_then(|()| rows::write_head(connection, &note))
        .and_then(|()| rows::keep_checkpoint(connection, checkpoint.size, &note))
        .map_err(failed)?;
    Ok(LedgerHead::new(tree, checkpoint, note))
}

/// Grows the tree over the receipts of the first release, each of which has to be
/// genuine.
fn grow(
    connection: &Connection,
    signer: &dyn EvidenceLedger,
    size: u64,
) -> Result<Tree, LedgerFault> {
    let mut tree = Tree::new();
    let mut complete = Vec::new();
    while tree.size() < size {
        let mut flaw = None;
        rows::for_leaves(
            connection,
            tree.size(),
            TILE_WIDTH as u64,
            |leaf_index, leaf| {
                if flaw.is_some() {
                } else if leaf_index != tree.size() {
                    flaw = Some(LedgerFlaw::ReceiptMissing {
                        leaf_index: tree.size(),
                    });
                } else if !signer.is_genuine(leaf) {
                    flaw = Some(LedgerFlaw::ReceiptForged { leaf_index });
                } else {
                    tree.push(TreeHash::of_leaf(leaf), &mut complete);
                    if tree.size().is_multiple_of(PROGRESS_EVERY) {
                        tracing::info!(
                            receipts = tree.size(),
                            of = size,
                            "growing the ledger's tree"
                        );
                    }
                }
            },
        )
        .map_err(failed)?;
        if let Some(flaw) = flaw {
            return Err(flaw.into());
        }
        for tile in complete.drain(..) {
            rows::insert_tile(connection, &tile).map_err(failed)?;
        }
    }
    if size > 0 {
        tracing::info!(
            receipts = size,
            "the receipts of the first release are in the tree"
        );
    }
    Ok(tree)
}

fn failed(error: rusqlite::Error) -> LedgerFault {
    LedgerFault::Unavailable(Unavailable::from(StoreFault::from(error)))
}
