//! What fills the roles of `ports`, one folder a port. Adapters of different
//! ports don't know each other.

pub mod cache;
pub mod data_plane;
