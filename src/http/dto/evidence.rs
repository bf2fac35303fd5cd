//! What callers get of receipts and the ledger.

use serde_json::value::RawValue;

use super::fields::Cursor;
use crate::http::openapi::answer_object;
use crate::http::openapi::texts::{ReceiptObject, TreeHashText};

answer_object! {
    /// 200 of `GET /kms/v1/receipts/{receipt_id}`. The receipt is what the ledger
    /// keeps, byte for byte, so that its signature can be checked as it stands.
    ReceiptAnswer {
        /// The receipt, byte for byte as the ledger keeps it.
        pub(crate) receipt: Box<RawValue> => ReceiptObject,
        /// Its place in the ledger.
        pub(crate) leaf_index: u64,
        /// The size of the tree that the proof is for.
        pub(crate) tree_size: u64,
        /// The hashes from the leaf upwards (RFC 9162).
        pub(crate) inclusion_proof: Vec<String> => Vec<TreeHashText>,
        /// The signed note of a tree of that size (C2SP tlog-checkpoint).
        pub(crate) checkpoint: String,
    }
}

answer_object! {
    /// 200 of `GET /kms/v1/receipts`.
    ReceiptListAnswer {
        /// The page, by time.
        pub(crate) receipts: Vec<ReceiptEntry>,
        /// Where the next page begins; `null` where this is the last.
        pub(crate) next_cursor: Option<String> => Option<Cursor>,
    }
}

answer_object! {
    /// A receipt among others.
    ReceiptEntry {
        /// The receipt, byte for byte as the ledger keeps it.
        pub(crate) receipt: Box<RawValue> => ReceiptObject,
        /// Its place in the ledger.
        pub(crate) leaf_index: u64,
    }
}

answer_object! {
    /// 200 of `GET /kms/v1/ledger/consistency`.
    ConsistencyAnswer {
        /// The size of the smaller tree.
        pub(crate) from: u64,
        /// The size of the larger.
        pub(crate) to: u64,
        /// The hashes (RFC 9162).
        pub(crate) consistency_proof: Vec<String> => Vec<TreeHashText>,
        /// The signed note of a tree of that size (C2SP tlog-checkpoint).
        pub(crate) checkpoint: String,
    }
}

answer_object! {
    /// 200 of `GET /kms/v1/ledger/keys`.
    LedgerKeysAnswer {
        /// The page.
        pub(crate) keys: Vec<LedgerKeyEntry>,
    }
}

answer_object! {
    /// A key that signs the ledger or has signed it.
    LedgerKeyEntry {
        /// The public key as a note names it (`name+hash+key`).
        pub(crate) verifier_key: String,
        /// From which size of the tree on it signs.
        pub(crate) from_size: u64,
        /// The checkpoint that both keys signed when it took over; `null` for the first.
        pub(crate) handover: Option<String>,
    }
}
