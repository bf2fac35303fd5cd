//! What fills the roles of `ports`, one folder a port. Adapters of different
//! ports don't know each other.

pub mod backlog;
pub mod cache;
pub mod clock;
pub mod data_plane;
pub mod hsm;
pub mod iam;
pub mod ledger;
pub mod remote;
pub mod secret_file;
pub mod trust_plane;
