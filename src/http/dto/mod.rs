//! Requests and answers as they look on the wire.

mod answers;
mod batch;
mod fields;
mod plain;
mod requests;

pub(crate) use answers::*;
pub(crate) use batch::*;
pub(crate) use fields::{ApprovalTokenField, Cursor, PageLimit};
pub(crate) use plain::PlainAnswer;
pub(crate) use requests::*;
