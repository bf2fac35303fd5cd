//! Tiles are held to what is below them, and stand for what is not there.

use super::{audited, found, found_after};
use crate::adapters::ledger::testing::{MemoryLedger, verifier};
use crate::domain::ledger::{LedgerFlaw, TileId, TreeHash};

/// Receipts of which the tree has a complete tile of level 1.
const BELOW_LEVEL_1: u64 = 65_536;

const LEVEL_1: TileId = TileId { level: 1, index: 0 };

/// A ledger of `BELOW_LEVEL_1` receipts in an archive that is not there, and 300
/// behind them.
fn large() -> MemoryLedger {
    let mut ledger = MemoryLedger::begun(1);
    for number in 0..BELOW_LEVEL_1 {
        ledger.append_hash(TreeHash::of_leaf(&number.to_be_bytes()));
    }
    ledger.away = Some(0..BELOW_LEVEL_1);
    ledger.keep(1);
    ledger.grow(1, 300);
    ledger
}

#[test]
fn receipts_that_are_away_are_held_to_the_tree() {
    let ledger = large();
    let report = audited(&ledger, &[verifier(1)], None).expect("sound");
    assert_eq!(report.by_tree_alone, BELOW_LEVEL_1);
    assert_eq!(report.away, ["away.db"]);
    assert_eq!(report.checkpoint.size, BELOW_LEVEL_1 + 300);
}

#[test]
fn a_tile_of_hashes_over_receipts_that_are_away_is_held_to_the_tile_above() {
    let mut ledger = large();
    let tile = TileId {
        level: 0,
        index: 77,
    };
    let hashes = ledger.tiles.get_mut(&tile).expect("a tile");
    hashes[3] = hashes[4];
    let (flaw, first_bad, _) = found(&ledger);
    assert_eq!(flaw, LedgerFlaw::TileWrong { tile: LEVEL_1 });
    assert_eq!(first_bad, 0);
}

#[test]
fn receipts_that_are_away_and_have_no_tile_are_missing() {
    let mut ledger = MemoryLedger::sound();
    ledger.away = Some(500..650);
    assert_eq!(
        found(&ledger).0,
        LedgerFlaw::ReceiptMissing { leaf_index: 512 }
    );
    ledger.away = Some(50..512);
    let report = audited(&ledger, &[], None).expect("sound");
    assert_eq!(report.by_tree_alone, 462);
}

#[test]
fn a_receipt_that_is_away_is_not_excused_from_its_checkpoint() {
    let mut ledger = MemoryLedger::sound();
    ledger.away = Some(256..512);
    let tile = TileId { level: 0, index: 1 };
    ledger.tiles.get_mut(&tile).expect("a tile")[1] = TreeHash::of_leaf(b"other");
    assert_eq!(
        found(&ledger),
        (LedgerFlaw::RootDiffers { size: 300 }, 100, 100)
    );
}

#[test]
fn a_tile_of_level_0_is_held_to_the_receipts() {
    let altered = found_after(|ledger| {
        let tile = TileId { level: 0, index: 1 };
        ledger.tiles.get_mut(&tile).expect("a tile")[200] = TreeHash::of_leaf(b"other");
    });
    let flaw = LedgerFlaw::ReceiptChanged { leaf_index: 456 };
    assert_eq!(altered, (flaw, 456, 300));
    let tile = TileId { level: 0, index: 1 };
    let flaw = LedgerFlaw::TileMissing { tile };
    let missing = found_after(|ledger| drop(ledger.tiles.remove(&tile)));
    assert_eq!((missing.0, missing.2), (flaw, 300));
    let longer = found_after(|ledger| {
        let hashes = ledger.tiles.get_mut(&tile).expect("a tile");
        hashes.push(hashes[0]);
    });
    assert_eq!(longer.0, LedgerFlaw::TileWrong { tile });
}

#[test]
fn a_tile_of_level_1_is_held_to_those_below() {
    let mut ledger = large();
    ledger.tiles.get_mut(&LEVEL_1).expect("a tile")[9] = TreeHash::of_leaf(b"other");
    assert_eq!(found(&ledger).0, LedgerFlaw::TileWrong { tile: LEVEL_1 });
    ledger.tiles.remove(&LEVEL_1);
    assert_eq!(found(&ledger).0, LedgerFlaw::TileMissing { tile: LEVEL_1 });
}

#[test]
fn a_tile_over_receipts_that_there_are_not_is_wrong() {
    for tile in [TileId { level: 0, index: 2 }, TileId { level: 1, index: 0 }] {
        let (flaw, ..) = found_after(|ledger| {
            ledger.tiles.insert(tile, vec![TreeHash::of_leaf(b""); 256]);
        });
        assert_eq!(flaw, LedgerFlaw::TileWrong { tile });
    }
}
