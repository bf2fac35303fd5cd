//! The vocabulary and the rules of the service: ids, scope, algorithms, the key
//! state machine, policies, receipts, secrets and the one error.
//!
//! Nothing here does I/O, and nothing here knows tokio, axum or rustls.

pub mod algorithm;
pub mod approval;
pub mod batch;
pub mod binary;
pub mod caller;
pub mod error;
pub mod ids;
pub mod key;
pub mod key_usage;
pub mod ledger;
pub mod lifecycle_permit;
pub mod peer;
pub mod permit;
pub mod policy;
pub mod rate;
pub mod receipt;
pub mod scope;
pub mod secret;
pub mod time;
pub mod trust_anchor;
pub mod usage;
pub mod wire;
