//! Signatures of many receipts at once, which costs half of one by one.

use ed25519_dalek::{Signature, VerifyingKey, verify_batch};

/// Signatures that are to be checked.
#[derive(Default)]
pub(super) struct SignatureBatch {
    messages: Vec<Vec<u8>>,
    signatures: Vec<Signature>,
    keys: Vec<VerifyingKey>,
}

impl SignatureBatch {
    pub(super) fn push(&mut self, key: &VerifyingKey, message: Vec<u8>, signature: &[u8; 64]) {
        self.messages.push(message);
        self.signatures.push(Signature::from_bytes(signature));
        self.keys.push(*key);
    }

    /// Empties the batch, and answers the place of its first signature that is
    /// not good.
    pub(super) fn first_bad(&mut self) -> Option<usize> {
        let messages: Vec<&[u8]> = self.messages.iter().map(Vec::as_slice).collect();
        let bad = match verify_batch(&messages, &self.signatures, &self.keys) {
            Ok(()) => None,
            // A batch says that one is bad, and not which.
            Err(_) => messages
                .iter()
                .zip(&self.signatures)
                .zip(&self.keys)
                .position(|((message, signature), key)| {
                    key.verify_strict(message, signature).is_err()
                }),
        };
        self.messages.clear();
        self.signatures.clear();
        self.keys.clear();
        bad
    }
}
