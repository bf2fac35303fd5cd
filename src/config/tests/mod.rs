//! The promises of loading as a whole.
//!
//! What one section or one rule promises is tested beside it.

mod faults;
mod files;
mod loading;
