//! Clients of the evidence ledger (M27).

pub mod checkpoint_file;
mod signer;

pub use signer::{LedgerKeyFault, LedgerSigner, NextKey};
