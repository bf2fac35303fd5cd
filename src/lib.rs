//! The ZeroUI key management service (module M33).
//!
//! One picture of the inside is in `docs/architecture.md`; `tests/layering.rs`
//! holds the imports between the rooms to it.

pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod ports;
pub mod service;
pub mod telemetry;
pub mod tls;
