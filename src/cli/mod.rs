//! The commands, one file each.
//!
//! A command knows the whole service and what it prints; nothing knows a command.

pub mod check_config;
