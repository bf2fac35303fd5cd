//! Clients of the evidence ledger (M27).

mod audit;
mod signer;

pub use audit::{AuditFailure, AuditProgress, AuditReport, Auditor, Claims, Stop, audit};
pub use signer::{LedgerKeyFault, LedgerSigner};
