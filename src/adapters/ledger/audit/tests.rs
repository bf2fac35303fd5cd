mod keys;
mod receipts;
mod tree;

use super::{AuditFailure, AuditReport, audit};
use crate::adapters::ledger::testing::{MemoryLedger, foreign_note, verifier};
use crate::domain::ledger::{LedgerFlaw, VerifierKey};

/// A flaw, the first place that it touches, and what stands before it.
type Found = (LedgerFlaw, u64, u64);

fn audited(
    ledger: &MemoryLedger,
    trusted: &[VerifierKey],
    since: Option<&str>,
) -> Result<AuditReport, Found> {
    match audit(&mut ledger.clone(), trusted, since, &mut |_| ()) {
        Ok(report) => Ok(report),
        Err(AuditFailure::Flawed {
            flaw,
            first_bad,
            held,
        }) => Err((flaw, first_bad, held)),
        Err(other) => panic!("{other}"),
    }
}

#[track_caller]
fn found(ledger: &MemoryLedger) -> Found {
    audited(ledger, &[], None).expect_err("a flaw")
}

/// What is found in a sound ledger after this was done to it.
#[track_caller]
fn found_after(change: impl FnOnce(&mut MemoryLedger)) -> Found {
    let mut ledger = MemoryLedger::sound();
    change(&mut ledger);
    found(&ledger)
}

#[test]
fn a_sound_ledger_verifies_and_is_reported() {
    let mut ledger = MemoryLedger::sound();
    let mut told = Vec::new();
    let report = audit(&mut ledger, &[verifier(1)], None, &mut |progress| {
        told.push((progress.receipts, progress.of));
    })
    .expect("sound");
    assert_eq!(report.checkpoint, ledger.tree.checkpoint());
    assert_eq!(report.checkpoint.size, 700);
    assert_eq!(report.keys, [verifier(1)]);
    assert_eq!((report.kept_checkpoints, report.by_tree_alone), (5, 0));
    assert_eq!((report.since, report.away), (None, vec![]));
    assert_eq!(told, [(700, 700)]);
}

#[test]
fn an_empty_ledger_verifies() {
    let report = audited(&MemoryLedger::begun(1), &[], None).expect("sound");
    assert_eq!(report.checkpoint.size, 0);
    assert_eq!(report.kept_checkpoints, 1);
}

#[test]
fn a_ledger_without_a_key_to_trust_is_held_to_its_own() {
    let ledger = MemoryLedger::sound();
    assert!(audited(&ledger, &[], None).is_ok());
    assert!(audited(&ledger, &[verifier(2), verifier(1)], None).is_ok());
    let untrusted = Err((LedgerFlaw::KeyUntrusted, 0, 0));
    assert_eq!(audited(&ledger, &[verifier(2)], None), untrusted);
    let renamed = VerifierKey::new("other", *verifier(1).public_key());
    assert_eq!(audited(&ledger, &[renamed], None), untrusted);
}

#[test]
fn what_was_written_meanwhile_is_neither_good_nor_bad() {
    let mut ledger = MemoryLedger::sound();
    for _ in 0..2 {
        ledger.is_written = true;
        let audited = audit(&mut ledger, &[], None, &mut |_| ());
        assert!(matches!(audited, Err(AuditFailure::Unreadable(_))));
        ledger.leaves.remove(&3);
    }
}

#[test]
fn the_newest_checkpoint_is_there_and_of_as_many_receipts() {
    let missing = found_after(|ledger| ledger.head = None);
    assert_eq!(missing, (LedgerFlaw::CheckpointMissing, 700, 600));
    let forged = found_after(|ledger| ledger.sign_head(2));
    assert_eq!(
        forged,
        (LedgerFlaw::CheckpointForged { size: 700 }, 700, 600)
    );
    let text = found_after(|ledger| ledger.head = Some("no note".to_owned()));
    assert_eq!(text, forged);
    let fewer = found_after(|ledger| {
        let receipt = ledger.leaves[&0].clone();
        ledger.leaves.insert(700, receipt);
    });
    let flaw = LedgerFlaw::CheckpointSize {
        signed: 700,
        kept: 701,
    };
    assert_eq!(fewer, (flaw, 700, 700));
    let root = found_after(|ledger| ledger.head = Some(foreign_note(1, 700).to_string()));
    assert_eq!(root, (LedgerFlaw::RootDiffers { size: 700 }, 600, 600));
}

