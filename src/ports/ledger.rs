//! `EvidenceLedger` (M27): signs receipts, and checkpoints of the tree over them.

use crate::domain::ledger::{Checkpoint, SignedNote};
use crate::domain::receipt::{Receipt, SignedReceipt};

/// The client of the evidence ledger, which holds the keys that sign.
///
/// Signing and keeping are two steps, because a receipt is kept in the same
/// transaction as what it attests: this port signs, and the data plane keeps.
/// Everything takes microseconds and runs where it stands.
///
/// **A new key takes over** at one place of the ledger. The data plane asks for
/// the checkpoint of that place, signed by both keys, keeps it, and only then
/// completes the handover. A receipt that was signed before and is kept after is
/// signed again, so that the place is exact.
pub trait EvidenceLedger: Send + Sync + 'static {
    /// Signs a receipt (Ed25519 over its canonical JSON).
    ///
    /// # Errors
    /// [`LedgerError`] when the signing key cannot be used; nothing may be given
    /// out then.
    fn sign(&self, receipt: Receipt) -> Result<SignedReceipt, LedgerError>;

    /// Whether a receipt bears the signature of the key that signs now, by the
    /// key's id.
    fn is_current(&self, receipt: &SignedReceipt) -> bool;

    /// Signs a receipt of a key that has been replaced with the one in its place.
    ///
    /// # Errors
    /// As for [`EvidenceLedger::sign`].
    fn sign_again(&self, receipt: &SignedReceipt) -> Result<SignedReceipt, LedgerError>;

    /// Whether a signed receipt is one of this ledger's: canonical, and signed by
    /// a key of its.
    fn is_genuine(&self, leaf: &[u8]) -> bool;

    /// Signs a checkpoint with the key that signs now.
    fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> SignedNote;

    /// What a signed checkpoint says, if a key of this ledger signed it.
    fn read_checkpoint(&self, note: &str) -> Option<Checkpoint>;

    /// The public key that signs now (RFC 8032 §5.1.5).
    fn public_key(&self) -> [u8; 32];

    /// The next key, where one waits to take over, with the checkpoint signed by
    /// both.
    fn begin_handover(&self, checkpoint: &Checkpoint) -> Option<Handover>;

    /// From now on the next key signs.
    fn complete_handover(&self);
}

/// How a new key takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The new key.
    pub public_key: [u8; 32],
    /// The checkpoint from whose size on it signs, which names it, signed by it and by
    /// the key before it.
    pub note: SignedNote,
}

/// Why something could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the ledger's signing key cannot be used")]
pub struct LedgerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
