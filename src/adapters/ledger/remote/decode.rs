//! What a service answers, from bytes.

use serde::Deserialize;

use crate::domain::ledger::{ORIGIN, VerifierKey};
use crate::ports::ledger_store::LedgerKey;

/// Why an answer is no list of keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysFault {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("key {0} is no verifier key of a ledger named {ORIGIN}")]
    Key(usize),
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    verifier_key: String,
    from_size: u64,
    handover: Option<String>,
}

/// The keys in an answer, the first one first.
pub(super) fn keys(body: &[u8]) -> Result<Vec<LedgerKey>, KeysFault> {
    let read: Keys = serde_json::from_slice(body)?;
    read.keys
        .into_iter()
        .enumerate()
        .map(|(number, key)| {
            let verifier: Option<VerifierKey> = key.verifier_key.parse().ok();
            let verifier = verifier
                .filter(|verifier| verifier.name() == ORIGIN)
                .ok_or(KeysFault::Key(number))?;
            Ok(LedgerKey {
                public_key: *verifier.public_key(),
                from_size: key.from_size,
                handover: key.handover,
            })
        })
        .collect()
}

/// The receipts in a bundle of entries, each behind its length in two bytes.
pub(super) fn bundle(mut body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut leaves = Vec::new();
    while let Some((length, rest)) = body.split_first_chunk() {
        let (leaf, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        leaves.push(leaf.to_vec());
        body = rest;
    }
    body.is_empty().then_some(leaves)
}
