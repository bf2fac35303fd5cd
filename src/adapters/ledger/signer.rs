//! The ledger's own key: signs receipts with Ed25519 (RFC 8032).
//!
//! Knows receipts as bytes only; where they are kept is the data plane's matter.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::adapters::secret_file::{self, LaidOutBy, SECRET_LEN, SecretFileFault};
use crate::domain::receipt::{Receipt, SignedReceipt};
use crate::domain::secret::SecretBytes;
use crate::ports::ledger::{EvidenceLedger, LedgerError};

/// The name of the ledger's key in C2SP signed-note form.
const NOTE_KEY_NAME: &str = "kms";

/// The algorithm byte of Ed25519 in C2SP signed-note.
const ED25519_NOTE_ALGORITHM: u8 = 1;

/// Signs receipts with a key of its own.
pub struct LedgerSigner {
    key: Ed25519KeyPair,
    signer_key_id: String,
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
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| LedgerKeyFault::Refused)?;
        let fingerprint = digest(&SHA256, key.public_key().as_ref());
        let signer_key_id = fingerprint
            .as_ref()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { key, signer_key_id })
    }

    /// The 32 bytes of the public key, for whoever checks receipts.
    pub fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// The verifier key of C2SP signed-note: `name+hash+key`, where the hash is
    /// the first 4 bytes of SHA-256 over name, line feed, algorithm byte 1 and key,
    /// and the key is in base64 behind the same byte.
    pub fn verifier_key(&self) -> String {
        let mut typed_key = vec![ED25519_NOTE_ALGORITHM];
        typed_key.extend_from_slice(self.public_key());
        let named = [NOTE_KEY_NAME.as_bytes(), b"\n", &typed_key].concat();
        let hash: String = digest(&SHA256, &named)
            .as_ref()
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{NOTE_KEY_NAME}+{hash}+{}", STANDARD.encode(&typed_key))
    }

    /// What receipts name as `signer_key_id`: the first 8 bytes of the SHA-256 of
    /// the public key, in hex.
    pub fn signer_key_id(&self) -> &str {
        &self.signer_key_id
    }
}

impl EvidenceLedger for LedgerSigner {
    fn sign(&self, receipt: Receipt) -> Result<SignedReceipt, LedgerError> {
        let unsigned = receipt
            .signed_bytes(&self.signer_key_id)
            .map_err(|error| LedgerError(Box::new(error)))?;
        let signature = STANDARD.encode(self.key.sign(&unsigned));
        receipt
            .into_signed(&self.signer_key_id, &signature)
            .map_err(|error| LedgerError(Box::new(error)))
    }

    fn is_genuine(&self, leaf: &[u8]) -> bool {
        let Some((unsigned, signature)) = take_apart(leaf) else {
            return false;
        };
        UnparsedPublicKey::new(&ED25519, self.public_key())
            .verify(&unsigned, &signature)
            .is_ok()
    }
}

/// The signed bytes and the signature of a receipt; `None` when it is not the
/// canonical JSON of an object with a signature. `serde_json` writes maps sorted
/// and without white space, which for our receipts is RFC 8785.
fn take_apart(leaf: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut receipt: Map<String, Value> = serde_json::from_slice(leaf).ok()?;
    if serde_json::to_vec(&receipt).ok()? != leaf {
        return None;
    }
    let signature = receipt.remove("signature")?;
    let signature = STANDARD.decode(signature.as_str()?).ok()?;
    Some((serde_json::to_vec(&receipt).ok()?, signature))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};

    use super::*;
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
        let key = VerifyingKey::try_from(signer.public_key()).expect("a key");
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
    fn the_verifier_key_holds_the_public_key_behind_its_algorithm_byte() {
        let signer = signer();
        let text = signer.verifier_key();
        let parts: Vec<&str> = text.splitn(3, '+').collect();
        let [name, hash, key] = parts[..] else {
            panic!("three parts: {text}");
        };
        assert_eq!((name, hash.len()), ("kms", 8));
        let key = STANDARD.decode(key).expect("base64");
        assert_eq!(key[0], 1);
        assert_eq!(&key[1..], signer.public_key());
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
