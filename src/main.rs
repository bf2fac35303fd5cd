//! The `kms` binary: arguments to a command.

use std::process::ExitCode;

use clap::Parser as _;

/// See `Cargo.toml`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kms::cli::run(kms::cli::Arguments::parse())
}
