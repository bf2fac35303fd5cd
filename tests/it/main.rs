//! The tests from outside the library: one binary, since linking the
//! dependencies once is most of the build.

#[path = "../hsm_conformance.rs"]
mod hsm_conformance;
