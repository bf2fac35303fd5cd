//! `EvidenceLedger` (M27): signs receipts.

use crate::domain::receipt::{Receipt, SignedReceipt};

/// The client of the evidence ledger, which holds the key that signs receipts.
///
/// Signing and keeping are two steps, because a receipt is kept in the same
/// transaction as what it attests: this port signs, and the data plane keeps.
pub trait EvidenceLedger: Send + Sync + 'static {
    /// Signs a receipt (Ed25519 over its canonical JSON). Takes microseconds and
    /// runs where it stands.
    ///
    /// # Errors
    /// [`LedgerError`] when the signing key cannot be used; nothing may be given
    /// out then.
    fn sign(&self, receipt: Receipt) -> Result<SignedReceipt, LedgerError>;

    /// Whether a signed receipt is one of this ledger's: canonical, and signed by
    /// its key.
    fn is_genuine(&self, leaf: &[u8]) -> bool;
}

/// Why a receipt could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the ledger's signing key cannot be used")]
pub struct LedgerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
