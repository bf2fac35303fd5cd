//! The evidence ledger (M27): who signs it, and who checks it.

mod audit;
pub mod checkpoint_file;
mod prover;
mod remote;
mod signer;

#[cfg(test)]
mod testing;

pub use audit::{AuditFailure, AuditProgress, AuditReport, audit};
pub use prover::{ProofFault, Prover, present};
pub use remote::RemoteLedger;
pub use signer::{LedgerKeyFault, LedgerSigner, NextKey};
