//! Each key signs in its part of the ledger, and takes over by a checkpoint that
//! two signed.

use super::{audited, found};
use crate::adapters::ledger::testing::{
    MemoryLedger, foreign, handover, signed_by, signer, verifier,
};
use crate::domain::ledger::{LedgerFlaw, NoteSignature, SignedNote, VerifierKey};

/// Key 1 up to 300 receipts, then key 2 up to 500, then key 3.
fn handed_over() -> MemoryLedger {
    let mut ledger = MemoryLedger::begun(1);
    ledger.grow(1, 300);
    ledger.hand_over(1, 2);
    ledger.grow(2, 200);
    ledger.hand_over(2, 3);
    ledger.grow(3, 100);
    ledger
}

#[test]
fn a_ledger_of_several_keys_verifies() {
    let ledger = handed_over();
    let keys = [verifier(1), verifier(2), verifier(3)];
    let report = audited(&ledger, &keys, None).expect("sound");
    assert_eq!(report.keys, keys);
    assert_eq!(report.kept_checkpoints, 3);
}

#[test]
fn keys_that_take_over_without_a_receipt_between_them_verify() {
    let mut ledger = MemoryLedger::begun(1);
    ledger.hand_over(1, 2);
    ledger.hand_over(2, 3);
    assert!(audited(&ledger, &[verifier(3)], None).is_ok());
    ledger.grow(3, 5);
    ledger.hand_over(3, 4);
    ledger.hand_over(4, 5);
    ledger.keep(5);
    assert!(audited(&ledger, &[verifier(5)], None).is_ok());
    ledger.grow(5, 5);
    assert!(audited(&ledger, &[verifier(5)], None).is_ok());
}

#[test]
fn any_key_vouches_for_those_before_it_and_behind_it() {
    let ledger = handed_over();
    for seed in [1, 2, 3] {
        assert!(audited(&ledger, &[verifier(seed)], None).is_ok(), "{seed}");
    }
    let untrusted = Err((LedgerFlaw::KeyUntrusted, 0, 0));
    assert_eq!(audited(&ledger, &[verifier(9)], None), untrusted);
}

#[test]
fn two_signatures_under_a_checkpoint_are_no_handover() {
    let mut ledger = MemoryLedger::begun(1);
    ledger.grow(1, 300);
    let plain = ledger.note(1);
    let both = SignedNote {
        signatures: [plain.signatures, ledger.note(9).signatures].concat(),
        text: plain.text,
    };
    ledger.hand_over(1, 9);
    ledger.checkpoints.pop();
    ledger.keys[1].handover = Some(both.to_string());
    ledger.grow(9, 50);
    let flaw = LedgerFlaw::HandoverForged { number: 1 };
    assert_eq!(audited(&ledger, &[verifier(1)], None), Err((flaw, 300, 0)));
    // A handover to one is none to another.
    let to_another = handover(1, 2, &foreign(300));
    ledger.keys[1].handover = Some(
        SignedNote {
            signatures: [
                to_another.signatures,
                vec![note_signature(9, &to_another.text)],
            ]
            .concat(),
            text: to_another.text,
        }
        .to_string(),
    );
    assert_eq!(found(&ledger), (flaw, 300, 0));
}

/// The signature of the key with this seed under any text.
fn note_signature(seed: u8, text: &str) -> NoteSignature {
    use ed25519_dalek::Signer as _;
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let name = VerifierKey::new("kms", key.verifying_key().to_bytes());
    NoteSignature {
        name: name.name().to_owned(),
        key_id: name.key_id(),
        signature: key.sign(text.as_bytes()).to_bytes().to_vec(),
    }
}

#[test]
fn nobody_goes_on_with_a_key_that_was_replaced() {
    let ledger = handed_over();
    let takeover = ledger.checkpoints[1].clone();
    assert!(audited(&ledger, &[], Some(&takeover.note)).is_ok());
    let mut forged = MemoryLedger::begun(1);
    let kept = ledger.leaves.range(..300).map(|(_, leaf)| leaf.clone());
    kept.for_each(|leaf| forged.append(leaf));
    forged.grow(1, 50);
    assert!(audited(&forged, &[verifier(1)], None).is_ok());
    let flaw = LedgerFlaw::GivenForeign { size: 300 };
    let since = Some(takeover.note.as_str());
    assert_eq!(audited(&forged, &[], since), Err((flaw, 0, 0)));
    let mut later = forged.clone();
    later.hand_over(1, 2);
    assert_eq!(audited(&later, &[], since), Err((flaw, 0, 0)), "at 350");
    forged.checkpoints.push(takeover);
    let flaw = LedgerFlaw::CheckpointForged { size: 300 };
    assert_eq!(found(&forged), (flaw, 300, 0));
}

#[test]
fn a_given_checkpoint_may_be_signed_by_a_later_key() {
    let ledger = handed_over();
    let mut earlier = MemoryLedger::begun(1);
    let kept = ledger.leaves.range(..200).map(|(_, leaf)| leaf.clone());
    kept.for_each(|leaf| earlier.append(leaf));
    let since = earlier.note(3).to_string();
    assert!(audited(&ledger, &[], Some(&since)).is_ok());
}

#[test]
fn a_key_that_retired_signs_no_more_receipts() {
    let mut ledger = handed_over();
    ledger.append(signed_by(&signer(2)));
    ledger.append(signed_by(&signer(3)));
    ledger.sign_head(3);
    let flaw = LedgerFlaw::ReceiptSigner { leaf_index: 600 };
    assert_eq!(found(&ledger), (flaw, 600, 500));
}

