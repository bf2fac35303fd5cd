//! The layers that every request passes; `stack.rs` says in which order.

mod around;
mod authenticate;
mod bounds;
mod callers;
mod frame;
mod preflight;
mod rate_table;
mod rates;

pub(crate) use around::{Around, AroundLayer};
pub(crate) use authenticate::Authenticate;
pub(crate) use bounds::{InFlight, InTime};
pub(crate) use frame::{Deliberate, Frame, RequestFacts, panic_answer};
pub(crate) use preflight::{hide_plain_options, show_plain_options};
pub(crate) use rate_table::RateTable;
pub(crate) use rates::{RATE_HEADERS, Rates};
