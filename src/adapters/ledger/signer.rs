//! The ledger's own keys: sign receipts and checkpoints with Ed25519 (RFC 8032).
//!
//! Knows receipts as bytes only; where they are kept is the data plane's matter.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::adapters::secret_file::{self, LaidOutBy, SECRET_LEN, SecretFileFault};
use crate::domain::ledger::{Checkpoint, NoteSignature, ORIGIN, SignedNote, VerifierKey};
use crate::domain::receipt::{ReadReceipt, Receipt, SignedReceipt};
use crate::domain::secret::SecretBytes;
use crate::ports::ledger::{EvidenceLedger, Handover, LedgerError};

/// One key: a pair, and its names.
struct LedgerKeyPair {
    pair: Ed25519KeyPair,
    public_key: [u8; 32],
    signer_key_id: Arc<str>,
}

/// Signs receipts and checkpoints with keys of its own: one that signs now, those
/// before it, which only check, and perhaps one that waits to take over.
pub struct LedgerSigner {
    keys: ArcSwap<Keys>,
}

#[derive(Clone)]
struct Keys {
    current: Arc<LedgerKeyPair>,
    next: Option<Arc<LedgerKeyPair>>,
    /// The public keys that signed before.
    past: Vec<[u8; 32]>,
}

/// How the key stands that is to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextKey {
    /// There is none.
    None,
    /// It waits.
    Waits,
    /// It has taken over.
    Signs,
}

/// Why the ledger's key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerKeyFault {
    /// See [`SecretFileFault`].
    #[error(transparent)]
    File(#[from] SecretFileFault),
    /// The library refused the key, or gave no randomness for a new one.
    #[error("the ledger's key cannot be used")]
    Refused,
}

impl LedgerSigner {
    /// The signer whose seed is in this file; `None` where there is no file.
    ///
    /// # Errors
    /// [`LedgerKeyFault`].
    pub fn load(path: &Path) -> Result<Option<Self>, LedgerKeyFault> {
        secret_file::load(path, LaidOutBy::Service)?
            .map(|seed| Self::from_seed(seed.expose()))
            .transpose()
    }

    /// A new signer, its seed written to this file.
    ///
    /// # Errors
    /// [`LedgerKeyFault`].
    pub fn create(path: &Path) -> Result<Self, LedgerKeyFault> {
        let mut bytes = [0u8; SECRET_LEN];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| LedgerKeyFault::Refused)?;
        let seed = SecretBytes::take_from(&mut bytes);
        let signer = Self::from_seed(seed.expose())?;
        secret_file::create(path, &seed)?;
        Ok(signer)
    }

    /// A signer with this seed (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`LedgerKeyFault::Refused`] unless it is 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self, LedgerKeyFault> {
        Ok(Self {
            keys: ArcSwap::from_pointee(Keys {
                current: Arc::new(LedgerKeyPair::from_seed(seed)?),
                next: None,
                past: Vec::new(),
            }),
        })
    }

    /// Makes these known as keys that signed before.
    pub fn remember(&self, past: impl IntoIterator<Item = [u8; 32]>) {
        let past: Vec<_> = past.into_iter().collect();
        self.keys.rcu(|keys| Keys {
            past: past.clone(),
            ..Keys::clone(keys)
        });
    }

    /// Lets the key with the seed in this file wait to take over, if there is such
    /// a file and its key does not sign already.
    ///
    /// # Errors
    /// [`LedgerKeyFault`].
    pub fn load_next(&self, path: &Path) -> Result<NextKey, LedgerKeyFault> {
        let Some(seed) = secret_file::load(path, LaidOutBy::Service)? else {
            return Ok(NextKey::None);
        };
        let next = Arc::new(LedgerKeyPair::from_seed(seed.expose())?);
        if next.public_key == self.public_key() {
            return Ok(NextKey::Signs);
        }
        self.keys.rcu(|keys| Keys {
            next: Some(Arc::clone(&next)),
            ..Keys::clone(keys)
        });
        Ok(NextKey::Waits)
    }

    /// The key that checks what is signed now, as text: `name+hash+key`.
    pub fn verifier_key(&self) -> VerifierKey {
        VerifierKey::new(ORIGIN, self.public_key())
    }
}

impl LedgerKeyPair {
    fn from_seed(seed: &[u8]) -> Result<Self, LedgerKeyFault> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| LedgerKeyFault::Refused)?;
        let public_key = <[u8; 32]>::try_from(pair.public_key().as_ref())
            .map_err(|_| LedgerKeyFault::Refused)?;
        Ok(Self {
            pair,
            public_key,
            signer_key_id: signer_key_id(&public_key).into(),
        })
    }

    /// A signature in base64.
    fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(bytes))
    }

    fn sign_note(&self, text: &str) -> NoteSignature {
        NoteSignature {
            name: ORIGIN.to_owned(),
            key_id: VerifierKey::new(ORIGIN, self.public_key).key_id(),
            signature: self.pair.sign(text.as_bytes()).as_ref().to_vec(),
        }
    }
}

