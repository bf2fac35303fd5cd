//! The layers that every request passes; `stack.rs` says in which order.

mod authenticate;
mod bounds;
mod frame;
mod rate_table;
mod rates;

pub(crate) use authenticate::authenticate;
pub(crate) use bounds::{InFlight, answer_in_time, limit_in_flight};
pub(crate) use frame::{Deliberate, RequestFacts, frame, panic_answer};
pub(crate) use rate_table::RateTable;
pub(crate) use rates::{RATE_HEADERS, limit_rates};