#[test]
fn a_kept_checkpoint_is_not_dropped() {
    let dropped = found_after(|ledger| drop(ledger.checkpoints.remove(2)));
    assert_eq!(
        dropped,
        (LedgerFlaw::CheckpointLost { number: 3 }, 512, 100)
    );
    let first = found_after(|ledger| drop(ledger.checkpoints.remove(0)));
    assert_eq!(first.0, LedgerFlaw::CheckpointLost { number: 1 });
}

#[test]
fn a_kept_checkpoint_is_signed_and_of_its_size_and_root() {
    let altered = found_after(|ledger| {
        let note = ledger.checkpoints[2].note.replacen("\n300\n", "\n299\n", 1);
        ledger.checkpoints[2].note = note;
    });
    assert_eq!(
        altered,
        (LedgerFlaw::CheckpointForged { size: 300 }, 300, 100)
    );
    let root = found_after(|ledger| ledger.checkpoints[2].note = foreign_note(1, 300).to_string());
    assert_eq!(root, (LedgerFlaw::RootDiffers { size: 300 }, 100, 100));
    let moved = found_after(|ledger| ledger.checkpoints[2].size = 301);
    assert_eq!(
        moved,
        (LedgerFlaw::CheckpointMisplaced { number: 3 }, 301, 100)
    );
    let swapped = found_after(|ledger| {
        let note = ledger.note(1);
        ledger.keep_note(700, &note);
        ledger.checkpoints.swap(3, 5);
        ledger.checkpoints[3].number = 4;
        ledger.checkpoints[5].number = 6;
    });
    assert_eq!(
        swapped.0,
        LedgerFlaw::CheckpointMisplaced { number: 6 },
        "one of 512 behind one of 700"
    );
    let foreign = found_after(|ledger| {
        let checkpoint = ledger.checkpoints[2].clone();
        ledger.checkpoints[2].note = checkpoint.note.replace("kms ", "kmt ");
    });
    assert_eq!(foreign.0, LedgerFlaw::CheckpointForged { size: 300 });
}

#[test]
fn two_checkpoints_of_one_size_are_the_same() {
    let mut ledger = MemoryLedger::sound();
    ledger.keep(1);
    ledger.keep(1);
    assert!(audited(&ledger, &[], None).is_ok());
    ledger.keep_note(700, &foreign_note(1, 700));
    assert_eq!(
        found(&ledger),
        (LedgerFlaw::RootDiffers { size: 700 }, 600, 600)
    );
}

#[test]
fn a_ledger_is_not_shorter_than_a_checkpoint_that_it_kept() {
    let mut ledger = MemoryLedger::sound();
    ledger.keep_note(701, &foreign_note(1, 701));
    let flaw = LedgerFlaw::CheckpointSize {
        signed: 701,
        kept: 700,
    };
    assert_eq!(found(&ledger), (flaw, 700, 700));
}

#[test]
fn the_given_checkpoint_is_honoured() {
    let ledger = MemoryLedger::sound();
    for kept in &ledger.checkpoints {
        let report = audited(&ledger, &[], Some(&kept.note)).expect("sound");
        assert_eq!(report.since.map(|since| since.size), Some(kept.size));
    }
    let newest = ledger.note(1).to_string();
    assert!(audited(&ledger, &[], Some(&newest)).is_ok());
}

