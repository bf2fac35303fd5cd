//! What is written to its place later, in its order.
//!
//! Receipts and uses come in the order of time. The trees that they are looked for in
//! are in other orders, in which each one has a page of its own, and a page goes to the
//! log whole. So those that came lately are looked for in memory, and go to the trees
//! many at a time, sorted, when some of them share a page (O'Neil and others, The
//! Log-Structured Merge-Tree, 1996). They are durable without that, as receipts and as
//! rows of a log: after a crash the memory is filled from these.

mod flush;
pub(super) mod memtable;
pub(super) mod recent_uses;
mod statements;

pub(super) use self::flush::Deferred;
#[cfg(test)]
pub(super) use self::statements::set_listed_to;
pub(super) use self::statements::{first_unlisted, log_use, read_recent};
