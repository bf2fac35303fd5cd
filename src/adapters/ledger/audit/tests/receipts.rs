//! What is done to receipts is found where it was done.

use super::{audited, found, found_after};
use crate::adapters::ledger::testing::{MemoryLedger, signed_by, signer, verifier};
use crate::domain::ledger::{LedgerFlaw, TileId};

/// The same receipt with another outcome, in canonical form, its signature kept.
fn altered(leaf: &[u8]) -> Vec<u8> {
    let leaf = String::from_utf8(leaf.to_vec()).expect("text");
    let other = leaf.replace("\"success\":true", "\"success\":false");
    assert_ne!(leaf, other);
    other.into_bytes()
}

fn alter(ledger: &mut MemoryLedger, place: u64) {
    let leaf = altered(&ledger.leaves[&place]);
    ledger.leaves.insert(place, leaf);
}

#[test]
fn a_changed_receipt_is_found_wherever_it_is() {
    for place in [0, 1, 255, 256, 299, 511, 512, 699] {
        let (flaw, first_bad, _) = found_after(|ledger| alter(ledger, place));
        assert_eq!(flaw, LedgerFlaw::ReceiptForged { leaf_index: place });
        assert_eq!(first_bad, place);
    }
}

#[test]
fn a_changed_receipt_is_found_though_the_tree_was_built_anew_and_signed() {
    let (flaw, ..) = found_after(|ledger| {
        alter(ledger, 77);
        ledger.rebuild_tree();
        ledger.checkpoints.clear();
        ledger.sign_head(1);
    });
    assert_eq!(flaw, LedgerFlaw::ReceiptForged { leaf_index: 77 });
}

#[test]
fn the_first_of_two_changed_receipts_is_named() {
    let (flaw, ..) = found_after(|ledger| {
        alter(ledger, 300);
        alter(ledger, 40);
        ledger.leaves.insert(290, b"{}".to_vec());
    });
    assert_eq!(flaw, LedgerFlaw::ReceiptForged { leaf_index: 40 });
    let (flaw, ..) = found_after(|ledger| {
        alter(ledger, 300);
        ledger.leaves.insert(290, b"{}".to_vec());
    });
    assert_eq!(flaw, LedgerFlaw::ReceiptMalformed { leaf_index: 290 });
}

#[test]
fn what_is_no_receipt_in_canonical_form_is_found() {
    for spelled in [
        |leaf: String| leaf.replacen('{', "{ ", 1),
        |_| String::new(),
        |leaf| format!("{leaf}\n"),
        |leaf: String| leaf.replace("\"module\":\"KMS\",", ""),
    ] {
        let (flaw, first_bad, held) = found_after(|ledger| {
            let leaf = String::from_utf8(ledger.leaves[&310].clone()).expect("text");
            ledger.leaves.insert(310, spelled(leaf).into_bytes());
        });
        assert_eq!(flaw, LedgerFlaw::ReceiptMalformed { leaf_index: 310 });
        assert_eq!((first_bad, held), (310, 300));
    }
}

#[test]
fn a_genuine_receipt_in_the_place_of_another_is_found() {
    let (flaw, first_bad, held) = found_after(|ledger| {
        let other = ledger.leaves[&5].clone();
        ledger.leaves.insert(310, other);
    });
    assert_eq!(flaw, LedgerFlaw::ReceiptChanged { leaf_index: 310 });
    assert_eq!((first_bad, held), (310, 300));
}

#[test]
fn a_genuine_receipt_under_a_tile_made_to_fit_is_found_by_the_next_checkpoint() {
    let (flaw, first_bad, held) = found_after(|ledger| {
        let other = ledger.leaves[&5].clone();
        ledger.leaves.insert(310, other);
        ledger.rebuild_tree();
    });
    assert_eq!(flaw, LedgerFlaw::RootDiffers { size: 512 });
    assert_eq!((first_bad, held), (300, 300));
}

#[test]
fn a_genuine_receipt_behind_the_last_tile_is_found_by_the_next_checkpoint() {
    let (flaw, first_bad, held) = found_after(|ledger| {
        let other = ledger.leaves[&5].clone();
        ledger.leaves.insert(650, other);
    });
    assert_eq!(flaw, LedgerFlaw::RootDiffers { size: 700 });
    assert_eq!((first_bad, held), (600, 600));
}

#[test]
fn deleted_receipts_are_found() {
    let (flaw, first_bad, held) = found_after(|ledger| drop(ledger.leaves.split_off(&697)));
    assert_eq!(flaw, LedgerFlaw::ReceiptMissing { leaf_index: 697 });
    assert_eq!((first_bad, held), (697, 600));
    let (flaw, first_bad, held) = found_after(|ledger| drop(ledger.leaves.split_off(&256)));
    assert_eq!(flaw, LedgerFlaw::ReceiptMissing { leaf_index: 256 });
    assert_eq!((first_bad, held), (256, 100));
    let (flaw, first_bad, _) = found_after(|ledger| ledger.leaves.clear());
    assert_eq!(flaw, LedgerFlaw::ReceiptMissing { leaf_index: 0 });
    assert_eq!(first_bad, 0);
}