#[test]
fn a_ledger_that_did_not_grow_out_of_the_given_checkpoint_is_another() {
    let ledger = MemoryLedger::sound();
    for (size, held) in [(0, 0), (299, 100), (300, 300), (700, 700)] {
        let since = foreign_note(1, size).to_string();
        let found = audited(&ledger, &[], Some(&since)).expect_err("forked");
        assert_eq!(found, (LedgerFlaw::Forked { size }, held, held));
    }
    let since = foreign_note(2, 300).to_string();
    let foreign = Err((LedgerFlaw::GivenForeign { size: 300 }, 0, 0));
    assert_eq!(audited(&ledger, &[], Some(&since)), foreign);
    // A key under another name is a key of another ledger.
    let renamed = VerifierKey::new("other", *verifier(2).public_key());
    let trusted = [verifier(1), renamed];
    assert_eq!(audited(&ledger, &trusted, Some(&since)), foreign);
}

#[test]
fn a_ledger_that_is_older_than_the_given_checkpoint_is_found() {
    let ledger = MemoryLedger::sound();
    let mut newer = ledger.clone();
    newer.grow(1, 10);
    newer.hand_over(1, 2);
    newer.grow(2, 10);
    let flaw = LedgerFlaw::Older {
        known: 710,
        kept: 700,
    };
    let since = merged_head(&newer, 710);
    assert_eq!(audited(&ledger, &[], Some(&since)), Err((flaw, 700, 0)));
    assert!(audited(&newer, &[], Some(&since)).is_ok());
    assert!(audited(&ledger, &[], None).is_ok(), "by itself it is sound");
    // Signed by a key that the older ledger does not know, but the auditor does.
    let since = newer.note(2).to_string();
    let trusted = [verifier(1), verifier(2)];
    let flaw = LedgerFlaw::Older {
        known: 720,
        kept: 700,
    };
    assert_eq!(
        audited(&ledger, &trusted, Some(&since)),
        Err((flaw, 700, 0))
    );
}

fn merged_head(ledger: &MemoryLedger, size: u64) -> String {
    let kept = ledger.checkpoints.iter().find(|kept| kept.size == size);
    kept.expect("kept").note.clone()
}

#[test]
fn a_given_checkpoint_that_is_none_is_refused() {
    for text in ["", "kms\n0\n", "x\n\n\u{2014} kms AAAAAQcHBwc=\n"] {
        let audited = audit(&mut MemoryLedger::sound(), &[], Some(text), &mut |_| ());
        assert!(
            matches!(audited, Err(AuditFailure::SinceMalformed)),
            "{text:?}"
        );
    }
}

#[test]
fn of_several_flaws_the_first_is_answered() {
    let mut ledger = MemoryLedger::sound();
    ledger.head = None;
    let mut known = LedgerFlaw::CheckpointMissing;
    let tile = crate::domain::ledger::TileId { level: 0, index: 1 };
    type Change = fn(&mut MemoryLedger);
    let changes: [(LedgerFlaw, Change); 6] = [
        (LedgerFlaw::CheckpointForged { size: 600 }, |ledger| {
            ledger.checkpoints[4].note.clear();
        }),
        (LedgerFlaw::TileMissing { tile }, |ledger| {
            ledger
                .tiles
                .remove(&crate::domain::ledger::TileId { level: 0, index: 1 });
        }),
        (LedgerFlaw::ReceiptMissing { leaf_index: 511 }, |ledger| {
            ledger.leaves.remove(&511);
        }),
        (LedgerFlaw::ReceiptMalformed { leaf_index: 400 }, |ledger| {
            ledger.leaves.insert(400, b"{}".to_vec());
        }),
        (LedgerFlaw::CheckpointForged { size: 300 }, |ledger| {
            ledger.checkpoints[2].note.clear();
        }),
        (LedgerFlaw::ReceiptChanged { leaf_index: 200 }, |ledger| {
            let other = ledger.leaves[&0].clone();
            ledger.leaves.insert(200, other);
        }),
    ];
    for (flaw, change) in changes {
        assert_eq!(found(&ledger).0, known);
        change(&mut ledger);
        known = flaw;
    }
    assert_eq!(found(&ledger).0, known);
}
