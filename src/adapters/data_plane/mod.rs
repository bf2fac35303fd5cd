//! The implementations of the [`DataPlane`](crate::ports::data_plane::DataPlane)
//! port. One suite of tests holds all of them to the port's contract.

pub mod memory;
mod spent_grants;
pub mod sqlite;

#[cfg(test)]
mod conformance;
