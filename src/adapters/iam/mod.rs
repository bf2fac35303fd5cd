//! The client of identity and access management (M21): who calls and who agreed.
//!
//! `strict_json` → `jwk` → `key_set` → `token` → `claims` is the road from bytes
//! to what may be believed; `callers` and `approvals` say what is asked of it.

mod approvals;
mod approver;
mod callers;
mod claims;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod jwk;
mod key_set;
mod key_set_source;
mod platform;
mod strict_json;
#[cfg(test)]
mod testing;
mod token;

pub use approver::{ApproverKey, ApproverKeyFault, Statement};
pub use callers::{CallerRules, TokenRules};
pub use key_set_source::{KeySetOrigin, KeySetRole, KeySetSource, Pace};
pub use platform::{ApprovalCheck, ApprovalRules, PlatformIam};