impl Keys {
    fn public_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        std::iter::once(&self.current.public_key).chain(&self.past)
    }
}

impl EvidenceLedger for LedgerSigner {
    fn sign(&self, receipt: Receipt) -> Result<SignedReceipt, LedgerError> {
        let key = Arc::clone(&self.keys.load().current);
        Ok(receipt.signed_by(&key.signer_key_id, |unsigned| key.sign(unsigned)))
    }

    fn is_current(&self, receipt: &SignedReceipt) -> bool {
        receipt.signer_key_id == self.keys.load().current.signer_key_id
    }

    fn sign_again(&self, receipt: &SignedReceipt) -> Result<SignedReceipt, LedgerError> {
        let key = Arc::clone(&self.keys.load().current);
        let read =
            ReadReceipt::parse(&receipt.leaf).ok_or_else(|| LedgerError("malformed".into()))?;
        read.signed_again(&key.signer_key_id, |unsigned| key.sign(unsigned))
            .map_err(fault)
    }

    fn is_genuine(&self, leaf: &[u8]) -> bool {
        let Some(read) = ReadReceipt::parse(leaf) else {
            return false;
        };
        let keys = self.keys.load();
        keys.public_keys()
            .find(|key| signer_key_id(key) == *read.receipt.signer_key_id)
            .is_some_and(|key| is_signed(key, &read.unsigned, &read.signature))
    }

    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> SignedNote {
        let text = checkpoint.to_string();
        SignedNote {
            signatures: vec![self.keys.load().current.sign_note(&text)],
            text,
        }
    }

    fn read_checkpoint(&self, note: &str) -> Option<Checkpoint> {
        let note: SignedNote = note.parse().ok()?;
        let keys = self.keys.load();
        let is_signed_by_one = keys.public_keys().any(|key| is_note_signed(key, &note));
        is_signed_by_one
            .then(|| Checkpoint::from_text(&note.text).ok())
            .flatten()
    }

    fn public_key(&self) -> [u8; 32] {
        self.keys.load().current.public_key
    }

    fn begin_handover(&self, checkpoint: &Checkpoint) -> Option<Handover> {
        let keys = self.keys.load();
        let next = keys.next.as_ref()?;
        let text = checkpoint.handover_text(&VerifierKey::new(ORIGIN, next.public_key));
        Some(Handover {
            public_key: next.public_key,
            note: SignedNote {
                signatures: vec![keys.current.sign_note(&text), next.sign_note(&text)],
                text,
            },
        })
    }

    fn complete_handover(&self) {
        self.keys.rcu(|keys| match &keys.next {
            None => Keys::clone(keys),
            Some(next) => {
                let mut past = keys.past.clone();
                past.push(keys.current.public_key);
                Keys {
                    current: Arc::clone(next),
                    next: None,
                    past,
                }
            }
        });
    }
}

