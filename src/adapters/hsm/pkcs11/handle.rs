//! The handle of a key in a token: which token, and what proves that the object
//! found there is the key.
//!
//! ```text
//! version (1) | id of the key (16) | length of the serial (1) | serial | proof
//! ```
//!
//! The object itself is found by its `CKA_ID`, which is the key's id. The serial
//! is the token's: another token with the same label and an object of the same id
//! is not taken for it. The proof of a symmetric key is a nonce of 12 bytes and a
//! known text encrypted under it; a pair proves itself by its public key.

use super::fault::CallFault;
use crate::domain::ids::KeyId;
use crate::domain::key::KeyHandle;
use crate::ports::hsm::{HsmFault, Nonce};

const VERSION: u8 = 1;
const ID_LEN: usize = 16;

/// What a handle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenHandle {
    pub(super) key_id: KeyId,
    /// The serial of the token that holds the key.
    pub(super) serial: String,
    /// How a symmetric key proves itself.
    pub(super) proof: Option<SealedProof>,
}

/// A known text, encrypted by the key when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SealedProof {
    pub(super) nonce: Nonce,
    pub(super) ciphertext: Vec<u8>,
}

impl TokenHandle {
    /// The bytes for the store.
    pub(super) fn encode(&self) -> KeyHandle {
        // A serial has at most 16 characters (PKCS#11 v3.1 §3.2).
        let serial = self.serial.as_bytes();
        let serial = &serial[..serial.len().min(usize::from(u8::MAX))];
        let mut bytes = Vec::with_capacity(2 + ID_LEN + serial.len() + 64);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.key_id.as_bytes());
        bytes.push(u8::try_from(serial.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(serial);
        if let Some(proof) = &self.proof {
            bytes.extend_from_slice(&proof.nonce);
            bytes.extend_from_slice(&proof.ciphertext);
        }
        KeyHandle::from_bytes(bytes)
    }

    /// Reads a handle of the key with this id.
    ///
    /// # Errors
    /// [`HsmFault::MalformedKey`] for anything else.
    pub(super) fn decode(handle: &KeyHandle, key_id: KeyId) -> Result<Self, CallFault> {
        Self::parse(handle.as_bytes())
            .filter(|handle| handle.key_id == key_id)
            .ok_or_else(|| HsmFault::MalformedKey.into())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION], rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let (key_id, rest) = rest.split_first_chunk::<ID_LEN>()?;
        let (&[serial_len], rest) = rest.split_first_chunk()?;
        let (serial, rest) = rest.split_at_checked(usize::from(serial_len))?;
        let proof = match rest.split_first_chunk() {
            Some((nonce, ciphertext)) => Some(SealedProof {
                nonce: *nonce,
                ciphertext: ciphertext.to_vec(),
            }),
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self {
            key_id: KeyId::from_bytes(*key_id),
            serial: std::str::from_utf8(serial).ok()?.to_owned(),
            proof,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(proof: Option<SealedProof>) -> TokenHandle {
        TokenHandle {
            key_id: KeyId::from_bytes([7; 16]),
            serial: "055a4822caabeb2a".to_owned(),
            proof,
        }
    }

    #[test]
    fn a_handle_reads_back_for_its_own_key_only() {
        let sealed = SealedProof {
            nonce: [3; 12],
            ciphertext: vec![4; 40],
        };
        for proof in [None, Some(sealed)] {
            let handle = handle(proof);
            let stored = handle.encode();
            let read = TokenHandle::decode(&stored, handle.key_id).expect("reads");
            assert_eq!(read, handle);
            assert!(TokenHandle::decode(&stored, KeyId::from_bytes([8; 16])).is_err());
        }
    }

    #[test]
    fn what_is_no_handle_is_malformed() {
        let good = handle(None).encode();
        for bad in [
            &[][..],
            &[1; 5],
            &[1; 100],
            &[2, 2, 2],
            &good.as_bytes()[..20],
            &[good.as_bytes(), &[1, 2, 3]].concat(),
        ] {
            let bad = KeyHandle::from_bytes(bad.to_vec());
            assert!(TokenHandle::decode(&bad, KeyId::from_bytes([7; 16])).is_err());
        }
    }
}
