//! The roles that the service needs filled, as traits with their errors.
//!
//! An adapter knows its port and the domain; the service knows ports only.

pub mod clock;
pub mod data_plane;
pub mod handle_store;
pub mod hsm;
pub mod iam;
pub mod ledger;
pub mod ledger_source;
pub mod ledger_store;
pub mod material;
pub mod trust_plane;
pub mod upkeep_store;