#[test]
fn a_key_signs_no_receipts_before_it_took_over() {
    let mut ledger = MemoryLedger::begun(1);
    ledger.grow(1, 10);
    ledger.append(signed_by(&signer(2)));
    ledger.hand_over(1, 2);
    let flaw = LedgerFlaw::ReceiptSigner { leaf_index: 10 };
    assert_eq!(found(&ledger), (flaw, 10, 0));
}

#[test]
fn checkpoints_are_signed_by_the_key_in_force() {
    let mut ledger = handed_over();
    ledger.sign_head(2);
    let flaw = LedgerFlaw::CheckpointForged { size: 600 };
    assert_eq!(found(&ledger), (flaw, 600, 500));
    ledger.sign_head(3);
    ledger.keep_note(600, &ledger.note(1));
    assert_eq!(found(&ledger), (flaw, 600, 500));
    // Where one takes over, either is.
    for seed in [1, 2] {
        let mut ledger = MemoryLedger::begun(1);
        ledger.grow(1, 10);
        ledger.hand_over(1, 2);
        ledger.sign_head(seed);
        assert!(audited(&ledger, &[], None).is_ok(), "{seed}");
    }
    let mut early = MemoryLedger::begun(1);
    early.grow(1, 10);
    early.keep_note(10, &early.note(2));
    early.grow(1, 10);
    early.hand_over(1, 2);
    let flaw = LedgerFlaw::CheckpointForged { size: 10 };
    assert_eq!(found(&early), (flaw, 10, 0));
}

#[test]
fn a_handover_is_signed_by_both_keys() {
    let sound = handed_over();
    let flaw = LedgerFlaw::HandoverForged { number: 1 };
    let note = sound.checkpoints[1].note.clone();
    let lines: Vec<&str> = note.lines().collect();
    for left_out in [5, 6] {
        let mut ledger = sound.clone();
        let one: Vec<&str> = (0..lines.len())
            .filter(|line| *line != left_out)
            .map(|line| lines[line])
            .collect();
        ledger.keys[1].handover = Some(format!("{}\n", one.join("\n")));
        assert_eq!(found(&ledger), (flaw, 300, 0), "line {left_out}");
    }
    for other in [None, Some(String::new())] {
        let mut ledger = sound.clone();
        ledger.keys[1].handover = other;
        assert_eq!(found(&ledger), (flaw, 300, 0));
    }
    let mut ledger = sound.clone();
    ledger.keys[1].handover = ledger.keys[2].handover.clone();
    assert_eq!(found(&ledger), (flaw, 300, 0), "that of another pair");
}

#[test]
fn a_handover_is_of_the_tree_that_it_names() {
    let mut ledger = handed_over();
    let note = handover(1, 2, &foreign(300));
    ledger.keys[1].handover = Some(note.to_string());
    let flaw = LedgerFlaw::RootDiffers { size: 300 };
    assert_eq!(found(&ledger), (flaw, 0, 0));
    let note = handover(1, 2, &foreign(299));
    ledger.keys[1].handover = Some(note.to_string());
    let flaw = LedgerFlaw::HandoverForged { number: 1 };
    assert_eq!(found(&ledger), (flaw, 300, 0));
    // A handover that is still to come.
    let mut ledger = handed_over();
    let note = handover(3, 4, &foreign(601));
    ledger.keys.push(crate::ports::ledger_store::LedgerKey {
        public_key: signer(4).verifier_key().public_key().to_owned(),
        from_size: 601,
        handover: Some(note.to_string()),
    });
    let flaw = LedgerFlaw::CheckpointSize {
        signed: 601,
        kept: 600,
    };
    assert_eq!(found(&ledger), (flaw, 600, 600));
}

#[test]
fn the_keys_of_a_ledger_are_there_usable_and_in_order() {
    let mut ledger = handed_over();
    ledger.keys.clear();
    assert_eq!(found(&ledger), (LedgerFlaw::KeysMissing, 0, 0));
    for (number, change) in [
        (
            0,
            &(|ledger: &mut MemoryLedger| ledger.keys[0].from_size = 1) as &dyn Fn(&mut _),
        ),
        (0, &|ledger: &mut MemoryLedger| drop(ledger.keys.remove(0))),
        (2, &|ledger: &mut MemoryLedger| {
            ledger.keys[2].from_size = 299
        }),
        (1, &|ledger: &mut MemoryLedger| {
            ledger.keys[1].public_key = [2; 32]
        }),
        // The point of order one: it accepts what nobody signed.
        (1, &|ledger: &mut MemoryLedger| {
            ledger.keys[1].public_key = [0; 32];
            ledger.keys[1].public_key[0] = 1;
        }),
    ] {
        let mut ledger = handed_over();
        change(&mut ledger);
        assert_eq!(found(&ledger), (LedgerFlaw::KeyWrong { number }, 0, 0));
    }
}

#[test]
fn a_key_that_takes_anothers_place_is_found() {
    let mut ledger = handed_over();
    ledger.keys[0].public_key = *verifier(9).public_key();
    let flaw = LedgerFlaw::CheckpointForged { size: 0 };
    assert_eq!(found(&ledger), (flaw, 0, 0));
    ledger.checkpoints.clear();
    let flaw = LedgerFlaw::ReceiptSigner { leaf_index: 0 };
    assert_eq!(found(&ledger), (flaw, 0, 0));
}
