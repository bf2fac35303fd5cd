//! The keys of a ledger, each in force over its part of it.

use ed25519_dalek::VerifyingKey;

use crate::adapters::ledger::signer::{is_note_signed, signer_key_id};
use crate::domain::ledger::{Checkpoint, LedgerFlaw, ORIGIN, SignedNote, VerifierKey};
use crate::ports::ledger_store::LedgerKey;

/// The keys that signed, one after the other.
pub(super) struct KeyLine(Vec<KeyInLine>);

/// A key with what is needed to check with it.
pub(super) struct KeyInLine {
    pub(super) verifying: VerifyingKey,
    pub(super) signer_key_id: String,
    key: LedgerKey,
}

impl KeyLine {
    /// The line of these keys, the first first: that of the first receipt, and
    /// each other where it says that it took over. Whether it did,
    /// [`KeyLine::handovers`] tells.
    pub(super) fn new(keys: Vec<LedgerKey>) -> Result<Self, LedgerFlaw> {
        let mut line: Vec<KeyInLine> = Vec::with_capacity(keys.len());
        for (number, key) in keys.into_iter().enumerate() {
            let wrong = LedgerFlaw::KeyWrong { number };
            let is_in_place = match line.last() {
                None => key.from_size == 0 && key.handover.is_none(),
                Some(before) => key.from_size >= before.key.from_size,
            };
            // A weak key would accept signatures that nobody made.
            let verifying = VerifyingKey::from_bytes(&key.public_key)
                .ok()
                .filter(|verifying| is_in_place && !verifying.is_weak())
                .ok_or(wrong)?;
            line.push(KeyInLine {
                verifying,
                signer_key_id: signer_key_id(&key.public_key),
                key,
            });
        }
        if line.is_empty() {
            return Err(LedgerFlaw::KeysMissing);
        }
        Ok(Self(line))
    }

    /// Every key, the first first.
    pub(super) fn verifier_keys(&self) -> impl Iterator<Item = VerifierKey> {
        self.0
            .iter()
            .map(|one| VerifierKey::new(ORIGIN, one.key.public_key))
    }

    /// Whether one of these is in the line. It vouches for those before it, since it
    /// signed over all that they did, and for those behind it, since each names the
    /// next one in the checkpoint by which that takes over.
    pub(super) fn holds_one_of(&self, trusted: &[VerifierKey]) -> bool {
        self.verifier_keys().any(|key| trusted.contains(&key))
    }

    /// The key that has to have signed the receipt at this place.
    pub(super) fn in_force(&self, leaf_index: u64) -> Option<&KeyInLine> {
        let behind = self
            .0
            .partition_point(|one| one.key.from_size <= leaf_index);
        self.0.get(behind.checked_sub(1)?)
    }

    /// What a note says, if a key signed it that was in force at the size it
    /// names. At a handover both keys were.
    pub(super) fn read_checkpoint(&self, note: &str) -> Option<Checkpoint> {
        let note: SignedNote = note.parse().ok()?;
        let checkpoint = Checkpoint::from_text(&note.text).ok()?;
        let ends = self.0.iter().skip(1).map(|next| next.key.from_size);
        let is_signed = self
            .0
            .iter()
            .zip(ends.chain([u64::MAX]))
            .filter(|(one, end)| (one.key.from_size..=*end).contains(&checkpoint.size))
            .any(|(one, _)| is_note_signed(&one.key.public_key, &note));
        is_signed.then_some(checkpoint)
    }

    /// Where each key but the first took over, and the checkpoint by which it did,
    /// if that names it and both keys signed it.
    pub(super) fn handovers(&self) -> impl Iterator<Item = (u64, Result<Checkpoint, LedgerFlaw>)> {
        self.0.windows(2).enumerate().map(|(number, pair)| {
            let [before, key] = pair else {
                return (0, Err(LedgerFlaw::KeysMissing));
            };
            let forged = LedgerFlaw::HandoverForged { number: number + 1 };
            let checkpoint = read_handover(&before.key, &key.key);
            (key.key.from_size, checkpoint.ok_or(forged))
        })
    }
}

/// Whether this key signed the note, under the ledger's name.
pub(super) fn is_signed_by(key: &VerifierKey, note: &SignedNote) -> bool {
    key.name() == ORIGIN && is_note_signed(key.public_key(), note)
}

fn read_handover(before: &LedgerKey, key: &LedgerKey) -> Option<Checkpoint> {
    let note: SignedNote = key.handover.as_deref()?.parse().ok()?;
    let checkpoint = Checkpoint::from_text(&note.text).ok()?;
    let is_signed_by_both = [before, key]
        .iter()
        .all(|one| is_note_signed(&one.public_key, &note));
    // Without the name any checkpoint of the key before would do, with one more
    // signature under it.
    let is_named = Checkpoint::next_key(&note.text)
        .is_some_and(|named| named == VerifierKey::new(ORIGIN, key.public_key));
    let is_in_place = checkpoint.size == key.from_size;
    (is_signed_by_both && is_named && is_in_place).then_some(checkpoint)
}