/// What receipts name as `signer_key_id`: the first 8 bytes of the SHA-256 of the
/// public key, in hex.
pub(super) fn signer_key_id(public_key: &[u8; 32]) -> String {
    digest(&SHA256, public_key)
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether a note bears a good signature of this key.
pub(super) fn is_note_signed(public_key: &[u8; 32], note: &SignedNote) -> bool {
    VerifierKey::new(ORIGIN, *public_key)
        .signature_on(note)
        .is_some_and(|signature| is_signed(public_key, note.text.as_bytes(), signature))
}

fn is_signed(public_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(message, signature)
        .is_ok()
}

fn fault(error: serde_json::Error) -> LedgerError {
    LedgerError(Box::new(error))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};
    use serde_json::Value;

    use super::*;
    use crate::domain::ledger::{Tree, TreeHash};
    use crate::domain::receipt::tests::receipt;

    fn signer() -> LedgerSigner {
        LedgerSigner::from_seed(&[7; 32]).expect("32 bytes")
    }

    #[test]
    fn an_independent_library_accepts_the_signature_over_independent_canonical_json() {
        let signer = signer();
        let signed = signer.sign(receipt()).expect("signed");
        let mut value: Value = serde_json::from_slice(&signed.leaf).expect("JSON");
        let signature = value
            .as_object_mut()
            .expect("an object")
            .remove("signature");
        let signature = signature.as_ref().and_then(Value::as_str).expect("a text");
        let signature = STANDARD.decode(signature).expect("base64");
        let key = VerifyingKey::from_bytes(&signer.public_key()).expect("a key");
        let unsigned = serde_json_canonicalizer::to_vec(&value).expect("canonical");
        key.verify_strict(
            &unsigned,
            &Signature::from_slice(&signature).expect("64 bytes"),
        )
        .expect("genuine");
        assert!(signer.is_genuine(&signed.leaf));
    }

    #[test]
    fn any_changed_byte_of_a_receipt_is_noticed() {
        let signer = signer();
        let signed = signer.sign(receipt()).expect("signed");
        for place in 0..signed.leaf.len() {
            let mut changed = signed.leaf.clone();
            changed[place] ^= 1;
            assert!(!signer.is_genuine(&changed), "byte {place}");
        }
    }

    #[test]
    fn a_receipt_of_another_ledger_is_not_genuine() {
        let other = LedgerSigner::from_seed(&[8; 32]).expect("32 bytes");
        let signed = other.sign(receipt()).expect("signed");
        assert!(!signer().is_genuine(&signed.leaf));
    }

    #[test]
    fn the_same_receipt_in_another_spelling_is_not_genuine() {
        let signer = signer();
        let signed = signer.sign(receipt()).expect("signed");
        let mut spaced = signed.leaf.clone();
        spaced.insert(1, b' ');
        assert!(!signer.is_genuine(&spaced));
    }

    #[test]
    fn another_implementation_accepts_a_checkpoint_under_the_verifier_key() {
        let signer = signer();
        let checkpoint = Checkpoint {
            size: 7,
            root: TreeHash::of_leaf(b"root"),
        };
        let note = signer.sign_checkpoint(&checkpoint).to_string();
        let key = signed_note::StandardVerifier::new(&signer.verifier_key().to_string());
        let keys = signed_note::VerifierList::new(vec![Box::new(key.expect("a key"))]);
        let theirs = signed_note::Note::from_bytes(note.as_bytes()).expect("a note");
        let (good, unknown) = theirs.verify(&keys).expect("a good signature");
        assert_eq!((good.len(), unknown.len()), (1, 0));
        assert_eq!(signer.read_checkpoint(&note), Some(checkpoint));
    }

    #[test]
    fn a_checkpoint_that_was_changed_or_signed_by_another_says_nothing() {
        let checkpoint = Tree::new().checkpoint();
        let note = signer().sign_checkpoint(&checkpoint).to_string();
        assert_eq!(signer().read_checkpoint(&note), Some(checkpoint));
        let other = LedgerSigner::from_seed(&[8; 32]).expect("32 bytes");
        assert_eq!(other.read_checkpoint(&note), None);
        assert_eq!(
            signer().read_checkpoint(&note.replace("\n0\n", "\n1\n")),
            None
        );
        assert_eq!(signer().read_checkpoint(""), None);
    }

    #[test]
    fn a_new_key_takes_over_by_a_checkpoint_that_both_sign() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("next");
        let signer = signer();
        let checkpoint = Tree::new().checkpoint();
        assert_eq!(signer.load_next(&path).expect("no file"), NextKey::None);
        assert_eq!(signer.begin_handover(&checkpoint), None);
        let next = LedgerSigner::create(&path).expect("created");
        assert_eq!(signer.load_next(&path).expect("readable"), NextKey::Waits);
        let (old_key, before) = (signer.public_key(), signer.sign(receipt()).expect("signed"));

        let handover = signer.begin_handover(&checkpoint).expect("a key waits");
        assert_eq!(handover.public_key, next.public_key());
        for key in [&old_key, &handover.public_key] {
            assert!(is_note_signed(key, &handover.note));
        }
        assert_eq!(
            Checkpoint::next_key(&handover.note.text),
            Some(next.verifier_key())
        );
        let read = signer.read_checkpoint(&handover.note.to_string());
        assert_eq!(read, Some(checkpoint));
        assert_eq!(signer.public_key(), old_key, "not before it is kept");
        assert!(signer.is_current(&before));

        signer.complete_handover();
        assert_eq!(signer.public_key(), next.public_key());
        assert!(!signer.is_current(&before));
        assert!(signer.is_genuine(&before.leaf), "the old key still checks");
        assert!(!next.is_genuine(&before.leaf));
        next.remember([old_key]);
        assert!(next.is_genuine(&before.leaf), "after a restart too");
        let again = signer.sign_again(&before).expect("signed");
        assert!(signer.is_current(&again) && next.is_genuine(&again.leaf));
        assert_eq!(again.receipt_id, before.receipt_id);
        signer.complete_handover();
        assert_eq!(signer.public_key(), next.public_key(), "once");
        assert_eq!(signer.load_next(&path).expect("readable"), NextKey::Signs);
        assert_eq!(signer.begin_handover(&checkpoint), None);
    }

    #[test]
    fn a_key_that_was_created_is_the_key_that_is_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.key");
        assert!(LedgerSigner::load(&path).expect("no file").is_none());
        let made = LedgerSigner::create(&path).expect("created");
        let loaded = LedgerSigner::load(&path).expect("readable").expect("there");
        assert_eq!(made.public_key(), loaded.public_key());
    }
}
