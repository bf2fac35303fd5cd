//! The ledger in tables: receipts, the tiles of the tree over them, checkpoints and
//! the public keys that signed.

pub(super) mod appender;
pub(super) mod archives;
pub(super) mod begin;
pub(super) mod copy;
pub(super) mod pages;
pub(super) mod reads;
pub(super) mod rows;
pub(super) mod tiles;
