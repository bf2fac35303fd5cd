//! Requests and answers as they look on the wire.

mod answers;
mod fields;
mod requests;

pub(crate) use answers::*;
pub(crate) use fields::{Cursor, PageLimit};
pub(crate) use requests::*;
