//! Every operation, a file a subject.

mod anchors;
mod evidence;
mod keys;
mod service;
mod uses;

use super::operation::Operation;

/// What the operations are about, in the order in which people read.
pub(super) const TAGS: [(&str, &str); 5] = [
    (KEYS, "Keys: made, found, changed, replaced, revoked."),
    (
        USES,
        "Signing, verifying, encrypting and decrypting, one by one and in batches.",
    ),
    (ANCHORS, "Certificates that vouch for callers."),
    (EVIDENCE, "Receipts, and the ledger that they stand in."),
    (SERVICE, "The service itself."),
];

const KEYS: &str = "keys";
const USES: &str = "uses";
const ANCHORS: &str = "trust anchors";
const EVIDENCE: &str = "evidence";
const SERVICE: &str = "service";

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Operation> {
    keys::operations()
        .into_iter()
        .chain(uses::operations())
        .chain(anchors::operations())
        .chain(evidence::operations())
        .chain(service::operations())
}
