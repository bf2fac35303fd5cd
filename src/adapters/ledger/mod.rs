//! Clients of the evidence ledger (M27).

mod audit;
pub mod checkpoint_file;
mod signer;

pub use audit::{AuditFailure, AuditProgress, AuditReport, Auditor, Claims, Stop, audit};
pub use signer::{LedgerKeyFault, LedgerSigner, NextKey};
