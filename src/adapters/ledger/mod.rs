//! Clients of the evidence ledger (M27).

mod signer;

pub use signer::{LedgerKeyFault, LedgerSigner};