#[test]
fn a_receipt_deleted_in_the_middle_is_found() {
    let (flaw, ..) = found_after(|ledger| drop(ledger.leaves.remove(&123)));
    assert_eq!(flaw, LedgerFlaw::ReceiptMissing { leaf_index: 123 });
    // And with those behind it moved up.
    let (flaw, first_bad, _) = found_after(|ledger| {
        ledger.leaves.remove(&123);
        ledger.shift(124, false);
    });
    assert_eq!(flaw, LedgerFlaw::ReceiptChanged { leaf_index: 123 });
    assert_eq!(first_bad, 123);
}

#[test]
fn an_inserted_receipt_is_found() {
    let insert = |leaf: Vec<u8>| {
        found_after(|ledger| {
            ledger.shift(123, true);
            ledger.leaves.insert(123, leaf);
        })
    };
    let (flaw, ..) = insert(signed_by(&signer(2)));
    assert_eq!(flaw, LedgerFlaw::ReceiptSigner { leaf_index: 123 });
    let genuine = signed_by(&signer(1));
    let (flaw, ..) = insert(altered(&genuine));
    assert_eq!(flaw, LedgerFlaw::ReceiptForged { leaf_index: 123 });
    let (flaw, ..) = insert(genuine);
    assert_eq!(flaw, LedgerFlaw::ReceiptChanged { leaf_index: 123 });
}

#[test]
fn swapped_receipts_are_found() {
    let (flaw, first_bad, _) = found_after(|ledger| {
        let (one, other) = (ledger.leaves[&20].clone(), ledger.leaves[&230].clone());
        ledger.leaves.insert(20, other);
        ledger.leaves.insert(230, one);
    });
    assert_eq!(flaw, LedgerFlaw::ReceiptChanged { leaf_index: 20 });
    assert_eq!(first_bad, 20);
}

#[test]
fn a_receipt_that_names_the_ledgers_key_and_is_signed_by_another_is_found() {
    let (flaw, ..) = found_after(|ledger| {
        let own = signed_by(&signer(1));
        let foreign = signed_by(&signer(2));
        let id = |leaf: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(leaf).expect("JSON");
            value["signer_key_id"].as_str().expect("a text").to_owned()
        };
        let text = String::from_utf8(foreign.clone()).expect("text");
        let renamed = text.replace(&id(&foreign), &id(&own));
        ledger.leaves.insert(5, renamed.into_bytes());
    });
    assert_eq!(flaw, LedgerFlaw::ReceiptForged { leaf_index: 5 });
}

#[test]
fn a_ledger_cut_back_to_a_checkpoint_of_its_own_is_sound_but_for_who_kept_a_newer_one() {
    let ledger = MemoryLedger::sound();
    let mut cut = ledger.clone();
    cut.leaves.split_off(&600);
    cut.head = Some(ledger.checkpoints[4].note.clone());
    assert!(audited(&cut, &[verifier(1)], None).is_ok());
    let since = ledger.note(1).to_string();
    let flaw = LedgerFlaw::Older {
        known: 700,
        kept: 600,
    };
    let trusted = [verifier(1)];
    assert_eq!(audited(&cut, &trusted, Some(&since)), Err((flaw, 600, 0)));
    // Cut back further, what is left behind gives it away.
    cut.leaves.split_off(&300);
    cut.head = Some(ledger.checkpoints[2].note.clone());
    let (flaw, ..) = found(&cut);
    let expected = LedgerFlaw::CheckpointSize {
        signed: 512,
        kept: 300,
    };
    assert_eq!(flaw, expected);
    cut.checkpoints.truncate(3);
    let tile = TileId { level: 0, index: 1 };
    assert_eq!(found(&cut).0, LedgerFlaw::TileWrong { tile });
    cut.tiles.remove(&tile);
    assert!(audited(&cut, &trusted, None).is_ok());
}

#[test]
fn a_ledger_signed_anew_is_found_by_the_key() {
    let ledger = MemoryLedger::sound();
    let mut forged = MemoryLedger::begun(2);
    forged.grow(2, 700);
    assert!(audited(&forged, &[], None).is_ok(), "it agrees with itself");
    let untrusted = Err((LedgerFlaw::KeyUntrusted, 0, 0));
    assert_eq!(audited(&forged, &[verifier(1)], None), untrusted);
    let since = ledger.checkpoints[2].note.clone();
    let flaw = LedgerFlaw::GivenForeign { size: 300 };
    assert_eq!(audited(&forged, &[], Some(&since)), Err((flaw, 0, 0)));
}
