//! The vocabulary and the rules of the service: ids, scope, algorithms, the key
//! state machine, policies, receipts, secrets and the one error.
//!
//! Nothing here does I/O, and nothing here knows tokio, axum or rustls.

pub mod time;
