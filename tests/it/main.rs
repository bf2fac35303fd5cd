//! The service from outside, a module a promise, and the two suites that look
//! at its inside: the layering of the sources and the contract of HSM backends.

#[path = "../hsm_conformance.rs"]
mod hsm_conformance;
#[path = "../layering.rs"]
mod layering;

mod support;

mod configuration;
mod durability;
mod headers;
mod health;
mod keys;
mod secrecy;
mod shutdown;
mod signals;
