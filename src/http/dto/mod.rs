//! Requests and answers as they look on the wire.

mod anchors;
mod answers;
mod batch;
mod described;
mod evidence;
mod fields;
mod operations;
mod plain;
mod requests;

pub(crate) use anchors::*;
pub(crate) use answers::*;
pub(crate) use batch::*;
pub(crate) use described::{generate_key_body, update_key_body};
pub(crate) use evidence::*;
pub(crate) use fields::{ApprovalTokenField, Cursor, LineCursor, PageLimit};
#[cfg(test)]
pub(crate) use fields::{NonceField, RotationPeriodField};
pub(crate) use operations::*;
pub(crate) use plain::PlainAnswer;
pub(crate) use requests::*;
